//! Events as rows of columns: what of an event goes into which column.

use std::collections::BTreeMap;

use jiff::Timestamp;
use parquet::data_type::ByteArray;
use serde_json::value::RawValue;
use sink_api::Event;

use super::columns::{ATTRIBUTES, Column, Kind};

/// Values of one column, a place for each row.
#[derive(Debug)]
pub(super) struct Values {
    pub(super) cells: Cells,
    /// Per row 1 for a value and 0 for null; `None` where every row has a value.
    pub(super) levels: Option<Vec<i16>>,
}

/// The values that are not null.
#[derive(Debug)]
pub(super) enum Cells {
    Text(Vec<ByteArray>),
    Integer(Vec<i64>),
    Number(Vec<f64>),
}

/// Rows of events of one action, column by column: attributes, fields, rest.
pub(super) struct Rows {
    fields: &'static [Column],
    values: Vec<Values>,
    count: usize,
    bytes: usize,
}

/// One value, not null.
enum Cell {
    Text(Vec<u8>),
    Integer(i64),
    Number(f64),
}

type Members<'a> = BTreeMap<String, &'a RawValue>;

impl Rows {
    pub(super) fn new(fields: &'static [Column]) -> Self {
        let attributes = ATTRIBUTES.iter().map(|(_, kind, required)| Values::new(*kind, *required));
        let fields_and_rest = fields.iter().map(|column| column.kind).chain([Kind::Json]);
        let values = attributes.chain(fields_and_rest.map(|kind| Values::new(kind, false))).collect();
        Self { fields, values, count: 0, bytes: 0 }
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// About how much memory they take.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn into_values(self) -> Vec<Values> {
        self.values
    }

    pub(super) fn add(&mut self, event: &Event) {
        self.count += 1;
        self.bytes += event.data.get().len() + event.id.len() + event.partitionkey.len();
        let mut row = attributes_of(event);
        let (fields, rest) = fields_of(event.data.get(), self.fields);
        row.extend(fields);
        row.push(rest.map(|text| Cell::Text(text.into_bytes())));
        for (values, cell) in self.values.iter_mut().zip(row) {
            values.push(cell);
        }
    }
}

impl Values {
    fn new(kind: Kind, required: bool) -> Self {
        let cells = match kind {
            Kind::Text | Kind::Json => Cells::Text(Vec::new()),
            Kind::Time | Kind::Integer => Cells::Integer(Vec::new()),
            Kind::Number => Cells::Number(Vec::new()),
        };
        Self { cells, levels: (!required).then(Vec::new) }
    }

    fn push(&mut self, cell: Option<Cell>) {
        if let Some(levels) = &mut self.levels {
            levels.push(i16::from(cell.is_some()));
        }
        match (&mut self.cells, cell) {
            (Cells::Text(cells), Some(Cell::Text(text))) => cells.push(ByteArray::from(text)),
            (Cells::Integer(cells), Some(Cell::Integer(number))) => cells.push(number),
            (Cells::Number(cells), Some(Cell::Number(number))) => cells.push(number),
            (_, None) => {}
            _ => unreachable!("a cell is made for its column's kind"),
        }
    }
}

/// One cell per attribute, in the order of [`ATTRIBUTES`].
fn attributes_of(event: &Event) -> Vec<Option<Cell>> {
    let attributes: BTreeMap<&str, String> = event.attributes().into_iter().collect();
    let cell = |(name, kind, _): &(&str, Kind, bool)| match (*name, kind) {
        ("time", _) => Some(Cell::Integer(event.time.as_millisecond())),
        ("recordedtime", _) => Some(Cell::Integer(event.recordedtime.as_millisecond())),
        (name, _) => attributes.get(name).map(|text| Cell::Text(text.clone().into_bytes())),
    };
    ATTRIBUTES.iter().map(cell).collect()
}

/// One cell per column, and the JSON object of what fits into none of them.
fn fields_of(data: &str, columns: &[Column]) -> (Vec<Option<Cell>>, Option<String>) {
    let mut members: BTreeMap<String, &RawValue> = flattened(data, columns);
    let cells = columns.iter().map(|column| {
        let name = column.name();
        let raw = members.get(&name)?;
        let cell = cell_of(raw.get(), column.kind);
        if cell.is_some() || raw.get() == "null" {
            members.remove(&name);
        }
        cell
    });
    let cells = cells.collect();
    members.retain(|_, raw| raw.get() != "null");
    let rest = (!members.is_empty())
        .then(|| serde_json::to_string(&members).expect("names and checked JSON always serialise"));
    (cells, rest)
}

/// The members of `data` by the names of columns: objects that have columns of their own are opened.
fn flattened<'a>(data: &'a str, columns: &[Column]) -> Members<'a> {
    let members: Members<'a> = serde_json::from_str(data).unwrap_or_default();
    let mut flat = Members::new();
    for (name, raw) in members {
        let has_columns_within = columns.iter().any(|column| column.steps().0 == name && column.steps().1.is_some());
        let within = has_columns_within.then(|| serde_json::from_str::<Members<'a>>(raw.get()).ok()).flatten();
        match within {
            Some(within) => flat.extend(within.into_iter().map(|(inner, raw)| (format!("{name}_{inner}"), raw))),
            None => drop(flat.insert(name, raw)),
        }
    }
    flat
}

/// `None` where `raw` is null, or not of that kind.
fn cell_of(raw: &str, kind: Kind) -> Option<Cell> {
    match kind {
        Kind::Json if raw == "null" => None,
        Kind::Json => Some(Cell::Text(raw.as_bytes().to_vec())),
        Kind::Text => serde_json::from_str::<String>(raw).ok().map(|text| Cell::Text(text.into_bytes())),
        Kind::Integer => serde_json::from_str::<i64>(raw).ok().map(Cell::Integer),
        Kind::Number => serde_json::from_str::<f64>(raw).ok().map(Cell::Number),
        Kind::Time => {
            let text = serde_json::from_str::<String>(raw).ok()?;
            text.parse::<Timestamp>().ok().map(|time| Cell::Integer(time.as_millisecond()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::columns::columns;
    use super::*;

    fn rest_of(data: &str, action: &str) -> Option<String> {
        fields_of(data, columns(action)).1
    }

    #[test]
    fn what_fits_into_no_column_is_kept_as_it_is() {
        let data = r#"{"session_id":"s","duration_seconds":"last4","agent":{"email":"a","new":[1.50]},"queue":null,"big":9007199254740993123,"ended_at":"2026-08-17T21:59:02.5Z","extra":{"x":1e400}}"#;
        let expected = r#"{"agent_new":[1.50],"big":9007199254740993123,"duration_seconds":"last4"}"#;
        assert_eq!(rest_of(data, "cdr").unwrap(), expected);
        assert_eq!(rest_of(r#"{"agent":"a1b2c3"}"#, "CDR").unwrap(), r#"{"agent":"a1b2c3"}"#);
        assert_eq!(rest_of(r#"{"session_id":"s","extra":{}}"#, "never-heard-of"), None);
    }
}
