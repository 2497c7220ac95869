use super::harness::*;
use tokio::io::AsyncWriteExt as _;

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_and_garbage_ends_it() {
    let running = ingress(|_| {}).await;
    let mut client = running.connect().await;
    client
        .send([push("p-1", "{}"), push("p-2", "[]"), push("p-3", "{}"), "\u{1}garbage\r\n\r\n".to_owned()].concat())
        .await;
    let statuses = [client.reply().await.status, client.reply().await.status, client.reply().await.status];
    assert_eq!(statuses, [200, 400, 200]);
    let last = client.reply().await;
    assert_eq!((last.status, &*last.body), (400, ""));
    client.ended().await;
    assert_eq!(running.journal.bodies().len(), 2);
}

#[tokio::test]
async fn a_header_past_its_limit_is_431() {
    let running = ingress(|_| {}).await;
    for lines in [format!("X: {}\r\n", "y".repeat(17 << 10)), "A: b\r\n".repeat(101)] {
        let mut client = running.connect().await;
        client.send(push_with("/push?action=cdr", "p", &lines, "{}")).await;
        assert_eq!(client.reply().await.status, 431);
        client.ended().await;
    }
    let fits = format!("X: {}\r\n", "y".repeat(15 << 10));
    assert_eq!(running.ask(push_with("/push?action=cdr", "p", &fits, "{}")).await.status, 200);
}

#[tokio::test]
async fn http_1_0_is_served_and_closed() {
    let running = ingress(|_| {}).await;
    let mut client = running.connect().await;
    client.send("POST /push?action=cdr HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}").await;
    assert_eq!(client.reply().await.said(), (200, 0));
    client.ended().await;
}

#[tokio::test]
async fn a_body_is_invited_only_where_it_will_be_read() {
    let running = ingress(|_| {}).await;
    let expecting = |target: &str, size: usize| {
        format!("POST {target} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {size}\r\n\r\n")
    };
    let mut client = running.connect().await;
    client.send(expecting("/push?action=cdr", 2)).await;
    assert_eq!(client.reply().await.status, 100);
    client.send("{}").await;
    assert_eq!(client.reply().await.said(), (200, 0));
    for (target, size, said) in
        [("/push?action=cdr", 2 << 20, (413, 4003)), ("/push", 2, (400, 4005)), ("/guarded?action=cdr", 2, (401, 4010))]
    {
        assert_eq!(running.ask(expecting(target, size)).await.said(), said);
    }
}

#[tokio::test]
async fn a_large_body_in_pieces_arrives_whole() {
    let running = ingress(|_| {}).await;
    let body = format!("{{\"a\":\"{}\"}}", "0123456789abcdef".repeat(60_000));
    let request = push("p-1", &body);
    let mut client = running.connect().await;
    for piece in request.as_bytes().chunks(50_000) {
        client.send(piece).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(client.reply().await.said(), (200, 0));
    assert!(running.journal.bodies() == vec![body.into_bytes()]);
}

#[tokio::test]
async fn a_body_that_ends_early_is_not_accepted() {
    let running = ingress(|_| {}).await;
    let mut client = running.connect().await;
    client.send("POST /push?action=cdr HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{}").await;
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.reply().await.said(), (400, 4000));
    client.ended().await;
    let broken = "POST /push?action=cdr HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n";
    assert_eq!(running.ask(broken).await.said(), (400, 4000));
    assert!(running.journal.bodies().is_empty() && running.journal.kept.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_peer_that_closes_its_side_still_gets_its_reply() {
    let running = ingress(|_| {}).await;
    running.journal.shut();
    let mut client = running.connect().await;
    client.send(push("p-1", "{}")).await;
    client.stream.shutdown().await.unwrap();
    running.journal.begun.acquire().await.unwrap().forget();
    running.journal.open();
    assert_eq!(client.reply().await.said(), (200, 0));
    client.ended().await;
}

#[tokio::test]
async fn a_peer_that_hangs_up_before_the_reply_loses_nothing() {
    let running = ingress(|_| {}).await;
    running.journal.shut();
    let mut client = running.connect().await;
    client.send(push("p-1", "{}")).await;
    running.journal.begun.acquire().await.unwrap().forget();
    client.stream.set_zero_linger().unwrap();
    drop(client);
    tokio::time::sleep(SHORT / 4).await;
    running.journal.open();
    eventually("the accept goes on", || running.journal.bodies().len() == 1).await;
    eventually("the connection is gone", || running.metric("trunkline_ingress_connections") == "0").await;
}

#[tokio::test]
async fn no_more_connections_than_the_limit_are_served() {
    let running = ingress(|config| config.connections_max = 2).await;
    let mut held = [running.connect().await, running.connect().await];
    for (client, id) in held.iter_mut().zip(["p-1", "p-2"]) {
        client.send(push(id, "{}")).await;
        assert_eq!(client.reply().await.said(), (200, 0));
    }
    let mut waiting = running.connect().await;
    waiting.send(push("p-3", "{}")).await;
    assert!(tokio::time::timeout(SHORT, waiting.reply()).await.is_err());
    assert_eq!(running.metric("trunkline_ingress_connections"), "2");
    drop(held);
    assert_eq!(waiting.reply().await.said(), (200, 0));
}

#[tokio::test]
async fn http2_is_spoken_where_it_is_asked_for() {
    let running = ingress(|config| config.http2 = true).await;
    assert_eq!(running.ask(push("p-1", "{}")).await.said(), (200, 0));
    let client = reqwest::Client::builder().http2_prior_knowledge().no_proxy().build().unwrap();
    let url = format!("http://{}/push?action=cdr", running.addr);
    let reply = client.post(url).header("x-tccc-push-uuid", "p-2").body("{}").send().await.unwrap();
    assert_eq!((reply.version(), reply.status().as_u16()), (http::Version::HTTP_2, 200));
    drop(client);
    running.stop.cancel();
    running.stopped().await;
}
