//! A sender that behaves as PROTOCOL's: the same push id on every try, three resends at most, success is `ErrCode` 0 alone.

use std::time::Duration;

use serde_json::Value;

#[derive(Clone)]
pub struct Sender {
    client: reqwest::Client,
    url: String,
    resends_max: usize,
}

/// What the sender knows at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It got `ErrCode` 0.
    Acknowledged,
    /// The last reply, where there was one.
    GivenUp { status: Option<u16>, err_code: Option<i64> },
}

impl Sender {
    pub fn new(url: &str) -> Self {
        let client = reqwest::Client::builder()
            .timeout(Duration::from_secs(10))
            .no_proxy()
            .build()
            .expect("a client with these settings");
        Self { client, url: url.to_owned(), resends_max: 3 }
    }

    /// A sender that gives up at the first refusal.
    pub fn without_resends(self) -> Self {
        Self { resends_max: 0, ..self }
    }

    /// The same sender, for a gateway at another address.
    pub fn at(&self, url: &str) -> Self {
        Self { url: url.to_owned(), ..self.clone() }
    }

    /// One request; `None` when there was no reply.
    pub async fn once(&self, action: &str, push_id: &str, body: impl Into<Vec<u8>>) -> Option<(u16, Value)> {
        let response = self
            .client
            .post(format!("{}?action={action}&version=1", self.url))
            .header("content-type", "application/json; charset=utf8")
            .header("x-tccc-push-uuid", push_id)
            .body(body.into())
            .send()
            .await
            .ok()?;
        let status = response.status().as_u16();
        let reply = response.bytes().await.ok()?;
        Some((status, serde_json::from_slice(&reply).unwrap_or(Value::Null)))
    }

    /// One push, resent until it is acknowledged or given up.
    pub async fn push(&self, action: &str, push_id: &str, body: &str) -> Outcome {
        let mut last = Outcome::GivenUp { status: None, err_code: None };
        for attempt in 0..=self.resends_max {
            if attempt > 0 {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            if let Some((status, reply)) = self.once(action, push_id, body).await {
                let err_code = reply["ErrCode"].as_i64();
                if err_code == Some(0) {
                    return Outcome::Acknowledged;
                }
                last = Outcome::GivenUp { status: Some(status), err_code };
            }
        }
        last
    }
}
