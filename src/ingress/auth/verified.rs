//! Remembers tokens that were found good, so that a signature is checked once and not with every push.
//!
//! Only digests of tokens are kept, and only of good ones, so strangers cannot fill it. Bounded: at [`TOKENS_MAX`] those that have
//! ended make room, and where none has, all of them do.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::{Digest, sha256};

const TOKENS_MAX: usize = 1024;

#[derive(Default)]
pub struct Verified(Mutex<HashMap<Digest, u64>>);

impl Verified {
    /// When this token ends, in Unix seconds, if it was found good before.
    pub fn end_of(&self, token: &[u8]) -> Option<u64> {
        let digest = sha256(token);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&digest).copied()
    }

    /// Remembers a good token that ends at `end`. `now` is the earliest end that is still of use.
    pub fn remember(&self, token: &[u8], end: u64, now: u64) {
        let mut ends = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if ends.len() >= TOKENS_MAX {
            ends.retain(|_, end| *end > now);
        }
        if ends.len() >= TOKENS_MAX {
            ends.clear();
        }
        ends.insert(sha256(token), end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_tokens_are_known_again_and_their_number_is_bounded() {
        let verified = Verified::default();
        for number in 0..5000u32 {
            verified.remember(&number.to_be_bytes(), 10 + u64::from(number % 2), 11);
        }
        assert_eq!(verified.end_of(&4999u32.to_be_bytes()), Some(11));
        assert_eq!(verified.end_of(b"other"), None);
        assert!(verified.0.lock().unwrap().len() <= TOKENS_MAX);
    }
}
