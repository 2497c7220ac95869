//! The broker as the sink sees it: a connection that is made when it is needed and made anew when it was lost.

use std::sync::Arc;
use std::time::Duration;

use lapin::tcp::RustlsConnector;
use secrecy::ExposeSecret as _;
use sink_api::BuildError;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::timeout;

use crate::address::Address;
use crate::error::Error;
use crate::link::Link;
use crate::settings::{BATCH_TIMEOUTS, Settings};
use crate::tls;
use crate::topology::Topology;

pub(crate) struct Client {
    address: Address,
    tls: Option<RustlsConnector>,
    /// The sink's name, by which the broker lists the connection.
    name: String,
    pub topology: Topology,
    pub timeout: Duration,
    connect_timeout: Duration,
    unconfirmed_max: u32,
    /// Messages whose confirm may still become due.
    pub unconfirmed: Semaphore,
    /// Locked while a connection is made, so that one is made for all who wait.
    kept: Mutex<Kept>,
}

enum Kept {
    Open(Arc<Link>),
    None,
    Closed,
}

impl Client {
    /// Reads secrets and TLS files; connects nowhere.
    pub(crate) fn new(settings: &Settings, name: &str) -> Result<Self, BuildError> {
        let url = settings.url.resolve().map_err(|error| BuildError(format!("url: {error}")))?;
        let address = Address::parse(url.expose_secret()).map_err(|wrong| BuildError(format!("url: {wrong}")))?;
        let tls = match (&settings.tls, address.is_tls()) {
            (Some(_), false) => return Err(BuildError("tls: the url is not amqps; leave it out".to_owned())),
            (settings, true) => Some(tls::connector(&settings.clone().unwrap_or_default())?),
            (None, false) => None,
        };
        Ok(Self {
            address,
            tls,
            name: name.to_owned(),
            topology: Topology::new(settings),
            timeout: settings.timeout.0,
            connect_timeout: settings.connect_timeout.0,
            unconfirmed_max: settings.unconfirmed_max,
            unconfirmed: Semaphore::new(settings.unconfirmed_max as usize),
            kept: Mutex::new(Kept::None),
        })
    }

    /// So many messages at most are published before their confirms are waited for.
    pub(crate) fn window(&self) -> usize {
        self.unconfirmed_max as usize
    }

    /// How long one batch may go on beginning waves.
    pub(crate) fn batch_timeout(&self) -> Duration {
        self.timeout * BATCH_TIMEOUTS
    }

    pub(crate) fn place(&self) -> String {
        self.address.place()
    }

    /// The connection that is up, or a new one, within `connect_timeout`; and what `then` makes of it, in the same time.
    pub(crate) async fn with_link<T>(
        &self,
        then: impl AsyncFnOnce(&Link) -> Result<T, Error>,
    ) -> Result<(Arc<Link>, T), Error> {
        let made = async {
            let link = self.link().await?;
            if let Some(blocked) = link.blocked() {
                return Err(blocked);
            }
            match then(&link).await {
                Ok(made) => Ok((link, made)),
                Err(error) => {
                    self.forget(&link).await;
                    Err(error)
                }
            }
        };
        let late = |_| Err(Error::Late { place: self.place() });
        timeout(self.connect_timeout, made).await.unwrap_or_else(late)
    }

    pub(crate) async fn probe(&self) -> Result<(), Error> {
        let probed = self.with_link(async |link| link.probe(&self.topology).await).await;
        if matches!(probed, Err(Error::Late { .. })) {
            self.forget_all().await;
        }
        probed.map(|_| ())
    }

    /// The next who asks gets a new connection. Those that use this one finish.
    pub(crate) async fn forget(&self, link: &Arc<Link>) {
        let mut kept = self.kept.lock().await;
        if matches!(&*kept, Kept::Open(current) if Arc::ptr_eq(current, link)) {
            *kept = Kept::None;
        }
    }

    pub(crate) async fn close(&self) {
        let kept = std::mem::replace(&mut *self.kept.lock().await, Kept::Closed);
        if let Kept::Open(link) = kept {
            link.close().await;
        }
    }

    async fn forget_all(&self) {
        let mut kept = self.kept.lock().await;
        if matches!(&*kept, Kept::Open(_)) {
            *kept = Kept::None;
        }
    }

    async fn link(&self) -> Result<Arc<Link>, Error> {
        let mut kept = self.kept.lock().await;
        match &*kept {
            Kept::Closed => return Err(Error::Closed),
            Kept::Open(link) if link.is_up() => return Ok(Arc::clone(link)),
            Kept::Open(_) | Kept::None => {}
        }
        *kept = Kept::None;
        let link = Arc::new(Link::connect(&self.address, self.tls.as_ref(), &self.name).await?);
        *kept = Kept::Open(Arc::clone(&link));
        Ok(link)
    }
}
