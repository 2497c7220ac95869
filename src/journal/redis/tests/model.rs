//! Random operations and faults against a model that knows what was promised, on a real server.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use test_servers::redis::{Program, Redis};

use super::super::{Durability, Mode, Options};
use super::support::{Opened, open, options, place};
use crate::journal::conformance::{letter, push, read_all};
use crate::journal::{Accepted, Checkpoint, DeadLetterId, Journal, Lease, ReadLimits, Start, shard_of};
use crate::names::{Offset, SinkName};

#[derive(Debug, Clone)]
enum Operation {
    /// Some pushes together; ids are few, so that many are resends.
    Accept(Vec<u8>),
    /// The sink reads on in a shard and settles this many; the last one above the others, perhaps as a dead letter.
    Settle {
        sink: u8,
        shard: u16,
        count: u8,
        dead: bool,
    },
    Forget(u8),
    Reopen,
    /// Redis ends as by `kill -9` and starts again with its data.
    Kill,
    FlushScripts,
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        10 => proptest::collection::vec(0_u8..60, 1..12).prop_map(Operation::Accept),
        8 => (0_u8..2, 0_u16..3, 1_u8..12, any::<bool>())
            .prop_map(|(sink, shard, count, dead)| Operation::Settle { sink, shard, count, dead }),
        1 => (0_u8..2).prop_map(Operation::Forget),
        1 => Just(Operation::Reopen),
        1 => Just(Operation::Kill),
        1 => Just(Operation::FlushScripts),
    ]
}

/// What the journal owes.
#[derive(Default)]
struct Model {
    acknowledged: BTreeMap<String, (u16, Offset)>,
    /// Per registered sink and shard: where it began, and what it settled.
    sinks: BTreeMap<SinkName, BTreeMap<u16, (Offset, Checkpoint)>>,
    dead: BTreeSet<DeadLetterId>,
}

struct Run {
    redis: Redis,
    options: Options,
    opened: Option<Opened>,
    model: Model,
}

impl Run {
    fn journal(&self) -> &dyn Journal {
        &*self.opened.as_ref().expect("open between operations").journal
    }

    async fn reopen(&mut self) {
        if let Some(opened) = self.opened.take() {
            opened.journal.close().await;
        }
        self.opened = Some(open(self.options.clone()).await);
    }

    async fn run(&mut self, operation: Operation) {
        match operation {
            Operation::Accept(ids) => self.accept(ids).await,
            Operation::Settle { sink, shard, count, dead } => self.settle(sink, shard, count, dead).await,
            Operation::Forget(sink) => {
                let sink = SinkName::new(format!("sink-{sink}"));
                self.journal().forget_sink(&sink).await.unwrap();
                self.model.sinks.remove(&sink);
                self.model.dead.retain(|id| id.sink != sink);
            }
            Operation::Reopen => self.reopen().await,
            Operation::Kill => {
                self.redis.kill();
                self.redis.start_again();
                self.check().await;
            }
            Operation::FlushScripts => {
                self.redis.command(&["SCRIPT", "FLUSH"]);
            }
        }
    }

    async fn accept(&mut self, ids: Vec<u8>) {
        let pushes: Vec<_> = ids.into_iter().map(|id| push(&id.to_string(), &(id % 5).to_string(), 0)).collect();
        let answers = futures::future::join_all(pushes.iter().map(|push| self.journal().accept(push.clone()))).await;
        for (push, answer) in pushes.into_iter().zip(answers) {
            let shard = shard_of(push.session.as_ref(), &push.id, self.options.shards);
            let before = self.model.acknowledged.get(push.id.as_str()).copied();
            match answer.expect("redis is there") {
                Accepted::New { offset } => {
                    assert_eq!(before, None, "I2: an acknowledged push was new again");
                    self.model.acknowledged.insert(push.id.as_str().to_owned(), (shard, offset));
                }
                Accepted::Duplicate { offset, .. } => {
                    // Known from the same batch, or from before.
                    let known = *self.model.acknowledged.entry(push.id.as_str().to_owned()).or_insert((shard, offset));
                    assert_eq!(known, (shard, offset), "I2: a push has two offsets");
                }
            }
        }
    }

    async fn settle(&mut self, sink: u8, shard: u16, count: u8, dead: bool) {
        let sink = SinkName::new(format!("sink-{sink}"));
        if !self.model.sinks.contains_key(&sink) {
            self.journal().register_sink(&sink, Start::Now).await.unwrap();
            let mut places = BTreeMap::new();
            for shard in 0..self.options.shards {
                let checkpoint = self.journal().lease(&sink, shard).await.unwrap().unwrap().checkpoint;
                places.insert(shard, (checkpoint.low, checkpoint));
            }
            self.model.sinks.insert(sink, places);
            return;
        }
        let Lease { fence, checkpoint } = self.journal().lease(&sink, shard).await.unwrap().unwrap();
        assert_eq!(checkpoint, self.model.sinks[&sink][&shard].1, "I3");
        let limits = ReadLimits { events_max: count.into(), bytes_max: 1 << 20 };
        let page = self.journal().read(shard, checkpoint.low, limits).await.unwrap();
        let Some(last) = page.items.last().map(|item| item.entry().clone()) else { return };
        let before = page.items.len().checked_sub(2).map_or(checkpoint.low, |index| page.items[index].entry().offset);
        let next = Checkpoint { low: before, settled_above: vec![last.offset], ..Checkpoint::default() };
        if dead {
            let dead = letter(&sink, shard, last.offset, &last.push);
            self.model.dead.insert(dead.id.clone());
            self.journal().dead_letter(&fence, vec![dead], 1000, &next).await.unwrap();
        } else {
            self.journal().commit(&fence, &next).await.unwrap();
        }
        self.model.sinks.get_mut(&sink).unwrap().get_mut(&shard).unwrap().1 = next;
    }

    async fn check(&self) {
        let mut seen = BTreeMap::new();
        for shard in 0..self.options.shards {
            let mut sessions: BTreeMap<_, Offset> = BTreeMap::new();
            for item in read_all(self.journal(), shard, Offset::ZERO).await {
                let entry = item.entry();
                let before = seen.insert(entry.push.id.as_str().to_owned(), (shard, entry.offset));
                assert_eq!(before, None, "I2: a push stands twice");
                let latest = sessions.insert(entry.push.session.clone(), entry.offset);
                assert!(latest.is_none_or(|latest| latest < entry.offset), "I5: order");
            }
        }
        for (id, (shard, offset)) in &self.model.acknowledged {
            for (sink, places) in &self.model.sinks {
                let (start, checkpoint) = &places[shard];
                let is_settled = checkpoint.settles(*offset);
                let is_owed = offset > start && !is_settled;
                assert!(!is_owed || seen.get(id) == Some(&(*shard, *offset)), "I1: {id} is lost for {sink}");
            }
        }
        for id in &self.model.dead {
            assert!(self.journal().dead_letter_of(id).await.unwrap().is_some(), "a dead letter is lost");
        }
        for (sink, places) in &self.model.sinks {
            let owed = |(_, (shard, offset)): &(&String, &(u16, Offset))| {
                let checkpoint = &places[shard].1;
                !checkpoint.settles(*offset)
            };
            let owed = self.model.acknowledged.iter().filter(owed).count() as u64;
            assert_eq!(self.journal().backlog(sink).await.unwrap().pending, owed, "the backlog of {sink}");
        }
    }
}

async fn run(operations: Vec<Operation>) {
    let redis = Redis::start_durable(Program::Redis);
    let options = options(place(Mode::Standalone, vec![redis.url()]), Durability::Fsync);
    let mut run = Run { redis, options, opened: None, model: Model::default() };
    run.reopen().await;
    for operation in operations {
        run.run(operation).await;
    }
    run.check().await;
    run.reopen().await;
    run.check().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, max_shrink_iters: 8, ..ProptestConfig::default() })]

    #[test]
    fn nothing_acknowledged_is_lost_and_nothing_is_there_twice(
        operations in proptest::collection::vec(operation(), 10..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(operations));
    }
}
