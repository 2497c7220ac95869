//! Fetching a recording: redirects followed by hand and only to allowed hosts, every address judged when it is connected to, and the
//! rest asked for where a transfer breaks off.
//!
//! It promises that what it gives is one whole version of the recording: parts are put together only where the server says that they
//! belong together (`If-Range` with a strong ETag or the date of the last change, and `Content-Range`), else it begins anew. It
//! refuses to wait, and to ask again without end: a request that brings nothing more is the last.
//!
//! ```text
//! url ─host, scheme, address─▶ request ─3xx─▶ the same with its Location
//!                                 │ 200, 206 ─body─▶ spool ─break─▶ request with Range, from the url on
//! ```

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_RANGE,
    LAST_MODIFIED, LOCATION, RANGE, RETRY_AFTER, TRANSFER_ENCODING, USER_AGENT,
};
use reqwest::{Method, Request, Response, StatusCode, Url, Version, redirect};
use sink_api::BuildError;
use sink_api::guard::{Guard, NoneAllowed};
use sink_api::http::{Failure, GuardedResolver, Lookup, retry_after};

use super::error::Error;
use super::hosts::Hosts;
use super::media::Media;
use super::settings::RecordingsSettings;
use super::spool::{Spool, Spooled};

/// A chain of redirects is followed so far.
const REDIRECTS_MAX: usize = 5;

/// Requests of one fetch after the first, redirects not counted.
const RESUMES_MAX: usize = 8;

/// Name look-up, TCP and TLS, where `timeout` is not shorter.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);

/// Unused connections are closed after this time: sooner than common servers do.
const IDLE_TIME_MAX: Duration = Duration::from_secs(4);

/// A host in a message is cut after so many characters.
const HOST_CHARS_MAX: usize = 100;

pub(super) struct Fetcher {
    hosts: Hosts,
    guard: Guard,
    timeout: Duration,
    size_max: u64,
    /// Taken away when the sink is closed: the last clone of it closes the connections.
    http: Mutex<Option<reqwest::Client>>,
}

/// A whole recording and what it is.
pub(super) struct Fetched {
    pub(super) bytes: Spooled,
    pub(super) media: Media,
}

/// What is known of the version that is being fetched.
#[derive(Debug, Default)]
struct Edition {
    /// A value for `If-Range`; none where the server gives none that is good enough.
    validator: Option<HeaderValue>,
    /// Its length, where the server says it.
    length_bytes: Option<u64>,
    content_type: Option<String>,
}

/// How one request ended.
enum Ended {
    Whole,
    /// With how many bytes it brought.
    Broken(Failure, u64),
    /// What came so far is of another edition.
    Anew,
}

impl Fetcher {
    /// Connects nowhere.
    pub(super) fn new(settings: &RecordingsSettings, lookup: Arc<dyn Lookup>) -> Result<Self, BuildError> {
        let guard = Guard::new(settings.allow_networks.clone());
        let builder = || {
            reqwest::Client::builder()
                .redirect(redirect::Policy::none())
                .no_proxy()
                .referer(false)
                .timeout(settings.timeout.0)
                .connect_timeout(settings.timeout.0.min(CONNECT_TIME_MAX))
                .pool_idle_timeout(IDLE_TIME_MAX)
                .dns_resolver(GuardedResolver { guard: guard.clone(), lookup: Arc::clone(&lookup) })
        };
        // On a machine without CA certificates links of plain http still work.
        let http = builder().build().or_else(|_| builder().tls_certs_only([]).build());
        let http = http.map_err(|error| BuildError(format!("TLS cannot be set up: {error}")))?;
        Ok(Self {
            hosts: Hosts::new(&settings.hosts),
            guard,
            timeout: settings.timeout.0,
            size_max: settings.size_max.0,
            http: Mutex::new(Some(http)),
        })
    }

    /// Fetches what lies at `url` into `spool`.
    pub(super) async fn fetch(&self, url: &str, mut spool: Spool) -> Result<Fetched, Error> {
        let url = Url::parse(url).map_err(|_| Error::BadUrl)?;
        let place = place_of(&url);
        let mut edition = Edition::default();
        let mut resumes = 0;
        loop {
            let (failure, brought) = match self.transfer(&url, &mut edition, &mut spool).await? {
                Ended::Whole => break,
                Ended::Broken(failure, brought) => (failure, brought),
                Ended::Anew => (Failure::Lost("another edition came".to_owned()), 1),
            };
            if resumes == RESUMES_MAX || brought == 0 {
                let (got, expected) = (spool.length_bytes(), edition.length_bytes);
                return Err(Error::Broken { place, failure, got, expected });
            }
            resumes += 1;
        }
        let bytes = spool.finish().await?;
        let media = Media::of(&bytes.head, edition.content_type.as_deref())
            .map_err(|what| Error::NotARecording { place, what })?;
        Ok(Fetched { bytes, media })
    }

    pub(super) fn close(&self) {
        self.http.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// One request with its redirects, and as much of its body as comes. What is in the spool stays where the server goes on behind
    /// it, and is forgotten where it begins anew.
    async fn transfer(&self, url: &Url, edition: &mut Edition, spool: &mut Spool) -> Result<Ended, Error> {
        let mut from = spool.length_bytes();
        if from > 0 && edition.validator.is_none() {
            spool.restart().await?;
            from = 0;
        }
        let range = (from > 0).then(|| (from, edition.validator.clone().expect("seen above")));
        let (place, response) = match self.follow(url, range.as_ref()).await? {
            Ok(answered) => answered,
            Err(failure) => return Ok(Ended::Broken(failure, 0)),
        };
        let headers = response.headers();
        match response.status() {
            StatusCode::OK => {
                // Another version, or a server that knows no ranges.
                if from > 0 {
                    spool.restart().await?;
                }
                *edition = Edition::of(&response);
            }
            StatusCode::PARTIAL_CONTENT if from > 0 && edition.goes_on(headers, from) => {}
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE if from > 0 => {
                spool.restart().await?;
                *edition = Edition::default();
                return Ok(Ended::Anew);
            }
            status => {
                let after = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
                let after = after.and_then(|text| retry_after(text, SystemTime::now()));
                return Err(Error::Status { place, status, after });
            }
        }
        if edition.length_bytes.is_some_and(|length| length > self.size_max) {
            return Err(Error::TooLarge { place, limit: self.size_max });
        }
        if headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
            return Err(Error::Encoding { place });
        }
        if edition.length_bytes.is_none() && !tells_its_end(&response) {
            return Err(Error::NoLength { place });
        }
        self.receive(response, place, edition.length_bytes, spool).await
    }

    async fn receive(
        &self,
        mut response: Response,
        place: String,
        length_bytes: Option<u64>,
        spool: &mut Spool,
    ) -> Result<Ended, Error> {
        let mut brought = 0;
        loop {
            let chunk = match response.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                Err(error) => return Ok(Ended::Broken(Failure::of(&error), brought)),
            };
            brought += chunk.len() as u64;
            if spool.length_bytes() + chunk.len() as u64 > self.size_max {
                return Err(Error::TooLarge { place, limit: self.size_max });
            }
            spool.append(&chunk).await?;
        }
        match length_bytes {
            Some(length) if length != spool.length_bytes() => {
                Ok(Ended::Broken(Failure::Lost("the body is shorter than was said".to_owned()), brought))
            }
            _ => Ok(Ended::Whole),
        }
    }

    /// The first answer that is no redirect, and whose it is. The inner error is a break, which may pass.
    async fn follow(
        &self,
        url: &Url,
        range: Option<&(u64, HeaderValue)>,
    ) -> Result<Result<(String, Response), Failure>, Error> {
        let mut url = url.clone();
        let mut followed = 0;
        loop {
            self.judge(&url)?;
            let place = place_of(&url);
            let response = match self.execute(request(&url, range)).await? {
                Ok(response) => response,
                Err(Failure::AddressRefused(refused)) => return Err(Error::AddressRefused { place, refused }),
                Err(failure) => return Ok(Err(failure)),
            };
            if !is_redirect(response.status()) {
                return Ok(Ok((place, response)));
            }
            if followed == REDIRECTS_MAX {
                return Err(Error::Redirects { place, followed });
            }
            let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            url = location.and_then(|location| url.join(location).ok()).ok_or(Error::Redirect { place })?;
            followed += 1;
        }
    }

    async fn execute(&self, request: Request) -> Result<Result<Response, Failure>, Error> {
        let http = self.http.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or(Error::Closed)?;
        // The client's own timeout ends with the body; this one bounds what it might not.
        let answered = tokio::time::timeout(self.timeout + CONNECT_TIME_MAX, http.execute(request)).await;
        Ok(answered.map_or(Err(Failure::Timeout), |response| response.map_err(|error| Failure::of(&error))))
    }

    /// Whether this may be asked for at all. Names are judged once more by their addresses, when they are connected to.
    fn judge(&self, url: &Url) -> Result<(), Error> {
        let host = url.host_str().unwrap_or_default();
        let is_open = url.username().is_empty() && url.password().is_none();
        if !matches!(url.scheme(), "http" | "https") || host.is_empty() || !is_open {
            return Err(Error::BadUrl);
        }
        if !self.hosts.allow(host) {
            return Err(Error::HostRefused { host: shown(host) });
        }
        let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        match literal.map(|address| self.guard.judge(address)) {
            Ok(Err(refused)) => {
                Err(Error::AddressRefused { place: place_of(url), refused: NoneAllowed::Refused(refused) })
            }
            _ => Ok(()),
        }
    }
}

impl Edition {
    fn of(response: &Response) -> Self {
        let headers = response.headers();
        let etag = headers.get(ETAG).filter(|etag| !etag.as_bytes().starts_with(b"W/"));
        let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        Self {
            validator: etag.or_else(|| headers.get(LAST_MODIFIED)).cloned(),
            length_bytes: response.content_length(),
            content_type: content_type.map(str::to_owned),
        }
    }

    /// Whether a partial answer is of the same version and begins at `from`.
    fn goes_on(&mut self, headers: &HeaderMap, from: u64) -> bool {
        let range = headers.get(CONTENT_RANGE).and_then(|range| range.to_str().ok()).and_then(content_range);
        let Some((first, total)) = range else { return false };
        let same_tag = match (&self.validator, headers.get(ETAG)) {
            (Some(validator), Some(etag)) if validator.as_bytes().starts_with(b"\"") => validator == etag,
            _ => true,
        };
        let same_length = self.length_bytes.is_none() || total.is_none() || self.length_bytes == total;
        self.length_bytes = self.length_bytes.or(total);
        first == from && same_tag && same_length && self.length_bytes.is_some()
    }
}

/// RFC 9110 section 14.4: the first byte of `bytes 5-9/10`, and the whole length where it is known.
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = range.split_once('-')?;
    Some((first.trim().parse().ok()?, total.trim().parse().ok()))
}

/// Whether the end of this body differs from a lost connection although no length is given.
fn tells_its_end(response: &Response) -> bool {
    response.version() >= Version::HTTP_2 || response.headers().contains_key(TRANSFER_ENCODING)
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn request(url: &Url, range: Option<&(u64, HeaderValue)>) -> Request {
    let mut url = url.clone();
    url.set_fragment(None);
    let mut request = Request::new(Method::GET, url);
    let headers = request.headers_mut();
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("trunkline/", env!("CARGO_PKG_VERSION"))));
    if let Some((from, validator)) = range {
        headers.insert(RANGE, HeaderValue::from_str(&format!("bytes={from}-")).expect("digits"));
        headers.insert(IF_RANGE, validator.clone());
    }
    request
}

/// `host:port`.
fn place_of(url: &Url) -> String {
    let host = shown(url.host_str().unwrap_or_default());
    url.port_or_known_default().map_or_else(|| host.clone(), |port| format!("{host}:{port}"))
}

fn shown(host: &str) -> String {
    host.chars().take(HOST_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_range_is_read_with_and_without_its_total() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, None)));
        for text in ["bytes */10", "5-9/10", "bytes 5/10", ""] {
            assert_eq!(content_range(text), None, "{text}");
        }
    }

    #[test]
    fn a_place_shows_neither_path_nor_query() {
        let url = Url::parse("http://Host.test/a/b?sign=secret").unwrap();
        assert_eq!(place_of(&url), "host.test:80");
    }
}
