//! A progress bar on standard error, for sends that take long enough to wonder.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::summary::Tally;

/// What is done sooner needs no bar.
const SHOW_AFTER: Duration = Duration::from_secs(1);

const TEMPLATE: &str = "{bar:40} {pos}/{len} pushes{msg}";

/// Appears after a second, and only where standard error is a terminal.
pub struct Progress {
    started: Instant,
    count: u64,
    bar: Option<ProgressBar>,
}

impl Progress {
    pub fn new(count: u64) -> Self {
        Self { started: Instant::now(), count, bar: None }
    }

    pub fn show(&mut self, tally: &Tally) {
        if self.started.elapsed() < SHOW_AFTER {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let style = ProgressStyle::with_template(TEMPLATE).expect("a valid template");
            ProgressBar::new(self.count).with_style(style)
        });
        bar.set_position(tally.sent());
        // Over the whole time: the bar itself knows only the time since it appeared.
        let per_second = tally.sent() as f64 / self.started.elapsed().as_secs_f64();
        bar.set_message(format!(", {per_second:.0}/s, {} failed", tally.failed()));
    }

    /// Takes the bar away, so that the results stand alone.
    pub fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
