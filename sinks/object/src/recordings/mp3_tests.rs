//! Durations of files made frame by frame, in pieces of any size, and of garbage.

use proptest::collection::vec;
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

use super::*;

/// MPEG-1 layer III, 44.1 kHz, stereo: 417 or 418 bytes at 128 kbit/s.
fn frame(kbits_index: u8, is_padded: bool) -> Vec<u8> {
    let header = [0xff, 0xfb, kbits_index << 4 | u8::from(is_padded) << 1, 0x40];
    let len = Header::read(&header).unwrap().len;
    let mut frame = vec![0x55; len];
    frame[..4].copy_from_slice(&header);
    frame
}

fn frames(count: usize) -> Vec<u8> {
    (0..count).flat_map(|n| frame(9, n % 3 == 0)).collect()
}

/// A first frame with a count.
fn counting(mark: &[u8], at: usize, count_at: usize, flags: &[u8], count: u32) -> Vec<u8> {
    let mut first = frame(9, false);
    first[4..].fill(0);
    first[at..at + 4].copy_from_slice(mark);
    first[at + 4..at + 4 + flags.len()].copy_from_slice(flags);
    first[count_at..count_at + 4].copy_from_slice(&count.to_be_bytes());
    first
}

fn id3v2(len: usize) -> Vec<u8> {
    let size = [(len >> 21) as u8 & 0x7f, (len >> 14) as u8 & 0x7f, (len >> 7) as u8 & 0x7f, len as u8 & 0x7f];
    [b"ID3\x04\x00\x00".as_slice(), &size, &vec![0xff; len]].concat()
}

fn seconds(bytes: &[u8], piece: usize) -> Option<f64> {
    let mut clock = Clock::default();
    bytes.chunks(piece).for_each(|bytes| clock.feed(bytes));
    clock.seconds()
}

fn of_frames(count: u32) -> Option<f64> {
    Some((f64::from(count) * 1_152_000.0 / 44_100.0).round() / 1000.0)
}

#[test]
fn frames_are_counted_in_pieces_of_any_size() {
    let bytes = frames(100);
    for piece in [1, 2, 3, 417, 1000, 1 << 20] {
        assert_eq!(seconds(&bytes, piece), of_frames(100), "{piece}");
    }
}

#[test]
fn tags_are_passed_over() {
    let tag = [b"TAG".as_slice(), &[0xff, 0xfb, 0x90, 0x40].repeat(31)].concat();
    let bytes = [id3v2(3000), id3v2(20), frames(50), tag].concat();
    assert_eq!(seconds(&bytes, 100), of_frames(50));
}

#[test]
fn a_changing_bit_rate_does_not_matter() {
    let bytes: Vec<u8> = (0..200_u8).flat_map(|n| frame(1 + n % 14, n % 5 == 0)).collect();
    assert_eq!(seconds(&bytes, 999), of_frames(200));
}

#[test]
fn a_frame_that_counts_the_others_is_none_of_them() {
    let xing = counting(b"Xing", 36, 44, &[0, 0, 0, 1], 40);
    let info = counting(b"Info", 36, 44, &[0, 0, 0, 15], 40);
    let vbri = counting(b"VBRI", 36, 50, &[0, 1], 40);
    for first in [xing, info, vbri] {
        assert_eq!(seconds(&[first, frames(40)].concat(), 64), of_frames(40));
    }
}

#[test]
fn where_frames_cannot_be_followed_the_count_is_believed() {
    let bytes = [counting(b"Xing", 36, 44, &[0, 0, 0, 1], 1000), frame(9, false), vec![0; 100_000]].concat();
    assert_eq!(seconds(&bytes, 4096), of_frames(1000));
    let bytes = [frames(2), vec![0; 100_000]].concat();
    assert_eq!(seconds(&bytes, 4096), None);
}

#[test]
fn a_frame_that_is_cut_off_does_not_play() {
    let bytes = frames(10);
    assert_eq!(seconds(&bytes[..bytes.len() - 5], 50), of_frames(9));
}

#[test]
fn other_versions_and_layers_have_their_own_tables() {
    // MPEG-2 layer III, 16 kHz, 32 kbit/s, mono: 144 bytes of 576 samples; MPEG-1 layer II, 48 kHz, 192 kbit/s: 576 bytes.
    for (header, len, expected) in [
        ([0xff, 0xf3, 0x48, 0xc0], 144, 100.0 * 576.0 / 16_000.0),
        ([0xff, 0xfd, 0xa4, 0x00], 576, 100.0 * 1152.0 / 48_000.0),
    ] {
        let mut frame = vec![0; len];
        frame[..4].copy_from_slice(&header);
        assert_eq!(seconds(&frame.repeat(100), 77), Some(expected));
    }
}

#[test]
fn a_file_of_one_frame_and_no_file_at_all() {
    assert_eq!(seconds(&frames(1), 10), of_frames(1));
    assert_eq!(seconds(&[], 10), None);
    assert_eq!(seconds(b"ID3", 10), None);
}

proptest! {
    #[test]
    fn garbage_does_no_harm_and_pieces_make_no_difference(bytes in vec(any::<u8>(), 0..5000), piece in 1_usize..600) {
        let whole = seconds(&bytes, bytes.len().max(1));
        prop_assert_eq!(seconds(&bytes, piece), whole);
        prop_assert!(whole.is_none_or(|seconds| seconds.is_finite() && seconds >= 0.0));
    }

    #[test]
    fn headers_in_garbage_do_no_harm(
        parts in vec((any::<[u8; 3]>(), vec(any::<u8>(), 0..300)), 0..30),
        piece in 1_usize..600,
    ) {
        let bytes: Vec<u8> = parts.into_iter().flat_map(|(header, body)| [vec![0xff], header.to_vec(), body].concat()).collect();
        let whole = seconds(&bytes, bytes.len().max(1));
        prop_assert_eq!(seconds(&bytes, piece), whole);
    }

    #[test]
    fn a_file_cut_anywhere_plays_no_longer_than_the_whole(count in 1_usize..40, cut in 0_usize..20_000) {
        let bytes = frames(count);
        let whole = seconds(&bytes, 512);
        let shorter = seconds(&bytes[..cut.min(bytes.len())], 512);
        prop_assert!(shorter <= whole);
    }
}
