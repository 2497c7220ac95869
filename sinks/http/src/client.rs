//! Connections to the receiver and to the token endpoint: kept and used again, HTTP/2 where the other side offers it in its TLS
//! handshake. No redirect is followed, no proxy used, no body unpacked, and no address connected to that the guard refuses.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::{Certificate, Identity, Request, Response, redirect};
use sink_api::BuildError;
use sink_api::guard::{Guard, NoneAllowed};
use sink_api::http::{GuardedResolver, Lookup};
use sink_api::settings::TlsFiles;

use crate::address::Address;
use crate::error::{Error, Reply};
use crate::settings::Settings;

/// So much of a reply's body is read, so that its connection can be used again; after more the connection is given up.
const REPLY_SIZE_MAX: usize = 64 << 10;

/// Unused connections are closed after this time: sooner than common servers do, so that no request meets a connection that is being
/// closed just then.
const IDLE_TIME_MAX: Duration = Duration::from_secs(4);

const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

pub(crate) struct Client {
    guard: Guard,
    /// Taken away when the sink is closed: the last clone of it closes the connections.
    http: Mutex<Option<reqwest::Client>>,
}

impl Client {
    /// Reads the TLS files; connects nowhere. `any_https` says whether TLS is needed at all.
    pub(crate) fn new(settings: &Settings, any_https: bool, lookup: Arc<dyn Lookup>) -> Result<Self, BuildError> {
        let guard = settings.guard();
        let mut builder = reqwest::Client::builder()
            .redirect(redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .timeout(settings.timeout.0)
            .connect_timeout(settings.connect_timeout.0)
            .pool_idle_timeout(IDLE_TIME_MAX)
            .tcp_keepalive(KEEPALIVE_INTERVAL)
            .dns_resolver(GuardedResolver { guard: guard.clone(), lookup });
        let tls = settings.tls.clone().unwrap_or_default();
        if let Some(path) = &tls.ca_file {
            builder = builder.tls_certs_only(authorities(path)?);
        } else if !any_https {
            // Works on a machine without any CA certificates too.
            builder = builder.tls_certs_only([]);
        }
        if let Some(identity) = identity(&tls)? {
            builder = builder.identity(identity);
        }
        let http = builder.build().map_err(|error| BuildError(format!("TLS cannot be set up: {error}")))?;
        Ok(Self { guard, http: Mutex::new(Some(http)) })
    }

    /// Sends `request`, which goes to `address`, and waits for the reply's status.
    pub(crate) async fn send(&self, address: &Address, request: Request) -> Result<Reply, Error> {
        let mut response = self.execute(address, request).await?;
        let reply = Reply::new(response.status(), response.headers());
        // The status has decided already; a body that never ends must not make a failure of it.
        drop(read_body(&mut response).await);
        Ok(reply)
    }

    /// As [`Client::send`], with the reply's body, or its first part where it is long.
    pub(crate) async fn fetch(&self, address: &Address, request: Request) -> Result<(Reply, Bytes), Error> {
        let mut response = self.execute(address, request).await?;
        let reply = Reply::new(response.status(), response.headers());
        let body = read_body(&mut response).await.map_err(|error| Error::of(&error, address.host_and_port()))?;
        Ok((reply, body))
    }

    pub(crate) fn close(&self) {
        self.http.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    async fn execute(&self, address: &Address, request: Request) -> Result<Response, Error> {
        let http = self.http.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or(Error::Closed)?;
        if let Some(Err(refused)) = address.literal().map(|literal| self.guard.judge(literal)) {
            return Err(Error::AddressRefused {
                place: address.host_and_port(),
                refused: NoneAllowed::Refused(refused),
            });
        }
        http.execute(request).await.map_err(|error| Error::of(&error, address.host_and_port()))
    }
}

async fn read_body(response: &mut Response) -> reqwest::Result<Bytes> {
    let mut body = BytesMut::new();
    while body.len() < REPLY_SIZE_MAX {
        let Some(chunk) = response.chunk().await? else { break };
        body.extend_from_slice(&chunk[..chunk.len().min(REPLY_SIZE_MAX - body.len())]);
    }
    Ok(body.freeze())
}

fn authorities(path: &Path) -> Result<Vec<Certificate>, BuildError> {
    let pem = read("ca_file", path)?;
    let certificates = Certificate::from_pem_bundle(&pem).unwrap_or_default();
    if certificates.is_empty() {
        return Err(BuildError(format!("tls.ca_file: {} holds no PEM certificate that can be read", path.display())));
    }
    Ok(certificates)
}

fn identity(tls: &TlsFiles) -> Result<Option<Identity>, BuildError> {
    let (Some(certificate), Some(key)) = (&tls.cert_file, &tls.key_file) else { return Ok(None) };
    let mut pem = read("cert_file", certificate)?;
    pem.push(b'\n');
    pem.extend(read("key_file", key)?);
    let wrong = |_| {
        let (certificate, key) = (certificate.display(), key.display());
        BuildError(format!("tls: {certificate} and {key} do not hold a PEM certificate and its private key"))
    };
    Identity::from_pem(&pem).map(Some).map_err(wrong)
}

fn read(key: &str, path: &Path) -> Result<Vec<u8>, BuildError> {
    std::fs::read(path).map_err(|error| BuildError(format!("tls.{key}: {} cannot be read: {error}", path.display())))
}
