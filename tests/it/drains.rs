//! SIGTERM: unready first, everything in hand finished, exit code 0.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::support::{GatewayBuilder, Outcome, Sender, cdr, eventually, folder, wait_for_events};

#[tokio::test]
async fn it_turns_unready_serves_on_and_then_ends() {
    let dir = folder();
    let mut gateway = GatewayBuilder::new(dir.path())
        .env("TRUNKLINE__DRAIN__ANNOUNCE", "0s")
        .config("drain.deadline = \"20s\"")
        .start()
        .await;
    assert_eq!(gateway.get("/readyz").await.0, 200);

    // A request whose body is not there yet keeps the drain waiting.
    let body = cdr("s", 1);
    let mut slow = TcpStream::connect(gateway.ingress).unwrap();
    slow.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(
        slow,
        "POST /push?action=cdr HTTP/1.1\r\nHost: x\r\nX-TCCC-PUSH-UUID: slow\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .unwrap();
    slow.write_all(&body.as_bytes()[..10]).unwrap();
    // The request has reached the handler once the connection is counted.
    eventually("the connection is open", async || {
        let (_, metrics) = gateway.get("/metrics").await;
        metrics.as_str().unwrap().contains("trunkline_ingress_connections 1\n").then_some(())
    })
    .await;

    gateway.terminate();
    eventually("readiness is off", async || (gateway.get("/readyz").await.0 == 503).then_some(())).await;
    assert_eq!(gateway.get("/livez").await.0, 200);

    slow.write_all(&body.as_bytes()[10..]).unwrap();
    let mut reply = String::new();
    slow.read_to_string(&mut reply).unwrap();
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
    assert!(reply.contains(r#""ErrCode":0"#), "{reply}");

    assert!(gateway.ended().await.success());
    assert!(TcpStream::connect(gateway.ingress).is_err());
    assert_eq!(crate::support::events(&dir.path().join("events.ndjson")).len(), 1, "what was accepted is delivered");
}

#[tokio::test]
async fn a_deadline_abandons_what_hangs_and_the_next_start_delivers_it() {
    let dir = folder();
    let blocked = dir.path().join("blocked");
    std::fs::write(&blocked, "").unwrap();
    let out = blocked.join("events.ndjson");
    let start = || {
        GatewayBuilder::new(dir.path())
            .config("drain.deadline = \"500ms\"")
            .sinks(&crate::support::file_sink("events", &out))
    };

    let gateway = start().start().await;
    let sender = Sender::new(&gateway.url());
    assert_eq!(sender.push("cdr", "push-1", &cdr("s", 1)).await, Outcome::Acknowledged);
    gateway.stop().await;

    std::fs::remove_file(&blocked).unwrap();
    let gateway = start().start().await;
    wait_for_events(&out, 1).await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_second_gateway_on_the_same_journal_is_refused() {
    let dir = folder();
    let first = GatewayBuilder::new(dir.path()).start().await;
    let second = GatewayBuilder::new(dir.path()).output();
    assert_eq!(second.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&second.stderr);
    assert!(stderr.contains("journal"), "{stderr}");
    assert!(stderr.contains("another"), "{stderr}");
    first.stop().await;
}
