//! One connection to the broker, and the channels on it.
//!
//! It is never mended. What is lost is lost at once and for all that wait on it, and the client makes a new one: the library's own
//! recovery would hold confirms that can never come until it has reconnected, and would retry where the pipeline decides.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use lapin::options::ConfirmSelectOptions;
use lapin::tcp::RustlsConnector;
use lapin::{AsyncTcpStream, Channel, Connection, ConnectionProperties, Event};
use tokio::sync::OnceCell;
use tokio::time::timeout;

use crate::address::Address;
use crate::error::Error;
use crate::topology::Topology;
use crate::wire::Wire;

/// Channels that are kept for the next batch.
const IDLE_MAX: usize = 8;

const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// AMQP 0-9-1 section 1.2, reply-success.
const REPLY_SUCCESS: u16 = 200;

pub(crate) struct Link {
    connection: Connection,
    wire: Wire,
    place: String,
    /// Channels in confirm mode on which nothing is due.
    idle: Mutex<Vec<Channel>>,
    topology: OnceCell<()>,
    notices: Mutex<Notices>,
}

/// What the broker says beside its answers.
struct Notices {
    events: BoxStream<'static, Event>,
    /// Why publishers are blocked, while they are.
    blocked: Option<String>,
}

impl Link {
    /// Connects and logs in. Safe to drop: the socket is cut then.
    pub(crate) async fn connect(address: &Address, tls: Option<&RustlsConnector>, name: &str) -> Result<Self, Error> {
        let place = address.place();
        let of = |error: lapin::Error| Error::of(&error, &place);
        let wire = Wire::default();
        let (holder, tls) = (wire.holder(), tls.cloned());
        let properties = ConnectionProperties::default().with_connection_name(format!("trunkline {name}").into());
        let runtime = lapin::runtime::default_runtime().map_err(of)?;
        let connection = Connection::connector(
            address.uri.clone(),
            runtime,
            async move |uri, runtime| {
                let (host, port) = (uri.authority.host.as_str(), uri.authority.port);
                let mut last = std::io::Error::other("the name has no address");
                for address in tokio::net::lookup_host((host, port)).await? {
                    let stream = match AsyncTcpStream::connect(&runtime, address).await {
                        Ok(stream) => stream,
                        Err(error) => {
                            last = error;
                            continue;
                        }
                    };
                    if let AsyncTcpStream::Plain(plain) = &stream
                        && !holder.hold(plain.get_ref())?
                    {
                        return Err(std::io::Error::other("nobody waits for the connection").into());
                    }
                    return match &tls {
                        Some(connector) => Ok(stream.into_rustls(connector, host).await?),
                        None => Ok(stream),
                    };
                }
                Err(last.into())
            },
            properties,
        );
        let connection = connection.await.map_err(of)?;
        let notices = Notices { events: connection.events_listener().boxed(), blocked: None };
        Ok(Self {
            connection,
            wire,
            place,
            idle: Mutex::default(),
            topology: OnceCell::new(),
            notices: Mutex::new(notices),
        })
    }

    pub(crate) fn is_up(&self) -> bool {
        self.connection.status().connected()
    }

    /// Why the broker takes no messages just now, though it is there.
    pub(crate) fn blocked(&self) -> Option<Error> {
        let mut notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(Some(event)) = notices.events.next().now_or_never() {
            match event {
                Event::ConnectionBlocked(reason) => notices.blocked = Some(reason),
                Event::ConnectionUnblocked => notices.blocked = None,
                _ => {}
            }
        }
        let reason = notices.blocked.clone();
        let is_blocked = self.connection.status().blocked();
        is_blocked.then(|| Error::Blocked { place: self.place.clone(), reason: reason.unwrap_or_default() })
    }

    /// A channel in confirm mode, after the topology was seen to.
    pub(crate) async fn channel(&self, topology: &Topology) -> Result<Channel, Error> {
        let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(channel) = kept.filter(|channel| channel.status().connected()) {
            return Ok(channel);
        }
        let of = |error: lapin::Error| Error::of(&error, &self.place);
        let channel = self.connection.create_channel().await.map_err(of)?;
        self.topology.get_or_try_init(|| topology.ensure(&channel)).await.map_err(of)?;
        channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(of)?;
        Ok(channel)
    }

    /// Takes back a channel on which nothing is due.
    pub(crate) fn give_back(&self, channel: Channel) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(channel);
        }
    }

    /// Whether the broker answers, and has what is not declared by us.
    pub(crate) async fn probe(&self, topology: &Topology) -> Result<(), Error> {
        let of = |error: lapin::Error| Error::of(&error, &self.place);
        let channel = self.connection.create_channel().await.map_err(of)?;
        topology.look(&channel).await.map_err(of)?;
        channel.close(REPLY_SUCCESS, "probed".into()).await.map_err(of)
    }

    /// Ends the connection without a word, for all that wait on it.
    pub(crate) fn cut(&self) {
        self.wire.cut();
    }

    /// Says good-bye.
    pub(crate) async fn close(&self) {
        let closing = self.connection.close(REPLY_SUCCESS, "closed".into());
        // A broker that does not answer is left all the same.
        timeout(CLOSE_PATIENCE, closing).await.ok();
        self.wire.cut();
    }
}
