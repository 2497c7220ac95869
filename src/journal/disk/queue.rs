//! Between the callers of `accept` and the writer thread: bounded, one lock per push, a wake-up only where the writer sleeps.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::frame::Key;
use crate::journal::{AcceptError, Accepted, Push};

/// Pushes that wait or are being written. More callers wait for their turn.
const WAITING_MAX: usize = 8192;
/// Pushes and bytes of one group, which shares a write and a sync.
const GROUP_MAX: usize = 512;
const GROUP_BYTES_MAX: usize = 1 << 20;

pub(super) type Answer = Result<Accepted, AcceptError>;

/// A push on its way to the writer, with all that can be computed before.
pub(super) struct Request {
    pub push: Push,
    pub key: Key,
    pub body_crc: u32,
    pub answer: oneshot::Sender<Answer>,
    pub permit: OwnedSemaphorePermit,
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
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Request>,
    writer_sleeps: bool,
    is_closed: bool,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self { state: Mutex::default(), came: Condvar::new(), room: Arc::new(Semaphore::new(WAITING_MAX)) }
    }

    /// Waits until there is room. `None` once it is closed.
    pub(super) async fn room(&self) -> Option<OwnedSemaphorePermit> {
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
        let mut bytes = 0;
        let fitting = state.waiting.iter().take(GROUP_MAX).take_while(|request| {
            let fits = bytes == 0 || bytes + request.push.body.len() <= GROUP_BYTES_MAX;
            bytes += request.push.body.len().max(1);
            fits
        });
        let count = fitting.count();
        Taken::Group(state.waiting.drain(..count).collect())
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
