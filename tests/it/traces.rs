//! A push is a span, its deliveries are spans below it, and its trace goes on to every sink.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::routing::post;
use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value as Attribute;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::net::TcpListener;

use crate::support::{Gateway, GatewayBuilder, Receiver, cdr, events, eventually, file_sink, folder, wait_for_events};

const INCOMING: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Takes spans as a collector does, those alone that come with the header field it wants to see.
struct Collector {
    url: String,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let spans: Arc<Mutex<Vec<Span>>> = Arc::default();
        let kept = Arc::clone(&spans);
        let take = move |headers: http::HeaderMap, body: Bytes| async move {
            if headers.get("x-collector-key").is_none_or(|key| key != "canarykey") {
                return (http::StatusCode::UNAUTHORIZED, Vec::new());
            }
            let request = ExportTraceServiceRequest::decode(body).unwrap();
            let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
            kept.lock().unwrap().extend(scopes.flat_map(|scope| scope.spans));
            (http::StatusCode::OK, ExportTraceServiceResponse::default().encode_to_vec())
        };
        let router = Router::new().route("/v1/traces", post(take));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, spans }
    }

    fn config(&self) -> String {
        format!(
            "[tracing]\nendpoint = \"{}\"\nheaders = {{ x-collector-key = {{ env = \"COLLECTOR_KEY\" }} }}\n",
            self.url
        )
    }

    fn named(&self, name: &str) -> Vec<Span> {
        self.spans.lock().unwrap().iter().filter(|span| span.name == name).cloned().collect()
    }
}

fn attribute(span: &Span, key: &str) -> Option<String> {
    let value = span.attributes.iter().find(|attribute| attribute.key == key)?.value.clone()?;
    match value.value? {
        Attribute::StringValue(text) => Some(text),
        Attribute::IntValue(number) => Some(number.to_string()),
        _ => None,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn push(gateway: &Gateway, id: &str, traceparent: Option<&str>) {
    let request = reqwest::Client::new().post(format!("{}?action=cdr&version=1", gateway.url()));
    let request = request.header("x-tccc-push-uuid", id).body(cdr("s-1", 7));
    let request = match traceparent {
        Some(traceparent) => request.header("traceparent", traceparent),
        None => request,
    };
    assert_eq!(request.send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_push_and_its_deliveries_are_one_trace() {
    let dir = folder();
    let collector = Collector::start().await;
    let tries = Mutex::new(0);
    let receiver = Receiver::start(move |_| {
        let mut tries = tries.lock().unwrap();
        *tries += 1;
        if *tries == 1 { 500 } else { 200 }
    })
    .await;
    let out = dir.path().join("events.ndjson");
    let sinks = format!("{}{}", file_sink("events", &out), receiver.sink("hook"));
    let builder = GatewayBuilder::new(dir.path()).config(&collector.config()).sinks(&sinks);
    let gateway = builder.env("COLLECTOR_KEY", "canarykey").start().await;
    push(&gateway, "p-1", Some(INCOMING)).await;
    wait_for_events(&out, 1).await;
    eventually("the hook has it", async || (receiver.deliveries().len() == 2).then_some(())).await;
    eventually("it is settled", async || (gateway.status().await["sinks"]["hook"]["pending"] == 0).then_some(())).await;
    // What is left is sent before it ends.
    gateway.stop().await;

    let pushes = collector.named("push cdr");
    let [span] = &pushes[..] else { panic!("{pushes:?}") };
    assert_eq!(hex(&span.trace_id), "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(hex(&span.parent_span_id), "00f067aa0ba902b7");
    let says = |key| attribute(span, key).unwrap_or_default();
    assert_eq!(
        [says("trunkline.source"), says("trunkline.push_id"), says("trunkline.outcome")],
        ["main", "p-1", "accepted"]
    );
    let kept = format!("00-{}-{}-01", hex(&span.trace_id), hex(&span.span_id));
    assert_eq!(events(&out)[0]["traceparent"], kept.as_str());
    assert!(receiver.deliveries().iter().all(|delivered| delivered.event["traceparent"] == kept.as_str()));

    let hooks = collector.named("deliver hook");
    let seen: Vec<_> =
        hooks.iter().map(|span| (attribute(span, "trunkline.outcome"), attribute(span, "error.type"))).collect();
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(seen, [(text("retry"), text("http-500")), (text("delivered"), None)]);
    for delivery in hooks.iter().chain(&collector.named("deliver events")) {
        assert_eq!((&delivery.trace_id, &delivery.parent_span_id), (&span.trace_id, &span.span_id));
    }
    assert_eq!(collector.named("deliver events").len(), 1);
}

#[tokio::test]
async fn spans_hold_nothing_of_a_body_or_a_secret() {
    let dir = folder();
    let collector = Collector::start().await;
    let out = dir.path().join("events.ndjson");
    let builder = GatewayBuilder::new(dir.path()).config(&collector.config()).env("COLLECTOR_KEY", "canarykey");
    let mut gateway = builder.start().await;
    let body = r#"{"SessionId": "canarysession", "Caller": "canarycaller", "canaryfield": "x"}"#;
    let url = format!("{}?action=canaryaction&token=canaryquery", gateway.url());
    let request =
        reqwest::Client::new().post(url).header("x-tccc-push-uuid", "p-1").header("user-agent", "canaryagent");
    assert_eq!(request.body(body).send().await.unwrap().status(), 200);
    wait_for_events(&out, 1).await;
    gateway.terminate();
    gateway.ended().await;
    let seen = format!("{:?}{}", collector.spans.lock().unwrap(), gateway.lines().join("\n"));
    assert!(seen.contains("push other") && seen.contains("deliver events"), "{seen}");
    assert!(!seen.contains("canary"), "{seen}");
}

#[tokio::test]
async fn a_collector_that_is_away_costs_spans_alone() {
    let dir = folder();
    let port = test_servers::process::free_port();
    let config = format!("[tracing]\nendpoint = \"http://127.0.0.1:{port}\"\n");
    let out = dir.path().join("events.ndjson");
    let mut gateway = GatewayBuilder::new(dir.path()).config(&config).start().await;
    push(&gateway, "p-1", None).await;
    wait_for_events(&out, 1).await;
    assert!(events(&out)[0]["traceparent"].as_str().is_some_and(|kept| kept.ends_with("-01")));
    gateway.terminate();
    gateway.ended().await;
    let lines = gateway.lines();
    let told = lines.iter().filter(|line| line.contains("spans could not be sent")).count();
    assert_eq!(told, 1, "{lines:?}");
}

#[tokio::test]
async fn without_a_collector_the_trace_context_is_handed_on_as_it_came() {
    let dir = folder();
    let out = dir.path().join("events.ndjson");
    let gateway = GatewayBuilder::new(dir.path()).start().await;
    push(&gateway, "p-1", Some(INCOMING)).await;
    push(&gateway, "p-2", None).await;
    let events = wait_for_events(&out, 2).await;
    assert_eq!((&events[0]["traceparent"], events[1].get("traceparent")), (&INCOMING.into(), None));
    gateway.stop().await;
}
