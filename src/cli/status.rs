//! `trunkline status`: how a running gateway is, in tables that fit [`WIDTH`] columns, or as the JSON of `GET /api/v1/status`.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use comfy_table::{ContentArrangement, Table};
use serde_json::Value;

use super::admin_client::AdminClient;
use super::output::{print_json, print_line, table, wants_json};
use super::{Exit, Global};

const PATH: &str = "/api/v1/status";
const WIDTH: u16 = 100;
const WATCH_EVERY: Duration = Duration::from_secs(2);
/// Characters of a sink's last error.
const ERROR_LEN_MAX: usize = 60;
/// Moves to the top left and clears what is there.
const CLEAR: &str = "\x1b[H\x1b[2J";

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Show it again every two seconds, until Ctrl-C.
    #[arg(long)]
    watch: bool,
}

pub(super) async fn run(global: &Global, args: StatusArgs) -> Exit {
    let client = match AdminClient::new(global) {
        Ok(client) => client,
        Err(exit) => return exit,
    };
    let json = wants_json(global.json);
    let shown = client.get(PATH).await.map(|status| show(&status, json, args.watch));
    if !args.watch {
        return shown.err().unwrap_or(Exit::Fine);
    }
    if let Err(exit) = shown {
        return exit;
    }
    loop {
        tokio::time::sleep(WATCH_EVERY).await;
        // A gateway that is being restarted comes back; the client has said so on stderr.
        if let Ok(status) = client.get(PATH).await {
            show(&status, json, true);
        }
    }
}

fn show(status: &Value, json: bool, clear: bool) {
    if json {
        print_json(status);
    } else if clear {
        print_line(&format!("{CLEAR}{}", text(status)));
    } else {
        print_line(&text(status));
    }
}

fn text(status: &Value) -> String {
    let journal = &status["journal"];
    let ready = if status["ready"] == true { "ready" } else { "NOT READY" };
    let mut text = format!(
        "trunkline {} · {ready} · up {}\njournal {} · {} entries · {} of {}\n",
        word(&status["version"]),
        duration(status["uptime_seconds"].as_f64().unwrap_or(0.0)),
        word(&journal["backend"]),
        word(&journal["entries"]),
        size(&journal["bytes"]),
        size(&journal["size_max"]),
    );
    if let Some(trouble) = journal["trouble"].as_str() {
        text.push_str(&format!("trouble: {}\n", shorten(trouble, usize::from(WIDTH) - 10)));
    }
    let promises = &journal["promises"];
    if let Some(durability) = promises["durability"].as_str() {
        text.push_str(&format!("acknowledged means {}\n", meaning_of(durability)));
    }
    for (label, list) in [("  ", &promises["servers"]), ("  WEAKER: ", &promises["shortfalls"])] {
        for said in list.as_array().into_iter().flatten().filter_map(Value::as_str) {
            text.push_str(&format!("{label}{}\n", shorten(said, usize::from(WIDTH) - label.len() - 1)));
        }
    }
    let dedup = &status["dedup"];
    if dedup["backend"] != "journal" {
        let state =
            if dedup["degraded"] == true { "DEGRADED: push ids are known to this replica alone" } else { "shared" };
        text.push_str(&format!("dedup {} · {state}\n", word(&dedup["backend"])));
    }
    let mut sources = fitted(table(["source", "accepted", "duplicates", "refused"]));
    for (name, source) in status["sources"].as_object().into_iter().flatten() {
        let counts = ["accepted", "duplicates", "refused"].map(|key| word(&source[key]));
        sources.add_row([vec![name.clone()], counts.to_vec()].concat());
    }
    let header = ["sink", "type", "state", "pending", "oldest", "delivered", "retries", "dead", "last error"];
    let mut sinks = fitted(table(header));
    for (name, sink) in status["sinks"].as_object().into_iter().flatten() {
        sinks.add_row(sink_row(name, sink));
    }
    text.push_str(&format!("{sources}\n{sinks}"));
    if let Some(shards) = shards(status) {
        text.push_str(&format!("\n{shards}"));
    }
    text
}

/// Who delivers what, a line per sink and owner; nothing where one process does all.
fn shards(status: &Value) -> Option<Table> {
    let mut rows = fitted(table(["sink", "owner", "shards", "pending", "oldest"]));
    for (name, sink) in status["sinks"].as_object().into_iter().flatten() {
        let mut owners: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
        for shard in sink["shards"].as_array().into_iter().flatten() {
            let owner = match &shard["owner"] {
                Value::Null => "nobody".to_owned(),
                owner if shard["here"] == true => format!("{} (this one)", word(owner)),
                owner => word(owner),
            };
            owners.entry(owner).or_default().push(shard);
        }
        for (owner, shards) in owners {
            let numbers: Vec<String> = shards.iter().map(|shard| word(&shard["shard"])).collect();
            let pending: u64 = shards.iter().filter_map(|shard| shard["pending"].as_u64()).sum();
            let ages = shards.iter().filter_map(|shard| shard["oldest_pending_seconds"].as_f64());
            let oldest = duration(ages.fold(0.0, f64::max));
            rows.add_row([name.clone(), owner, numbers.join(" "), pending.to_string(), oldest]);
        }
    }
    (rows.row_count() > 0).then_some(rows)
}

fn sink_row(name: &str, sink: &Value) -> Vec<String> {
    let error = match &sink["last_error"] {
        Value::Null => String::new(),
        error => shorten(&format!("{}: {}", word(&error["code"]), word(&error["reason"])), ERROR_LEN_MAX),
    };
    vec![
        name.to_owned(),
        word(&sink["type"]),
        word(&sink["state"]),
        word(&sink["pending"]),
        duration(sink["oldest_pending_seconds"].as_f64().unwrap_or(0.0)),
        word(&sink["delivered"]),
        word(&sink["retries"]),
        word(&sink["dead_letters"]),
        error,
    ]
}

fn fitted(mut table: Table) -> Table {
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH);
    table
}

/// A string as it is, anything else as JSON writes it; control characters, which a terminal would obey, left out.
fn word(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// What the journal's durability is, in words.
fn meaning_of(durability: &str) -> String {
    let meaning = match durability {
        "fsync" => "on the master's disk",
        "replicated" => "in the memory of the master and its replicas",
        "strict" => "on the disks of the master and its replicas",
        _ => "in the master's memory: pushes can be lost",
    };
    format!("{meaning} ({})", word(&Value::from(durability)))
}

fn shorten(text: &str, len_max: usize) -> String {
    let text = text.replace(char::is_control, " ");
    match text.char_indices().nth(len_max) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

fn duration(seconds: f64) -> String {
    match seconds.max(0.0).round() as u64 {
        s if s < 120 => format!("{s}s"),
        s if s < 7_200 => format!("{}m", s / 60),
        s if s < 172_800 => format!("{}h", s / 3_600),
        s => format!("{}d", s / 86_400),
    }
}

fn size(value: &Value) -> String {
    let bytes = value.as_u64().unwrap_or(0);
    match bytes {
        b if b >= 10 << 30 => format!("{} GiB", b >> 30),
        b if b >= 10 << 20 => format!("{} MiB", b >> 20),
        b if b >= 10 << 10 => format!("{} KiB", b >> 10),
        b => format!("{b} B"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn whatever_is_in_it_fits_a_hundred_columns() {
        let mut sinks = serde_json::Map::new();
        for number in 0..4 {
            let name = format!("{}{number}", "a-very-long-name-of-a-sink-".repeat(2));
            sinks.insert(
                name,
                json!({"type": "recordings", "state": "draining", "pending": u32::MAX, "oldest_pending_seconds": 1e7,
                    "delivered": u64::MAX, "retries": 123_456_789, "dead_letters": 100_000,
                    "shards": (0..32).map(|shard| json!({"shard": shard, "owner": format!("gateway-6f7c9d8b5-{}", shard % 3),
                        "here": shard % 3 == 1, "pending": u32::MAX, "oldest_pending_seconds": 5e6})).collect::<Vec<_>>(),
                    "last_error": {"code": "http-503", "reason": "x y ".repeat(100)}}),
            );
        }
        let status = json!({"version": "0.1.0", "uptime_seconds": 90_000, "ready": false, "sinks": sinks,
            "journal": {"backend": "disk", "entries": 1, "bytes": 5 << 20, "size_max": 10_u64 << 30, "trouble": "full ".repeat(50),
                "promises": {"durability": "fsync", "servers": ["127.0.0.1:6379: Redis 7.0.15, appendfsync always, 0 replicas"],
                    "shortfalls": ["maxmemory ".repeat(20)]}},
            "dedup": {"backend": "redis", "degraded": true},
            "sources": {"main": {"accepted": 1, "duplicates": 2, "refused": 3}}});
        let text = text(&status);
        for line in text.lines() {
            assert!(line.chars().count() <= usize::from(WIDTH), "{line}");
        }
        assert!(
            text.contains("on the master's disk (fsync)") && text.contains("Redis 7.0.15, appendfsync always"),
            "{text}"
        );
        assert!(text.contains("  WEAKER: maxmemory"), "{text}");
        assert!(text.contains("dedup redis · DEGRADED") && text.contains("(this one)"), "{text}");
        assert!(text.contains("NOT READY") && text.contains("up 25h") && text.contains("5120 KiB of 10 GiB"), "{text}");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(shorten("a\x1b[2Jb", 60), "a [2Jb");
        assert_eq!(word(&json!("a\nb")), "a b");
    }
}
