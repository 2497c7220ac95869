use super::harness::*;

#[tokio::test]
async fn stopping_finishes_the_request_in_hand_and_closes_idle_connections() {
    let running = ingress(|_| {}).await;
    let mut idle = running.connect().await;
    idle.send(push("p-0", "{}")).await;
    assert_eq!(idle.reply().await.said(), (200, 0));
    running.journal.begun.acquire().await.unwrap().forget();
    running.journal.shut();
    let mut busy = running.connect().await;
    busy.send(push("p-1", "{}")).await;
    running.journal.begun.acquire().await.unwrap().forget();
    running.stop.cancel();
    idle.ended().await;
    assert!(!running.serving.is_finished());
    running.journal.open();
    let reply = busy.reply().await;
    assert_eq!(reply.said(), (200, 0));
    assert_eq!(reply.headers["connection"], "close");
    drop(busy);
    running.stopped().await;
}

#[tokio::test]
async fn leaving_ends_each_connection_with_its_next_reply_and_takes_new_ones() {
    let running = ingress(|_| {}).await;
    let mut kept = running.connect().await;
    kept.send(push("p-0", "{}")).await;
    assert_eq!(kept.reply().await.headers.get("connection"), None);
    running.leaving.cancel();
    let mut new = running.connect().await;
    for (connection, id) in [(&mut kept, "p-1"), (&mut new, "p-2")] {
        connection.send(push(id, "{}")).await;
        let reply = connection.reply().await;
        assert_eq!(reply.said(), (200, 0));
        assert_eq!(reply.headers["connection"], "close");
        connection.ended().await;
    }
}

#[tokio::test]
async fn a_request_that_is_on_its_way_at_the_stop_is_still_taken() {
    let running = ingress(|_| {}).await;
    let mut begun = running.connect().await;
    let request = push("p-1", "{}");
    begun.send(&request[..40]).await;
    eventually("accepted", || running.metric("trunkline_ingress_connections") == "1").await;
    running.stop.cancel();
    tokio::time::sleep(SHORT / 4).await;
    begun.send(&request[40..]).await;
    assert_eq!(begun.reply().await.said(), (200, 0));
    begun.ended().await;
    drop(begun);
    running.stopped().await;
}

#[tokio::test]
async fn past_the_deadline_what_waits_for_the_journal_is_told_so() {
    let running = ingress(|_| {}).await;
    running.journal.shut();
    let mut busy = running.connect().await;
    busy.send(push("p-1", "{}")).await;
    running.journal.begun.acquire().await.unwrap().forget();
    running.stop.cancel();
    running.force.cancel();
    let reply = busy.reply().await;
    assert_eq!(reply.said(), (503, 5032));
    assert!(reply.headers.contains_key("retry-after"));
    running.stopped().await;
}

#[tokio::test]
async fn past_the_deadline_a_hanging_peer_is_cut() {
    let running = ingress(|_| {}).await;
    let mut slow = running.connect().await;
    slow.send("POST /push?action=cdr HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{").await;
    eventually("accepted", || running.metric("trunkline_ingress_connections") == "1").await;
    running.stop.cancel();
    running.force.cancel();
    running.stopped().await;
}

#[tokio::test]
async fn peers_that_say_nothing_do_not_hold_up_the_stop() {
    for http2 in [false, true] {
        let running = ingress(|config| config.http2 = http2).await;
        let mut silent = running.connect().await;
        eventually("accepted", || running.metric("trunkline_ingress_connections") == "1").await;
        let stopping = std::time::Instant::now();
        running.stop.cancel();
        silent.ended().await;
        running.stopped().await;
        assert!(stopping.elapsed() < PATIENCE / 2);
    }
}
