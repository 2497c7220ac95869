//! Random operations, faults and power cuts against a model that knows what was promised.
//!
//! The model holds what was acknowledged, what may have been written although it was not, and what each sink settled. After every
//! opening, and at the end, the journal must hold all of the first, nothing twice, and every sink must still see what it has not
//! settled.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::sim_fs::{Fault, SimFs};
use super::*;
use crate::journal::conformance::{letter, push, read_all};
use crate::journal::{Item, Lease};
use crate::metrics::Metrics;

#[derive(Debug, Clone)]
enum Operation {
    /// Some pushes together; ids are few, so that many are resends.
    Accept(Vec<(u8, u16)>),
    /// The sink reads on and settles this many.
    Settle {
        sink: u8,
        count: u8,
        dead: bool,
    },
    Forget(u8),
    Fault(Fault),
    /// Closed and opened again.
    Reopen,
    /// Power is lost at the nth change from now, and the journal opened again at the next chance.
    PowerCut {
        after: u8,
    },
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        10 => proptest::collection::vec((0_u8..60, 0_u16..700), 1..8).prop_map(Operation::Accept),
        6 => (0_u8..2, 1_u8..12, any::<bool>()).prop_map(|(sink, count, dead)| Operation::Settle { sink, count, dead }),
        1 => (0_u8..2).prop_map(Operation::Forget),
        2 => prop_oneof![Just(Fault::Write), Just(Fault::Sync), Just(Fault::Full)].prop_map(Operation::Fault),
        1 => Just(Operation::Reopen),
        2 => (0_u8..40).prop_map(|after| Operation::PowerCut { after }),
    ]
}

/// What the journal owes.
#[derive(Default)]
struct Model {
    /// Acknowledged: id to offset.
    acknowledged: BTreeMap<String, Offset>,
    /// Per registered sink: where it began, and what it settled (delivered, or a dead letter).
    sinks: BTreeMap<SinkName, SinkModel>,
}

#[derive(Default, Clone)]
struct SinkModel {
    start: Offset,
    checkpoint: Checkpoint,
    /// Failed since the last one that did not: each may have happened, and be seen after a restart.
    maybe: Vec<Checkpoint>,
    dead: BTreeSet<u64>,
    maybe_dead: BTreeSet<u64>,
}

struct Run {
    disk: SimFs,
    options: Options,
    journal: Option<DiskJournal>,
    model: Model,
    power_cut_due: bool,
}

impl Run {
    fn open(&mut self) {
        let opened = open::open(Arc::new(self.disk.clone()), self.options.clone(), Metrics::new().journal);
        self.journal = Some(opened.unwrap_or_else(|error| panic!("it must always open: {error}")));
    }

    fn journal(&self) -> &DiskJournal {
        self.journal.as_ref().unwrap()
    }

    /// After a power cut everything that fails, fails; then comes the restart.
    async fn restart(&mut self) {
        self.journal = None;
        self.disk.restart();
        self.power_cut_due = false;
        self.open();
        self.check().await;
    }

    async fn run(&mut self, operation: Operation) {
        match operation {
            Operation::Accept(pushes) => self.accept(pushes).await,
            Operation::Settle { sink, count, dead } => self.settle(sink, count, dead).await,
            Operation::Forget(sink) => self.forget(sink).await,
            Operation::Fault(fault) => self.disk.fail_once(fault),
            Operation::Reopen if self.power_cut_due => self.restart().await,
            Operation::Reopen => {
                self.disk.clear_faults();
                self.journal().close().await;
                self.journal = None;
                self.open();
                self.check().await;
            }
            Operation::PowerCut { .. } if self.power_cut_due => self.restart().await,
            Operation::PowerCut { after } => {
                self.disk.off_after(u64::from(after));
                self.power_cut_due = true;
            }
        }
    }

    async fn accept(&mut self, pushes: Vec<(u8, u16)>) {
        let pushes: Vec<_> = pushes
            .into_iter()
            .map(|(id, size)| Push {
                body: vec![id; size.into()].into(),
                ..push(&id.to_string(), &(id % 5).to_string(), 0)
            })
            .collect();
        let answers = futures::future::join_all(pushes.iter().map(|push| self.journal().accept(push.clone()))).await;
        for (push, answer) in pushes.into_iter().zip(answers) {
            let id = push.id.as_str().to_owned();
            match answer {
                Ok(Accepted::New { offset }) => {
                    let before = self.model.acknowledged.insert(id, offset);
                    assert_eq!(before, None, "I2: an acknowledged push was new again");
                }
                Ok(Accepted::Duplicate { offset, .. }) => {
                    let before = self.model.acknowledged.insert(id, offset);
                    assert!(before.is_none_or(|before| before == offset), "I2: a push has two offsets");
                }
                Err(AcceptError::TooLarge { .. }) => panic!("it fits"),
                Err(_) => {}
            }
        }
    }

    async fn settle(&mut self, sink: u8, count: u8, dead: bool) {
        let sink: SinkName = SinkName::new(format!("sink-{sink}"));
        if !self.model.sinks.contains_key(&sink) {
            if self.journal().register_sink(&sink, Start::Now).await.is_ok() {
                let start = self.journal().lease(&sink, 0).await.map(|lease| lease.unwrap().checkpoint.low);
                let Ok(start) = start else { return };
                let checkpoint = Checkpoint { low: start, ..Checkpoint::default() };
                self.model.sinks.insert(sink, SinkModel { start, checkpoint, ..SinkModel::default() });
            }
            return;
        }
        let Ok(Some(Lease { fence, checkpoint })) = self.journal().lease(&sink, 0).await else { return };
        self.check_lease(&sink, &checkpoint);
        let limits = ReadLimits { events_max: count.into(), bytes_max: 1 << 20 };
        let Ok(page) = self.journal().read(0, checkpoint.low, limits).await else { return };
        let Some(last) = page.items.last().map(|item| item.entry().clone()) else { return };
        // The last entry is settled above, or becomes a dead letter; everything before it is delivered.
        let before = page.items.len().checked_sub(2).map_or(checkpoint.low, |index| page.items[index].entry().offset);
        let settled_above = vec![last.offset];
        let next = Checkpoint { low: before, settled_above, ..Checkpoint::default() };
        let model = self.model.sinks.get_mut(&sink).unwrap();
        model.maybe.push(next.clone());
        let done = if dead {
            model.maybe_dead.insert(last.offset.0);
            let letters = vec![letter(&sink, 0, last.offset, &last.push)];
            self.journal().dead_letter(&fence, letters, 1000, &next).await
        } else {
            self.journal().commit(&fence, &next).await
        };
        if done.is_ok() {
            let model = self.model.sinks.get_mut(&sink).unwrap();
            (model.checkpoint, model.maybe) = (next, Vec::new());
            if dead {
                model.dead.insert(last.offset.0);
            }
        }
    }

    /// What the journal says a sink settled must be what it settled, or was about to.
    fn check_lease(&mut self, sink: &SinkName, found: &Checkpoint) {
        let model = self.model.sinks.get_mut(sink).unwrap();
        let merged = |checkpoint: &Checkpoint| {
            let dead = model.dead.iter().chain(&model.maybe_dead).map(|number| Offset(*number));
            let above: BTreeSet<_> = checkpoint.settled_above.iter().copied().chain(dead).collect();
            (checkpoint.low, above)
        };
        let fits = |checkpoint: &Checkpoint| {
            let (low, above) = merged(checkpoint);
            let covers = |offset: &Offset| found.settles(*offset);
            found.low == low
                && found.settled_above.iter().all(|offset| above.contains(offset))
                && checkpoint.settled_above.iter().all(covers)
        };
        assert!(
            fits(&model.checkpoint) || model.maybe.iter().any(fits),
            "I3: {found:?} is neither {:?} nor {:?}",
            model.checkpoint,
            model.maybe
        );
        model.checkpoint = found.clone();
    }

    async fn forget(&mut self, sink: u8) {
        let sink: SinkName = SinkName::new(format!("sink-{sink}"));
        self.model.sinks.remove(&sink);
        if self.journal().forget_sink(&sink).await.is_err() {
            // It may be half forgotten; nothing is owed to it, and it is forgotten for sure before anything else.
            self.restart().await;
            self.journal().forget_sink(&sink).await.unwrap();
        }
    }

    async fn check(&mut self) {
        let names = self.journal().sinks().await.unwrap();
        for sink in self.model.sinks.clone().into_keys() {
            assert!(names.contains(&sink), "a registered sink is gone");
            let lease = self.journal().lease(&sink, 0).await.unwrap().unwrap();
            self.check_lease(&sink, &lease.checkpoint);
        }
        let items = read_all(self.journal(), 0, Offset::ZERO).await;
        let mut seen = BTreeMap::new();
        let mut sessions: BTreeMap<_, Offset> = BTreeMap::new();
        for item in &items {
            let Item::Entry(entry) = item else { panic!("corrupt without a flipped bit") };
            let id = entry.push.id.as_str().to_owned();
            assert!(entry.push.body.iter().all(|byte| byte.to_string() == id), "a body is another's");
            let before = seen.insert(id.clone(), entry.offset);
            assert_eq!(before, None, "I2: {id} stands twice in the journal");
            let latest = sessions.insert(entry.push.session.clone(), entry.offset);
            assert!(latest.is_none_or(|latest| latest < entry.offset), "I5: order");
        }
        for (id, offset) in &self.model.acknowledged {
            if let Some(found) = seen.get(id) {
                assert_eq!(found, offset, "I2: {id} moved");
            }
            for (sink, model) in &self.model.sinks {
                let owed = *offset > model.start
                    && *offset > model.checkpoint.low
                    && !model.checkpoint.settled_above.contains(offset);
                assert!(!owed || seen.contains_key(id), "I1: {id} at {offset} is lost for {sink}");
            }
        }
        for (sink, model) in &self.model.sinks {
            for number in &model.dead {
                let id = DeadLetterId { sink: sink.clone(), number: *number };
                let kept = self.journal().dead_letter_of(&id).await.unwrap();
                assert!(kept.is_some(), "a dead letter is lost");
            }
        }
    }
}

async fn run(seed: u64, operations: Vec<Operation>) {
    let options = Options {
        dir: "/journal".into(),
        segment_size: 4096,
        size_max: 10 * 4096,
        reserve: 0,
        dedup_window: Duration::from_secs(3600),
    };
    let disk = SimFs::new(seed);
    let mut run = Run { disk, options, journal: None, model: Model::default(), power_cut_due: false };
    run.open();
    for operation in operations {
        run.run(operation).await;
    }
    run.restart().await;
    run.restart().await;
    // Whatever happened, it takes pushes again once the faults are over (space has to be given back first).
    for sink in run.model.sinks.clone().into_keys() {
        run.journal().forget_sink(&sink).await.unwrap();
    }
    run.journal().accept(push("at last", "s", 0)).await.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_acknowledged_is_lost_and_nothing_is_there_twice(
        seed: u64,
        operations in proptest::collection::vec(operation(), 1..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(seed, operations));
    }
}
