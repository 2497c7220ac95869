//! What came of all pushes: counts, latency percentiles, the reasons of failures, and a log of each outcome.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, LineWriter, Write};
use std::path::Path;
use std::time::Duration;

use comfy_table::Table;
use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::Value;

use super::load::Outcome;
use super::vendor::Failure;
use crate::cli::output::table;

/// Different reasons that are counted each; what comes after is counted together.
const REASONS_MAX: usize = 20;

/// Latencies are kept in microseconds, to three digits.
const LATENCY_DIGITS: u8 = 3;

/// Counts outcomes as they come.
#[derive(Debug)]
pub struct Tally {
    accepted: u64,
    failed: u64,
    retries: u64,
    answered: u64,
    interrupted: u64,
    latency_us: Histogram<u64>,
    reasons: BTreeMap<Failure, u64>,
    more_reasons: u64,
}

/// The end of `trunkline send`, in its stable JSON shape.
#[derive(Debug, Serialize)]
pub struct Summary {
    pub sent: u64,
    pub accepted: u64,
    pub failed: u64,
    pub retries: u64,
    pub seconds: f64,
    pub latency_ms: Latency,
}

/// Of the accepted pushes, in milliseconds; null where none was accepted.
#[derive(Debug, Serialize)]
pub struct Latency {
    pub p50: Option<f64>,
    pub p90: Option<f64>,
    pub p99: Option<f64>,
    pub p999: Option<f64>,
    pub max: Option<f64>,
}

impl Tally {
    pub fn new() -> Self {
        Self {
            accepted: 0,
            failed: 0,
            retries: 0,
            answered: 0,
            interrupted: 0,
            latency_us: Histogram::new(LATENCY_DIGITS).expect("a valid number of digits"),
            reasons: BTreeMap::new(),
            more_reasons: 0,
        }
    }

    pub fn count(&mut self, outcome: &Outcome) {
        let attempts = &outcome.attempts;
        self.retries += u64::from(attempts.made - 1);
        self.answered += u64::from(attempts.answered);
        match &attempts.result {
            Ok(()) => {
                self.accepted += 1;
                self.latency_us += u64::try_from(outcome.latency.as_micros()).unwrap_or(u64::MAX);
            }
            Err(failure) => {
                self.failed += 1;
                self.interrupted += u64::from(*failure == Failure::Interrupted);
                self.count_reason(failure);
            }
        }
    }

    fn count_reason(&mut self, failure: &Failure) {
        if let Some(count) = self.reasons.get_mut(failure) {
            *count += 1;
        } else if self.reasons.len() < REASONS_MAX {
            self.reasons.insert(failure.clone(), 1);
        } else {
            self.more_reasons += 1;
        }
    }

    pub fn sent(&self) -> u64 {
        self.accepted + self.failed
    }

    pub fn failed(&self) -> u64 {
        self.failed
    }

    /// Whether pushes were tried to their end and no reply ever came.
    pub fn nothing_answered(&self) -> bool {
        self.answered == 0 && self.failed > self.interrupted
    }

    /// How often pushes failed for which reason, the most frequent first.
    pub fn reasons(&self) -> Vec<(u64, String)> {
        let mut reasons: Vec<_> = self.reasons.iter().map(|(reason, count)| (*count, reason.to_string())).collect();
        reasons.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
        if self.more_reasons > 0 {
            reasons.push((self.more_reasons, "other reasons".to_owned()));
        }
        reasons
    }

    pub fn summary(&self, elapsed: Duration) -> Summary {
        let at = |quantile| (self.accepted > 0).then(|| self.latency_us.value_at_quantile(quantile) as f64 / 1e3);
        let latency_ms = Latency { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: at(1.0) };
        Summary {
            sent: self.sent(),
            accepted: self.accepted,
            failed: self.failed,
            retries: self.retries,
            seconds: (elapsed.as_secs_f64() * 1e3).round() / 1e3,
            latency_ms,
        }
    }
}

impl Summary {
    /// For people: two rows of figures.
    pub fn tables(&self) -> [Table; 2] {
        let mut counts = table(["sent", "accepted", "failed", "retries", "seconds", "accepted/s"]);
        let rate = if self.seconds > 0.0 { self.accepted as f64 / self.seconds } else { 0.0 };
        counts.add_row([
            self.sent.to_string(),
            self.accepted.to_string(),
            self.failed.to_string(),
            self.retries.to_string(),
            format!("{:.2}", self.seconds),
            format!("{rate:.0}"),
        ]);
        let mut latency = table(["latency ms", "p50", "p90", "p99", "p99.9", "max"]);
        let figures = [self.latency_ms.p50, self.latency_ms.p90, self.latency_ms.p99, self.latency_ms.p999];
        let shown = figures.into_iter().chain([self.latency_ms.max]);
        let shown = shown.map(|ms| ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.2}")));
        latency.add_row(["to the acknowledgement".to_owned()].into_iter().chain(shown));
        [counts, latency]
    }
}

/// One line of NDJSON for each push, written when its outcome is known, so that it is whole even if the sender is killed.
pub struct Log(LineWriter<File>);

#[derive(Serialize)]
struct LogLine<'a> {
    push_id: &'a str,
    accepted: bool,
    attempts: u32,
    err_code: Option<&'a Value>,
    session_id: Option<&'a str>,
}

impl Log {
    /// Creates the file, or empties it.
    pub fn open(path: &Path) -> io::Result<Self> {
        File::create(path).map(LineWriter::new).map(Self)
    }

    pub fn write(&mut self, outcome: &Outcome) -> io::Result<()> {
        let line = LogLine {
            push_id: outcome.push_id.to_str().unwrap_or_default(),
            accepted: outcome.attempts.result.is_ok(),
            attempts: outcome.attempts.made,
            err_code: outcome.attempts.err_code.as_ref(),
            session_id: outcome.session_id.as_deref(),
        };
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');
        self.0.write_all(&text)
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::super::vendor::Attempts;
    use super::*;

    fn outcome(millis: u64, made: u32, result: Result<(), Failure>) -> Outcome {
        Outcome {
            push_id: HeaderValue::from_static("id"),
            session_id: None,
            attempts: Attempts { made, answered: result.is_ok(), err_code: None, result },
            latency: Duration::from_millis(millis),
        }
    }

    #[test]
    fn the_summary_has_its_stable_shape() {
        let mut tally = Tally::new();
        tally.count(&outcome(10, 1, Ok(())));
        tally.count(&outcome(20, 3, Ok(())));
        tally.count(&outcome(900, 4, Err(Failure::Timeout)));
        let json = serde_json::to_value(tally.summary(Duration::from_millis(1500))).unwrap();
        assert_eq!((&json["sent"], &json["accepted"], &json["failed"]), (&3.into(), &2.into(), &1.into()));
        assert_eq!((&json["retries"], &json["seconds"]), (&5.into(), &1.5.into()));
        let (p50, max) = (json["latency_ms"]["p50"].as_f64().unwrap(), json["latency_ms"]["max"].as_f64().unwrap());
        assert!((9.9..10.1).contains(&p50) && (19.9..20.1).contains(&max), "{json}");
        let mut keys: Vec<_> =
            json.as_object().unwrap().keys().chain(json["latency_ms"].as_object().unwrap().keys()).collect();
        keys.sort();
        let expected =
            ["accepted", "failed", "latency_ms", "max", "p50", "p90", "p99", "p999", "retries", "seconds", "sent"];
        assert_eq!(keys, expected);
    }

    #[test]
    fn without_an_accepted_push_there_is_no_latency() {
        let mut tally = Tally::new();
        tally.count(&outcome(1, 4, Err(Failure::Timeout)));
        assert!(tally.nothing_answered());
        assert_eq!(tally.summary(Duration::ZERO).latency_ms.max, None);
    }

    #[test]
    fn reasons_are_bounded() {
        let mut tally = Tally::new();
        for number in 0..50 {
            tally.count(&outcome(1, 1, Err(Failure::NotReachable(number.to_string()))));
            tally.count(&outcome(1, 1, Err(Failure::Timeout)));
        }
        let reasons = tally.reasons();
        assert_eq!(reasons[0], (50, "no reply in time".to_owned()));
        assert_eq!(reasons.len(), REASONS_MAX + 1);
        assert_eq!(reasons.iter().map(|(count, _)| count).sum::<u64>(), 100);
    }
}
