//! A second handle on a connection's socket, to cut it with.
//!
//! The client library ends a connection only by an exchange of frames. With a broker that has gone silent, or before the login is
//! done, that never comes, and a thread and a socket would be left behind by every try. Cutting the socket ends both at once.

use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Cuts the connection when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Wire(Arc<Mutex<Option<TcpStream>>>);

/// Where the connecting thread puts the socket that it made.
#[derive(Debug, Clone)]
pub(crate) struct Holder(Weak<Mutex<Option<TcpStream>>>);

impl Wire {
    pub(crate) fn holder(&self) -> Holder {
        Holder(Arc::downgrade(&self.0))
    }

    /// Ends the connection: whatever waits on it fails now.
    pub(crate) fn cut(&self) {
        if let Some(socket) = locked(&self.0).take() {
            // Fails only where the other side was quicker.
            socket.shutdown(Shutdown::Both).ok();
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.cut();
    }
}

impl Holder {
    /// Keeps a handle on `socket`. False when nobody waits for the connection any more.
    pub(crate) fn hold(&self, socket: &impl AsFd) -> std::io::Result<bool> {
        let Some(kept) = self.0.upgrade() else { return Ok(false) };
        let handle = socket.as_fd().try_clone_to_owned()?;
        *locked(&kept) = Some(TcpStream::from(handle));
        // Looked at again: who waited may have left in between.
        drop(kept);
        Ok(self.0.strong_count() > 0)
    }
}

fn locked(socket: &Mutex<Option<TcpStream>>) -> MutexGuard<'_, Option<TcpStream>> {
    socket.lock().unwrap_or_else(PoisonError::into_inner)
}
