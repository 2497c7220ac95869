//! What a real broker does wrong, and that the same sink delivers again once it is right.

use std::sync::Arc;
use std::time::Duration;

use sink_api::conformance::event;
use sink_api::{Event, Sink};
use test_servers::rabbitmq::RabbitMq;
use tokio::task::block_in_place;
use tokio::time::{Instant, sleep};

use crate::consumer::the_consumer_of_the_readme_takes_each_event_once;
use crate::support::{deliver, deliver_alike, events, sink_at};

const DECLARE: &str = "declare = { queue = \"all\" }";

/// One broker for all, since starting one costs more than they do.
#[tokio::test(flavor = "multi_thread")]
async fn every_fault_of_a_broker_has_its_outcome_and_an_end() {
    let mut broker = RabbitMq::start();
    the_consumer_of_the_readme_takes_each_event_once(&broker).await;
    returned_messages_are_matched_to_their_events(&broker).await;
    a_full_queue_asks_for_patience(&broker).await;
    a_missing_exchange_is_the_brokers_trouble(&broker).await;
    one_that_goes_missing_is_declared_again(&broker).await;
    a_refused_login_is_told_without_credentials(&broker).await;
    a_queue_that_is_declared_otherwise_is_told(&broker).await;
    a_blocked_connection_pauses(&broker).await;
    a_closed_connection_is_made_anew(&broker).await;
    a_broker_that_hangs_is_away(&broker).await;
    a_killed_broker_holds_what_was_confirmed(&mut broker).await;
}

async fn returned_messages_are_matched_to_their_events(broker: &RabbitMq) {
    let toml = "exchange = \"some\"\ndeclare = { queue = \"cdrs\", binding = \"tccc.cdr\" }";
    let sink = sink_at(&broker.url(), toml);
    // Every third has a key that nothing is bound for; each session has two events.
    let of = |n: usize| {
        let action = if n.is_multiple_of(3) { "videoCdr" } else { "cdr" };
        Event { action: action.to_owned(), ..event(&format!("some-{n}"), &format!("some-s{}", n / 2)) }
    };
    let outcomes = deliver(&sink, (0..600).map(of).collect()).await;
    let mut delivered = Vec::new();
    for (n, outcome) in outcomes.iter().enumerate() {
        let expected = match n {
            _ if n % 2 == 1 && (n - 1) % 3 == 0 => "patience waits",
            _ if n % 3 == 0 => "retry unroutable",
            _ => "delivered",
        };
        assert_eq!(outcome, expected, "some-{n}");
        if expected == "delivered" {
            delivered.push(format!("some-{n}"));
        }
    }
    let mut held: Vec<String> =
        broker.reader().drain("cdrs").iter().map(|message| message["id"].as_str().unwrap().to_owned()).collect();
    held.sort();
    delivered.sort();
    assert_eq!(held, delivered);
    sink.close().await;
}

async fn a_full_queue_asks_for_patience(broker: &RabbitMq) {
    broker.ctl(&[
        "set_policy",
        "full",
        "^full$",
        r#"{"max-length":5,"overflow":"reject-publish"}"#,
        "--apply-to",
        "queues",
    ]);
    let sink = sink_at(&broker.url(), "exchange = \"\"\nrouting_key = \"full\"\ndeclare = { queue = \"full\" }");
    let deadline = Instant::now() + Duration::from_secs(20);
    // The queue notices that it is full a moment late.
    while !deliver(&sink, events("full", 50)).await.contains(&"patience nacked".to_owned()) {
        assert!(Instant::now() < deadline, "the queue is never full");
    }
    broker.ctl(&["purge_queue", "full"]);
    broker.ctl(&["clear_policy", "full"]);
    delivers_at_last(&sink, "emptied").await;
    sink.close().await;
}

async fn a_missing_exchange_is_the_brokers_trouble(broker: &RabbitMq) {
    let fixed = sink_at(&broker.url(), "exchange = \"later\"");
    let made_up = sink_at(&broker.url(), "exchange = \"later.{action}\"");
    for sink in [&fixed, &made_up] {
        assert_eq!(deliver_alike(sink, events("later", 20)).await, "away not-found");
    }
    assert_eq!(fixed.probe().await.unwrap_err().code, "not-found");
    broker.declare("later", "later");
    broker.declare("later.cdr", "later");
    for sink in [&fixed, &made_up] {
        assert_eq!(deliver_alike(sink, events("later", 20)).await, "delivered");
        sink.close().await;
    }
    assert_eq!(broker.reader().drain("later").len(), 40);
}

async fn one_that_goes_missing_is_declared_again(broker: &RabbitMq) {
    let sink = sink_at(&broker.url(), &format!("exchange = \"gone\"\n{DECLARE}"));
    assert_eq!(deliver_alike(&sink, events("gone", 5)).await, "delivered");
    broker.ctl(&[
        "eval",
        "rabbit_exchange:delete(rabbit_misc:r(<<\"/\">>, exchange, <<\"gone\">>), false, <<\"test\">>).",
    ]);
    assert_eq!(deliver_alike(&sink, events("gone", 5)).await, "away not-found");
    assert_eq!(sink.probe().await, Ok(()));
    assert_eq!(deliver_alike(&sink, events("gone", 5)).await, "delivered");
    sink.close().await;
}

async fn a_refused_login_is_told_without_credentials(broker: &RabbitMq) {
    broker.ctl(&["add_user", "canaryuser", "canarypassword"]);
    broker.ctl(&["set_permissions", "canaryuser", "nothing", "nothing", "nothing"]);
    let url = |user: &str, vhost: &str| broker.url().replace("guest:guest", user).replace("%2f", vhost);
    let toml = "exchange = \"{source}\"";
    for (url, code) in [
        (url("canaryuser:wrongcanary", "%2f"), "access-refused"),
        (url("canaryuser:canarypassword", "%2f"), "access-refused"),
        (url("guest:guest", "nowhere"), "not-allowed"),
        (url("guest:guest", "%2f").replace(&broker.port().to_string(), "1"), "connect"),
        (url("guest:guest", "%2f").replace("127.0.0.1", "no-such-host.invalid"), "connect"),
    ] {
        let sink = sink_at(&url, toml);
        let outcomes = sink.deliver(&sink_api::conformance::batch(0, 1, events("login", 3))).await;
        assert!(!format!("{outcomes:?}").contains("canary"), "{outcomes:?}");
        assert_eq!(deliver_alike(&sink, events("login", 3)).await, format!("away {code}"));
        sink.close().await;
    }
}

async fn a_queue_that_is_declared_otherwise_is_told(broker: &RabbitMq) {
    let toml = "exchange = \"gone\"\ndeclare = { queue = \"all\", queue_type = \"classic\" }";
    let sink = sink_at(&broker.url(), toml);
    assert_eq!(deliver_alike(&sink, events("otherwise", 3)).await, "away precondition-failed");
    sink.close().await;
}

async fn a_blocked_connection_pauses(broker: &RabbitMq) {
    let sink = sink_at(&broker.url(), &format!("exchange = \"blocked\"\n{DECLARE}"));
    assert_eq!(deliver_alike(&sink, events("before", 5)).await, "delivered");
    broker.block();
    let begun = Instant::now();
    assert_eq!(deliver_alike(&sink, events("blocked", 50)).await, "away blocked");
    assert!(begun.elapsed() < Duration::from_secs(5), "it is told at once, not after the timeout");
    let fault = sink.probe().await.unwrap_err();
    assert_eq!(fault.code, "blocked");
    assert!(fault.reason.ends_with("blocks publishers: low on memory"), "{}", fault.reason);
    broker.unblock();
    delivers_at_last(&sink, "blocked").await;
    sink.close().await;
}

async fn a_closed_connection_is_made_anew(broker: &RabbitMq) {
    let sink = sink_at(&broker.url(), &format!("exchange = \"closed\"\n{DECLARE}"));
    assert_eq!(deliver_alike(&sink, events("before", 5)).await, "delivered");
    broker.close_all_connections();
    delivers_at_last(&sink, "after").await;
    sink.close().await;
}

async fn a_broker_that_hangs_is_away(broker: &RabbitMq) {
    let toml = format!("exchange = \"hangs\"\ntimeout = \"1s\"\nconnect_timeout = \"1s\"\n{DECLARE}");
    let sink = sink_at(&broker.url(), &toml);
    assert_eq!(deliver_alike(&sink, events("before", 5)).await, "delivered");
    broker.hang();
    assert_eq!(deliver_alike(&sink, events("hangs", 5)).await, "away timeout");
    assert_eq!(deliver_alike(&sink, events("hangs", 5)).await, "away connect-timeout");
    assert_eq!(sink.probe().await.unwrap_err().code, "connect-timeout");
    broker.go_on();
    delivers_at_last(&sink, "hangs").await;
    sink.close().await;
}

async fn a_killed_broker_holds_what_was_confirmed(broker: &mut RabbitMq) {
    let toml = "exchange = \"killed\"\ntimeout = \"20s\"\nunconfirmed_max = 50\ndeclare = { queue = \"killed\" }";
    let sink = sink_at(&broker.url(), toml);
    let under_way = tokio::spawn({
        let sink = Arc::clone(&sink);
        async move { deliver(&sink, events("killed", 50_000)).await }
    });
    let holds_some = || {
        broker
            .ctl(&["list_queues", "name", "messages"])
            .lines()
            .any(|line| line.starts_with("killed\t") && line != "killed\t0")
    };
    while !block_in_place(holds_some) {
        assert!(!under_way.is_finished(), "it was confirmed before the kill");
    }
    broker.kill();
    let outcomes = under_way.await.unwrap();
    let confirmed: Vec<String> = (0..)
        .zip(&outcomes)
        .filter(|(_, outcome)| *outcome == "delivered")
        .map(|(n, _)| format!("killed-{n}"))
        .collect();
    assert!(!confirmed.is_empty() && confirmed.len() < 50_000, "{} were confirmed", confirmed.len());
    assert!(outcomes.iter().all(|outcome| outcome == "delivered" || outcome.starts_with("away ")));
    broker.start_node();
    delivers_at_last(&sink, "after").await;
    let held = broker.reader().drain("killed");
    let held: std::collections::HashSet<&str> = held.iter().map(|message| message["id"].as_str().unwrap()).collect();
    assert!(confirmed.iter().all(|id| held.contains(id.as_str())), "what was confirmed is gone");
    sink.close().await;
}

/// As a pipeline tries.
async fn delivers_at_last(sink: &Arc<dyn Sink>, name: &str) {
    let deadline = Instant::now() + Duration::from_secs(90);
    loop {
        let probed = sink.probe().await;
        let outcome = if probed.is_ok() { deliver_alike(sink, events(name, 5)).await } else { String::new() };
        if outcome == "delivered" {
            return;
        }
        assert!(Instant::now() < deadline, "{name}: the probe says {probed:?}, a delivery {outcome:?}");
        sleep(Duration::from_millis(100)).await;
    }
}
