//! The way to the collector: OTLP over HTTP, in batches, from a thread of its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::{Request, Response};
use opentelemetry::KeyValue;
use opentelemetry_http::{Bytes, HttpClient, HttpError};
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider};
use reqwest::redirect;
use secrecy::ExposeSecret as _;
use sink_api::settings::SecretError;
use tokio::runtime::Handle;

use super::Tracer;
use crate::config::model;
use crate::serve::pace::Pace;

/// What sending the last spans may take when the gateway stops.
const END_PATIENCE: Duration = Duration::from_secs(2);

/// A collector's answer is looked at for its status alone; more of it is not read.
const ANSWER_SIZE_MAX: usize = 64 << 10;

/// Sends spans until it is stopped; nothing where tracing is off.
#[derive(Debug)]
pub struct Export(Option<SdkTracerProvider>);

#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("tracing.headers.{name}: {source}")]
    Header { name: String, source: SecretError },
    #[error("tracing.endpoint: {0}")]
    Client(#[source] reqwest::Error),
    #[error("tracing: {0}")]
    Exporter(#[from] ExporterBuildError),
}

impl Export {
    /// Connects to nothing yet: a collector that is away costs spans and nothing else. Must be called within a runtime, on which
    /// requests are made.
    ///
    /// # Errors
    /// A header's secret cannot be read, or no HTTP client be made.
    pub fn new(settings: &model::Tracing) -> Result<Self, SetupError> {
        let Some(endpoint) = &settings.endpoint else { return Ok(Self(None)) };
        let mut headers = HashMap::new();
        for (name, secret) in &settings.headers {
            let value = secret.resolve().map_err(|source| SetupError::Header { name: name.clone(), source })?;
            headers.insert(name.clone(), value.expose_secret().to_owned());
        }
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
            .with_timeout(settings.timeout.0)
            .with_headers(headers)
            .with_http_client(Client::new(endpoint, settings.timeout.0)?)
            .build()?;
        let queue = BatchConfigBuilder::default()
            .with_max_queue_size(settings.queue_max)
            .with_max_export_batch_size(settings.queue_max.min(512))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(queue).build())
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(settings.sample_ratio))))
            .with_resource(resource())
            .build();
        Ok(Self(Some(provider)))
    }

    pub fn tracer(&self) -> Tracer {
        self.0.as_ref().map(Tracer::from).unwrap_or_default()
    }

    /// Sends what is left, if the collector takes it within a moment.
    pub async fn end(self) {
        let Some(provider) = self.0 else { return };
        // It waits for the exporting thread, which waits for a request on this runtime.
        let ended = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(END_PATIENCE)).await;
        if !matches!(ended, Ok(Ok(()))) {
            tracing::debug!("the last spans were not sent");
        }
    }
}

fn resource() -> Resource {
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    Resource::builder().with_service_name("trunkline").with_attribute(version).build()
}

/// Makes requests on the gateway's runtime, since the exporting thread has none.
#[derive(Debug)]
struct Client {
    client: reqwest::Client,
    runtime: Handle,
    pace: Arc<Pace>,
}

impl Client {
    fn new(endpoint: &str, timeout: Duration) -> Result<Self, SetupError> {
        let builder = reqwest::Client::builder()
            .user_agent(concat!("trunkline/", env!("CARGO_PKG_VERSION")))
            .no_proxy()
            .redirect(redirect::Policy::none())
            .timeout(timeout);
        // Works on a machine without any CA certificates too.
        let builder = if endpoint.starts_with("http:") { builder.tls_certs_only([]) } else { builder };
        let client = builder.build().map_err(SetupError::Client)?;
        Ok(Self { client, runtime: Handle::current(), pace: Arc::new(Pace::new()) })
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let sending = self.runtime.spawn(send(self.client.clone(), request));
        let answer = sending.await.map_err(HttpError::from).and_then(|answer| answer);
        let trouble = match &answer {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("status {}", answer.status().as_u16())),
            Err(error) => Some(error.to_string()),
        };
        if let Some(cause) = trouble
            && let Some(held_back) = self.pace.pass("spans")
        {
            tracing::warn!(cause, held_back, "spans could not be sent to the collector");
        }
        answer
    }
}

async fn send(client: reqwest::Client, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let broken = |error: reqwest::Error| HttpError::from(error.without_url());
    let request = request.try_into().map_err(broken)?;
    let mut response = client.execute(request).await.map_err(broken)?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(broken)? {
        if body.len() + chunk.len() > ANSWER_SIZE_MAX {
            return Err("the collector's answer is too long".into());
        }
        body.extend_from_slice(&chunk);
    }
    let mut answer = Response::new(Bytes::from(body));
    *answer.status_mut() = response.status();
    *answer.headers_mut() = response.headers().clone();
    Ok(answer)
}
