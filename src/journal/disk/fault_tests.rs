//! The suite, and faults on a real file system: flipped bytes, cut files, foreign files, a full disk.

use std::path::Path;

use super::*;
use crate::journal::conformance::{self, Factory, WINDOW};
use crate::metrics::Metrics;

const SEGMENT: u64 = 4096;

pub(super) fn options(dir: &Path) -> Options {
    Options { dir: dir.to_path_buf(), segment_size: SEGMENT, size_max: 64 * SEGMENT, reserve: 0, dedup_window: WINDOW }
}

fn open(dir: &Path) -> Result<Arc<DiskJournal>, OpenError> {
    DiskJournal::open(options(dir), Metrics::new().journal)
}

struct OnDisk(Option<tempfile::TempDir>);

impl Factory for OnDisk {
    async fn fresh(&mut self) -> Arc<dyn Journal> {
        self.0 = Some(tempfile::tempdir().unwrap());
        self.reopen().await
    }

    async fn reopen(&mut self) -> Arc<dyn Journal> {
        open(self.0.as_ref().unwrap().path()).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_journal_conforms() {
    conformance::run(&mut OnDisk(None)).await;
}
