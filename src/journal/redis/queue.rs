//! Between the callers of `accept` and the lanes: bounded, in the order of coming.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

use crate::journal::codec::Key;
use crate::journal::{AcceptError, Accepted, Push};

/// Pushes that wait or are being written. More callers wait for their turn.
const WAITING_MAX: usize = 8192;
/// Pushes and bytes of one batch, which shares a script call: a larger one would hold up what else the server does.
const BATCH_MAX: usize = 64;
const BATCH_BYTES_MAX: usize = 256 << 10;

pub(super) type Answer = Result<Accepted, AcceptError>;

/// A push on its way to a lane.
pub(super) struct Request {
    pub push: Push,
    /// It must not be refused for want of room.
    pub is_derived: bool,
    pub shard: u16,
    pub key: Key,
    pub body_crc: u32,
    pub answer: oneshot::Sender<Answer>,
    pub _permit: OwnedSemaphorePermit,
}

pub(super) struct Queue {
    waiting: Mutex<State>,
    came: Notify,
    room: Arc<Semaphore>,
}

#[derive(Default)]
struct State {
    requests: VecDeque<Request>,
    is_closed: bool,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self { waiting: Mutex::default(), came: Notify::new(), room: Arc::new(Semaphore::new(WAITING_MAX)) }
    }

    /// Waits until there is room. `None` once it is closed.
    pub(super) async fn room(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.room).acquire_owned().await.ok()
    }

    /// Hands a request to the lanes, unless it is closed: then the answer's sender is dropped.
    pub(super) fn push(&self, request: Request) {
        let mut state = self.lock();
        if !state.is_closed {
            state.requests.push_back(request);
            drop(state);
            self.came.notify_one();
        }
    }

    /// The next batch, as soon as something waits. `None` once it is closed and empty.
    pub(super) async fn take(&self) -> Option<Vec<Request>> {
        loop {
            {
                let mut state = self.lock();
                if !state.requests.is_empty() {
                    return Some(self.batch(&mut state));
                }
                if state.is_closed {
                    self.came.notify_one();
                    return None;
                }
            }
            self.came.notified().await;
        }
    }

    fn batch(&self, state: &mut State) -> Vec<Request> {
        let mut bytes = 0;
        let fits = |request: &&Request| {
            let is_first = bytes == 0;
            bytes += request.push.body.len().max(1);
            is_first || bytes <= BATCH_BYTES_MAX
        };
        let count = state.requests.iter().take(BATCH_MAX).take_while(fits).count();
        let batch = state.requests.drain(..count).collect();
        if !state.requests.is_empty() {
            self.came.notify_one();
        }
        batch
    }

    /// Takes no more requests. Those that wait are still given out.
    pub(super) fn close(&self) {
        self.room.close();
        self.lock().is_closed = true;
        self.came.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
