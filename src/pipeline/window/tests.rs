use sink_api::settings::Size;

use super::super::tests::push;
use super::*;

const ALL: Load = Load { events: usize::MAX, bytes: u64::MAX };

fn window(events_max: usize, checkpoint: Checkpoint) -> Window {
    Window::new(model::Window { events_max, bytes_max: Size(1000) }, checkpoint, None)
}

fn admit(window: &mut Window, offset: u64, session: &str) {
    let push = push(&offset.to_string(), Some(session));
    window.admit(Entry { offset: Offset(offset), push }, Instant::now());
}

fn seqs(parcels: &[Parcel]) -> Vec<Seq> {
    parcels.iter().map(|parcel| parcel.seq).collect()
}

#[test]
fn the_low_watermark_stays_before_the_oldest_entry_that_is_not_settled() {
    let mut window = window(10, Checkpoint { low: Offset(3), ..Checkpoint::default() });
    for (offset, session) in [(5, "a"), (6, "b"), (9, "c")] {
        admit(&mut window, offset, session);
    }
    window.read_through(Offset(12));
    let out = seqs(&window.take(ALL));
    window.settle(out[1]);
    let checkpoint = window.checkpoint(&[]);
    assert_eq!((checkpoint.low, checkpoint.settled_above), (Offset(4), vec![Offset(6)]));
    window.settle(out[0]);
    assert_eq!((window.low(), window.checkpoint(&[]).settled_above), (Offset(8), vec![]));
    window.settle(out[2]);
    assert_eq!(window.low(), Offset(12));
}

#[test]
fn skipped_entries_take_no_room_and_are_passed() {
    let mut window = window(2, Checkpoint::default());
    (1..=100).for_each(|offset| window.skip(Offset(offset)));
    assert_eq!((window.low(), window.skipped()), (Offset(100), 0));
    admit(&mut window, 101, "a");
    (102..=200).for_each(|offset| window.skip(Offset(offset)));
    assert_eq!((window.low(), window.skipped(), window.room().unwrap().events_max), (Offset(100), 99, 1));
    let out = seqs(&window.take(ALL));
    window.settle(out[0]);
    assert_eq!((window.low(), window.skipped()), (Offset(200), 0));
}

#[test]
fn a_full_window_has_no_room_until_its_oldest_entry_is_settled() {
    let mut window = window(2, Checkpoint::default());
    admit(&mut window, 1, "a");
    admit(&mut window, 2, "b");
    assert!(window.room().is_none());
    let out = seqs(&window.take(ALL));
    window.settle(out[1]);
    assert!(window.room().is_none(), "what is settled above the watermark counts");
    window.settle(out[0]);
    assert_eq!(window.room().unwrap().events_max, 2);
}

#[test]
fn bytes_are_given_back_when_an_entry_is_settled() {
    let mut window = window(10, Checkpoint::default());
    for offset in 1..=2 {
        let push = Push { body: Bytes::from(vec![b' '; 600]), ..push(&offset.to_string(), None) };
        window.admit(Entry { offset: Offset(offset), push }, Instant::now());
    }
    assert!(window.room().is_none());
    let out = seqs(&window.take(ALL));
    window.settle(out[1]);
    assert_eq!(window.room().unwrap().bytes_max, 400);
}

#[test]
fn what_the_checkpoint_knows_is_neither_delivered_again_nor_forgotten_before_it_is_read() {
    let attempts = |offset| Attempts { offset: Offset(offset), count: 2, first_at: Timestamp::UNIX_EPOCH };
    let before = Checkpoint {
        low: Offset(0),
        settled_above: vec![Offset(2), Offset(4), Offset(7)],
        attempts: vec![attempts(1), attempts(6)],
        batch_end: None,
    };
    let mut window = window(10, before.clone());
    assert_eq!(window.checkpoint(&[]), before);
    (1..=3).for_each(|offset| admit(&mut window, offset, &offset.to_string()));
    assert_eq!(window.checkpoint(&[]), before);
    let parcels = window.take(ALL);
    assert_eq!(parcels.iter().map(|parcel| (parcel.offset.0, parcel.attempt)).collect::<Vec<_>>(), [(1, 3), (3, 1)]);
    window.read_through(Offset(5));
    assert_eq!(window.checkpoint(&[]).settled_above, [Offset(2), Offset(7)], "4 is no longer in the journal");
}

#[test]
fn a_dead_letter_counts_as_settled_only_in_the_checkpoint_that_is_saved_with_it() {
    let mut window = window(10, Checkpoint::default());
    (1..=3).for_each(|offset| admit(&mut window, offset, &offset.to_string()));
    let out = seqs(&window.take(ALL));
    let fault = Fault::new("http-400", "no");
    window.doom(out[0], fault.clone(), Timestamp::UNIX_EPOCH);
    window.doom(out[2], fault, Timestamp::UNIX_EPOCH);
    assert_eq!(window.checkpoint(&[]).low, Offset(0));
    let checkpoint = window.checkpoint(&[out[0], out[2]]);
    assert_eq!((checkpoint.low, checkpoint.settled_above), (Offset(1), vec![Offset(3)]));
    window.settle(out[0]);
    assert_eq!((window.low(), window.has_doomed()), (Offset(1), true));
}

#[test]
fn an_announced_batch_is_read_to_its_end_and_taken_whole() {
    let mut window = window(2, Checkpoint { batch_end: Some(Offset(4)), ..Checkpoint::default() });
    (1..=3).for_each(|offset| admit(&mut window, offset, "a"));
    assert!(window.room().is_some());
    assert!(window.take(ALL).is_empty());
    (4..=6).for_each(|offset| admit(&mut window, offset, "a"));
    let out = seqs(&window.take(Load { events: 1, bytes: 1 }));
    assert_eq!(out.len(), 4);
    out.into_iter().for_each(|seq| window.settle(seq));
    assert_eq!((window.batch_end(), window.checkpoint(&[]).batch_end), (None, None));
    window.announce(Load { events: 1, bytes: 1 });
    assert_eq!(window.checkpoint(&[]).batch_end, Some(Offset(5)));
}
