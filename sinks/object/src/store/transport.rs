//! What every request to a store passes through on its way out, and every reply on its way back.
//!
//! - A body goes out with its MD5 (`Content-MD5`), which S3 and COS hold against what they received, so that a byte damaged on the
//!   way is refused; and the `ETag` of the reply is held against it, for look-alikes that do not look.
//! - A reply that is no success becomes a [`Refusal`] with its error code; so does a "success" that says otherwise in its body, as
//!   completing an upload may.
//! - For COS, the headers for encryption, which the client library does not know.
//!
//! Requests to other hosts, such as those for credentials, pass as they are. No redirect is followed: a store that redirects is the
//! wrong one.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::stream;
use http::header::{ETAG, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use md5::{Digest, Md5};
use opendal::raw::oio::ReadStream;
use opendal::{Buffer, Error, ErrorKind, HttpBody, HttpTransport, Result};
use opendal_http_transport_reqwest::ReqwestTransport;

use super::error::{BadChecksum, Refusal};

/// So much of a reply that is no object is read.
const REPLY_SIZE_MAX: usize = 64 << 10;

const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");

/// Replies with one of these were encrypted with keys that make another thing of the `ETag` than an MD5.
const ENCRYPTED_ETAG: [&str; 4] = [
    "x-amz-server-side-encryption-aws-kms-key-id",
    "x-amz-server-side-encryption-customer-algorithm",
    "x-cos-server-side-encryption-cos-kms-key-id",
    "x-cos-server-side-encryption-customer-algorithm",
];

/// Headers of COS that ask for encryption.
#[derive(Default)]
pub(super) struct EncryptionHeaders {
    /// When an object is begun: `PUT` of a whole object, or the first request of an upload in parts.
    pub(super) begin: HeaderMap,
    /// Whenever its bytes or their length are written or read.
    pub(super) always: HeaderMap,
}

pub(super) struct Transport {
    http: ReqwestTransport,
    /// Ends the host names of the store; other hosts are none of its.
    host: String,
    encryption: EncryptionHeaders,
    /// An `ETag` of 32 hex digits is the MD5 of what was sent.
    etag_is_md5: bool,
}

impl Transport {
    pub(super) fn new(client: reqwest::Client, host: String, encryption: EncryptionHeaders, etag_is_md5: bool) -> Self {
        Self { http: ReqwestTransport::new(client), host, encryption, etag_is_md5 }
    }

    fn is_store(&self, request: &Request<Buffer>) -> bool {
        request.uri().host().is_some_and(|host| host.ends_with(&self.host))
    }

    fn add_encryption(&self, request: &mut Request<Buffer>) {
        let query = request.uri().query().unwrap_or_default();
        let is_part = query.contains("uploadId=");
        let begins = match *request.method() {
            Method::PUT => !is_part,
            Method::POST => !is_part && query.contains("uploads"),
            _ => false,
        };
        let headers = request.headers_mut();
        headers.extend(self.encryption.always.clone());
        if begins {
            headers.extend(self.encryption.begin.clone());
        }
    }
}

impl HttpTransport for Transport {
    async fn fetch(&self, mut request: Request<Buffer>) -> Result<Response<HttpBody>> {
        if !self.is_store(&request) {
            return self.http.fetch(request).await;
        }
        let sent = (*request.method() == Method::PUT && !request.body().is_empty()).then(|| md5_of(request.body()));
        if let Some(md5) = &sent {
            let value = HeaderValue::from_str(&BASE64.encode(md5)).expect("Base64 is visible ASCII");
            request.headers_mut().insert(CONTENT_MD5, value);
        }
        self.add_encryption(&mut request);
        let completes =
            *request.method() == Method::POST && request.uri().query().unwrap_or_default().contains("uploadId=");
        let response = self.http.fetch(request).await?;
        if !response.status().is_success() {
            return Err(refusal_of(response).await.into());
        }
        if let Some(md5) = sent.filter(|_| self.etag_is_md5) {
            compare_etag(response.headers(), &md5)?;
        }
        if completes { completed(response).await } else { Ok(response) }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let kind = if refusal.status == 404 { ErrorKind::NotFound } else { ErrorKind::Unexpected };
        Self::new(kind, "refused").set_source(refusal)
    }
}

fn md5_of(body: &Buffer) -> [u8; 16] {
    let mut md5 = Md5::new();
    for piece in body.clone() {
        md5.update(&piece);
    }
    md5.finalize().into()
}

/// # Errors
/// When the store holds something else than was sent.
fn compare_etag(headers: &HeaderMap, md5: &[u8]) -> Result<()> {
    let Some(etag) = headers.get(ETAG).and_then(|value| value.to_str().ok()) else { return Ok(()) };
    let etag = etag.trim_matches('"').to_ascii_lowercase();
    let is_md5 = etag.len() == 32 && etag.bytes().all(|byte| byte.is_ascii_hexdigit());
    let sent = super::hex(md5);
    if !is_md5 || etag == sent || ENCRYPTED_ETAG.iter().any(|name| headers.contains_key(*name)) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Unexpected, "checksum").set_source(BadChecksum { sent, held: etag }))
}

async fn refusal_of(response: Response<HttpBody>) -> Refusal {
    let (parts, body) = response.into_parts();
    let after = parts.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    // The status has decided already; a body that breaks off only lacks its code.
    let text = read_reply(body).await.unwrap_or_default();
    Refusal { status: parts.status.as_u16(), code: error_code(&text), after: after.map(Duration::from_secs) }
}

/// The reply that completes an upload can begin as a success, to keep the connection, and end as an error.
async fn completed(response: Response<HttpBody>) -> Result<Response<HttpBody>> {
    let (parts, body) = response.into_parts();
    let text = read_reply(body).await?;
    if String::from_utf8_lossy(&text).contains("<Error>") {
        return Err(Refusal { status: parts.status.as_u16(), code: error_code(&text), after: None }.into());
    }
    let body = HttpBody::new(stream::iter([Ok(Buffer::from(text))]), None);
    Ok(Response::from_parts(parts, body))
}

async fn read_reply(mut body: HttpBody) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    loop {
        let piece = body.read().await?;
        if piece.is_empty() || text.len() > REPLY_SIZE_MAX {
            return Ok(text);
        }
        text.extend(piece.to_bytes());
    }
}

/// The content of `<Code>`, if it is a word.
fn error_code(reply: &[u8]) -> String {
    let text = String::from_utf8_lossy(reply);
    let code =
        text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>")).map_or("", |(code, _)| code.trim());
    let is_word = code.len() <= 64 && code.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.');
    if is_word { code.to_owned() } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn an_etag_that_is_an_md5_is_held_against_what_was_sent() {
        let md5 = md5_of(&Buffer::from("abc"));
        let right = "\"900150983cd24fb0d6963f7d28e17f72\"";
        let wrong = "\"900150983cd24fb0d6963f7d28e17f73\"";
        compare_etag(&headers(&[("etag", right)]), &md5).unwrap();
        compare_etag(&headers(&[("etag", &right.to_uppercase())]), &md5).unwrap();
        compare_etag(&headers(&[]), &md5).unwrap();
        compare_etag(&headers(&[("etag", "\"opaque-1\"")]), &md5).unwrap();
        compare_etag(&headers(&[("etag", wrong), (ENCRYPTED_ETAG[0], "k")]), &md5).unwrap();
        assert!(compare_etag(&headers(&[("etag", wrong)]), &md5).is_err());
    }

    #[test]
    fn an_error_code_is_a_word_or_nothing() {
        assert_eq!(error_code(b"<?xml?><Error><Code>NoSuchBucket</Code><Message>x</Message></Error>"), "NoSuchBucket");
        assert_eq!(error_code(b"<Code>a secret, with blanks</Code>"), "");
        assert_eq!(error_code(b"<html>"), "");
    }
}
