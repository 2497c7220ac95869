//! Replicas with a disk journal each and push ids in Redis: a crash between any two steps costs a second copy at most, never a push.

use std::path::Path;

use test_servers::redis::{Program, Redis};

use crate::support::{
    Gateway, GatewayBuilder, Outcome, Sender, by_id, cdr, events, eventually, folder, wait_for_events,
};

fn replica(dir: &Path, redis: &Redis) -> GatewayBuilder {
    let shared = format!("[dedup]\nbackend = \"redis\"\nredis.url = {:?}", redis.url());
    GatewayBuilder::new(dir).config(&shared)
}

fn copies(dir: &Path, id: &str) -> usize {
    by_id(&events(&dir.join("events.ndjson"))).get(id).copied().unwrap_or(0)
}

async fn degraded(gateway: &Gateway) -> bool {
    let dedup = &gateway.status().await["dedup"];
    assert_eq!(dedup["backend"], "redis");
    dedup["degraded"] == true
}

async fn gauge_is(gateway: &Gateway, value: u8) -> bool {
    let (_, metrics) = gateway.get("/metrics").await;
    metrics.as_str().unwrap().contains(&format!("trunkline_dedup_degraded {value}\n"))
}

#[tokio::test]
async fn a_crash_between_claim_and_confirmation_loses_nothing() {
    let redis = Redis::start_durable(Program::Redis);
    // Where it dies; copies at the replica that died, and at the other, when the resend goes to the other.
    for (point, here, there) in
        [("dedup.after_claim", 0, 1), ("dedup.before_confirm", 1, 1), ("dedup.after_confirm", 1, 0)]
    {
        let (dir_a, dir_b) = (folder(), folder());
        let id = format!("push-{point}");
        let mut dying = replica(dir_a.path(), &redis).env("TRUNKLINE_CRASH_AT", point).start().await;
        let other = replica(dir_b.path(), &redis).start().await;
        let sender = Sender::new(&dying.url()).without_resends();
        let outcome = sender.push("cdr", &id, &cdr("s", 1)).await;
        assert_eq!(outcome, Outcome::GivenUp { status: None, err_code: None }, "{point}: nobody was answered");
        assert!(!dying.ended().await.success());

        let sender = Sender::new(&other.url()).without_resends();
        assert_eq!(sender.push("cdr", &id, &cdr("s", 1)).await, Outcome::Acknowledged, "{point}");
        assert_eq!(sender.push("cdr", "mark", &cdr("s", 2)).await, Outcome::Acknowledged);
        let again = replica(dir_a.path(), &redis).start().await;
        let sender = Sender::new(&again.url()).without_resends();
        assert_eq!(sender.push("cdr", &id, &cdr("s", 1)).await, Outcome::Acknowledged, "{point}");
        assert_eq!(sender.push("cdr", &format!("mark-{point}"), &cdr("s", 2)).await, Outcome::Acknowledged);
        wait_for_events(&dir_a.path().join("events.ndjson"), here + 1).await;
        eventually("the other replica delivers", async || (copies(dir_b.path(), &id) >= there).then_some(())).await;
        again.stop().await;
        other.stop().await;
        assert_eq!((copies(dir_a.path(), &id), copies(dir_b.path(), &id)), (here, there), "{point}");
    }
}

#[tokio::test]
async fn a_redis_that_goes_and_comes_degrades_and_mends_the_dedup_and_refuses_nothing() {
    let mut redis = Redis::start_durable(Program::Redis);
    let (dir_a, dir_b) = (folder(), folder());
    let gateways = [replica(dir_a.path(), &redis).start().await, replica(dir_b.path(), &redis).start().await];
    let senders = gateways.each_ref().map(|gateway| Sender::new(&gateway.url()).without_resends());
    let acknowledged = async |sender: &Sender, id: &str| {
        assert_eq!(sender.push("cdr", id, &cdr("s", 1)).await, Outcome::Acknowledged, "{id}");
    };
    acknowledged(&senders[0], "before").await;
    acknowledged(&senders[1], "before").await;
    assert!(!degraded(&gateways[0]).await && gauge_is(&gateways[0], 0).await);

    redis.kill();
    for number in 0..20 {
        acknowledged(&senders[0], &format!("away-{number}")).await;
    }
    acknowledged(&senders[1], "away-0").await;
    assert!(degraded(&gateways[0]).await && gauge_is(&gateways[0], 1).await);
    assert_eq!(gateways[0].get("/readyz").await.0, 200, "it accepts, so it is ready");
    redis.start_again();
    for gateway in &gateways {
        eventually("push ids are shared again", async || (!degraded(gateway).await).then_some(())).await;
    }
    acknowledged(&senders[0], "after").await;
    acknowledged(&senders[1], "after").await;

    wait_for_events(&dir_a.path().join("events.ndjson"), 22).await;
    wait_for_events(&dir_b.path().join("events.ndjson"), 1).await;
    for gateway in gateways {
        let warnings = eventually("it says so", async || {
            let lines = gateway.lines();
            let said = lines.iter().filter(|line| line.contains("redis does not answer")).count();
            (said > 0).then_some(said)
        })
        .await;
        assert!(warnings <= 2, "said once per outage: {warnings}");
        gateway.stop().await;
    }
    assert_eq!((copies(dir_a.path(), "before"), copies(dir_b.path(), "before")), (1, 0));
    assert_eq!((copies(dir_a.path(), "after"), copies(dir_b.path(), "after")), (1, 0));
    assert_eq!((copies(dir_a.path(), "away-0"), copies(dir_b.path(), "away-0")), (1, 1), "a second copy, not a loss");
}
