use super::harness::*;
use crate::journal::AcceptError;
use sink_api::settings::{Period, Size};

#[tokio::test]
async fn refusals_without_a_look_at_the_body() {
    let running = ingress(|config| config.body_size_max = Size(100)).await;
    let large = "x".repeat(101);
    let cases = [
        (push_with("/other?action=cdr", "p", "", "{}"), (404, 4040)),
        (push_with("/push/?action=cdr", "p", "", "{}"), (404, 4040)),
        ("GET /push?action=cdr HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), (405, 4050)),
        (push_with("/guarded", "p", "Content-Encoding: gzip\r\n", &large), (401, 4010)),
        (push_with("/push", "p", "Content-Encoding: gzip\r\n", &large), (415, 4150)),
        (push_with("/push", "p", "", &large), (400, 4005)),
        (push_with("/push?action=a%20b", "p", "", &large), (400, 4005)),
        (push_with("/push?action=SPECIFIEDSEAT", "p", "", &large), (400, 4006)),
        (push_with("/push?action=cdr", "p", "", &large), (413, 4003)),
    ];
    for (request, said) in cases {
        let reply = running.ask(&request).await;
        assert_eq!(reply.said(), said, "{request}");
        match said.0 {
            405 => assert_eq!(reply.headers["allow"], "POST"),
            401 => assert!(reply.headers["www-authenticate"].starts_with("Basic realm=\"")),
            _ => {}
        }
    }
    assert!(running.journal.bodies().is_empty() && running.journal.kept.lock().unwrap().is_empty());
}

#[tokio::test]
async fn bodies_that_are_no_json_object_are_kept() {
    let running = ingress(|_| {}).await;
    for body in ["{", "", "[]", "1", "{}x", "{\"a\":01}"] {
        assert_eq!(running.ask(push("p-1", body)).await.said(), (400, 4002), "{body}");
    }
    let mut request = push("p-2", "{\"a\":\"..\"}").into_bytes();
    let at = request.len() - 4;
    request[at..at + 2].copy_from_slice(b"\xff\xfe");
    assert_eq!(running.ask(request).await.said(), (400, 4002));
    let kept = running.journal.kept.lock().unwrap().clone();
    assert_eq!(kept.len(), 7);
    assert_eq!((&*kept[0].code, &*kept[2].code), ("not-json", "not-an-object"));
    assert_eq!(&kept[6].push.body[..], b"{\"a\":\"\xff\xfe\"}");
}

#[tokio::test]
async fn what_cannot_be_kept_is_not_refused_for_good() {
    let running = ingress(|_| {}).await;
    *running.journal.error.lock().unwrap() = Some(AcceptError::Unavailable { cause: "test".into() });
    assert_eq!(running.ask(push("p-1", "{")).await.said(), (503, 5031));
}

#[tokio::test]
async fn a_journal_that_does_not_take_it_means_503() {
    let running = ingress(|_| {}).await;
    running.ask(push("p-0", "{}")).await;
    for (error, code) in [
        (AcceptError::Full { used: 1, limit: 1 }, 5030),
        (AcceptError::Unavailable { cause: "inner detail".into() }, 5031),
        (AcceptError::Unknown { cause: "inner detail".into() }, 5031),
    ] {
        *running.journal.error.lock().unwrap() = Some(error);
        let reply = running.ask(push("p-1", "{}")).await;
        assert_eq!(reply.said(), (503, code));
        assert!(reply.headers.contains_key("retry-after") && !reply.body.contains("inner"));
        assert_eq!(running.ask(push("p-0", "{}")).await.said(), (200, 0), "a duplicate is still answered as such");
    }
    *running.journal.error.lock().unwrap() = Some(AcceptError::TooLarge { size: 2, limit: 1 });
    assert_eq!(running.ask(push("p-1", "{}")).await.said(), (413, 4003));
}

#[tokio::test]
async fn both_framings_are_held_to_the_size() {
    let running = ingress(|config| config.body_size_max = Size(100)).await;
    let fits = format!("{{\"a\":\"{}\"}}", "x".repeat(92));
    assert_eq!(fits.len(), 100);
    assert_eq!(running.ask(push("p-1", &fits)).await.said(), (200, 0));
    let chunked = |body: &str| {
        format!(
            "POST /push?action=cdr HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n32\r\n{}\r\n{:x}\r\n{}\r\n0\r\n\r\n",
            &body[..50],
            body.len() - 50,
            &body[50..]
        )
    };
    assert_eq!(running.ask(chunked(&fits)).await.said(), (200, 0));
    let mut client = running.connect().await;
    client.send(chunked(&format!("{fits} "))).await;
    assert_eq!(client.reply().await.said(), (413, 4003));
    assert_eq!(running.journal.bodies(), vec![fits.as_bytes(), fits.as_bytes()]);
}

#[tokio::test]
async fn a_refused_upload_gets_its_reply_before_the_close() {
    let running = ingress(|_| {}).await;
    let mut client = running.connect().await;
    let size = 4 << 20;
    client.send(format!("POST /push?action=cdr HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n")).await;
    client.send(vec![b'x'; 200 << 10]).await;
    assert_eq!(client.reply().await.said(), (413, 4003));
    client.ended().await;
}

#[tokio::test]
async fn a_slow_body_is_answered_with_408() {
    let running = ingress(|config| config.body_timeout = Period::from_millis(200)).await;
    let mut client = running.connect().await;
    client.send("POST /push?action=cdr HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{").await;
    assert_eq!(client.reply().await.said(), (408, 4004));
    client.ended().await;
    assert!(running.journal.bodies().is_empty());
}

#[tokio::test]
async fn a_slow_header_is_answered_with_408() {
    let running = ingress(|config| config.header_timeout = Period::from_millis(400)).await;
    let mut client = running.connect().await;
    let started = std::time::Instant::now();
    let header =
        b"POST /push?action=cdr HTTP/1.1\r\nHost: x\r\nX: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy";
    for byte in header {
        client.send([*byte]).await;
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(client.reply().await.said(), (408, 4004));
    client.ended().await;
    assert!(started.elapsed() < PATIENCE / 2);
}

#[tokio::test]
async fn a_connection_without_a_byte_is_closed() {
    let running = ingress(|config| config.header_timeout = Period::from_millis(200)).await;
    running.connect().await.ended().await;
}

#[tokio::test]
async fn a_kept_connection_is_closed_after_its_idle_time_not_its_header_time() {
    let running = ingress(|config| {
        config.header_timeout = Period::from_millis(100);
        config.idle_timeout = Period::from_millis(600);
    })
    .await;
    let mut client = running.connect().await;
    for id in ["p-1", "p-2"] {
        client.send(push(id, "{}")).await;
        assert_eq!(client.reply().await.said(), (200, 0));
        tokio::time::sleep(SHORT).await;
    }
    client.ended().await;
}

#[tokio::test]
async fn a_flood_of_wrong_passwords_is_slowed_and_right_ones_pass() {
    let running = ingress(|config| config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()]).await;
    let mut client = running.connect().await;
    let mut said = Vec::new();
    for _ in 0..61 {
        client
            .send(push_with("/guarded?action=cdr", "p", &format!("{WRONG}X-Forwarded-For: 192.0.2.1\r\n"), "{}"))
            .await;
        said.push(client.reply().await);
    }
    assert!(said[..60].iter().all(|reply| reply.said() == (401, 4010)));
    assert_eq!(said[60].said(), (429, 4290));
    assert!(said[60].headers["retry-after"].parse::<u64>().unwrap() <= 60);
    for (lines, expected) in [
        (format!("{RIGHT}X-Forwarded-For: 192.0.2.1\r\n"), (200, 0)),
        (format!("{WRONG}X-Forwarded-For: 192.0.2.2\r\n"), (401, 4010)),
        ("X-Forwarded-For: 192.0.2.1\r\n".to_owned(), (401, 4010)),
    ] {
        client.send(push_with("/guarded?action=cdr", "p", &lines, "{}")).await;
        assert_eq!(client.reply().await.said(), expected, "{lines}");
    }
    let failures =
        |reason| running.metric(&format!("trunkline_auth_failures_total{{reason=\"{reason}\",source=\"guarded\"}}"));
    assert_eq!((failures("wrong"), failures("throttled"), failures("missing")), ("61".into(), "1".into(), "1".into()));
}

#[tokio::test]
async fn a_later_header_on_a_kept_connection_has_the_same_time() {
    let running = ingress(|config| config.header_timeout = Period::from_millis(200)).await;
    let mut client = running.connect().await;
    client.send(push("p-1", "{}")).await;
    assert_eq!(client.reply().await.said(), (200, 0));
    tokio::time::sleep(SHORT * 2).await;
    client.send("POST /push?action=cdr HTT").await;
    assert_eq!(client.reply().await.said(), (408, 4004));
    client.ended().await;
}
