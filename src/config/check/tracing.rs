//! What must hold of `[tracing]`.

use http::HeaderName;

use super::{Findings, check_secret};
use crate::config::model::Tracing;
use crate::config::path::Path;

pub fn check_tracing(tracing: &Tracing, findings: &mut Findings) {
    let at = Path::of("tracing");
    if let Some(endpoint) = &tracing.endpoint {
        check_endpoint(at.key("endpoint"), endpoint, findings);
    }
    if !(0.0..=1.0).contains(&tracing.sample_ratio) {
        let message = format!("found {}", tracing.sample_ratio);
        findings.fault(at.key("sample_ratio"), message, "must be from 0, for none, to 1, for all");
    }
    for (name, secret) in &tracing.headers {
        let at = at.key("headers").key(name);
        if name.parse::<HeaderName>().is_err() {
            findings.fault(at.clone(), "is no name of a header field", "must be letters, digits and -");
        }
        check_secret(at, secret, findings);
    }
    findings.need_time(&at, &[("timeout", tracing.timeout)]);
    findings.need_some(&at, &[("queue_max", tracing.queue_max as u64)]);
}

/// Shows nothing of the URL, which may hold a secret.
fn check_endpoint(at: Path, endpoint: &str, findings: &mut Findings) {
    let url = endpoint.parse::<reqwest::Url>().ok();
    let Some(url) = url.filter(|url| matches!(url.scheme(), "http" | "https")) else {
        findings.fault(at, "is no URL of a collector", "must be like http://127.0.0.1:4318");
        return;
    };
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
        findings.fault(at, "holds credentials or a query", "put what the collector wants to see into tracing.headers");
    }
}
