//! Opening: lock, identity, recovery, checkpoints, dead letters, and then the two threads.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicI64};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};

use tokio::sync::watch;

use super::checkpoints::Checkpoints;
use super::dead_letters::{Context, DeadLetters};
use super::fs::FileSystem;
use super::identity::establish;
use super::layout::Layout;
use super::options::{OpenError, Options};
use super::queue::Queue;
use super::recovery::Recovery;
use super::report::Reporter;
use super::shared::Shared;
use super::writer::Writer;
use super::{DiskJournal, helper};
use crate::metrics::JournalMetrics;

pub(super) fn open(
    fs: Arc<dyn FileSystem>,
    options: Options,
    metrics: JournalMetrics,
) -> Result<DiskJournal, OpenError> {
    let options = options.normalised();
    let layout = Layout::new(&options.dir);
    let reporter = Reporter { metrics };
    let dir = &options.dir;
    fs.create_dir_all(dir).map_err(OpenError::io("create", dir))?;
    let lock = fs
        .try_lock(&layout.lock())
        .map_err(OpenError::io("lock", layout.lock()))?
        .ok_or_else(|| OpenError::Held { dir: dir.clone() })?;
    let log_id = establish(&fs, &layout, &reporter)?;
    let recovery = Recovery { fs: &fs, layout: &layout, options: &options, reporter: &reporter, log_id };
    let recovered = recovery.run()?;
    let checkpoints =
        Checkpoints::load(&fs, &layout, &reporter).map_err(OpenError::io("read", layout.checkpoints()))?;
    let context = Context { fs: Arc::clone(&fs), layout: layout.clone(), reporter: reporter.clone(), log_id };
    let dead_letters = DeadLetters::load(context).map_err(OpenError::io("read", layout.dead_letters()))?;
    fs.sync_dir(dir).map_err(OpenError::io("sync", dir))?;
    let next = recovered.next.max(checkpoints.greatest() + 1).max(dead_letters.greatest_offset() + 1);
    let shared = Arc::new(Shared {
        fs,
        log_id,
        reporter,
        catalog: recovered.catalog,
        reader: super::reader::Reader::default(),
        checkpoints,
        dead_letters: Arc::new(dead_letters),
        durable: watch::Sender::new(next - 1),
        latest_ms: AtomicI64::new(recovered.latest_ms),
        trouble: Mutex::default(),
        spare: Mutex::new(recovered.has_spare),
        is_closed: AtomicBool::new(false),
        lock: Mutex::new(Some(lock)),
        layout,
        options,
    });
    shared.trim().map_err(OpenError::io("trim", shared.layout.dir.clone()))?;
    let queue = Arc::new(Queue::new());
    let threads = start(&shared, &queue, recovered.index, next)
        .map_err(OpenError::io("start the threads of", shared.layout.dir.clone()))?;
    Ok(DiskJournal { shared, queue, threads: Mutex::new(threads) })
}

/// Both threads end when the queue is closed: the writer once it is empty, the helper after the writer.
fn start(
    shared: &Arc<Shared>,
    queue: &Arc<Queue>,
    index: super::index::DedupIndex,
    next: u64,
) -> io::Result<Vec<JoinHandle<()>>> {
    let (jobs, jobs_of_helper) = mpsc::channel();
    let for_helper = Arc::clone(shared);
    let helper = Builder::new().name("journal-helper".to_owned()).spawn(move || {
        helper::run(&for_helper, &jobs_of_helper);
    })?;
    let writer = Writer::new(Arc::clone(shared), Arc::clone(queue), jobs, index, next);
    let writer = Builder::new().name("journal-writer".to_owned()).spawn(move || writer.run())?;
    Ok(vec![writer, helper])
}
