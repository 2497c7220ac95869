//! All metrics of the gateway, in a registry of its own.
//!
//! Names are those of the README's table. Labels come from the config or from closed sets, never from a push, so that nobody can
//! make series at will and no personal data gets in. Every series exists at 0 from the start. A part of the gateway is handed the
//! struct of its own series and sees no others.

use std::collections::BTreeMap;
use std::sync::Arc;

use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use crate::names::{SinkName, SourceName};
use crate::tccc::{KNOWN_ACTIONS, names_a_recording};

/// What `action` says of a push whose action is not one of [`KNOWN_ACTIONS`].
pub const OTHER_ACTION: &str = "other";

/// `outcome` of `ingress_pushes_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PushOutcome {
    Accepted,
    Duplicate,
    /// Answered as a duplicate, but its body differs.
    Conflict,
    Refused,
    /// Not accepted through our fault: journal full, unavailable, draining.
    Unavailable,
}

impl PushOutcome {
    pub const ALL: [Self; 5] = [Self::Accepted, Self::Duplicate, Self::Conflict, Self::Refused, Self::Unavailable];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Duplicate => "duplicate",
            Self::Conflict => "conflict",
            Self::Refused => "refused",
            Self::Unavailable => "unavailable",
        }
    }
}

/// `outcome` of `sink_attempts_total`, one per event and attempt.
pub const ATTEMPT_OUTCOMES: [&str; 4] = ["delivered", "retry", "rejected", "unavailable"];

/// `reason` of `auth_failures_total`.
pub const AUTH_FAILURES: [&str; 4] = ["missing", "wrong", "expired", "throttled"];

/// `kind` of `journal_errors_total`.
pub const JOURNAL_ERRORS: [&str; 5] = ["write", "sync", "full", "corrupt", "torn"];

/// The registry and all families.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    pub ingress: IngressMetrics,
    pub journal: JournalMetrics,
    sinks: SinkFamilies,
    sources: SourceFamilies,
    pub normalise_warnings: IntCounterVec,
    pub tls_not_after_seconds: Gauge,
    /// 1 while push ids are de-duplicated less widely than configured.
    pub dedup_degraded: IntGauge,
}

#[derive(Clone)]
pub struct IngressMetrics {
    pub connections: IntGauge,
    pub dead_letters: IntGauge,
}

/// The series of one source.
#[derive(Clone)]
pub struct SourceMetrics {
    pushes: Arc<BTreeMap<(&'static str, PushOutcome), IntCounter>>,
    pub ack_seconds: Histogram,
    pub derived_ids: IntCounter,
    auth_failures: IntCounterVec,
    source: SourceName,
}

#[derive(Clone)]
pub struct JournalMetrics {
    /// From handing a push to the journal to its answer.
    pub append_seconds: Histogram,
    /// One sync of the storage.
    pub sync_seconds: Histogram,
    pub bytes: IntGauge,
    /// `journal.size_max`, so that alerts know how much room is left.
    pub size_max: IntGauge,
    pub entries: IntGauge,
    /// By [`JOURNAL_ERRORS`].
    pub errors: IntCounterVec,
}

/// The series of one sink.
#[derive(Clone)]
pub struct SinkMetrics {
    pub delivered: IntCounter,
    pub attempts_delivered: IntCounter,
    pub attempts_retry: IntCounter,
    pub attempts_rejected: IntCounter,
    pub attempts_unavailable: IntCounter,
    /// From accepting a push to its confirmed delivery.
    pub delivery_seconds: Histogram,
    pub pending: IntGauge,
    pub oldest_pending_seconds: Gauge,
    pub dead_letters: IntGauge,
    pub breaker_open: IntGauge,
    /// For sinks that archive recordings.
    pub recordings: Option<RecordingMetrics>,
}

/// The series of a sink that archives recordings.
#[derive(Clone)]
pub struct RecordingMetrics {
    archived: IntCounter,
    lost: IntCounter,
}

#[derive(Clone)]
struct SourceFamilies {
    pushes: IntCounterVec,
    ack_seconds: HistogramVec,
    derived_ids: IntCounterVec,
    auth_failures: IntCounterVec,
}

#[derive(Clone)]
struct SinkFamilies {
    delivered: IntCounterVec,
    attempts: IntCounterVec,
    delivery_seconds: HistogramVec,
    pending: IntGaugeVec,
    oldest_pending_seconds: prometheus::GaugeVec,
    dead_letters: IntGaugeVec,
    breaker_open: IntGaugeVec,
    recordings_archived: IntCounterVec,
    recordings_lost: IntCounterVec,
}

/// Buckets around the reply budget of 100 ms (p99.9) and 500 ms (never more).
const ACK_BUCKETS: &[f64] = &[0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];
const SYNC_BUCKETS: &[f64] = &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0];
const DELIVERY_BUCKETS: &[f64] = &[0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 86400.0];

impl Metrics {
    pub fn new() -> Self {
        let registry = Registry::new_custom(Some("trunkline".to_owned()), None).expect("a fixed prefix");
        let families = Register(&registry);
        let this = Self {
            ingress: IngressMetrics {
                connections: families.gauge("ingress_connections", "Open connections to the ingress."),
                dead_letters: families.gauge("ingress_dead_letters", "Refused pushes that are kept."),
            },
            journal: JournalMetrics::register(&families),
            sources: SourceFamilies::register(&families),
            sinks: SinkFamilies::register(&families),
            normalise_warnings: families.counters(
                "normalise_warnings_total",
                "Fields of pushes that could not be read as documented.",
                &["action"],
            ),
            tls_not_after_seconds: families.float_gauge(
                "tls_not_after_seconds",
                "When the ingress certificate expires, in Unix seconds; 0 without TLS.",
            ),
            dedup_degraded: families
                .gauge("dedup_degraded", "1 while push ids are de-duplicated less widely than configured."),
            registry: registry.clone(),
        };
        for kind in JOURNAL_ERRORS {
            this.journal.errors.with_label_values(&[kind]);
        }
        for action in action_labels() {
            this.normalise_warnings.with_label_values(&[action]);
        }
        families.build_info();
        // Of the process itself: CPU, memory, descriptors; under the same prefix as all else.
        let process = prometheus::process_collector::ProcessCollector::for_self();
        registry.register(Box::new(process)).expect("registered once");
        this
    }

    /// The series of a source, made at 0.
    pub fn source(&self, source: &SourceName) -> SourceMetrics {
        let families = &self.sources;
        let pushes = action_labels()
            .flat_map(|action| PushOutcome::ALL.map(|outcome| (action, outcome)))
            .map(|(action, outcome)| {
                ((action, outcome), families.pushes.with_label_values(&[source.as_str(), action, outcome.as_str()]))
            })
            .collect();
        for reason in AUTH_FAILURES {
            families.auth_failures.with_label_values(&[source.as_str(), reason]);
        }
        SourceMetrics {
            pushes: Arc::new(pushes),
            ack_seconds: families.ack_seconds.with_label_values(&[source.as_str()]),
            derived_ids: families.derived_ids.with_label_values(&[source.as_str()]),
            auth_failures: families.auth_failures.clone(),
            source: source.clone(),
        }
    }

    /// The series of a sink, made at 0.
    pub fn sink(&self, sink: &SinkName) -> SinkMetrics {
        let families = &self.sinks;
        let name = [sink.as_str()];
        let attempts = |outcome| families.attempts.with_label_values(&[sink.as_str(), outcome]);
        SinkMetrics {
            delivered: families.delivered.with_label_values(&name),
            attempts_delivered: attempts(ATTEMPT_OUTCOMES[0]),
            attempts_retry: attempts(ATTEMPT_OUTCOMES[1]),
            attempts_rejected: attempts(ATTEMPT_OUTCOMES[2]),
            attempts_unavailable: attempts(ATTEMPT_OUTCOMES[3]),
            delivery_seconds: families.delivery_seconds.with_label_values(&name),
            pending: families.pending.with_label_values(&name),
            oldest_pending_seconds: families.oldest_pending_seconds.with_label_values(&name),
            dead_letters: families.dead_letters.with_label_values(&name),
            breaker_open: families.breaker_open.with_label_values(&name),
            recordings: None,
        }
    }

    /// What a sink that archives recordings has beside, made at 0.
    pub fn recordings(&self, sink: &SinkName) -> RecordingMetrics {
        let name = [sink.as_str()];
        RecordingMetrics {
            archived: self.sinks.recordings_archived.with_label_values(&name),
            lost: self.sinks.recordings_lost.with_label_values(&name),
        }
    }

    /// Takes the series of a sink that was removed from the config away: its gauges would stand still and look alive.
    pub fn remove_sink(&self, sink: &SinkName) {
        let (families, name) = (&self.sinks, [sink.as_str()]);
        let attempts = ATTEMPT_OUTCOMES.map(|outcome| families.attempts.remove_label_values(&[sink.as_str(), outcome]));
        let others = [
            families.delivered.remove_label_values(&name),
            families.delivery_seconds.remove_label_values(&name),
            families.pending.remove_label_values(&name),
            families.oldest_pending_seconds.remove_label_values(&name),
            families.dead_letters.remove_label_values(&name),
            families.breaker_open.remove_label_values(&name),
        ];
        if attempts.into_iter().chain(others).any(|removed| removed.is_err()) {
            tracing::debug!(%sink, "the sink had not all of its series");
        }
        // Few sinks have these.
        for family in [&families.recordings_archived, &families.recordings_lost] {
            drop(family.remove_label_values(&name));
        }
    }

    /// Everything in Prometheus's text format.
    pub fn render(&self) -> Vec<u8> {
        let mut text = Vec::with_capacity(16 << 10);
        TextEncoder::new().encode(&self.registry.gather(), &mut text).expect("writing to memory");
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl SourceMetrics {
    /// Counts a push. `action` is a known action as the config spells it, or anything else.
    pub fn count(&self, action: Option<&str>, outcome: PushOutcome) {
        let label = KNOWN_ACTIONS.into_iter().find(|known| Some(*known) == action).unwrap_or(OTHER_ACTION);
        self.pushes[&(label, outcome)].inc();
    }

    /// Pushes with `outcome`, over all actions.
    pub fn total(&self, outcome: PushOutcome) -> u64 {
        self.pushes.iter().filter(|((_, o), _)| *o == outcome).map(|(_, counter)| counter.get()).sum()
    }

    /// `reason` is one of [`AUTH_FAILURES`].
    pub fn auth_failure(&self, reason: &'static str) {
        self.auth_failures.with_label_values(&[self.source.as_str(), reason]).inc();
    }
}

impl SinkMetrics {
    /// An event of `action` was delivered.
    pub fn count_delivered(&self, action: &str) {
        self.delivered.inc();
        if let Some(recordings) = self.recordings.as_ref().filter(|_| names_a_recording(action)) {
            recordings.archived.inc();
        }
    }

    /// An event of `action` became a dead letter.
    pub fn count_dead(&self, action: &str) {
        if let Some(recordings) = self.recordings.as_ref().filter(|_| names_a_recording(action)) {
            recordings.lost.inc();
        }
    }
}

fn action_labels() -> impl Iterator<Item = &'static str> {
    KNOWN_ACTIONS.into_iter().chain([OTHER_ACTION])
}

impl JournalMetrics {
    fn register(families: &Register<'_>) -> Self {
        Self {
            append_seconds: families.histogram(
                "journal_append_seconds",
                "From handing a push to the journal to its durable answer.",
                ACK_BUCKETS,
            ),
            sync_seconds: families.histogram(
                "journal_sync_seconds",
                "One sync of the journal's storage.",
                SYNC_BUCKETS,
            ),
            bytes: families.gauge("journal_bytes", "Bytes that the journal uses."),
            size_max: families.gauge("journal_size_max_bytes", "Bytes that it may use; at them pushes are refused."),
            entries: families.gauge("journal_entries", "Entries that the journal holds."),
            errors: families.counters("journal_errors_total", "What went wrong with the journal's storage.", &["kind"]),
        }
    }
}

impl SourceFamilies {
    fn register(families: &Register<'_>) -> Self {
        Self {
            pushes: families.counters(
                "ingress_pushes_total",
                "Pushes by what became of them.",
                &["source", "action", "outcome"],
            ),
            ack_seconds: families.histograms(
                "ingress_ack_seconds",
                "From the end of a request's header to its reply.",
                ACK_BUCKETS,
                &["source"],
            ),
            derived_ids: families.counters(
                "ingress_derived_ids_total",
                "Pushes without a usable push id, taken under one derived from their body.",
                &["source"],
            ),
            auth_failures: families.counters(
                "auth_failures_total",
                "Requests refused for their credentials.",
                &["source", "reason"],
            ),
        }
    }
}

impl SinkFamilies {
    fn register(families: &Register<'_>) -> Self {
        Self {
            delivered: families.counters("sink_delivered_total", "Events that the destination confirmed.", &["sink"]),
            attempts: families.counters(
                "sink_attempts_total",
                "Attempts to deliver an event, by outcome.",
                &["sink", "outcome"],
            ),
            delivery_seconds: families.histograms(
                "sink_delivery_seconds",
                "From accepting a push to its confirmed delivery.",
                DELIVERY_BUCKETS,
                &["sink"],
            ),
            pending: families.gauges("sink_pending", "Entries that the sink has not settled.", &["sink"]),
            oldest_pending_seconds: families.float_gauges(
                "sink_oldest_pending_seconds",
                "Age of the oldest entry that the sink has not settled; 0 when there is none.",
                &["sink"],
            ),
            dead_letters: families.gauges("sink_dead_letters", "Dead letters that are kept for the sink.", &["sink"]),
            breaker_open: families.gauges("sink_breaker_open", "1 while the sink is judged to be away.", &["sink"]),
            recordings_archived: families.counters(
                "recordings_archived_total",
                "Recordings that were stored, length and checksum verified.",
                &["sink"],
            ),
            recordings_lost: families.counters(
                "recordings_lost_total",
                "Recordings that could not be fetched or stored, and became dead letters.",
                &["sink"],
            ),
        }
    }
}

/// Makes families and registers them; names and labels are fixed, so nothing here can fail.
struct Register<'a>(&'a Registry);

impl Register<'_> {
    fn add<C: prometheus::core::Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> C {
        let collector = made.expect("fixed name and labels");
        self.0.register(Box::new(collector.clone())).expect("each name once");
        collector
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.add(IntGauge::new(name, help))
    }

    fn float_gauge(&self, name: &str, help: &str) -> Gauge {
        self.add(Gauge::new(name, help))
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        self.add(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.add(IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.add(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    fn float_gauges(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::GaugeVec {
        self.add(prometheus::GaugeVec::new(Opts::new(name, help), labels))
    }

    fn histograms(&self, name: &str, help: &str, buckets: &[f64], labels: &[&str]) -> HistogramVec {
        self.add(HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels))
    }

    fn build_info(&self) {
        let info = self.gauges("build_info", "1; the version is in the label.", &["version"]);
        info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    }
}
