//! That the pipeline is not what limits a sink.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::journal::Memory;
use super::sink::Scripted;
use super::*;

/// Run by hand, in release: `cargo test --release --lib pipeline::tests::speed -- --ignored --nocapture`.
#[test]
#[ignore = "measures; prints events per second and core"]
fn a_trivial_sink_gets_twenty_thousand_events_per_second_and_core() {
    const EVENTS: u32 = 200_000;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let (journal, sink) = (Arc::new(Memory::default()), Arc::new(Scripted::ok()));
        let body = Bytes::from(format!(r#"{{"Filler":"{}"}}"#, "x".repeat(1500)));
        for number in 0..EVENTS {
            let session = format!("session-{}", number % 5000);
            journal.put(Push { body: body.clone(), ..push(&format!("push-{number}"), Some(&session)) });
        }
        let mut settings = settings();
        settings.batch.events_max = 500;
        let began = Instant::now();
        let running = start(&journal, &sink, &settings);
        while running.status.delivered() < u64::from(EVENTS) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let rate = f64::from(EVENTS) / began.elapsed().as_secs_f64();
        println!("{rate:.0} events/s on one core");
        assert!(rate > 20_000.0);
    });
}
