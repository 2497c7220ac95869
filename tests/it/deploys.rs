//! What operators watch the gateway with: every query of the rules and of the dashboard finds series of a running gateway, and every
//! alert has a page that says what to do.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use test_servers::process::{Process, free_port, installed};

use crate::support::{GatewayBuilder, Outcome, Sender, cdr, eventually, file_sink, folder, wait_for_events};

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

/// A Prometheus that scrapes one gateway, as fast as it can, under the rules of `deploy/prometheus`.
struct Prometheus {
    url: String,
    _process: Process,
}

impl Prometheus {
    fn start(dir: &Path, target: &str) -> Self {
        let rules = deploy().join("prometheus/rules.yaml");
        let config = format!(
            "global: {{ scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 200ms }}\nrule_files: [{:?}]\n\
             scrape_configs: [{{ job_name: trunkline, static_configs: [{{ targets: [{target:?}] }}] }}]\n",
            rules.display().to_string()
        );
        std::fs::write(dir.join("prometheus.yaml"), config).unwrap();
        let listen = format!("127.0.0.1:{}", free_port());
        let mut command = Command::new(installed("usr/bin/prometheus"));
        command.arg("--config.file=prometheus.yaml").arg("--storage.tsdb.path=tsdb").current_dir(dir);
        command.arg(format!("--web.listen-address={listen}"));
        let process = Process::spawn(&command, &dir.join("prometheus.log")).unwrap();
        Self { url: format!("http://{listen}"), _process: process }
    }

    /// `data` of an answer of its API; none while it does not answer.
    async fn get(&self, path: &str, query: &[(&str, &str)]) -> Option<Value> {
        let query = form_urlencoded(query);
        let answer = reqwest::get(format!("{}{path}?{query}", self.url)).await.ok()?;
        let answer: Value = serde_json::from_str(&answer.text().await.ok()?).ok()?;
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        Some(answer["data"].clone())
    }

    /// The series that a query gives now.
    async fn series(&self, query: &str) -> usize {
        let data = self.get("/api/v1/query", &[("query", query)]).await;
        data.and_then(|data| data["result"].as_array().map(Vec::len)).unwrap_or(0)
    }

    /// Its rules, groups flattened.
    async fn rules(&self) -> Vec<Value> {
        let data = self.get("/api/v1/rules", &[]).await.expect("it answers");
        data["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
    }
}

fn form_urlencoded(pairs: &[(&str, &str)]) -> String {
    let mut url = reqwest::Url::parse("http://x").unwrap();
    url.query_pairs_mut().extend_pairs(pairs);
    url.query().unwrap_or_default().to_owned()
}

/// Every query of the dashboard, Grafana's variables filled in.
fn dashboard_queries() -> Vec<String> {
    let text = std::fs::read_to_string(deploy().join("grafana/trunkline.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let queries: Vec<_> = targets.map(|target| target["expr"].as_str().unwrap()).collect();
    assert!(queries.len() > 30, "the dashboard's shape has changed");
    let filled =
        |query: &str| query.replace("$instance", ".*").replace("$sink", ".*").replace("$__rate_interval", "1m");
    queries.into_iter().map(filled).collect()
}

/// The selectors of a query that name a metric of ours, or what a rule records: a name, and matchers where there are any.
fn selectors(query: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = query;
    while let Some(at) = rest.find("trunkline") {
        let name_ends = |c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':');
        let tail = &rest[at..];
        let name = tail.find(name_ends).unwrap_or(tail.len());
        let end = if tail[name..].starts_with('{') { name + tail[name..].find('}').unwrap() + 1 } else { name };
        // The job's name in a matcher is no metric.
        if name > "trunkline".len() {
            found.push(&tail[..end]);
        }
        rest = &tail[end..];
    }
    found
}

#[test]
fn selectors_are_found_in_a_query() {
    let query = "max(trunkline_a{job=\"trunkline\"}) / on () trunkline:b and rate(trunkline_c_total[5m]) > up{job=\"trunkline\"}";
    assert_eq!(selectors(query), ["trunkline_a{job=\"trunkline\"}", "trunkline:b", "trunkline_c_total"]);
}

#[tokio::test]
async fn every_query_of_rules_and_dashboard_finds_series_of_a_running_gateway() {
    let dir = folder();
    let events = dir.path().join("events.ndjson");
    // A sink of the kind that has series of its own.
    let store = dir.path().join("recordings").display().to_string();
    let recordings = format!(
        "[sinks.recordings]\ntype = \"recordings\"\nsettings.store = {{ provider = \"disk\", root = {store:?} }}\n"
    );
    let sinks = file_sink("events", &events) + &recordings;
    let gateway = GatewayBuilder::new(dir.path()).sinks(&sinks).start().await;
    assert_eq!(Sender::new(&gateway.url()).push("cdr", "a", &cdr("s", 1)).await, Outcome::Acknowledged);
    wait_for_events(&events, 1).await;

    let prometheus = Prometheus::start(dir.path(), &gateway.admin.to_string());
    eventually("it has scraped, and recorded", async || {
        (prometheus.series("trunkline:delivery_errors:ratio_rate6h").await > 0).then_some(())
    })
    .await;
    let rules = prometheus.rules().await;
    let mut queries: Vec<String> = rules.iter().map(|rule| rule["query"].as_str().unwrap().to_owned()).collect();
    queries.extend(dashboard_queries());
    for query in &queries {
        // Whether it can be read; what it gives may be nothing.
        prometheus.series(query).await;
    }
    let selectors: BTreeSet<&str> = queries.iter().flat_map(|query| selectors(query)).collect();
    assert!(selectors.len() > 40, "{selectors:?}");
    let mut missing = Vec::new();
    for selector in selectors {
        if prometheus.series(selector).await == 0 {
            missing.push(selector);
        }
    }
    assert!(missing.is_empty(), "the gateway exports nothing like {missing:#?}");
    gateway.stop().await;
}

#[tokio::test]
async fn every_alert_has_a_page_that_says_what_to_do() {
    let dir = folder();
    let prometheus = Prometheus::start(dir.path(), "127.0.0.1:9");
    eventually("it answers", async || prometheus.get("/api/v1/rules", &[]).await).await;
    let rules = prometheus.rules().await;
    let alerts: Vec<&Value> = rules.iter().filter(|rule| rule["type"] == "alerting").collect();
    assert!(alerts.len() <= 10, "more than ten alerts are read by nobody");
    let mut pages = BTreeSet::new();
    for alert in alerts {
        let page = alert["annotations"]["runbook"].as_str().expect("each alert names its page").to_owned();
        assert_eq!(page, format!("deploy/runbooks/{}.md", alert["name"].as_str().unwrap()));
        pages.insert(page.rsplit('/').next().unwrap().to_owned());
    }
    let there = std::fs::read_dir(deploy().join("runbooks")).unwrap();
    let there: BTreeSet<String> = there.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(there, pages, "a page for each alert and no other");
}
