//! The writer: one thread that owns the segment being written and the dedup index.
//!
//! It takes whatever waits, looks every push up, appends the new ones with one write, syncs once, and only then answers: the new
//! ones, and the duplicates of pushes of the same group. While a group is synced the next one gathers by itself, so nothing ever
//! lingers and calls that come together share a sync.
//!
//! | fault | answer | then |
//! |---|---|---|
//! | the write fails | `Unavailable` | the file is cut back to what is durable, and synced; if even that fails it is given up |
//! | the sync fails | `Unknown` | the file is given up at its durable end, and never synced again: what the page cache holds is no longer known. The next segment begins at the same offset and so voids what the failed one may hold |
//! | no new segment can be made | `Unavailable` | tried again once a second |
//! | less than `reserve` is free | `Unavailable` | looked at again four times a second |
//! | `size_max` is reached | `Full` | looked at again four times a second |
//! | `size_max` is reached, but the push is derived | as usual | nothing else is taken until there is room again |
//!
//! Duplicates are answered in every case. Marks of pushes that were not written are taken back before anybody is answered.

use std::io::{self, ErrorKind};
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::catalog::Segment;
use super::file_header::FILE_HEADER_LEN;
use super::frame::{self, Head, Kind};
use super::fs::Handle;
use super::helper::Job;
use super::ids::{Id, Ids};
use super::index::DedupIndex;
use super::queue::{Answer, Answers, Queue, Request, Taken};
use super::segment_file::{Made, make_segment};
use super::shared::{Shared, lock};
use crate::crash::crash_point;
use crate::journal::{AcceptError, Accepted};
use crate::names::Offset;

const IDLE: Duration = Duration::from_secs(1);
const IN_TROUBLE: Duration = Duration::from_millis(250);
const RETRY_AFTER: Duration = Duration::from_secs(1);
const LOOK_AT_SPACE_EVERY: Duration = Duration::from_millis(250);

pub(super) struct Writer {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    helper: Sender<Job>,
    index: DedupIndex,
    /// `None` until one can be made.
    active: Option<Active>,
    /// The offset that the next new push gets.
    next: u64,
    group: Group,
    /// No new segment is tried before this.
    retry_at: Instant,
    space_seen_at: Option<Instant>,
    /// Too little space is free: how much there is.
    low_space: Option<u64>,
    is_full: bool,
    /// The segment being written lies past `size_max`: it is for derived pushes alone.
    is_beyond: bool,
    /// Why the last try to write failed, until one succeeds.
    fault: Option<String>,
    /// The last try to begin a segment failed.
    needs_segment: bool,
}

/// The segment being written.
struct Active {
    segment: Arc<Segment>,
    file: Handle,
    /// Of every durable offset, and of those of the group.
    ids: Vec<Id>,
    /// Where the last durable frame ends.
    end: u64,
}

/// What shares the next write and sync.
#[derive(Default)]
struct Group {
    bytes: Vec<u8>,
    /// New pushes in it.
    count: u64,
    answers: Vec<(oneshot::Sender<Answer>, Accepted)>,
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        queue: Arc<Queue>,
        helper: Sender<Job>,
        index: DedupIndex,
        next: u64,
    ) -> Self {
        Self {
            shared,
            queue,
            helper,
            index,
            active: None,
            next,
            group: Group::default(),
            retry_at: Instant::now(),
            space_seen_at: None,
            low_space: None,
            is_full: false,
            is_beyond: false,
            fault: None,
            needs_segment: false,
        }
    }

    /// Runs until the queue is closed and empty.
    pub(super) fn run(mut self) {
        self.look_after();
        loop {
            let in_trouble = lock(&self.shared.trouble).is_some();
            match self.queue.take(if in_trouble { IN_TROUBLE } else { IDLE }) {
                Taken::Group(requests) => self.write_group(requests),
                Taken::Nothing => self.look_after(),
                Taken::Closed => break,
            }
        }
        self.finish();
    }

    fn write_group(&mut self, requests: Vec<Request>) {
        self.look_at_space();
        let mut permits = Vec::with_capacity(requests.len());
        for request in requests {
            let Request { push, key, body_crc, is_derived, answer, permit } = request;
            permits.push(permit);
            let received_ms = push.received_at.as_millisecond();
            let latest_ms = self.shared.latest_ms.fetch_max(received_ms, Ordering::Relaxed).max(received_ms);
            self.index.expire(latest_ms);
            if let Some(known) = self.index.find(&key, received_ms) {
                let accepted =
                    Accepted::Duplicate { offset: Offset(known.offset), same_body: known.body_crc == body_crc };
                self.answer_duplicate(answer, accepted, known.offset);
                continue;
            }
            if let Err(error) = self.make_place(frame::push_frame_len(&push), is_derived) {
                send(answer, Err(error));
                continue;
            }
            let head =
                Head { kind: Kind::Entry, number: self.next, received_ms, key, body_crc, meta_len: 0, body_len: 0 };
            self.append(head, &push);
            self.group.answers.push((answer, Accepted::New { offset: Offset(head.number) }));
        }
        self.flush();
        self.tell_trouble();
    }

    fn answer_duplicate(&mut self, answer: oneshot::Sender<Answer>, accepted: Accepted, offset: u64) {
        if offset < self.next - self.group.count {
            send(answer, Ok(accepted));
        } else {
            self.group.answers.push((answer, accepted));
        }
    }

    /// Sees to it that a frame of `len` bytes fits behind the group.
    fn make_place(&mut self, len: u64, is_derived: bool) -> Result<(), AcceptError> {
        let limit = self.shared.options.segment_size - FILE_HEADER_LEN;
        if len > limit {
            return Err(AcceptError::TooLarge { size: len, limit });
        }
        // The space of a segment is reserved when it is made.
        let needs_space = !is_derived || !self.active_has_place(len);
        if let Some(free) = self.low_space.filter(|_| needs_space) {
            return Err(AcceptError::Unavailable { cause: low_space_text(free, self.shared.options.reserve) });
        }
        if !is_derived && self.is_still_beyond() {
            return Err(self.refusal());
        }
        if !self.active_has_place(len) {
            self.flush();
            self.next_segment(is_derived)?;
        }
        Ok(())
    }

    fn is_still_beyond(&mut self) -> bool {
        if self.is_beyond && self.shared.catalog.bytes() <= self.shared.options.size_max {
            (self.is_beyond, self.is_full) = (false, false);
        }
        self.is_beyond
    }

    fn active_has_place(&self, len: u64) -> bool {
        let end = |active: &Active| active.end + self.group.bytes.len() as u64 + len;
        self.active.as_ref().is_some_and(|active| end(active) <= self.shared.options.segment_size)
    }

    fn append(&mut self, head: Head, push: &crate::journal::Push) {
        let active = self.active.as_mut().expect("a place was made");
        let position = active.end + self.group.bytes.len() as u64;
        frame::encode(&mut self.group.bytes, active.segment.seed(), head, &push.body, |into| {
            frame::put_push(into, push);
        });
        active.ids.push(Id {
            key: head.key,
            body_crc: head.body_crc,
            position: u32::try_from(position).expect("segments are smaller than 4 GiB"),
            received_ms: head.received_ms,
        });
        self.index.insert(head.number, head.key, head.body_crc, head.received_ms);
        self.group.count += 1;
        self.next += 1;
    }

    /// Writes and syncs the group, and answers it.
    fn flush(&mut self) {
        if self.group.count == 0 {
            return;
        }
        let active = self.active.as_ref().expect("a group has a segment");
        crash_point("journal.before_write");
        if let Err(error) = active.file.write_all_at(&self.group.bytes, active.end) {
            self.write_failed(&error);
            return;
        }
        crash_point("journal.after_write");
        let begun = Instant::now();
        let synced = active.file.sync();
        self.shared.reporter.metrics.sync_seconds.observe(begun.elapsed().as_secs_f64());
        match synced {
            Ok(()) => {
                crash_point("journal.after_sync");
                self.publish();
            }
            Err(error) => self.sync_failed(&error),
        }
    }

    fn publish(&mut self) {
        let active = self.active.as_mut().expect("just synced");
        active.end += self.group.bytes.len() as u64;
        {
            let mut state = active.segment.state_mut();
            let known = (state.next - active.segment.first) as usize;
            let fresh = &active.ids[known..];
            state.newest_ms = fresh.iter().map(|id| id.received_ms).max().unwrap_or(i64::MIN).max(state.newest_ms);
            if let Some(positions) = &mut state.positions {
                positions.extend(fresh.iter().map(|id| id.position));
            }
            state.entries += self.group.count;
            state.next = self.next;
            state.end = active.end;
        }
        self.shared.durable.send_replace(self.next - 1);
        self.shared.reporter.metrics.entries.add(i64::try_from(self.group.count).unwrap_or(0));
        if !self.needs_segment {
            self.fault = None;
        }
        self.group.bytes.clear();
        self.group.count = 0;
        let answers = self.group.answers.drain(..).map(|(caller, accepted)| (caller, Ok(accepted)));
        self.queue.answer(Answers(answers.collect()));
    }

    fn write_failed(&mut self, error: &io::Error) {
        let kind = if error.kind() == ErrorKind::StorageFull { "full" } else { "write" };
        self.shared.reporter.count(kind);
        let cause = format!("cannot write the journal: {error}");
        self.fail_group(&AcceptError::Unavailable { cause: cause.clone() });
        self.fault = Some(cause);
        let active = self.active.as_ref().expect("just written");
        // What was written of the group must be gone before anything else is written there: shorter frames would leave the rest of
        // it behind them.
        let rewound = active.file.set_len(active.end).and_then(|()| active.file.sync());
        if rewound.is_err() {
            self.give_up_active();
        } else if let Err(error) = active.file.allocate(self.shared.options.segment_size) {
            tracing::debug!(%error, "the segment grows as it is written");
        }
    }

    fn sync_failed(&mut self, error: &io::Error) {
        self.shared.reporter.count("sync");
        let cause = format!("cannot sync the journal: {error}");
        self.fail_group(&AcceptError::Unknown { cause: cause.clone() });
        self.fault = Some(cause);
        self.give_up_active();
    }

    /// Takes the group back and answers it.
    fn fail_group(&mut self, error: &AcceptError) {
        self.next -= self.group.count;
        self.index.take_back_from(self.next);
        if let Some(active) = &mut self.active {
            active.ids.truncate((self.next - active.segment.first) as usize);
        }
        self.group.bytes.clear();
        self.group.count = 0;
        let answers = self.group.answers.drain(..).map(|(caller, _)| (caller, Err(error.clone())));
        self.queue.answer(Answers(answers.collect()));
    }

    /// Ends the active segment at its durable end, without touching its file again.
    fn give_up_active(&mut self) {
        if let Some(active) = self.active.take() {
            self.retire(active);
        }
    }

    /// Hands a segment that is no longer written over to be sealed.
    fn retire(&self, active: Active) {
        if active.ids.is_empty() {
            // The next segment has the same first offset and takes its name.
            self.shared.catalog.remove(active.segment.first);
            self.shared.reader.forget(active.segment.first);
            return;
        }
        crash_point("journal.segment_seal");
        let Active { segment, ids, end, .. } = active;
        let ids = Ids { generation: segment.generation, first: segment.first, ids, end };
        // The helper is gone only if it panicked; the segment is then sealed when the journal is opened again.
        drop(self.helper.send(Job::Seal { segment, ids }));
    }

    /// Begins the next segment, within `size_max` unless it is for a derived push: its event could else not be settled, nor space be
    /// given back. There are at most as many of those as entries that are held.
    fn next_segment(&mut self, is_derived: bool) -> Result<(), AcceptError> {
        if Instant::now() < self.retry_at {
            return Err(self.refusal());
        }
        let made = self.shared.make_room().and_then(|has_room| {
            self.is_full = !has_room;
            (has_room || is_derived).then(|| make_segment(&self.shared, self.next)).transpose()
        });
        match made {
            Ok(Some(Made { segment, file })) => {
                let last = self.active.replace(Active {
                    segment: Arc::clone(&segment),
                    file,
                    ids: Vec::new(),
                    end: FILE_HEADER_LEN,
                });
                if let Some(last) = last {
                    self.retire(last);
                }
                self.shared.catalog.add(segment);
                self.is_beyond = self.shared.catalog.bytes() > self.shared.options.size_max;
                self.is_full = self.is_beyond;
                self.shared.measure();
                (self.fault, self.needs_segment) = (None, false);
                drop(self.helper.send(Job::PrepareSpare));
                Ok(())
            }
            Ok(None) => Err(self.refusal()),
            Err(error) => {
                self.shared.reporter.count(if error.kind() == ErrorKind::StorageFull { "full" } else { "write" });
                self.fault = Some(format!("cannot begin a new segment of the journal: {error}"));
                self.retry_at = Instant::now() + RETRY_AFTER;
                self.needs_segment = true;
                Err(self.refusal())
            }
        }
    }

    fn refusal(&self) -> AcceptError {
        if self.is_full {
            return AcceptError::Full { used: self.shared.catalog.bytes(), limit: self.shared.options.size_max };
        }
        AcceptError::Unavailable { cause: self.fault.clone().unwrap_or_else(|| "no segment to write to".to_owned()) }
    }

    /// What is due while no push comes.
    fn look_after(&mut self) {
        self.look_at_space();
        if (self.active.is_none() || self.needs_segment) && self.low_space.is_none() {
            // Why it failed, if it did, is in `fault`.
            drop(self.next_segment(false));
        } else if self.is_full {
            match self.shared.make_room() {
                Ok(has_room) => self.is_full = !has_room,
                Err(error) => self.fault = Some(format!("cannot give back space: {error}")),
            }
            self.is_still_beyond();
        }
        if let Err(error) = self.probe_after_fault() {
            self.fault = Some(format!("cannot write the journal: {error}"));
        }
        self.tell_trouble();
    }

    /// After a failed write that was taken back nothing but another write tells whether the file can be written again. It goes to
    /// the place of the next frame, and is no frame.
    fn probe_after_fault(&mut self) -> io::Result<()> {
        if let Some(active) = &self.active
            && self.fault.is_some()
            && !self.needs_segment
        {
            active.file.write_all_at(&[0; 512], active.end)?;
            self.fault = None;
        }
        Ok(())
    }

    fn look_at_space(&mut self) {
        if self.space_seen_at.is_some_and(|seen| seen.elapsed() < LOOK_AT_SPACE_EVERY) {
            return;
        }
        self.space_seen_at = Some(Instant::now());
        let free = self.shared.fs.free_bytes(&self.shared.layout.dir).unwrap_or(u64::MAX);
        self.low_space = (free < self.shared.options.reserve).then_some(free);
    }

    /// Says what keeps pushes from being accepted: once when it begins, once when it is over.
    fn tell_trouble(&mut self) {
        let options = &self.shared.options;
        let trouble = match (&self.fault, self.low_space) {
            (Some(fault), _) => Some(fault.clone()),
            (None, Some(free)) => Some(low_space_text(free, options.reserve)),
            (None, None) if self.is_full => {
                Some(format!("the journal is full: {} bytes are its limit", options.size_max))
            }
            (None, None) => None,
        };
        let before = mem::replace(&mut *lock(&self.shared.trouble), trouble.clone());
        match (before, trouble) {
            (None, Some(cause)) => {
                if self.fault.is_none() {
                    self.shared.reporter.count("full");
                }
                tracing::error!(cause, "the journal takes no new pushes");
            }
            (Some(_), None) => tracing::info!("the journal takes new pushes again"),
            _ => {}
        }
    }

    /// Seals the segment being written, so that the next opening has nothing to recover.
    fn finish(mut self) {
        let Some(active) = self.active.take() else { return };
        // The space behind the last frame is given back; where that fails it is only not given back.
        if active.file.set_len(active.end).is_ok() {
            active.segment.state_mut().size = active.end;
        }
        if active.file.sync().is_ok() {
            self.retire(active);
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Also when the thread panics: nobody may wait for an answer that cannot come.
        self.queue.close();
    }
}

fn low_space_text(free: u64, reserve: u64) -> String {
    format!("{free} bytes are free on the journal's file system, {reserve} are kept in reserve")
}

fn send(answer: oneshot::Sender<Answer>, what: Answer) {
    // Nobody waits any more where the caller went away.
    drop(answer.send(what));
}
