//! The dedup index: which push ids were accepted within the window, at which offsets. In memory; the writer alone touches it.
//!
//! Marks lie in chunks in the order of their offsets, 24 bytes each (key, checksum of the body, time relative to the chunk); the
//! offset is the mark's place. A hash table of 4-byte places finds them. That is 24 + 4 to 10 bytes per mark, and no allocation
//! per mark. Whole chunks leave at the front once their newest mark is out of the window.

use std::collections::VecDeque;

use hashbrown::HashTable;

use super::frame::{Key, NO_KEY};

/// Marks in a chunk.
const CHUNK: u64 = 4096;
/// Chunks are numbered modulo this; more never live at one time.
const CHUNK_NUMBERS: u32 = 1 << 20;

/// What is known of a push id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    pub offset: u64,
    pub body_crc: u32,
}

#[derive(Clone, Copy)]
struct Mark {
    key: Key,
    body_crc: u32,
    /// Milliseconds after the chunk's `base_ms`.
    after_ms: u32,
}

struct Chunk {
    /// The offset of its first mark.
    base: u64,
    base_ms: i64,
    newest_ms: i64,
    marks: Vec<Mark>,
}

pub(super) struct DedupIndex {
    window_ms: i64,
    chunks: VecDeque<Chunk>,
    /// The number of the first chunk.
    front: u32,
    /// Chunk number and place in the chunk, in one.
    table: HashTable<u32>,
}

impl DedupIndex {
    pub(super) fn new(window_ms: i64) -> Self {
        Self { window_ms, chunks: VecDeque::new(), front: 0, table: HashTable::new() }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// What is known of `key` at the time `now_ms`.
    pub(super) fn find(&self, key: &Key, now_ms: i64) -> Option<Known> {
        let place = *self.table.find(hash(key), |place| self.mark(*place).1.key == *key)?;
        let (chunk, mark) = self.mark(place);
        let received_ms = chunk.base_ms + i64::from(mark.after_ms);
        let is_known = now_ms.saturating_sub(received_ms) < self.window_ms;
        is_known.then(|| Known { offset: chunk.base + u64::from(place) % CHUNK, body_crc: mark.body_crc })
    }

    /// Adds a mark; an older mark of the same key gives way. Offsets come in their order: one that is not greater than all before
    /// (two files that claim it) changes nothing.
    pub(super) fn insert(&mut self, offset: u64, key: Key, body_crc: u32, received_ms: i64) {
        if self.chunks.back().is_some_and(|chunk| offset < chunk.base + chunk.marks.len() as u64) {
            return;
        }
        self.forget(&key);
        let after_ms = self.room_for(offset, received_ms);
        let number = self.number_of(self.chunks.len() - 1);
        let chunk = self.chunks.back_mut().expect("room was made");
        // Offsets without a mark take a place each, so that the place says the offset.
        let missing = (offset - chunk.base) as usize - chunk.marks.len();
        chunk.marks.extend(std::iter::repeat_n(Mark { key: NO_KEY, body_crc: 0, after_ms: 0 }, missing));
        let place = number * CHUNK as u32 + chunk.marks.len() as u32;
        chunk.marks.push(Mark { key, body_crc, after_ms });
        chunk.newest_ms = chunk.newest_ms.max(received_ms);
        let (chunks, front) = (&self.chunks, self.front);
        self.table.insert_unique(hash(&key), place, |place| hash(&mark_in(chunks, front, *place).1.key));
    }

    /// Takes back every mark at `offset` and behind it.
    pub(super) fn take_back_from(&mut self, offset: u64) {
        while let Some(chunk) = self.chunks.back_mut() {
            if chunk.base + (chunk.marks.len() as u64) <= offset {
                return;
            }
            let place_in_chunk = (chunk.marks.len() - 1) as u32;
            let mark = chunk.marks.pop().expect("a chunk is never empty");
            let is_empty = chunk.marks.is_empty();
            let place = self.number_of(self.chunks.len() - 1) * CHUNK as u32 + place_in_chunk;
            self.remove_place(&mark.key, place);
            if is_empty {
                self.chunks.pop_back();
            }
        }
    }

    /// Lets go of chunks whose marks are all out of the window.
    pub(super) fn expire(&mut self, now_ms: i64) {
        while let Some(chunk) = self.chunks.front() {
            if now_ms.saturating_sub(chunk.newest_ms) < self.window_ms {
                return;
            }
            let chunk = self.chunks.pop_front().expect("just seen");
            for (place, mark) in chunk.marks.iter().enumerate() {
                self.remove_place(&mark.key, self.front * CHUNK as u32 + place as u32);
            }
            self.front = (self.front + 1) % CHUNK_NUMBERS;
            if self.table.len() * 4 < self.table.capacity() {
                let (chunks, front) = (&self.chunks, self.front);
                self.table.shrink_to(self.table.len() * 2, |place| hash(&mark_in(chunks, front, *place).1.key));
            }
        }
    }

    /// Makes sure that the last chunk can take `offset` at `received_ms`; gives the time relative to it.
    fn room_for(&mut self, offset: u64, received_ms: i64) -> u32 {
        if let Some(chunk) = self.chunks.back() {
            let after_ms = received_ms.checked_sub(chunk.base_ms).and_then(|after| u32::try_from(after).ok());
            if offset - chunk.base < CHUNK
                && let Some(after_ms) = after_ms
            {
                return after_ms;
            }
        }
        // A minute of slack, so that clocks that disagree a little share a chunk.
        let base_ms = received_ms.saturating_sub(60_000);
        let marks = Vec::with_capacity(CHUNK as usize);
        self.chunks.push_back(Chunk { base: offset, base_ms, newest_ms: received_ms, marks });
        u32::try_from(received_ms - base_ms).expect("at most a minute")
    }

    fn forget(&mut self, key: &Key) {
        if let Ok(found) =
            self.table.find_entry(hash(key), |place| mark_in(&self.chunks, self.front, *place).1.key == *key)
        {
            let (place, _) = found.remove();
            let index = chunk_index(self.front, place);
            self.chunks[index].marks[(place % CHUNK as u32) as usize].key = NO_KEY;
        }
    }

    fn remove_place(&mut self, key: &Key, place: u32) {
        if *key != NO_KEY
            && let Ok(found) = self.table.find_entry(hash(key), |other| *other == place)
        {
            found.remove();
        }
    }

    fn number_of(&self, index: usize) -> u32 {
        (self.front + index as u32) % CHUNK_NUMBERS
    }

    fn mark(&self, place: u32) -> (&Chunk, &Mark) {
        mark_in(&self.chunks, self.front, place)
    }
}

fn mark_in(chunks: &VecDeque<Chunk>, front: u32, place: u32) -> (&Chunk, &Mark) {
    let chunk = &chunks[chunk_index(front, place)];
    (chunk, &chunk.marks[(place % CHUNK as u32) as usize])
}

fn chunk_index(front: u32, place: u32) -> usize {
    ((place / CHUNK as u32 + CHUNK_NUMBERS - front) % CHUNK_NUMBERS) as usize
}

/// Keys are a cryptographic hash already.
fn hash(key: &Key) -> u64 {
    u64::from_le_bytes(key[..8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn key(number: u64) -> Key {
        let mut key = [1; 16];
        key[..8].copy_from_slice(&number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes());
        key
    }

    #[test]
    fn a_mark_is_known_until_its_window_is_over() {
        let mut index = DedupIndex::new(1_000);
        index.insert(5, key(1), 77, 10_000);
        assert_eq!(index.find(&key(1), 10_999), Some(Known { offset: 5, body_crc: 77 }));
        assert_eq!(index.find(&key(1), 11_000), None);
        index.insert(6, key(1), 78, 11_000);
        assert_eq!(index.find(&key(1), 11_000), Some(Known { offset: 6, body_crc: 78 }));
        index.expire(12_000);
        assert_eq!(index.len(), 0);
    }

    #[test]
    fn an_offset_that_was_there_before_changes_nothing() {
        let mut index = DedupIndex::new(1_000);
        index.insert(5, key(1), 0, 0);
        index.insert(5, key(2), 0, 0);
        assert_eq!((index.find(&key(1), 0).map(|known| known.offset), index.find(&key(2), 0)), (Some(5), None));
    }

    #[test]
    fn a_gap_of_any_size_costs_nothing() {
        let mut index = DedupIndex::new(1_000);
        index.insert(1, key(1), 0, 0);
        index.insert(u64::MAX / 2, key(2), 0, 0);
        assert_eq!(index.find(&key(2), 0).unwrap().offset, u64::MAX / 2);
    }

    proptest! {
        #[test]
        fn it_answers_as_a_plain_map_does(
            operations in proptest::collection::vec((0_u64..40, 0_i64..400, 0_u8..12), 1..400)
        ) {
            let mut index = DedupIndex::new(2_000);
            let mut model: HashMap<u64, (u64, i64)> = HashMap::new();
            let (mut next, mut now) = (1_u64, 0_i64);
            for (id, wait, choice) in operations {
                now += wait;
                match choice {
                    0 => index.expire(now),
                    1 => {
                        let from = next.saturating_sub(id % 3);
                        model.retain(|_, (offset, _)| *offset < from);
                        index.take_back_from(from);
                    }
                    2 => next += id * 300,
                    _ => {
                        let known = model.get(&id).filter(|(_, at)| now - at < 2_000).map(|(offset, _)| *offset);
                        prop_assert_eq!(index.find(&key(id), now).map(|known| known.offset), known);
                        if known.is_none() {
                            index.insert(next, key(id), 0, now);
                            model.insert(id, (next, now));
                            next += 1;
                        }
                    }
                }
            }
        }
    }
}
