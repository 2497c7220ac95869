//! Whose turn it is: the order of every session, and which sessions may go. Pure, with no look into pushes.
//!
//! A session is *busy* while one of its entries is out of its queue and not settled, *parked* until a time after a failure, else
//! *free*. Only free sessions give entries, so that nothing overtakes within a session; between sessions the oldest entry goes
//! first. Every operation costs O(log sessions), however long the queues are.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use tokio::time::Instant;

/// Numbers the entries in hand in journal order.
pub(super) type Seq = u64;

/// A session id, or the push id where there is no session.
pub(super) type Key = Arc<str>;

/// A number of entries and the bytes of their bodies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) events: usize,
    pub(super) bytes: u64,
}

#[derive(Debug, Default)]
struct Session {
    /// Not out, by rising seq, with the size of each.
    waiting: VecDeque<(Seq, u64)>,
    waiting_bytes: u64,
    /// How many are out and not settled.
    busy: usize,
    parked_until: Option<Instant>,
}

#[derive(Debug, Default)]
pub(super) struct Sessions {
    by_key: HashMap<Key, Session>,
    /// The first entry of every free session.
    ready: BTreeMap<Seq, Key>,
    /// The sessions that wait for a time and for nothing else.
    parked: BTreeSet<(Instant, Key)>,
    /// What free sessions hold.
    available: Load,
}

impl Session {
    fn is_free(&self) -> bool {
        self.busy == 0 && self.parked_until.is_none()
    }

    fn load(&self) -> Load {
        Load { events: self.waiting.len(), bytes: self.waiting_bytes }
    }
}

impl Sessions {
    /// What could go out now.
    pub(super) fn available(&self) -> Load {
        self.available
    }

    /// The oldest entry that could go out now.
    pub(super) fn first_ready(&self) -> Option<Seq> {
        self.ready.first_key_value().map(|(seq, _)| *seq)
    }

    /// When the next parked session becomes free.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.parked.first().map(|(until, _)| *until)
    }

    /// How many entries of a session are out and not settled.
    pub(super) fn busy(&self, key: &Key) -> usize {
        self.by_key.get(key).map_or(0, |session| session.busy)
    }

    /// Appends an entry that was read.
    pub(super) fn append(&mut self, key: &Key, seq: Seq, bytes: u64) {
        let session = self.by_key.entry(key.clone()).or_default();
        session.waiting.push_back((seq, bytes));
        session.waiting_bytes += bytes;
        if session.is_free() {
            self.available.events += 1;
            self.available.bytes += bytes;
            if session.waiting.len() == 1 {
                self.ready.insert(seq, key.clone());
            }
        }
    }

    /// Marks a session busy with an entry that never waits: its fate is decided on reading, or it is a replayed dead letter.
    pub(super) fn occupy(&mut self, key: &Key) {
        let session = self.by_key.entry(key.clone()).or_default();
        if session.is_free()
            && let Some((head, _)) = session.waiting.front()
        {
            self.ready.remove(head);
            let load = session.load();
            self.available.events -= load.events;
            self.available.bytes -= load.bytes;
        }
        session.busy += 1;
    }

    /// Takes entries of free sessions in journal order, up to `limits` but at least one where one is available, none behind
    /// `through`. Their sessions are busy afterwards.
    pub(super) fn take(&mut self, limits: Load, through: Option<Seq>) -> Vec<Seq> {
        let mut taken = Vec::new();
        let mut taken_bytes = 0;
        let mut touched = Vec::new();
        while let Some(first) = self.ready.first_entry() {
            let session = self.by_key.get_mut(first.get()).expect("a ready session is known");
            let (seq, bytes) = *session.waiting.front().expect("a ready session has entries");
            let is_full = taken.len() >= limits.events.max(1) || taken_bytes + bytes > limits.bytes;
            if (is_full && !taken.is_empty()) || through.is_some_and(|last| seq > last) {
                break;
            }
            let key = first.remove();
            session.waiting.pop_front();
            session.waiting_bytes -= bytes;
            self.available.events -= 1;
            self.available.bytes -= bytes;
            session.busy += 1;
            taken_bytes += bytes;
            taken.push(seq);
            let is_first_of_session = session.busy == 1;
            match session.waiting.front() {
                Some((next, _)) if is_first_of_session => {
                    self.ready.insert(*next, key.clone());
                    touched.push(key);
                }
                Some((next, _)) => {
                    self.ready.insert(*next, key);
                }
                None => {}
            }
        }
        // While the batch was filled, its sessions stayed ready; what is left of them has to wait now.
        for key in touched {
            let session = &self.by_key[&key];
            if let Some((head, _)) = session.waiting.front() {
                self.ready.remove(head);
                let load = session.load();
                self.available.events -= load.events;
                self.available.bytes -= load.bytes;
            }
        }
        taken
    }

    /// An entry that was out is settled.
    pub(super) fn settle(&mut self, key: &Key) {
        self.session(key).busy -= 1;
        self.review(key);
    }

    /// An entry that was out goes back to the head of its session, which then waits until `not_before`, where given. Entries of one
    /// session are put back last first.
    pub(super) fn put_back(&mut self, key: &Key, seq: Seq, bytes: u64, not_before: Option<Instant>) {
        let session = self.session(key);
        session.busy -= 1;
        session.waiting.push_front((seq, bytes));
        session.waiting_bytes += bytes;
        session.parked_until = session.parked_until.max(not_before);
        self.review(key);
    }

    /// Frees the sessions whose time has come.
    pub(super) fn wake(&mut self, now: Instant) {
        while self.next_due().is_some_and(|due| due <= now) {
            let (_, key) = self.parked.pop_first().expect("one is due");
            self.session(&key).parked_until = None;
            self.review(&key);
        }
    }

    /// Puts a session where it belongs after one of its entries came back.
    fn review(&mut self, key: &Key) {
        let session = self.by_key.get(key).expect("an entry in hand has a session");
        if session.busy > 0 {
            return;
        }
        match (session.waiting.front(), session.parked_until) {
            (None, _) => {
                self.by_key.remove(key);
            }
            (Some(_), Some(until)) => {
                self.parked.insert((until, key.clone()));
            }
            (Some((head, _)), None) => {
                self.ready.insert(*head, key.clone());
                let load = session.load();
                self.available.events += load.events;
                self.available.bytes += load.bytes;
            }
        }
    }

    fn session(&mut self, key: &Key) -> &mut Session {
        self.by_key.get_mut(key).expect("an entry in hand has a session")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const ALL: Load = Load { events: 100, bytes: u64::MAX };

    fn sessions(entries: &[(&str, Seq)]) -> Sessions {
        let mut sessions = Sessions::default();
        for (key, seq) in entries {
            sessions.append(&Key::from(*key), *seq, 10);
        }
        sessions
    }

    #[test]
    fn a_batch_is_filled_in_journal_order_over_sessions() {
        let mut sessions = sessions(&[("a", 1), ("b", 2), ("a", 3), ("c", 4), ("b", 5)]);
        assert_eq!(sessions.take(Load { events: 3, ..ALL }, None), [1, 2, 3]);
        assert_eq!(sessions.available(), Load { events: 1, bytes: 10 });
        assert_eq!(sessions.take(ALL, None), [4]);
        assert_eq!(sessions.available(), Load::default());
    }

    #[test]
    fn bytes_bound_a_batch_but_a_large_entry_still_goes() {
        let mut sessions = sessions(&[("a", 1), ("b", 2), ("c", 3)]);
        assert_eq!(sessions.take(Load { events: 9, bytes: 25 }, None), [1, 2]);
        assert_eq!(sessions.take(Load { events: 9, bytes: 5 }, None), [3]);
    }

    #[test]
    fn a_busy_session_waits_and_others_pass() {
        let mut sessions = sessions(&[("a", 1)]);
        assert_eq!(sessions.take(ALL, None), [1]);
        sessions.append(&Key::from("a"), 2, 10);
        sessions.append(&Key::from("b"), 3, 10);
        assert_eq!(sessions.take(ALL, None), [3]);
        sessions.settle(&Key::from("a"));
        assert_eq!(sessions.take(ALL, None), [2]);
    }

    #[test]
    fn a_parked_session_goes_on_in_order_when_its_time_has_come() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let a = Key::from("a");
        let mut sessions = sessions(&[("a", 1), ("a", 2), ("a", 3)]);
        assert_eq!(sessions.take(Load { events: 2, ..ALL }, None), [1, 2]);
        sessions.put_back(&a, 2, 10, None);
        assert_eq!(sessions.take(ALL, None), [] as [Seq; 0]);
        sessions.put_back(&a, 1, 10, Some(later));
        sessions.wake(now);
        assert_eq!((sessions.available().events, sessions.next_due()), (0, Some(later)));
        sessions.wake(later);
        assert_eq!(sessions.take(ALL, None), [1, 2, 3]);
    }

    #[test]
    fn nothing_is_kept_of_a_session_without_entries() {
        let mut sessions = sessions(&[("a", 1)]);
        assert_eq!(sessions.take(ALL, None), [1]);
        sessions.settle(&Key::from("a"));
        assert!(sessions.by_key.is_empty() && sessions.ready.is_empty() && sessions.parked.is_empty());
    }
}
