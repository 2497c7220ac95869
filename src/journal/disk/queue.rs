//! Between the callers of `accept` and the writer thread: bounded, one lock per push, a wake-up only where the writer sleeps.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::frame::Key;
use crate::journal::{AcceptError, Accepted, Push};

/// Pushes that wait or are being written. More callers wait for their turn.
const WAITING_MAX: usize = 8192;
/// Pushes and bytes of one group, which shares a write and a sync.
const GROUP_MAX: usize = 512;
const GROUP_BYTES_MAX: usize = 1 << 20;
/// A group of this size says that callers are many, and the cores busy with them.
const CROWD: usize = 4;
const YIELDS_MAX: usize = 16;

pub(super) type Answer = Result<Accepted, AcceptError>;

/// A push on its way to the writer, with all that can be computed before.
pub(super) struct Request {
    pub push: Push,
    pub key: Key,
    pub body_crc: u32,
    /// It follows from a delivery, and may go past the limit.
    pub is_derived: bool,
    pub answer: oneshot::Sender<Answer>,
    pub permit: OwnedSemaphorePermit,
}

/// Answers that are due. Dropping them gives them, so that none is ever forgotten.
pub(super) struct Answers(pub Vec<(oneshot::Sender<Answer>, Answer)>);

impl Drop for Answers {
    fn drop(&mut self) {
        for (caller, answer) in self.0.drain(..) {
            // Nobody waits any more where the caller went away.
            drop(caller.send(answer));
        }
    }
}

pub(super) enum Taken {
    Group(Vec<Request>),
    /// Nothing came for as long as the writer would wait.
    Nothing,
    Closed,
}

pub(super) struct Queue {
    state: Mutex<State>,
    came: Condvar,
    room: Arc<Semaphore>,
    /// The runtime of the callers.
    runtime: OnceLock<Handle>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Request>,
    writer_sleeps: bool,
    /// How many requests the group before this one had.
    latest_group: usize,
    is_closed: bool,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::default(),
            came: Condvar::new(),
            room: Arc::new(Semaphore::new(WAITING_MAX)),
            runtime: OnceLock::new(),
        }
    }

    /// Waits until there is room. `None` once it is closed.
    pub(super) async fn room(&self) -> Option<OwnedSemaphorePermit> {
        self.runtime.get_or_init(Handle::current);
        Arc::clone(&self.room).acquire_owned().await.ok()
    }

    /// Hands a request to the writer, unless it is closed: then the answer's sender is dropped.
    pub(super) fn push(&self, request: Request) {
        let mut state = self.lock();
        if state.is_closed {
            return;
        }
        state.waiting.push_back(request);
        if std::mem::take(&mut state.writer_sleeps) {
            drop(state);
            self.came.notify_one();
        }
    }

    /// The next group, at once where something waits.
    pub(super) fn take(&self, patience: Duration) -> Taken {
        let mut state = self.lock();
        if state.waiting.is_empty() && !state.is_closed {
            state.writer_sleeps = true;
            state = self.came.wait_timeout(state, patience).unwrap_or_else(PoisonError::into_inner).0;
            state.writer_sleeps = false;
        }
        if state.waiting.is_empty() {
            return if state.is_closed { Taken::Closed } else { Taken::Nothing };
        }
        if state.latest_group >= CROWD {
            state = self.let_others_come(state);
        }
        let mut bytes = 0;
        let fitting = state.waiting.iter().take(GROUP_MAX).take_while(|request| {
            let fits = bytes == 0 || bytes + request.push.body.len() <= GROUP_BYTES_MAX;
            bytes += request.push.body.len().max(1);
            fits
        });
        let count = fitting.count();
        state.latest_group = count;
        Taken::Group(state.waiting.drain(..count).collect())
    }

    /// Gives answers. Many are given from a thread of the runtime: there waking a caller costs a fraction of what it costs from
    /// here, and the writer is at its next group meanwhile.
    pub(super) fn answer(&self, answers: Answers) {
        match self.runtime.get() {
            Some(runtime) if answers.0.len() >= CROWD => drop(runtime.spawn(async move { drop(answers) })),
            _ => drop(answers),
        }
    }

    /// Under load those that were just answered are let on the core as long as that brings more, so that more share a sync. No
    /// pause: with nothing else to run each yield returns at once, and a lone push never comes here.
    fn let_others_come<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        for _ in 0..YIELDS_MAX {
            let waiting = state.waiting.len();
            drop(state);
            std::thread::yield_now();
            state = self.lock();
            if state.waiting.len() == waiting || waiting >= GROUP_MAX {
                break;
            }
        }
        state
    }

    /// Takes no more requests. Those that wait are still given out.
    pub(super) fn close(&self) {
        self.room.close();
        self.lock().is_closed = true;
        self.came.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
