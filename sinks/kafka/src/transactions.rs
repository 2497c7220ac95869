//! Delivery in transactions: the events of a batch and the position behind them become visible together, or not at all.
//!
//! ```text
//! unclaimed ──claim──▶ claimed ──commit──▶ claimed
//!     ▲    init, fences the   │
//!     │    earlier owner;     ├─ trouble, or an end that is not known ─▶ unclaimed
//!     │    reads the position └─ another claims it ────────────────────▶ fenced, until `resume`
//!     └────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! A transactional id belongs to one shard, so that who takes over the shard fences whoever had it. When the end of a transaction is
//! not known, the next claim settles it, and the position that it reads says how it ended: what was committed is not sent again.
//! All calls of librdkafka here block, and run on threads for that.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::Producer as _;
use sink_api::{Batch, BatchEvent, Fault, Origin, Outcome, Unavailable};
use tokio::sync::Mutex as Queue;
use tokio::time::Instant;

use crate::checkpoint::{self, Checkpoint};
use crate::client::{Clients, Live};
use crate::error::{self, Verdict};
use crate::flight::Flight;
use crate::message::Writer;

pub(crate) struct Transactions {
    sink: String,
    clients: Arc<Clients>,
    writer: Arc<Writer>,
    origin: OnceLock<Origin>,
    /// One call at a time each. A call that was given up runs to its end, and the next one waits for it.
    shards: Mutex<BTreeMap<u16, Arc<Queue<Shard>>>>,
}

struct Shard {
    number: u16,
    /// The transactional id. The journal's is part of it: one that was made anew begins anew, and replicas that keep a journal each do
    /// not fence each other.
    id: String,
    topic: String,
    clients: Arc<Clients>,
    writer: Arc<Writer>,
    claim: Option<Claim>,
    is_fenced: bool,
    uncertain: Option<Uncertain>,
}

/// The shard is ours.
struct Claim {
    live: Live,
    /// The last offset that is delivered.
    position: Option<u64>,
    /// The transaction that wrote it.
    transaction: Option<String>,
}

/// A transaction whose end is not known.
struct Uncertain {
    transaction: String,
    ids: HashSet<String>,
}

/// Why a transaction did not take place.
enum Failure {
    /// This one is not taken.
    Event(usize, Outcome),
    /// One of several is not taken.
    Refused,
    Whole(Fault),
    /// The producer is of no use any more.
    Spent(Fault),
    Fenced,
    /// It may have taken place.
    Unknown(Fault),
}

impl Transactions {
    pub(crate) fn new(sink: &str, clients: Arc<Clients>, writer: Arc<Writer>) -> Self {
        Self { sink: sink.to_owned(), clients, writer, origin: OnceLock::new(), shards: Mutex::default() }
    }

    /// The first word counts: offsets of a sink come from one journal.
    pub(crate) fn belong_to(&self, origin: &Origin) {
        drop(self.origin.set(origin.clone()));
    }

    pub(crate) async fn deliver(&self, batch: &Batch) -> Vec<Outcome> {
        let events = batch.events.clone();
        let count = events.len();
        let mut shard = self.shard(batch.shard).lock_owned().await;
        let deliver = move || shard.deliver(&events);
        match tokio::task::spawn_blocking(deliver).await {
            Ok(outcomes) => outcomes,
            Err(_) => vec![Outcome::unavailable(cut_short()); count],
        }
    }

    /// Takes over the shard; the last committed offset.
    pub(crate) async fn resume(&self, shard: u16) -> Result<Option<u64>, Unavailable> {
        let mut shard = self.shard(shard).lock_owned().await;
        let resume = move || shard.resume();
        tokio::task::spawn_blocking(resume).await.unwrap_or_else(|_| Err(cut_short()))
    }

    /// Waits for calls that were given up.
    pub(crate) async fn close(&self) {
        let shards = std::mem::take(&mut *self.shards.lock().unwrap_or_else(PoisonError::into_inner));
        for shard in shards.into_values() {
            if let Some(claim) = shard.lock_owned().await.claim.take() {
                // Fails only where the runtime is going down, and then everything is let go.
                drop(tokio::task::spawn_blocking(move || claim.live.end()).await);
            }
        }
    }

    fn shard(&self, number: u16) -> Arc<Queue<Shard>> {
        let make = || {
            let origin = self.origin.get().cloned().unwrap_or_default();
            Arc::new(Queue::new(Shard {
                number,
                id: format!("{}-{}-{}-{number}", origin.prefix, origin.journal, self.sink),
                topic: format!("{}.checkpoints", origin.prefix),
                clients: Arc::clone(&self.clients),
                writer: Arc::clone(&self.writer),
                claim: None,
                is_fenced: false,
                uncertain: None,
            }))
        };
        let mut shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(shards.entry(number).or_insert_with(make))
    }
}

fn cut_short() -> Fault {
    Fault::new("kafka-client", "a transaction was cut short")
}

impl Shard {
    fn resume(&mut self) -> Result<Option<u64>, Fault> {
        self.is_fenced = false;
        self.claim = None;
        // Whatever its end, the position tells it.
        self.uncertain = None;
        let deadline = Instant::now() + self.clients.patience();
        Ok(self.claimed(deadline)?.position)
    }

    fn deliver(&mut self, events: &[BatchEvent]) -> Vec<Outcome> {
        let deadline = Instant::now() + self.clients.patience();
        let claimed = if self.is_fenced { Err(error::fenced()) } else { self.claimed(deadline).map(|_| ()) };
        if let Err(fault) = claimed {
            return vec![Outcome::unavailable(fault); events.len()];
        }
        let committed = self.what_was_committed();
        let is_there = |entry: &&BatchEvent| committed.contains(&entry.event.id);
        let rest: Vec<&BatchEvent> = events.iter().filter(|entry| !is_there(entry)).collect();
        let mut outcomes = if rest.is_empty() { Vec::new() } else { self.deliver_new(&rest, deadline) }.into_iter();
        events
            .iter()
            .map(|entry| match is_there(&entry) {
                true => Outcome::delivered(),
                false => outcomes.next().expect("one for each of the rest"),
            })
            .collect()
    }

    /// Events of a transaction that turned out to be committed.
    fn what_was_committed(&mut self) -> HashSet<String> {
        let last = self.claim.as_ref().and_then(|claim| claim.transaction.as_ref());
        match self.uncertain.take() {
            Some(uncertain) if last == Some(&uncertain.transaction) => uncertain.ids,
            _ => HashSet::new(),
        }
    }

    fn deliver_new(&mut self, events: &[&BatchEvent], deadline: Instant) -> Vec<Outcome> {
        match self.transact(events, deadline) {
            Ok(()) => vec![Outcome::delivered(); events.len()],
            Err(Failure::Refused) => self.one_by_one(events, deadline),
            Err(failure) => self.failed(failure, events),
        }
    }

    /// A transaction for each, up to the first that fails: the position must not pass it before it is settled.
    fn one_by_one(&mut self, events: &[&BatchEvent], deadline: Instant) -> Vec<Outcome> {
        let mut outcomes = Vec::with_capacity(events.len());
        for (done, entry) in events.iter().enumerate() {
            match self.transact(&[entry], deadline) {
                Ok(()) => outcomes.push(Outcome::delivered()),
                Err(failure) => {
                    outcomes.extend(self.failed(failure, &events[done..]));
                    break;
                }
            }
        }
        outcomes
    }

    /// The first of `events` failed, or all of them; what follows for each.
    fn failed(&mut self, failure: Failure, events: &[&BatchEvent]) -> Vec<Outcome> {
        let fault = match failure {
            Failure::Event(at, outcome) => {
                let mut outcomes = vec![error::behind(&outcome); events.len()];
                outcomes[at] = outcome;
                return outcomes;
            }
            Failure::Spent(fault) => return vec![error::patience(fault); events.len()],
            Failure::Fenced => {
                self.is_fenced = true;
                error::fenced()
            }
            Failure::Refused => error::fault(RDKafkaErrorCode::InvalidRecord),
            Failure::Whole(fault) | Failure::Unknown(fault) => fault,
        };
        vec![Outcome::unavailable(fault); events.len()]
    }

    /// Events and position in one transaction. Where it fails the producer is given up: the next claim takes back what is open, and
    /// what librdkafka still has in hand of it cannot get into the next transaction.
    fn transact(&mut self, events: &[&BatchEvent], deadline: Instant) -> Result<(), Failure> {
        let outcome = self.attempt(events, deadline);
        if outcome.is_err() {
            self.claim = None;
        }
        outcome
    }

    fn attempt(&mut self, events: &[&BatchEvent], deadline: Instant) -> Result<(), Failure> {
        self.claimed(deadline).map_err(Failure::Whole)?;
        let claim = self.claim.as_mut().expect("claimed");
        let last = events.iter().map(|entry| entry.offset).max();
        let checkpoint = Checkpoint {
            shard: self.number,
            // Replays have offsets of the past.
            offset: claim.position.max(last).unwrap_or_default(),
            transaction: new_word(),
        };
        let live = &claim.live;
        live.producer().begin_transaction().map_err(|error| call_failed(&error, live))?;
        let write_checkpoint = |ticket| checkpoint.write(live, &self.topic, &self.id, ticket);
        fill(live, &self.writer, events, write_checkpoint, deadline)?;
        match commit(live, deadline) {
            Ok(()) => {
                claim.position = Some(checkpoint.offset);
                claim.transaction = Some(checkpoint.transaction);
                Ok(())
            }
            Err(failure) => {
                if matches!(failure, Failure::Unknown(_)) {
                    let ids = events.iter().map(|entry| entry.event.id.clone()).collect();
                    self.uncertain = Some(Uncertain { transaction: checkpoint.transaction, ids });
                }
                Err(failure)
            }
        }
    }

    /// Makes the shard ours, unless it is: fences whoever had it, and reads the position.
    fn claimed(&mut self, deadline: Instant) -> Result<&Claim, Fault> {
        if self.claim.is_none() {
            self.claim = Some(self.new_claim(deadline)?);
        }
        Ok(self.claim.as_ref().expect("made above"))
    }

    fn new_claim(&self, deadline: Instant) -> Result<Claim, Fault> {
        checkpoint::ensure_topic(&self.clients, &self.topic, deadline)?;
        let live = self.clients.transactional_producer(&self.id)?;
        let left = || deadline.saturating_duration_since(Instant::now());
        let reason = |error: KafkaError| live.watcher().trouble().unwrap_or_else(|| error::fault_of(&error));
        live.producer().init_transactions(left()).map_err(reason)?;
        live.producer().begin_transaction().map_err(reason)?;
        let word = new_word();
        let announce = |ticket| checkpoint::write_owner(&live, &self.topic, &self.id, &word, ticket);
        let announced = fill(&live, &self.writer, &[], announce, deadline).and_then(|()| commit(&live, deadline));
        announced.map_err(|failure| failure.fault())?;
        let found = checkpoint::read(&self.clients, &self.topic, &self.id, &word, deadline)?;
        let (position, transaction) = found.map(|found| (found.offset, found.transaction)).unzip();
        Ok(Claim { live, position, transaction })
    }
}

impl Failure {
    fn fault(self) -> Fault {
        match self {
            Self::Event(
                _,
                Outcome::Rejected { fault } | Outcome::Retry { fault, .. } | Outcome::Unavailable { fault, .. },
            ) => fault,
            Self::Event(..) | Self::Refused => error::fault(RDKafkaErrorCode::InvalidRecord),
            Self::Whole(fault) | Self::Spent(fault) | Self::Unknown(fault) => fault,
            Self::Fenced => error::fenced(),
        }
    }
}

/// Hands `events` and one record more to the open transaction, and waits until brokers have them all.
fn fill(
    live: &Live,
    writer: &Writer,
    events: &[&BatchEvent],
    last: impl FnOnce(crate::flight::Ticket) -> Result<(), RDKafkaErrorCode>,
    deadline: Instant,
) -> Result<(), Failure> {
    let flight = Flight::of(events.len() + 1);
    for (seat, entry) in events.iter().enumerate() {
        let mut message = writer.message(&entry.event);
        let sent = live.send_blocking(message.record(flight.ticket(seat)), deadline);
        sent.map_err(|code| record_failed(seat, code, true, live))?;
    }
    last(flight.ticket(events.len())).map_err(|code| record_failed(events.len(), code, false, live))?;
    if !flight.decided_blocking(deadline) {
        return Err(Failure::Whole(timed_out(live)));
    }
    let errors = flight.reports().into_iter().enumerate();
    let errors = errors.filter_map(|(seat, report)| Some((seat, report?.err()?)));
    // One that fails takes others along, which say less.
    match errors.min_by_key(|(_, code)| rank(error::verdict(*code))) {
        None => Ok(()),
        // A request of one record says which is meant.
        Some((seat, code)) => Err(record_failed(seat, code, events.len() == 1 && seat == 0, live)),
    }
}

/// What explains most comes first.
fn rank(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Fenced => 0,
        Verdict::Refused => 1,
        Verdict::Away => 2,
        Verdict::Failed => 3,
        Verdict::Spent => 4,
        Verdict::Again => 5,
    }
}

fn record_failed(seat: usize, code: RDKafkaErrorCode, is_sure: bool, live: &Live) -> Failure {
    match error::verdict(code) {
        Verdict::Refused if is_sure => Failure::Event(seat, Outcome::rejected(error::fault(code))),
        Verdict::Refused => Failure::Refused,
        Verdict::Failed if is_sure => Failure::Event(seat, Outcome::retry(error::fault(code))),
        Verdict::Failed => Failure::Whole(error::fault(code)),
        Verdict::Away if code == RDKafkaErrorCode::MessageTimedOut => Failure::Whole(timed_out(live)),
        Verdict::Away => Failure::Whole(error::fault(code)),
        // What was purged says nothing; what is fatal to the producer says why.
        Verdict::Again | Verdict::Spent => match live.fatal_error().map(error::verdict) {
            Some(Verdict::Fenced) => Failure::Fenced,
            _ => Failure::Spent(error::fault(code)),
        },
        Verdict::Fenced => Failure::Fenced,
    }
}

fn timed_out(live: &Live) -> Fault {
    live.watcher().trouble().unwrap_or_else(|| error::fault(RDKafkaErrorCode::MessageTimedOut))
}

/// A call that changes nothing by failing.
fn call_failed(error: &KafkaError, live: &Live) -> Failure {
    let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
    match error::verdict(code) {
        Verdict::Fenced => Failure::Fenced,
        _ if live.is_spent() => Failure::Spent(error::fault_of(error)),
        Verdict::Spent => Failure::Spent(error::fault_of(error)),
        _ => Failure::Whole(error::fault_of(error)),
    }
}

fn commit(live: &Live, deadline: Instant) -> Result<(), Failure> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let error = match live.producer().commit_transaction(left) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        match &error {
            KafkaError::Transaction(inner) if inner.is_retriable() && !left.is_zero() => {}
            KafkaError::Transaction(inner) if inner.txn_requires_abort() => return Err(call_failed(&error, live)),
            error => {
                let fenced = error.rdkafka_error_code().is_some_and(|code| error::verdict(code) == Verdict::Fenced);
                return Err(if fenced { Failure::Fenced } else { Failure::Unknown(error::fault_of(error)) });
            }
        }
    }
}

/// 128 random bits in hex: no two are alike.
fn new_word() -> String {
    format!("{:032x}", fastrand::u128(..))
}
