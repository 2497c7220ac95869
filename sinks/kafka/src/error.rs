//! What can go wrong, and which outcome that is: the one place where error codes of librdkafka and of brokers are judged.
//!
//! | verdict | outcome | then |
//! |---|---|---|
//! | refused | rejected, once it is sure that it is this event alone | a dead letter |
//! | again | retry, burns no attempt | |
//! | failed | retry | |
//! | away | the sink is away | its breaker |
//! | spent | retry, burns no attempt | a new producer |
//! | fenced | the sink is away, code `fenced` | the pipeline asks whether the shard is still its own |
//!
//! A code of a fault is the error's name in librdkafka: `not-enough-replicas`, `unknown-topic`, `message-timed-out`, ….

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use sink_api::outcome::FENCED;
use sink_api::{Fault, Outcome};

/// Of other programs' texts at most so much is repeated.
const REASON_CHARS_MAX: usize = 200;

/// What follows from an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Brokers do not take this event, or one of those in the same request.
    Refused,
    /// Nothing is wrong with the event.
    Again,
    /// Nobody knows.
    Failed,
    /// The cluster, the topic or our access to it.
    Away,
    /// The producer is of no use any more, another one may be.
    Spent,
    /// Another producer has taken the transactional id.
    Fenced,
}

/// The one match. Codes that cannot reach a producer are among the rest.
pub(crate) fn verdict(code: RDKafkaErrorCode) -> Verdict {
    use RDKafkaErrorCode as Code;
    match code {
        // The record itself.
        Code::MessageSizeTooLarge
        | Code::MessageBatchTooLarge
        | Code::InvalidMessageSize
        | Code::InvalidRecord
        | Code::InvalidTimestamp
        | Code::UnsupportedForMessageFormat => Verdict::Refused,

        // Our own doing: no room for the moment, or purged with records of others.
        Code::QueueFull | Code::PurgeQueue | Code::PurgeInflight | Code::Interrupted => Verdict::Again,

        // Nobody there.
        Code::BrokerTransportFailure
        | Code::Resolve
        | Code::AllBrokersDown
        | Code::BrokerDestroy
        | Code::DestroyBroker
        | Code::UnknownBroker
        | Code::NodeUpdate
        | Code::MessageTimedOut
        | Code::OperationTimedOut
        | Code::TimedOutQueue
        | Code::WaitCache
        | Code::WaitingForCoordinator
        | Code::RequestTimedOut
        | Code::NetworkException
        | Code::BrokerNotAvailable
        | Code::ThrottlingQuotaExceeded => Verdict::Away,

        // Leaders and replicas.
        Code::LeaderNotAvailable
        | Code::NotLeaderForPartition
        | Code::ReplicaNotAvailable
        | Code::FencedLeaderEpoch
        | Code::UnknownLeaderEpoch
        | Code::PreferredLeaderNotAvailable
        | Code::EligibleLeadersNotAvailable
        | Code::ISRInsufficient
        | Code::NotEnoughReplicas
        | Code::NotEnoughReplicasAfterAppend
        | Code::KafkaStorageError
        | Code::LogDirNotFound
        | Code::StaleBrokerEpoch
        | Code::NotController
        | Code::CoordinatorLoadInProgress
        | Code::CoordinatorNotAvailable
        | Code::NotCoordinator => Verdict::Away,

        // The topic.
        Code::UnknownTopic
        | Code::UnknownTopicOrPartition
        | Code::UnknownPartition
        | Code::InvalidTopic
        | Code::InvalidReplicationFactor
        | Code::InvalidPartitions
        | Code::InvalidConfig
        | Code::PolicyViolation => Verdict::Away,

        // Who we are, and what we may.
        Code::SSL
        | Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::IllegalSASLState
        | Code::SecurityDisabled
        | Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed => Verdict::Away,

        // What these brokers cannot do.
        Code::UnsupportedVersion
        | Code::UnsupportedFeature
        | Code::UnsupportedCompressionType
        | Code::InvalidRequiredAcks
        | Code::InvalidTransactionTimeout => Verdict::Away,

        // The producer's own state.
        Code::Fatal
        | Code::GaplessGuarantee
        | Code::Inconsistent
        | Code::State
        | Code::Conflict
        | Code::CriticalSystemResource
        | Code::OutOfOrderSequenceNumber
        | Code::DuplicateSequenceNumber
        | Code::UnknownProducerId
        | Code::InvalidProducerIdMapping
        | Code::InvalidTransactionalState
        | Code::ConcurrentTransactions => Verdict::Spent,

        Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch | Code::TransactionCoordinatorFenced => {
            Verdict::Fenced
        }

        _ => Verdict::Failed,
    }
}

/// The outcome for an event that is known to be meant.
pub(crate) fn outcome(code: RDKafkaErrorCode) -> Outcome {
    match verdict(code) {
        Verdict::Refused => Outcome::rejected(fault(code)),
        Verdict::Again | Verdict::Spent => patience(fault(code)),
        Verdict::Failed => Outcome::retry(fault(code)),
        Verdict::Away => Outcome::unavailable(fault(code)),
        Verdict::Fenced => Outcome::unavailable(fenced()),
    }
}

/// To be tried again, through no fault of its own.
pub(crate) fn patience(fault: Fault) -> Outcome {
    Outcome::Retry { fault, after: None, burns_attempt: false }
}

/// An event that waits for an earlier one of its key, which was not delivered.
pub(crate) fn behind(earlier: &Outcome) -> Outcome {
    match earlier {
        Outcome::Unavailable { fault, .. } => Outcome::unavailable(fault.clone()),
        _ => patience(Fault::new("behind", "an earlier event of its session was not delivered")),
    }
}

pub(crate) fn fenced() -> Fault {
    Fault::new(FENCED, "another producer has taken over this shard's transactions")
}

pub(crate) fn fault(code: RDKafkaErrorCode) -> Fault {
    Fault::new(word(code), shown(&code.to_string()))
}

/// A fault with the text that came with it.
pub(crate) fn fault_saying(code: RDKafkaErrorCode, reason: &str) -> Fault {
    Fault::new(word(code), shown(reason))
}

/// Errors of calls that no single event is meant by.
pub(crate) fn fault_of(error: &KafkaError) -> Fault {
    match (error, error.rdkafka_error_code()) {
        (_, Some(code)) if verdict(code) == Verdict::Fenced => fenced(),
        (KafkaError::Transaction(inner), Some(code)) => fault_saying(code, &inner.string()),
        (_, Some(code)) => fault(code),
        (error, None) => Fault::new("kafka-client", shown(&error.to_string())),
    }
}

/// `NotEnoughReplicas` is `not-enough-replicas`.
fn word(code: RDKafkaErrorCode) -> String {
    let mut word = String::new();
    let mut was_upper = true;
    for c in format!("{code:?}").chars() {
        if c.is_ascii_uppercase() && !was_upper {
            word.push('-');
        }
        was_upper = c.is_ascii_uppercase();
        word.push(c.to_ascii_lowercase());
    }
    word
}

/// Text of the other side or of a library, safe to log.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(REASON_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_trouble_has_its_outcome() {
        use RDKafkaErrorCode as Code;
        let table = [
            ("broker down", Code::BrokerTransportFailure, "away"),
            ("all brokers down", Code::AllBrokersDown, "away"),
            ("no such host", Code::Resolve, "away"),
            ("no answer in time", Code::MessageTimedOut, "away"),
            ("leader change", Code::NotLeaderForPartition, "away"),
            ("no leader", Code::LeaderNotAvailable, "away"),
            ("not enough replicas", Code::NotEnoughReplicas, "away"),
            ("not enough replicas any more", Code::NotEnoughReplicasAfterAppend, "away"),
            ("a broker's disk", Code::KafkaStorageError, "away"),
            ("unknown topic, says librdkafka", Code::UnknownTopic, "away"),
            ("unknown topic, says the broker", Code::UnknownTopicOrPartition, "away"),
            ("a topic that cannot be", Code::InvalidTopic, "away"),
            ("wrong password", Code::SaslAuthenticationFailed, "away"),
            ("authentication", Code::Authentication, "away"),
            ("certificate", Code::SSL, "away"),
            ("not allowed to write", Code::TopicAuthorizationFailed, "away"),
            ("not allowed transactions", Code::TransactionalIdAuthorizationFailed, "away"),
            ("over quota", Code::ThrottlingQuotaExceeded, "away"),
            ("too large", Code::MessageSizeTooLarge, "rejected"),
            ("too large for a segment", Code::MessageBatchTooLarge, "rejected"),
            ("a topic's rules", Code::InvalidRecord, "rejected"),
            ("queue full", Code::QueueFull, "patience"),
            ("purged", Code::PurgeQueue, "patience"),
            ("purged in flight", Code::PurgeInflight, "patience"),
            ("fatal", Code::Fatal, "patience"),
            ("a gap", Code::GaplessGuarantee, "patience"),
            ("sequence lost", Code::OutOfOrderSequenceNumber, "patience"),
            ("fenced", Code::ProducerFenced, "away"),
            ("unheard of", Code::Unknown, "retry"),
            ("corrupt on the way", Code::InvalidMessage, "retry"),
        ];
        for (trouble, code, expected) in table {
            let found = match outcome(code) {
                Outcome::Unavailable { .. } => "away",
                Outcome::Rejected { .. } => "rejected",
                Outcome::Retry { burns_attempt: false, .. } => "patience",
                Outcome::Retry { burns_attempt: true, .. } => "retry",
                Outcome::Delivered { .. } => "delivered",
            };
            assert_eq!(found, expected, "{trouble}");
        }
    }

    #[test]
    fn a_dead_producer_is_told_from_a_dead_cluster() {
        assert_eq!(verdict(RDKafkaErrorCode::Fatal), Verdict::Spent);
        assert_eq!(verdict(RDKafkaErrorCode::InvalidProducerEpoch), Verdict::Fenced);
        assert_eq!(fault_of(&KafkaError::Global(RDKafkaErrorCode::Fenced)).code, FENCED);
    }

    #[test]
    fn a_code_is_a_word_of_small_letters() {
        for (code, expected) in [
            (RDKafkaErrorCode::NotEnoughReplicas, "not-enough-replicas"),
            (RDKafkaErrorCode::SSL, "ssl"),
            (RDKafkaErrorCode::UnknownTopic, "unknown-topic"),
            (RDKafkaErrorCode::MessageTimedOut, "message-timed-out"),
        ] {
            assert_eq!(fault(code).code, expected);
        }
    }

    #[test]
    fn reasons_are_short_and_have_no_control_characters() {
        assert_eq!(shown("a\u{1b}[31mb\n"), "a[31mb");
        assert_eq!(shown(&"x".repeat(1000)).len(), REASON_CHARS_MAX);
    }
}
