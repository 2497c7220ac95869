//! `when`: a CEL expression that decides whether a sink gets an event.
//!
//! It sees the attributes `id`, `source`, `type`, `subject`, `time`, `recordedtime`, `partitionkey` and `pushsource` as text (times
//! in RFC 3339, `subject` null where there is none), `action` as the config spells actions, and `data`. It must give true or false.
//!
//! Refused when the config is read, with the place: what is no CEL, names and functions that do not exist, and what could take the
//! gateway too long or too deep: text over 4 KiB, more than 24 levels, a macro over a list inside another. So judging an event costs
//! at most the length of the expression times that of the longest list, on a small stack.

use std::collections::BTreeSet;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

use cel::common::ast::{ComprehensionExpr, EntryExpr, Expr, IdedEntryExpr, IdedExpr, LiteralValue, SourceInfo};
use cel::{Context, Env, ExecutionError, ParseErrors, Program, Value};
use sink_api::{Event, Fault};

use super::values;

/// Bytes of an expression.
pub const TEXT_MAX: usize = 4096;

/// Evaluation recurses as deep as the expression.
const DEPTH_MAX: usize = 24;

/// The parser recurses as deep as any text of [`TEXT_MAX`] bytes can be, before its depth is known. Memory is used as it is touched.
const PARSER_STACK: usize = 256 << 20;

/// What an expression can name.
pub const VARIABLES: [&str; 10] =
    ["id", "source", "type", "subject", "time", "recordedtime", "partitionkey", "pushsource", "action", "data"];

/// What an expression can call, besides operators and the macros `has`, `all`, `exists`, `exists_one`, `filter` and `map`.
pub const FUNCTIONS: [&str; 11] =
    ["size", "contains", "startsWith", "endsWith", "string", "int", "uint", "double", "bytes", "dyn", "type"];

/// Names of types, to be compared with what `type(…)` gives.
const TYPES: [&str; 10] = ["bool", "int", "uint", "double", "string", "bytes", "list", "map", "null_type", "type"];

/// Characters of a long line that are shown around a mistake.
const EXCERPT_MAX: usize = 100;

/// The code of dead letters that an expression could not decide.
const CODE: &str = "when";

/// An expression cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub message: String,
    /// The line of the expression with a caret below the place, each indented by four; `None` where no place is known.
    pub excerpt: Option<String>,
}

/// A compiled expression.
pub struct When {
    text: String,
    program: Program,
    env: Arc<Env>,
    /// The variables that it names: the others need not be made.
    names: BTreeSet<&'static str>,
    data_paths: BTreeSet<String>,
}

impl std::fmt::Debug for When {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("When").field(&self.text).finish()
    }
}

impl When {
    /// Pure, but takes about a hundred microseconds and a thread of its own for that long.
    ///
    /// # Errors
    /// The first mistake in it.
    pub fn compile(text: &str) -> Result<Self, Error> {
        if text.len() > TEXT_MAX {
            let message = format!("is {} bytes long, more than {TEXT_MAX}", text.len());
            return Err(Error { message, excerpt: None });
        }
        let owned = text.to_owned();
        let compiling = std::thread::Builder::new().stack_size(PARSER_STACK).spawn(move || compile(owned));
        let failed = || Error { message: "cannot be read by the CEL parser".to_owned(), excerpt: None };
        let when = compiling.map_err(|_| failed())?.join().map_err(|_| failed())??;
        if when.names.is_empty() {
            when.refuse_constant()?;
        }
        Ok(when)
    }

    /// Whether the sink gets `event`.
    ///
    /// # Errors
    /// It cannot be decided: a field that this event does not have, a type that does not fit, a result that is neither true nor
    /// false. The reason quotes nothing of the event.
    pub fn judge(&self, event: &Event) -> Result<bool, Fault> {
        let mut context = Context::with_env(Arc::clone(&self.env));
        for name in &self.names {
            context.add_variable_from_value(*name, variable(name, event));
        }
        // Whatever the evaluator cannot do with one event must not end the pipeline.
        let result = panic::catch_unwind(AssertUnwindSafe(|| self.program.execute(&context)));
        let reason = match result {
            Ok(Ok(Value::Bool(is_selected))) => return Ok(is_selected),
            Ok(Ok(other)) => format!("`when` gives {}, neither true nor false", other.type_of()),
            Ok(Err(error)) => self.reason(&error),
            Err(_) => "`when` cannot be evaluated on this event".to_owned(),
        };
        Err(Fault::new(CODE, reason))
    }

    /// The fields of `data` that it asks for, as paths such as `agent.email`.
    pub fn data_paths(&self) -> impl Iterator<Item = &str> {
        self.data_paths.iter().map(String::as_str)
    }

    /// What does not depend on the event can be judged at once.
    fn refuse_constant(&self) -> Result<(), Error> {
        let message = match self.program.execute(&Context::with_env(Arc::clone(&self.env))) {
            Ok(Value::Bool(_)) => return Ok(()),
            Ok(other) => format!("gives {}, neither true nor false, for every event", other.type_of()),
            Err(_) => "fails for every event".to_owned(),
        };
        Err(Error { message, excerpt: Some(excerpt(&self.text, 1, 1)) })
    }

    fn reason(&self, error: &ExecutionError) -> String {
        match error {
            ExecutionError::NoSuchKey(name) if self.says(name) => {
                format!("`when` asks for `{name}`, which this event does not have: ask has(…) first")
            }
            ExecutionError::NoSuchKey(_) => "`when` asks for a key that this event does not have".to_owned(),
            ExecutionError::NoSuchOverload(overload) => {
                let function = overload.function().trim_matches('_');
                let types = overload.argument_types().join(" and ");
                format!("`when` applies {function} to {types}")
            }
            ExecutionError::FunctionError { function, .. } if self.says(function) => {
                format!("`when` calls {function} on a value of this event that it does not take")
            }
            ExecutionError::IndexOutOfBounds(_) => "`when` asks for an element that is not there".to_owned(),
            ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
                "`when` divides by zero".to_owned()
            }
            ExecutionError::Overflow(..) => "`when` counts past 64 bits".to_owned(),
            _ => "`when` does not fit the types of this event's values".to_owned(),
        }
    }

    /// Whether `name` is a word of the expression itself: a key can be computed from the event, and then is not to be shown.
    fn says(&self, name: &str) -> bool {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        name.bytes().all(is_word)
            && self.text.split(|letter| !u8::try_from(letter).is_ok_and(is_word)).any(|word| word == name)
    }
}

fn variable(name: &str, event: &Event) -> Value {
    match name {
        "id" => Value::from(event.id.as_str()),
        "source" => Value::from(event.source.as_str()),
        "type" => Value::from(event.kind.as_str()),
        "subject" => event.subject.as_deref().map_or(Value::Null, Value::from),
        "time" => Value::from(event.time.to_string()),
        "recordedtime" => Value::from(event.recordedtime.to_string()),
        "partitionkey" => Value::from(event.partitionkey.as_str()),
        "pushsource" => Value::from(event.pushsource.as_str()),
        "action" => Value::from(event.action.as_str()),
        _ => values::data(event.data.get()),
    }
}

fn compile(text: String) -> Result<When, Error> {
    let env = Env::stdlib().with_optional_support(false);
    let program = env.compile(&text).map_err(|errors| syntax_error(&text, &errors))?;
    let mut survey = Survey::new(program.source_info(), &text);
    survey.visit(program.expression(), 1, false)?;
    let (names, data_paths) = (survey.names, survey.data_paths);
    Ok(When { text, program, env: Arc::new(env), names, data_paths })
}

fn syntax_error(text: &str, errors: &ParseErrors) -> Error {
    let Some(first) = errors.errors.first() else {
        return Error { message: "is no CEL expression".to_owned(), excerpt: None };
    };
    // What could have stood there instead is a list of most tokens of the language.
    let said = first.msg.split(" expecting ").next().unwrap_or_default().trim_start_matches("Syntax error: ");
    let place = usize::try_from(first.pos.0).ok().zip(usize::try_from(first.pos.1).ok());
    let place = place.filter(|(line, _)| *line > 0);
    let excerpt = place.map(|(line, column)| excerpt(text, line, column.max(1)));
    Error { message: format!("is no CEL expression: {}", said.replace('\n', " ")), excerpt }
}

/// Line `line` of `text` with a caret below `column`, both from 1; of a long line the part around it.
fn excerpt(text: &str, line: usize, column: usize) -> String {
    let letters: Vec<char> = text.lines().nth(line - 1).unwrap_or_default().chars().collect();
    let from = if letters.len() <= EXCERPT_MAX { 0 } else { (column - 1).saturating_sub(EXCERPT_MAX / 2) };
    let shown: String = letters.iter().skip(from).take(EXCERPT_MAX).collect();
    let caret = column - from;
    format!("    {shown}\n    {:>caret$}", "^")
}

/// One walk over an expression: what it names, and whether that exists.
struct Survey<'a> {
    info: &'a SourceInfo,
    text: &'a str,
    /// Variables of the macros around.
    bound: Vec<&'a str>,
    names: BTreeSet<&'static str>,
    data_paths: BTreeSet<String>,
}

impl<'a> Survey<'a> {
    fn new(info: &'a SourceInfo, text: &'a str) -> Self {
        Self { info, text, bound: Vec::new(), names: BTreeSet::new(), data_paths: BTreeSet::new() }
    }

    fn visit(&mut self, node: &'a IdedExpr, depth: usize, is_in_loop: bool) -> Result<(), Error> {
        if depth > DEPTH_MAX {
            return Err(self.error(node.id, format!("is nested more than {DEPTH_MAX} deep")));
        }
        match &node.expr {
            Expr::Unspecified | Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => self.name(node.id, name),
            Expr::Select(select) => {
                self.data_paths.extend(data_path(&node.expr));
                self.visit(&select.operand, depth + 1, is_in_loop)
            }
            Expr::Call(call) => {
                let is_operator = !call.func_name.starts_with(|letter: char| letter.is_ascii_alphabetic());
                if !is_operator && !FUNCTIONS.contains(&call.func_name.as_str()) {
                    let message = format!("calls `{}`; known: {}", call.func_name, FUNCTIONS.join(", "));
                    return Err(self.error(node.id, message));
                }
                self.visit_all(call.target.as_deref().into_iter().chain(&call.args), depth, is_in_loop)
            }
            Expr::List(list) => self.visit_all(&list.elements, depth, is_in_loop),
            Expr::Map(map) => self.visit_all(map.entries.iter().flat_map(parts), depth, is_in_loop),
            Expr::Struct(_) => Err(self.error(node.id, "makes a message, of which there are none here".to_owned())),
            Expr::Comprehension(_) if is_in_loop => {
                Err(self.error(node.id, "has a macro over a list inside another".to_owned()))
            }
            Expr::Comprehension(comprehension) => self.visit_loop(comprehension, depth),
        }
    }

    fn visit_all(
        &mut self,
        nodes: impl IntoIterator<Item = &'a IdedExpr>,
        depth: usize,
        is_in_loop: bool,
    ) -> Result<(), Error> {
        nodes.into_iter().try_for_each(|node| self.visit(node, depth + 1, is_in_loop))
    }

    fn visit_loop(&mut self, comprehension: &'a ComprehensionExpr, depth: usize) -> Result<(), Error> {
        self.visit_all([&comprehension.iter_range, &comprehension.accu_init], depth, false)?;
        let outer = self.bound.len();
        self.bound.extend([comprehension.iter_var.as_str(), comprehension.accu_var.as_str()]);
        self.bound.extend(comprehension.iter_var2.as_deref());
        self.visit_all([&comprehension.loop_cond, &comprehension.loop_step], depth, true)?;
        self.visit(&comprehension.result, depth + 1, false)?;
        self.bound.truncate(outer);
        Ok(())
    }

    fn name(&mut self, id: u64, name: &'a str) -> Result<(), Error> {
        let plain = name.trim_start_matches('.');
        if self.bound.contains(&name) || name.starts_with('@') {
            return Ok(());
        }
        if let Some(known) = VARIABLES.into_iter().find(|known| *known == plain) {
            self.names.insert(known);
            return Ok(());
        }
        match TYPES.contains(&plain) {
            true => Ok(()),
            false => Err(self.error(id, format!("names `{name}`; known: {}", VARIABLES.join(", ")))),
        }
    }

    fn error(&self, id: u64, message: String) -> Error {
        let excerpt = self.info.offset_for(id).map(|(start, _)| {
            let before: String = self.text.chars().take(start as usize).collect();
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            excerpt(self.text, line, column)
        });
        Error { message, excerpt }
    }
}

fn parts(entry: &IdedEntryExpr) -> Vec<&IdedExpr> {
    match &entry.expr {
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
        EntryExpr::StructField(field) => vec![&field.value],
    }
}

/// `agent.email` of `data.agent.email`; elements of lists as in `participants[0].email` are taken for any.
fn data_path(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Select(select) => match &select.operand.expr {
            Expr::Ident(name) => (name == "data").then(|| select.field.clone()),
            operand => Some(format!("{}.{}", data_path(operand)?, select.field)),
        },
        Expr::Call(call) if call.func_name == "_[_]" => match &call.args[..] {
            [list, index] if matches!(&index.expr, Expr::Literal(LiteralValue::Int(_))) => {
                Some(format!("{}[]", data_path(&list.expr)?))
            }
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests;
