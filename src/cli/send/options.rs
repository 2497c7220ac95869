//! The options of `trunkline send`, and what they amount to.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use clap::{Args, ValueHint};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Certificate, Client, Url, redirect};
use secrecy::{ExposeSecret, SecretString};
use sink_api::settings::{Period, Secret, SecretError};
use tokio::sync::Mutex;

use super::body::Body;
use super::load::Load;
use super::oauth::{ClientAuth, Tokens};
use super::vendor::Vendor;

const CLOSED_LOOP_CONCURRENCY: usize = 8;
/// An open loop must not wait for replies; still there is a bound.
const OPEN_LOOP_CONCURRENCY: usize = 1024;
/// Below the time after which receivers close an idle connection, so that a push rarely meets a closing one.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

const AFTER_HELP: &str = "\
Examples:
  trunkline send --action cdr --url http://127.0.0.1:8080/push cdr.json
  echo '{\"SessionId\":\"s1\"}' | trunkline send --action voicemail
  trunkline send --action cdr --count 60000 --rate 1000 --sessions 500 --log sent.ndjson cdr.json
  PUSH_PASSWORD=... trunkline send --action record --user tccc --password-env PUSH_PASSWORD record.json
  PUSH_SECRET=... trunkline send --action cdr --oauth-token-url http://127.0.0.1:8080/oauth/token --oauth-client-id tccc \\
    --oauth-client-secret-env PUSH_SECRET cdr.json

A push is accepted when the reply is JSON whose ErrCode is the number 0; otherwise it is sent again, under the same push id.
Exit codes: 0 all accepted, 1 some failed, 2 usage, 69 no push got any HTTP reply.";

/// Send pushes as the contact centre would.
#[derive(Debug, Args)]
#[command(disable_version_flag = true, after_help = AFTER_HELP)]
pub struct SendArgs {
    /// The kind of push, such as cdr, record, voicemail; sent as it is written.
    #[arg(long)]
    pub action: String,
    /// The push address of the receiver. May have a query, which is kept.
    #[arg(long, value_hint = ValueHint::Url, default_value = "http://127.0.0.1:8080/push")]
    pub url: Url,
    /// The version in the query; empty leaves it out. [default: 1, and none for voicemail]
    #[arg(long = "version", value_name = "VERSION")]
    pub protocol_version: Option<String>,
    /// How many times the body is sent, each time as a new push.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..), hide_default_value = true)]
    pub count: u64,
    /// Pushes a second, whatever the replies take; latency counts from the time a push was due. Without it, each sender waits for its
    /// reply before the next push.
    #[arg(long, value_parser = rate)]
    pub rate: Option<f64>,
    /// Pushes in flight at the same time. [default: 8, or 1024 with --rate]
    #[arg(long, value_parser = concurrency)]
    pub concurrency: Option<usize>,
    /// Spread the pushes over this many sessions: a suffix is added to the SessionId of the body.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub sessions: Option<u64>,
    /// The push id, instead of a fresh one for each push. With --count all carry it, as duplicates. Empty leaves the header out.
    #[arg(long, value_name = "ID")]
    pub push_id: Option<HeaderValue>,
    #[command(flatten)]
    auth: AuthArgs,
    #[command(flatten)]
    oauth: OAuthArgs,
    /// How often a push that was not acknowledged is sent again.
    #[arg(long, default_value_t = 3)]
    pub retries: u32,
    /// Time before each retry.
    #[arg(long, value_name = "TIME", default_value_t = Period::from_secs(1))]
    pub retry_delay: Period,
    /// Time for one attempt, from connecting to the end of the reply.
    #[arg(long, value_name = "TIME", default_value_t = Period::from_secs(5))]
    pub timeout: Period,
    #[command(flatten)]
    tls: TlsArgs,
    /// Write the outcome of each push to this file, as NDJSON; what the file held is lost.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub log: Option<PathBuf>,
    /// The body; standard input where absent or `-`.
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,
}

/// How the sender shows who it is.
#[derive(Debug, Args)]
#[command(next_help_heading = "Credentials")]
struct AuthArgs {
    /// User of HTTP Basic authentication.
    #[arg(long, requires = "password")]
    user: Option<String>,
    /// The environment variable that holds the password.
    #[arg(long, value_name = "NAME", requires = "user", group = "password")]
    password_env: Option<String>,
    /// The file that holds the password; a trailing newline is cut.
    #[arg(long, value_name = "FILE", requires = "user", group = "password", value_hint = ValueHint::FilePath)]
    password_file: Option<PathBuf>,
}

/// Tokens in place of a password.
#[derive(Debug, Args)]
#[command(next_help_heading = "OAuth 2.0 client credentials")]
struct OAuthArgs {
    /// Where tokens are fetched; every push carries one.
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url, requires_all = ["oauth_client_id", "oauth_client_secret_env"],
        conflicts_with = "user")]
    oauth_token_url: Option<Url>,
    /// Who fetches them.
    #[arg(long, value_name = "ID", requires = "oauth_token_url")]
    oauth_client_id: Option<String>,
    /// The environment variable that holds the client's secret.
    #[arg(long, value_name = "NAME", requires = "oauth_token_url")]
    oauth_client_secret_env: Option<String>,
    /// How the client shows id and secret.
    #[arg(long, value_name = "HOW", value_enum, default_value_t = ClientAuth::Basic, requires = "oauth_token_url")]
    oauth_client_auth: ClientAuth,
}

/// How the receiver's certificate is judged.
#[derive(Debug, Args)]
#[command(next_help_heading = "TLS")]
struct TlsArgs {
    /// Trust this CA (PEM), and no other.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    ca_file: Option<PathBuf>,
    /// Take any certificate. For tests only.
    #[arg(long, conflicts_with = "ca_file")]
    insecure: bool,
}

/// Options that cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    #[error("--url must start with http:// or https://")]
    Scheme,
    #[error("--url must not hold credentials: use --user with --password-env or --password-file")]
    CredentialsInUrl,
    #[error("--oauth-token-url must start with http:// or https:// and hold no credentials")]
    TokenUrl,
    #[error("the client's secret cannot be used: {0}")]
    ClientSecret(SecretError),
    #[error("the password cannot be used: {0}")]
    Password(#[from] SecretError),
    #[error("--ca-file {} cannot be used: {error}", path.display())]
    CaFile { path: PathBuf, error: Box<dyn std::error::Error + Send + Sync> },
    #[error("TLS cannot be set up: {0}")]
    Client(reqwest::Error),
}

impl SendArgs {
    /// The sending side. Reads the password and the CA; connects nowhere.
    pub(super) fn vendor(&self) -> Result<Vendor, UsageError> {
        let client = self.client()?;
        Ok(Vendor {
            url: self.push_url()?,
            headers: self.auth.headers()?,
            tokens: self.tokens()?,
            client,
            retries: self.retries,
            retry_delay: self.retry_delay.0,
        })
    }

    /// What is sent through it.
    pub(super) fn load(&self, body: Body) -> Load {
        let concurrency = match self.rate {
            None => CLOSED_LOOP_CONCURRENCY,
            Some(_) => OPEN_LOOP_CONCURRENCY,
        };
        Load {
            body,
            count: self.count,
            rate: self.rate,
            concurrency: self.concurrency.unwrap_or(concurrency),
            push_id: self.push_id.clone(),
        }
    }

    /// PROTOCOL.md section 1: `?action=<action>[&version=1]`, after what the URL's query already has.
    fn push_url(&self) -> Result<Url, UsageError> {
        let mut url = self.url.clone();
        if !matches!(url.scheme(), "http" | "https") {
            return Err(UsageError::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(UsageError::CredentialsInUrl);
        }
        url.set_fragment(None);
        let default_version = if self.action.eq_ignore_ascii_case("voicemail") { "" } else { "1" };
        let version = self.protocol_version.as_deref().unwrap_or(default_version);
        let mut query = url.query_pairs_mut();
        query.append_pair("action", &self.action);
        if !version.is_empty() {
            query.append_pair("version", version);
        }
        drop(query);
        Ok(url)
    }

    fn tokens(&self) -> Result<Option<Arc<Tokens>>, UsageError> {
        let OAuthArgs { oauth_token_url, oauth_client_id, oauth_client_secret_env, oauth_client_auth } = &self.oauth;
        let (Some(url), Some(id), Some(env)) = (oauth_token_url, oauth_client_id, oauth_client_secret_env) else {
            return Ok(None);
        };
        if !matches!(url.scheme(), "http" | "https") || !url.username().is_empty() || url.password().is_some() {
            return Err(UsageError::TokenUrl);
        }
        Ok(Some(Arc::new(Tokens {
            client: self.client_for(url)?,
            url: url.clone(),
            client_id: id.clone(),
            client_secret: Secret::Env(env.clone()).resolve().map_err(UsageError::ClientSecret)?,
            client_auth: *oauth_client_auth,
            cached: Mutex::default(),
        })))
    }

    fn client(&self) -> Result<Client, UsageError> {
        self.client_for(&self.url)
    }

    /// HTTP/1.1 without redirects or proxies: what is measured and judged is the receiver at the URL alone.
    fn client_for(&self, url: &Url) -> Result<Client, UsageError> {
        let builder = Client::builder()
            .user_agent(concat!("trunkline/", env!("CARGO_PKG_VERSION")))
            .http1_only()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .timeout(self.timeout.0)
            .pool_idle_timeout(IDLE_TIMEOUT);
        let builder = if url.scheme() == "http" {
            // Works on a machine without any CA certificates too.
            builder.tls_certs_only([])
        } else if self.tls.insecure {
            builder.tls_danger_accept_invalid_certs(true)
        } else if let Some(path) = &self.tls.ca_file {
            let wrong = |error| UsageError::CaFile { path: path.clone(), error };
            let pem = std::fs::read(path).map_err(|error| wrong(error.into()))?;
            let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| wrong(error.into()))?;
            if certificates.is_empty() {
                return Err(wrong("it holds no PEM certificate".into()));
            }
            builder.tls_certs_only(certificates)
        } else {
            builder
        };
        builder.build().map_err(UsageError::Client)
    }
}

impl AuthArgs {
    fn headers(&self) -> Result<HeaderMap, UsageError> {
        let mut headers = HeaderMap::new();
        if let (Some(user), Some(password)) = (&self.user, self.password()?) {
            headers.insert(AUTHORIZATION, basic(user, &password));
        }
        Ok(headers)
    }

    fn password(&self) -> Result<Option<SecretString>, SecretError> {
        let env = self.password_env.clone().map(Secret::Env);
        let file = self.password_file.clone().map(Secret::File);
        env.or(file).map(|secret| secret.resolve()).transpose()
    }
}

/// RFC 7617 section 2.
fn basic(user: &str, password: &SecretString) -> HeaderValue {
    let credentials = BASE64_STANDARD.encode(format!("{user}:{}", password.expose_secret()));
    let mut value = HeaderValue::from_str(&format!("Basic {credentials}")).expect("base64 is visible ASCII");
    value.set_sensitive(true);
    value
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.001..=1_000_000.0).contains(&rate) { Ok(rate) } else { Err("must be from 0.001 to 1000000".to_owned()) }
}

fn concurrency(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 1..=65_536) => Ok(number),
        _ => Err("must be a number from 1 to 65536".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        send: SendArgs,
    }

    fn args(line: &str) -> Result<SendArgs, clap::Error> {
        Command::try_parse_from(line.split(' ')).map(|command| command.send)
    }

    fn url(line: &str) -> String {
        args(line).unwrap().push_url().unwrap().to_string()
    }

    #[test]
    fn action_and_version_follow_what_the_url_has() {
        assert_eq!(url("send --action cdr --url http://h/push"), "http://h/push?action=cdr&version=1");
        assert_eq!(url("send --action cdr --url http://h/p?a=%20b#x"), "http://h/p?a=%20b&action=cdr&version=1");
        assert_eq!(url("send --action voicemail --url http://h/p"), "http://h/p?action=voicemail");
        assert_eq!(
            url("send --action voicemail --version 2 --url http://h/p"),
            "http://h/p?action=voicemail&version=2"
        );
        assert_eq!(url("send --action cdr --version= --url http://h/p"), "http://h/p?action=cdr");
    }

    #[test]
    fn a_url_that_cannot_be_used_is_refused() {
        let refused = |line| args(line).unwrap().push_url().unwrap_err().to_string();
        assert!(refused("send --action cdr --url ftp://h/p").contains("http://"));
        let message = refused("send --action cdr --url http://u:hunter2@h/p");
        assert!(message.contains("--user") && !message.contains("hunter2"), "{message}");
    }

    #[test]
    fn a_password_comes_with_a_user_and_never_from_the_command_line() {
        for line in [
            "send --action cdr --user u",
            "send --action cdr --password-env P",
            "send --action cdr --user u --password-env P --password-file f",
            "send --action cdr --password p",
        ] {
            assert!(args(line).is_err(), "{line}");
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        std::fs::write(&path, "open sesame\n").unwrap();
        let args = args(&format!("send --action cdr --user Aladdin --password-file {}", path.display())).unwrap();
        let headers = args.auth.headers().unwrap();
        assert_eq!(headers[AUTHORIZATION], "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert!(headers[AUTHORIZATION].is_sensitive());
    }

    #[test]
    fn tokens_need_a_url_a_client_and_a_secret_and_no_user() {
        let whole = "--oauth-token-url http://h/t --oauth-client-id c --oauth-client-secret-env E";
        assert!(args(&format!("send --action cdr {whole} --oauth-client-auth form")).is_ok());
        for options in [
            "--oauth-token-url http://h/t",
            "--oauth-token-url http://h/t --oauth-client-id c",
            "--oauth-client-id c --oauth-client-secret-env E",
            "--oauth-client-auth form",
            &format!("{whole} --user u --password-env P"),
            &format!("{whole} --oauth-client-auth query"),
        ] {
            assert!(args(&format!("send --action cdr {options}")).is_err(), "{options}");
        }
        let of = |url: &str| args(&format!("send --action cdr {}", whole.replace("http://h/t", url))).unwrap();
        for url in ["ftp://h/t", "http://u:hunter2@h/t"] {
            let error = of(url).tokens().unwrap_err();
            assert!(matches!(error, UsageError::TokenUrl) && !error.to_string().contains("hunter2"));
        }
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        for option in ["--count 0", "--rate 0", "--rate nan", "--concurrency 0", "--sessions 0", "--timeout 5"] {
            assert!(args(&format!("send --action cdr {option}")).is_err(), "{option}");
        }
    }

    #[test]
    fn a_ca_file_without_a_certificate_is_named() {
        let args = args("send --action cdr --url https://h/ --ca-file /dev/null").unwrap();
        assert!(args.client().unwrap_err().to_string().contains("/dev/null"));
    }
}
