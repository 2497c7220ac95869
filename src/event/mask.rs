//! `mask`: personal data made unreadable before a sink gets an event.
//!
//! Works on the JSON text, one level at a time along the paths, so that what is not masked stays as it is, byte for byte.
//!
//! | method | a text, number, true or false becomes | null |
//! |---|---|---|
//! | `last4` | its last four characters with a `*` for each before them; a `*` for each where there are no more than four | stays |
//! | `drop` | null | stays |
//! | HMAC | HMAC-SHA256 of its text, in hex | stays |
//!
//! On an object or array `drop` gives null; the others mask every value in it, however deep, and leave its keys. Names are compared
//! without case, as the sender is not consistent in it.
//!
//! What else would let the original through is closed:
//! - under `extra`, everything that stands there under a name that the sender has for a masked field is null: that is where a value
//!   goes that could not be read, or that came twice, or that an action has which nobody has documented yet;
//! - a body that is no JSON object, which stands there as a whole, is null;
//! - `raw` is `{}`; `subject` and `partitionkey` are pseudonyms where `session_id` is masked, `source` is `/tccc` where `sdk_app_id`
//!   is, `time` is that of receiving where it would be a masked one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::hmac;
use bytes::Bytes;
use serde_json::value::RawValue;
use sink_api::Event;

use super::path::{EXTRA, MaskPath, Step, spell};
use crate::tccc::json::{self, Member};
use crate::tccc::known_fields;

/// What becomes of a value.
pub enum Method {
    Last4,
    Drop,
    Hmac(Box<hmac::Key>),
}

/// Paths and methods, ready to be applied.
#[derive(Debug)]
pub struct Mask {
    root: Inner,
    session: Option<Arc<Method>>,
    hides_source: bool,
    hides_time: bool,
}

/// What is masked at and below a value.
#[derive(Debug)]
enum Node {
    Masked(Arc<Method>),
    Inner(Inner),
}

#[derive(Debug, Default)]
struct Inner {
    members: Vec<(String, Node)>,
    /// Of an array.
    elements: Option<Box<Node>>,
    /// The sender's names of masked members: what stands under them in the object's `extra` is null.
    sender_names: BTreeSet<String>,
    /// Masked members of the object's `extra`, dots and all, as the normaliser spells the keys of what stood deeper.
    extra_keys: Vec<(String, Arc<Method>)>,
}

impl Method {
    /// HMAC-SHA256 with this key.
    pub fn hmac(key: &[u8]) -> Self {
        Self::Hmac(Box::new(hmac::Key::new(hmac::HMAC_SHA256, key)))
    }

    /// Masks the JSON value `text`. Goes over its tokens in a loop, whatever its depth.
    fn apply(&self, text: &str, out: &mut String) {
        if matches!(self, Self::Drop) {
            out.push_str("null");
            return;
        }
        let bytes = text.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            let end = token_end(bytes, at);
            let token = &text[at..end];
            let is_key = || bytes[end..].iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b':');
            match bytes[at] {
                b'{' | b'}' | b'[' | b']' | b',' | b':' => out.push_str(token),
                b'"' if !is_key() => self.apply_to_text(&json::decode(token), token, out),
                _ if token == "null" || token.starts_with(['"', ' ', '\t', '\n', '\r']) => out.push_str(token),
                _ => self.apply_to_text(&Some(token.into()), token, out),
            }
            at = end;
        }
    }

    /// `said` is what the value says; `None` where that is no Unicode: then nothing of it is kept, and its literal is what is hashed.
    fn apply_to_text(&self, said: &Option<std::borrow::Cow<'_, str>>, literal: &str, out: &mut String) {
        let masked = match (self, said) {
            (Self::Drop, _) => return out.push_str("null"),
            (Self::Last4, Some(said)) => last4(said),
            (Self::Last4, None) => "*".repeat(json::unquoted(literal).chars().count()),
            (Self::Hmac(key), said) => pseudonym(key, said.as_deref().unwrap_or(literal)),
        };
        out.push('"');
        for letter in masked.chars() {
            match letter {
                '"' | '\\' => out.extend(['\\', letter]),
                _ if u32::from(letter) < 0x20 => out.push_str(&format!("\\u{:04x}", u32::from(letter))),
                _ => out.push(letter),
            }
        }
        out.push('"');
    }
}

impl fmt::Debug for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Last4 => "last4",
            Self::Drop => "drop",
            Self::Hmac(_) => "hmac",
        })
    }
}

impl Mask {
    /// Of paths of which none holds another. Takes milliseconds.
    pub fn new(rules: impl IntoIterator<Item = (MaskPath, Method)>) -> Self {
        let known = known_fields();
        let mut mask = Self { root: Inner::default(), session: None, hides_source: false, hides_time: false };
        for (path, method) in rules {
            let method = Arc::new(method);
            match path.to_string().as_str() {
                "session_id" => mask.session = Some(Arc::clone(&method)),
                "sdk_app_id" => mask.hides_source = true,
                "ended_at" | "recorded_at" => mask.hides_time = true,
                _ => {}
            }
            mask.root.insert("", &path.0, &method, &known);
        }
        mask
    }

    /// Masks `event`, its attributes included.
    pub fn apply(&self, event: &mut Event) {
        let mut data = String::with_capacity(event.data.get().len());
        self.root.apply(event.data.get(), &mut data);
        event.data = RawValue::from_string(data).expect("JSON of which values were replaced by JSON is JSON");
        event.raw = Bytes::from_static(b"{}");
        if let (Some(method), Some(subject)) = (&self.session, &event.subject) {
            if let Method::Hmac(key) = &**method {
                event.partitionkey = pseudonym(key, subject);
                event.subject = Some(event.partitionkey.clone());
            } else {
                event.partitionkey.clone_from(&event.id);
                event.subject = None;
            }
        }
        if self.hides_source {
            "/tccc".clone_into(&mut event.source);
        }
        if self.hides_time {
            event.time = event.recordedtime;
        }
    }
}

impl Inner {
    /// Adds the rest of a path, `steps`, of which the part before, `at`, leads here.
    fn insert(&mut self, at: &str, steps: &[Step], method: &Arc<Method>, known: &BTreeMap<String, BTreeSet<String>>) {
        let Some((step, rest)) = steps.split_first() else { return };
        let (path, child) = match step {
            Step::Elements => {
                (format!("{at}[]"), &mut **self.elements.get_or_insert_with(|| Box::new(Node::Inner(Self::default()))))
            }
            Step::Member(name) => {
                let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                self.sender_names.extend(known.get(&path).into_iter().flatten().cloned());
                if name == EXTRA && !rest.is_empty() {
                    self.extra_keys.push((spell(rest), Arc::clone(method)));
                }
                (path, self.member_mut(name))
            }
        };
        match child {
            _ if rest.is_empty() => *child = Node::Masked(Arc::clone(method)),
            Node::Inner(inner) => inner.insert(&path, rest, method, known),
            Node::Masked(_) => {}
        }
    }

    fn member_mut(&mut self, name: &str) -> &mut Node {
        let at = self.members.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
            self.members.push((name.to_owned(), Node::Inner(Self::default())));
            self.members.len() - 1
        });
        &mut self.members[at].1
    }

    fn member(&self, member: &Member<'_>) -> Option<&Node> {
        self.members.iter().find(|(name, _)| member.is_named(name)).map(|(_, node)| node)
    }

    fn apply(&self, text: &str, out: &mut String) {
        match (text.as_bytes().first(), &self.elements) {
            (Some(b'{'), _) => each_member(text, out, |member, _, out| match self.member(member) {
                Some(Node::Masked(method)) => method.apply(member.value, out),
                inner if member.is_named(EXTRA) => self.apply_to_extra(inner, member.value, out),
                Some(Node::Inner(inner)) => inner.apply(member.value, out),
                None => out.push_str(member.value),
            }),
            (Some(b'['), Some(node)) => {
                out.push('[');
                for (index, element) in
                    json::elements(text, usize::MAX).ok().flatten().unwrap_or_default().iter().enumerate()
                {
                    if index > 0 {
                        out.push(',');
                    }
                    match &**node {
                        Node::Masked(method) => method.apply(element, out),
                        Node::Inner(inner) => inner.apply(element, out),
                    }
                }
                out.push(']');
            }
            _ => out.push_str(text),
        }
    }

    /// Masks the `extra` of the object that is masked here.
    fn apply_to_extra(&self, below: Option<&Node>, text: &str, out: &mut String) {
        if !text.starts_with('{') {
            out.push_str(text);
            return;
        }
        each_member(text, out, |member, count, out| {
            let key = general(&member.name);
            let is_whole_body = count == 1 && key == "body" && member.value.starts_with('"');
            let first = key.split(['.', '[']).next().unwrap_or_default();
            let named = self.extra_keys.iter().find(|(name, _)| covers(name, &key));
            match (named, below) {
                (Some((_, method)), _) => method.apply(member.value, out),
                _ if is_whole_body => out.push_str("null"),
                _ if self.sender_names.iter().any(|name| name.eq_ignore_ascii_case(first)) => out.push_str("null"),
                (None, Some(Node::Inner(inner))) => match inner.member(member) {
                    Some(Node::Inner(inner)) => inner.apply(member.value, out),
                    Some(Node::Masked(method)) => method.apply(member.value, out),
                    None => out.push_str(member.value),
                },
                (None, _) => out.push_str(member.value),
            }
        });
    }
}

/// Writes the object that `text` is, each value by `write`, which is also told how many members there are.
fn each_member(text: &str, out: &mut String, write: impl Fn(&Member<'_>, usize, &mut String)) {
    let Ok(members) = json::members(text) else { return out.push_str("null") };
    out.push('{');
    for (index, member) in members.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        out.push_str(member.key);
        out.push(':');
        write(member, members.len(), out);
    }
    out.push('}');
}

/// A key of `extra` with every index as `[]`, and without the apostrophes that keep it apart from another.
fn general(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    let mut parts = name.trim_end_matches('\'').split('[');
    let mut general = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part.bytes().take_while(u8::is_ascii_digit).count();
        general.push('[');
        general.push_str(if part[digits..].starts_with(']') { &part[digits..] } else { part });
    }
    general
}

/// Whether what stands under `key` is, or was part of, what stood at `path`.
fn covers(path: &str, key: &str) -> bool {
    let is_start = key.get(..path.len()).is_some_and(|start| start.eq_ignore_ascii_case(path));
    is_start && (key.len() == path.len() || key[path.len()..].starts_with(['.', '[']))
}

fn last4(text: &str) -> String {
    let hidden = match text.chars().count() {
        count if count <= 4 => count,
        count => count - 4,
    };
    "*".repeat(hidden) + &text.chars().skip(hidden).collect::<String>()
}

fn pseudonym(key: &hmac::Key, text: &str) -> String {
    hmac::sign(key, text.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The end of the token that begins at `at`, whitespace being a token of its own.
fn token_end(bytes: &[u8], at: usize) -> usize {
    let is_mark = |byte: u8| matches!(byte, b'{' | b'}' | b'[' | b']' | b',' | b':' | b'"');
    if bytes[at] != b'"' {
        let is_single = is_mark(bytes[at]) || bytes[at].is_ascii_whitespace();
        let goes_on = |byte: &&u8| !is_mark(**byte) && !byte.is_ascii_whitespace();
        return if is_single { at + 1 } else { at + bytes[at..].iter().take_while(goes_on).count() };
    }
    let mut end = at + 1;
    while end < bytes.len() && bytes[end] != b'"' {
        end += if bytes[end] == b'\\' { 2 } else { 1 };
    }
    (end + 1).min(bytes.len())
}

#[cfg(test)]
pub(super) mod tests;
