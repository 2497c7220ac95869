//! librdkafka's clients: how they are set up, what they tell, and how they end.
//!
//! Every client has a thread of its own that takes in delivery reports, errors and requests for tokens. What librdkafka logs is
//! logged at debug and trace: whatever matters comes back as an outcome, and is logged where that is handled.

use std::error::Error as StdError;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::AdminClient;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{Producer as _, ProducerContext, PurgeConfig, ThreadedProducer};
use secrecy::ExposeSecret as _;
use sink_api::settings::Secret;
use sink_api::{BuildError, Fault};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};
use tracing::{debug, trace};

use crate::error::{self, Verdict};
use crate::flight::Ticket;
use crate::message::Record;
use crate::settings::{Sasl, Settings};
use crate::token::{TokenSettings, TokenSource};

/// How long records that are left may take at the end.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

/// Trouble that is older says nothing of what happens now.
const TROUBLE_AGE_MAX: Duration = Duration::from_secs(60);

/// A share of the message timeout is kept back: the sink gives up before librdkafka does. Records time out one by one there, so that
/// one could still be sent when an earlier one of its key has timed out; the sink gives up all of them at once.
const HELD_BACK_MAX: Duration = Duration::from_secs(1);

/// How long one wait for room in a full queue lasts.
const ROOM_PATIENCE: Duration = Duration::from_millis(10);

/// What librdkafka is told unless `properties` says otherwise.
const DEFAULTS: [(&str, &str); 10] = [
    ("client.id", "trunkline"),
    ("compression.type", "zstd"),
    // Batches come whole from the pipeline, which has waited for them already.
    ("linger.ms", "2"),
    // Bytes before compression; what brokers take is theirs to say.
    ("message.max.bytes", "8388608"),
    ("queue.buffering.max.kbytes", "65536"),
    ("socket.timeout.ms", "10000"),
    ("socket.connection.setup.timeout.ms", "5000"),
    ("socket.keepalive.enable", "true"),
    ("reconnect.backoff.max.ms", "2000"),
    ("log.connection.close", "false"),
];

/// Makes clients.
pub(crate) struct Clients {
    config: ClientConfig,
    tokens: Option<TokenSettings>,
    patience: Duration,
}

impl Clients {
    /// Reads secrets, opens nothing.
    pub(crate) fn new(settings: &Settings) -> Result<Self, BuildError> {
        let mut config = ClientConfig::new();
        for (name, value) in DEFAULTS {
            config.set(name, value);
        }
        for (name, property) in &settings.properties {
            let value = property.resolve().map_err(|error| BuildError(format!("properties.{name}: {error}")))?;
            config.set(name, value);
        }
        let timeout = settings.message_timeout();
        let millis = timeout.as_millis();
        config
            .set("bootstrap.servers", &settings.brokers)
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("message.timeout.ms", millis.to_string())
            .set("topic.metadata.propagation.max.ms", (millis / 4).to_string());
        config.remove("delivery.timeout.ms");
        set_security(&mut config, settings)?;
        Ok(Self { config, tokens: TokenSettings::of(settings)?, patience: timeout - HELD_BACK_MAX.min(timeout / 5) })
    }

    /// What delivering a batch may take.
    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    pub(crate) fn producer(&self) -> Result<Live, Fault> {
        let mut config = self.config.clone();
        config.set("enable.gapless.guarantee", "true");
        self.live(&config)
    }

    /// For records that go out one at a time.
    pub(crate) fn lone_producer(&self) -> Result<Live, Fault> {
        let mut config = self.config.clone();
        config.set("enable.gapless.guarantee", "true").remove("queue.buffering.max.ms").set("linger.ms", "0");
        self.live(&config)
    }

    pub(crate) fn transactional_producer(&self, id: &str) -> Result<Live, Fault> {
        let mut config = self.config.clone();
        config.set("transactional.id", id);
        self.live(&config)
    }

    fn live(&self, config: &ClientConfig) -> Result<Live, Fault> {
        let producer = config.create_with_context(self.watcher()).map_err(|error| error::fault_of(&error))?;
        Ok(Live { producer: Some(producer) })
    }

    /// Reads committed records of partitions that it is given.
    pub(crate) fn reader(&self, group: &str) -> KafkaResult<BaseConsumer<Watcher>> {
        let mut config = self.config.clone();
        config
            .set("group.id", group)
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest");
        config.create_with_context(self.watcher())
    }

    /// None with OAUTHBEARER: the library does not serve an admin client's requests for tokens.
    pub(crate) fn admin(&self) -> Option<KafkaResult<AdminClient<Watcher>>> {
        if self.tokens.is_some() {
            return None;
        }
        Some(self.config.create_with_context(self.watcher()))
    }

    fn watcher(&self) -> Watcher {
        let tokens = self.tokens.as_ref().map(|tokens| tokens.source(Handle::current()));
        Watcher { tokens, room: Notify::new(), trouble: Mutex::default(), is_spent: watch::Sender::new(false) }
    }
}

fn set_security(config: &mut ClientConfig, settings: &Settings) -> Result<(), BuildError> {
    let protocol = match (&settings.tls, &settings.sasl) {
        (None, None) => "plaintext",
        (Some(_), None) => "ssl",
        (None, Some(_)) => "sasl_plaintext",
        (Some(_), Some(_)) => "sasl_ssl",
    };
    config.set("security.protocol", protocol);
    if let Some(tls) = &settings.tls {
        let files = [
            ("ssl.ca.location", "tls.ca_file", &tls.ca_file),
            ("ssl.certificate.location", "tls.cert_file", &tls.cert_file),
            ("ssl.key.location", "tls.key_file", &tls.key_file),
        ];
        for (name, path, file) in files {
            let Some(file) = file else { continue };
            let text = file.to_str().ok_or_else(|| BuildError(format!("{path}: the path is not UTF-8")))?;
            std::fs::metadata(file).map_err(|error| BuildError(format!("{path}: {text}: {error}")))?;
            config.set(name, text);
        }
        if tls.ca_file.is_none() {
            // OpenSSL is linked in, so it does not know where this system keeps its CAs.
            config.set("ssl.ca.location", "probe");
        }
    }
    let (mechanism, login) = match &settings.sasl {
        None => return Ok(()),
        Some(Sasl::Plain { username, password }) => ("PLAIN", Some((username, password))),
        Some(Sasl::ScramSha256 { username, password }) => ("SCRAM-SHA-256", Some((username, password))),
        Some(Sasl::ScramSha512 { username, password }) => ("SCRAM-SHA-512", Some((username, password))),
        Some(Sasl::OAuthBearer { .. }) => ("OAUTHBEARER", None),
    };
    config.set("sasl.mechanism", mechanism);
    if let Some((username, password)) = login {
        config.set("sasl.username", username).set("sasl.password", resolved(password, "sasl.password")?);
    }
    Ok(())
}

fn resolved(secret: &Secret, path: &str) -> Result<String, BuildError> {
    let secret = secret.resolve().map_err(|error| BuildError(format!("{path}: {error}")))?;
    Ok(secret.expose_secret().to_owned())
}

/// What a client's thread tells us.
pub(crate) struct Watcher {
    tokens: Option<TokenSource>,
    /// Told whenever a record has left the queue.
    room: Notify,
    trouble: Mutex<Option<Trouble>>,
    /// Whether a fatal error has come: nothing more is sent then, nor reported.
    is_spent: watch::Sender<bool>,
}

struct Trouble {
    fault: Fault,
    says: Says,
    at: Instant,
}

/// How much a trouble explains. What explains less does not replace what explains more.
#[derive(PartialEq, PartialOrd)]
enum Says {
    /// That all brokers are down, which follows from something.
    Little,
    /// What is wrong with a broker.
    Enough,
    /// Why there is no token, which is why a login fails.
    All,
}

impl Watcher {
    /// The latest trouble with brokers, if it is fresh.
    pub(crate) fn trouble(&self) -> Option<Fault> {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.as_ref().filter(|trouble| trouble.at.elapsed() < TROUBLE_AGE_MAX).map(|trouble| trouble.fault.clone())
    }

    fn note(&self, fault: Fault, says: Says) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let is_better_known =
            trouble.as_ref().is_some_and(|known| known.says > says && known.at.elapsed() < TROUBLE_AGE_MAX);
        if !is_better_known {
            *trouble = Some(Trouble { fault, says, at: Instant::now() });
        }
    }
}

impl ClientContext for Watcher {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        match level {
            RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => trace!(facility, text, "librdkafka"),
            _ => debug!(facility, text, "librdkafka"),
        }
    }

    fn stats_raw(&self, _: &[u8]) {}

    fn error(&self, error: KafkaError, reason: &str) {
        debug!(%error, reason, "librdkafka");
        if let Some(code) = error.rdkafka_error_code() {
            if matches!(error::verdict(code), Verdict::Spent | Verdict::Fenced) {
                self.is_spent.send_replace(true);
            }
            let says = if code == RDKafkaErrorCode::AllBrokersDown { Says::Little } else { Says::Enough };
            self.note(error::fault_saying(code, reason), says);
        }
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn StdError>> {
        let tokens = self.tokens.as_ref().ok_or("no token endpoint is configured")?;
        let token = tokens.fetch().map_err(|fault| {
            let text = fault.reason.clone();
            self.note(fault, Says::All);
            text
        })?;
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(token)
    }
}

impl ProducerContext for Watcher {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        let report = match result {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown)),
        };
        ticket.report(report);
        self.room.notify_waiters();
    }
}

impl ConsumerContext for Watcher {}

/// A producer with its connections. Ending one blocks for a moment, so that is done where blocking is allowed.
pub(crate) struct Live {
    /// Present until dropped.
    producer: Option<ThreadedProducer<Watcher>>,
}

impl Live {
    pub(crate) fn producer(&self) -> &ThreadedProducer<Watcher> {
        self.producer.as_ref().expect("present until dropped")
    }

    /// Hands a record to librdkafka, waiting for room in its queue until `deadline`.
    pub(crate) async fn send(&self, mut record: Record<'_>, deadline: Instant) -> Result<(), RDKafkaErrorCode> {
        loop {
            // Asked for before the try, so that room which is made right after it is not missed.
            let room = self.watcher().room.notified();
            match self.producer().send(record) {
                Ok(()) => return Ok(()),
                Err((error, unsent)) if is_full(&error) => record = unsent,
                Err((error, _)) => return Err(code(&error)),
            }
            if Instant::now() >= deadline {
                return Err(RDKafkaErrorCode::QueueFull);
            }
            // A report comes a moment before its room is free, and the last one has no successor.
            drop(timeout(ROOM_PATIENCE, room).await);
        }
    }

    /// As [`Live::send`], on a thread that may block.
    pub(crate) fn send_blocking(&self, mut record: Record<'_>, deadline: Instant) -> Result<(), RDKafkaErrorCode> {
        loop {
            match self.producer().send(record) {
                Ok(()) => return Ok(()),
                Err((error, unsent)) if is_full(&error) && Instant::now() < deadline => record = unsent,
                Err((error, _)) => return Err(code(&error)),
            }
            // Takes in delivery reports, which make room.
            self.producer().poll(ROOM_PATIENCE);
        }
    }

    pub(crate) fn watcher(&self) -> &Watcher {
        self.producer().client().context()
    }

    /// Fails whatever has not been confirmed.
    pub(crate) fn give_up(&self) {
        self.producer().purge(PurgeConfig::default().queue().inflight());
    }

    /// Waits for a fatal error.
    pub(crate) async fn spent(&self) {
        // Fails only once the producer is gone, whom the caller holds.
        drop(self.watcher().is_spent.subscribe().wait_for(|is_spent| *is_spent).await);
    }

    pub(crate) fn is_spent(&self) -> bool {
        self.fatal_error().is_some()
    }

    pub(crate) fn fatal_error(&self) -> Option<RDKafkaErrorCode> {
        self.producer().client().fatal_error().map(|(code, _)| code)
    }

    /// Lets what is left land for a moment, and lets go of all connections. Blocks.
    pub(crate) fn end(mut self) {
        if let Some(producer) = self.producer.take() {
            // What does not land is still in the journal.
            drop(producer.flush(CLOSE_PATIENCE));
            drop(producer);
        }
    }
}

fn code(error: &KafkaError) -> RDKafkaErrorCode {
    error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::InvalidArgument)
}

fn is_full(error: &KafkaError) -> bool {
    code(error) == RDKafkaErrorCode::QueueFull
}

impl Drop for Live {
    fn drop(&mut self) {
        let Some(producer) = self.producer.take() else { return };
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || drop(producer))),
            Err(_) => drop(producer),
        }
    }
}
