//! Who may change something or see a payload: whoever brings `admin.token` as a bearer token (RFC 6750).
//!
//! Without a token in the config, whoever reaches a loopback listener may, unless a browser says that another site sent it; a
//! listener that others reach then grants nothing. Tokens are compared as digests in constant time. An address that brings more
//! than [`WRONG_MAX`] wrong ones within a minute is answered with 429 in place of 401; the right token always passes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwapOption;
use aws_lc_rs::digest::{SHA256, digest};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use subtle::ConstantTimeEq as _;

use super::problem;
use crate::serve::throttle::Throttle;

/// Wrong tokens of one address within a minute that are answered with 401.
const WRONG_MAX: u32 = 10;
const ADDRESSES_MAX: usize = 1_000;

/// Where a request came from: an extension that the admin listener sets.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// Judges requests; shared by all protected routes.
pub struct Guard {
    token: ArcSwapOption<[u8; 32]>,
    is_loopback: bool,
    wrong: Throttle,
}

/// Why a request is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Denied {
    /// The listener is open to others, and no token is configured.
    NotConfigured,
    /// A browser sent it for another site.
    CrossSite,
    Missing,
    Wrong,
    TooMany {
        retry_after_seconds: u64,
    },
}

/// `routes` behind `guard`. They must be some: a router without routes cannot be guarded.
pub fn guarded<S: Clone + Send + Sync + 'static>(routes: Router<S>, guard: Arc<Guard>) -> Router<S> {
    routes.route_layer(middleware::from_fn_with_state(guard, check))
}

async fn check(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0.ip());
    match guard.judge(request.headers(), peer, Instant::now()) {
        Ok(()) => next.run(request).await,
        Err(denied) => denied.answer(),
    }
}

impl Guard {
    pub fn new(token: Option<&str>, listen: IpAddr) -> Self {
        let wrong = Throttle::new(WRONG_MAX, ADDRESSES_MAX);
        let this = Self { token: ArcSwapOption::empty(), is_loopback: listen.is_loopback(), wrong };
        this.replace(token);
        this
    }

    /// Another token counts from now on.
    pub fn replace(&self, token: Option<&str>) {
        self.token.store(token.map(|token| Arc::new(sha256(token.as_bytes()))));
    }

    fn judge(&self, headers: &HeaderMap, peer: IpAddr, now: Instant) -> Result<(), Denied> {
        let token = self.token.load_full();
        let Some(token) = token else { return self.judge_without_token(headers) };
        let given = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes).ok_or(Denied::Missing)?;
        let (scheme, given) = given.split_at_checked(7).ok_or(Denied::Missing)?;
        if !scheme.eq_ignore_ascii_case(b"bearer ") {
            return Err(Denied::Missing);
        }
        if bool::from(sha256(given.trim_ascii()).ct_eq(&*token)) {
            return Ok(());
        }
        Err(self
            .wrong
            .failed(peer, now)
            .map_or(Denied::Wrong, |retry_after_seconds| Denied::TooMany { retry_after_seconds }))
    }

    fn judge_without_token(&self, headers: &HeaderMap) -> Result<(), Denied> {
        let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
        match site {
            _ if !self.is_loopback => Err(Denied::NotConfigured),
            None | Some(b"same-origin" | b"none") => Ok(()),
            Some(_) => Err(Denied::CrossSite),
        }
    }
}

impl Denied {
    fn answer(self) -> Response {
        let (status, detail) = match self {
            Self::NotConfigured => (
                StatusCode::FORBIDDEN,
                "this needs a token and none is configured: set admin.token, as in [admin] token = { env = \
                 \"TRUNKLINE_ADMIN_TOKEN\" }, or let admin.listen be a loopback address",
            ),
            Self::CrossSite => (StatusCode::FORBIDDEN, "a browser sent this for another site; set admin.token"),
            Self::Missing => (StatusCode::UNAUTHORIZED, "this needs the header Authorization: Bearer <admin.token>"),
            Self::Wrong => (StatusCode::UNAUTHORIZED, "the token is wrong"),
            Self::TooMany { .. } => (StatusCode::TOO_MANY_REQUESTS, "too many wrong tokens from this address"),
        };
        let mut answer = problem(status, detail);
        match self {
            Self::Missing | Self::Wrong => {
                let challenge = HeaderValue::from_static("Bearer realm=\"trunkline\"");
                answer.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
            }
            Self::TooMany { retry_after_seconds } => {
                answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_after_seconds));
            }
            Self::NotConfigured | Self::CrossSite => {}
        }
        answer
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::throttle;

    const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn headers(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().unwrap(), HeaderValue::from_static(value))])
    }

    #[test]
    fn the_right_token_passes_and_nothing_else() {
        let guard = Guard::new(Some("t0ken"), PEER);
        let judge = |value| guard.judge(&headers("authorization", value), PEER, Instant::now());
        assert_eq!(judge("Bearer t0ken"), Ok(()));
        assert_eq!(judge("bearer  t0ken "), Ok(()));
        assert_eq!(judge("Bearer t0ke"), Err(Denied::Wrong));
        assert_eq!(judge("Bearer "), Err(Denied::Wrong));
        assert_eq!(judge("Basic t0ken"), Err(Denied::Missing));
        assert_eq!(guard.judge(&HeaderMap::new(), PEER, Instant::now()), Err(Denied::Missing));
        guard.replace(Some("other"));
        assert_eq!(judge("Bearer t0ken"), Err(Denied::Wrong));
    }

    #[test]
    fn without_a_token_only_loopback_is_let_in() {
        let (open, closed) = (Guard::new(None, LOOPBACK), Guard::new(None, PEER));
        let now = Instant::now();
        assert_eq!(closed.judge(&headers("authorization", "Bearer x"), PEER, now), Err(Denied::NotConfigured));
        assert_eq!(open.judge(&HeaderMap::new(), LOOPBACK, now), Ok(()));
        assert_eq!(open.judge(&headers("sec-fetch-site", "same-origin"), LOOPBACK, now), Ok(()));
        assert_eq!(open.judge(&headers("sec-fetch-site", "cross-site"), LOOPBACK, now), Err(Denied::CrossSite));
    }

    #[test]
    fn guessing_is_slowed_down_and_the_right_token_still_passes() {
        let guard = Guard::new(Some("t0ken"), PEER);
        let start = Instant::now();
        let guess = |peer, at| guard.judge(&headers("authorization", "Bearer guess"), peer, at);
        assert!((0..WRONG_MAX).all(|_| guess(PEER, start) == Err(Denied::Wrong)));
        assert_eq!(guess(PEER, start), Err(Denied::TooMany { retry_after_seconds: 60 }));
        assert_eq!(guess(LOOPBACK, start), Err(Denied::Wrong));
        assert_eq!(guard.judge(&headers("authorization", "Bearer t0ken"), PEER, start), Ok(()));
        assert_eq!(guess(PEER, start + throttle::WINDOW), Err(Denied::Wrong));
    }
}
