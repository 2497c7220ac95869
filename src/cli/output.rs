//! What a command ends with: a table for people, JSON for machines.

use std::io::{self, IsTerminal, Write};

use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use serde::Serialize;

/// Whether a result is written as JSON: where `--json` asks for it, or where standard output is no terminal.
pub fn wants_json(json: bool) -> bool {
    json || !io::stdout().is_terminal()
}

/// Writes one line of JSON to standard output. A reader that has gone away is no error: it has seen what it wanted.
pub fn print_json(value: &(impl Serialize + ?Sized)) {
    print_line(&serde_json::to_string(value).expect("results have string keys and no failing parts"));
}

/// Writes a table, or other text for people, to standard output; like [`print_json`] of a reader that has gone away.
pub fn print_line(text: &dyn std::fmt::Display) {
    let _gone = writeln!(io::stdout().lock(), "{text}");
}

/// An empty table in the style of all commands.
pub fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_header(header);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_header_and_rows() {
        let mut table = table(["sink", "pending"]);
        table.add_row(["events", "7"]);
        let text = table.to_string();
        assert!(["sink", "pending", "events", "7"].iter().all(|cell| text.contains(cell)), "{text}");
    }
}
