//! Gives out tokens for a client's credentials (RFC 6749 §4.4), and answers by its §5.
//!
//! The client shows its id and secret in an `Authorization: Basic` field or in the form, not in both and never in the URI. In the field
//! they are form-encoded by the book (§2.3.1), which many clients leave out; both are taken. A `scope` is ignored: there is none.

use bytes::Bytes;
use http::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, PRAGMA, RETRY_AFTER, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body_util::Full;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use subtle::{Choice, ConstantTimeEq as _};

use super::{Challenge, Digest, Failure, basic, sha256};
use crate::ingress::request::is_unencoded;

/// Bound of a request's body, in bytes.
pub const BODY_SIZE_MAX: u64 = 8 << 10;

/// Who may fetch tokens.
pub struct Client {
    id: Digest,
    secrets: Vec<Digest>,
}

/// A token that was given out.
pub struct Issued {
    pub token: String,
    /// Seconds.
    pub expires_in: u64,
}

/// Why none is given out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenError {
    /// The request is not one of §4.4.2; says what is wrong with it.
    Request(&'static str),
    Method,
    TooLarge,
    Late,
    /// The client is not known, or did not say who it is.
    Client(Failure),
    /// Too many unknown ones; in seconds.
    Throttled {
        retry_after: u64,
    },
    GrantType,
}

/// The parameters of a request that matter. Those without a value count as absent (§3.2).
#[derive(Default)]
struct Form {
    grant_type: Option<String>,
    client_id: Option<String>,
    client_secret: Option<String>,
}

/// What can be said before the body has come.
pub fn check_head(head: &Parts) -> Result<(), TokenError> {
    if head.method != Method::POST {
        return Err(TokenError::Method);
    }
    let query = head.uri.query().unwrap_or_default();
    let is_secret = |name: &str| name == "client_secret" || name == "client_id";
    if form_urlencoded::parse(query.as_bytes()).any(|(name, _)| is_secret(&name)) {
        return Err(TokenError::Request("credentials must not be in the URI"));
    }
    let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded") || !is_unencoded(&head.headers) {
        return Err(TokenError::Request("the body must be application/x-www-form-urlencoded"));
    }
    Ok(())
}

impl Client {
    pub fn new(id: &str, secrets: &[SecretString]) -> Self {
        let secrets = secrets.iter().map(|secret| sha256(secret.expose_secret().as_bytes())).collect();
        Self { id: sha256(id.as_bytes()), secrets }
    }

    /// Whether a token may be given out for this request.
    pub fn check(&self, headers: &HeaderMap, body: &[u8]) -> Result<(), TokenError> {
        let form = Form::read(body)?;
        self.authenticate(headers, &form)?;
        match form.grant_type.as_deref() {
            Some("client_credentials") => Ok(()),
            Some(_) => Err(TokenError::GrantType),
            None => Err(TokenError::Request("grant_type is missing")),
        }
    }

    fn authenticate(&self, headers: &HeaderMap, form: &Form) -> Result<(), TokenError> {
        if !headers.contains_key(AUTHORIZATION) {
            let (Some(id), Some(secret)) = (&form.client_id, &form.client_secret) else {
                return Err(TokenError::Client(Failure::Missing));
            };
            return self.judge(self.is(id.as_bytes(), secret.as_bytes()));
        }
        if form.client_secret.is_some() {
            return Err(TokenError::Request("credentials must be in the header or in the form, not in both"));
        }
        let (id, secret) = basic::pair(headers).map_err(TokenError::Client)?;
        let (plain_id, plain_secret) = (form_decoded(&id), form_decoded(&secret));
        if form.client_id.as_ref().is_some_and(|other| *other.as_bytes() != *id && *other.as_bytes() != *plain_id) {
            return Err(TokenError::Request("client_id in the form is another than in the header"));
        }
        self.judge(self.is(&plain_id, &plain_secret) | self.is(&id, &secret))
    }

    /// Compares id and every secret, whatever is found first.
    fn is(&self, id: &[u8], secret: &[u8]) -> Choice {
        let given = sha256(secret);
        let any = self.secrets.iter().fold(Choice::from(0), |any, secret| any | secret.ct_eq(&given));
        sha256(id).ct_eq(&self.id) & any
    }

    fn judge(&self, is_client: Choice) -> Result<(), TokenError> {
        if bool::from(is_client) { Ok(()) } else { Err(TokenError::Client(Failure::Wrong)) }
    }
}

impl Form {
    fn read(body: &[u8]) -> Result<Self, TokenError> {
        let mut form = Self::default();
        for (name, value) in form_urlencoded::parse(body) {
            let place = match &*name {
                "grant_type" => &mut form.grant_type,
                "client_id" => &mut form.client_id,
                "client_secret" => &mut form.client_secret,
                _ => continue,
            };
            if value.is_empty() {
                continue;
            }
            if place.replace(value.into_owned()).is_some() {
                return Err(TokenError::Request("a parameter came twice"));
            }
        }
        Ok(form)
    }
}

/// Undoes the form encoding of one value.
fn form_decoded(text: &[u8]) -> Vec<u8> {
    let with_spaces: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = &with_spaces[..];
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        let escaped = digits.filter(|_| *first == b'%').and_then(|pair| u8::from_str_radix(pair, 16).ok());
        decoded.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &after[2..] } else { after };
    }
    decoded
}

impl TokenError {
    /// Status, and the `error` of §5.2.
    pub fn row(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Request(_) => (StatusCode::BAD_REQUEST, "invalid_request"),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, "invalid_request"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "invalid_request"),
            Self::Late => (StatusCode::REQUEST_TIMEOUT, "invalid_request"),
            Self::Client(_) => (StatusCode::UNAUTHORIZED, "invalid_client"),
            Self::Throttled { .. } => (StatusCode::TOO_MANY_REQUESTS, "invalid_client"),
            Self::GrantType => (StatusCode::BAD_REQUEST, "unsupported_grant_type"),
        }
    }

    fn description(&self) -> &'static str {
        match self {
            Self::Request(what) => what,
            Self::Method => "tokens are fetched with POST",
            Self::TooLarge => "the body is too large",
            Self::Late => "the body did not come in time",
            Self::Client(_) => "the credentials are missing or wrong",
            Self::Throttled { .. } => "too many failed logins from this address",
            Self::GrantType => "the grant type is client_credentials",
        }
    }
}

/// The reply of §5.1.
pub fn issued(issued: &Issued) -> Response<Full<Bytes>> {
    let body = json!({"access_token": issued.token, "token_type": "Bearer", "expires_in": issued.expires_in});
    with(StatusCode::OK, &body)
}

/// The reply of §5.2.
pub fn refused(error: &TokenError) -> Response<Full<Bytes>> {
    let (status, code) = error.row();
    let mut body = json!({"error": code, "error_description": error.description()});
    if let TokenError::Throttled { .. } = error {
        // RFC 6749 has no word for it, our other replies have.
        body["ErrCode"] = 4290.into();
        body["ErrMsg"] = error.description().into();
    }
    let mut response = with(status, &body);
    let field = match error {
        TokenError::Method => Some((ALLOW, HeaderValue::from_static("POST"))),
        TokenError::Client(_) => Some((WWW_AUTHENTICATE, HeaderValue::from_static(Challenge::Basic.as_str()))),
        TokenError::Throttled { retry_after } => Some((RETRY_AFTER, HeaderValue::from(*retry_after))),
        _ => None,
    };
    response.headers_mut().extend(field);
    response
}

fn with(status: StatusCode, body: &serde_json::Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    let fields = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (PRAGMA, HeaderValue::from_static("no-cache")),
    ];
    response.headers_mut().extend(fields);
    response
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;

    use super::*;

    const GRANT: &str = "grant_type=client_credentials";
    const WRONG: Result<(), TokenError> = Err(TokenError::Client(Failure::Wrong));

    fn check(basic: Option<&str>, body: &str) -> Result<(), TokenError> {
        let secrets = ["s %:ü".into(), "old".into()];
        let client = Client::new("i+d", &secrets);
        let field = basic.map(|pair| format!("Basic {}", BASE64_STANDARD.encode(pair)));
        let headers = field.map(|field| (AUTHORIZATION, HeaderValue::from_str(&field).unwrap()));
        client.check(&headers.into_iter().collect(), body.as_bytes())
    }

    #[test]
    fn either_secret_passes_by_header_and_by_form_encoded_or_not() {
        for pair in ["i%2Bd:s+%25%3A%C3%BC", "i%2Bd:s%20%25:ü", "i+d:s %:ü", "i+d:old"] {
            assert_eq!(check(Some(pair), GRANT), Ok(()), "{pair}");
        }
        assert_eq!(check(None, &format!("{GRANT}&client_id=i%2Bd&client_secret=old&scope=x")), Ok(()));
        assert_eq!(check(Some("i+d:old"), &format!("{GRANT}&client_id=i%2Bd&client_secret=")), Ok(()));
    }

    #[test]
    fn an_unknown_client_and_a_wrong_secret_are_the_same() {
        for pair in ["i+d:wrong", "other:old", "i+d:", ":old", "i+d"] {
            assert_eq!(check(Some(pair), GRANT), WRONG, "{pair}");
        }
        assert_eq!(check(None, &format!("{GRANT}&client_id=i%2Bd&client_secret=x")), WRONG);
        assert_eq!(check(None, &format!("{GRANT}&client_id=i%2Bd")), Err(TokenError::Client(Failure::Missing)));
        assert_eq!(check(None, GRANT), Err(TokenError::Client(Failure::Missing)));
    }

    #[test]
    fn requests_that_are_not_by_the_book_are_told_so() {
        for (basic, body) in [
            (Some("i+d:old"), "grant_type=client_credentials&client_secret=old"),
            (Some("i+d:old"), "grant_type=client_credentials&client_id=other"),
            (Some("i+d:old"), "grant_type=client_credentials&grant_type=client_credentials"),
            (Some("i+d:old"), ""),
            (Some("i+d:old"), "grant_type="),
        ] {
            assert!(matches!(check(basic, body), Err(TokenError::Request(_))), "{body}");
        }
        assert_eq!(check(Some("i+d:old"), "grant_type=password"), Err(TokenError::GrantType));
    }

    #[test]
    fn a_broken_escape_stays_as_it_is() {
        assert_eq!(form_decoded(b"a%2Bb+c%4"), b"a+b c%4");
        assert_eq!(form_decoded(b"%+1%zz%"), b"% 1%zz%");
    }
}
