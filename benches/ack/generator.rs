//! The load, as cheap as it can be made: preformatted requests on kept connections, replies read no further than needed. The same for
//! both servers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

const BODY_SIZE: usize = 1500;
const ACKNOWLEDGED: &[u8] = br#"{"ErrCode":0,"#;
/// Where the push id stands in a request.
const PUSH_ID_HEADER: &str = "X-TCCC-PUSH-UUID: ";
/// Push ids of one run differ in this many last digits.
const COUNTER_DIGITS: usize = 12;

/// Makes pushes, no two with the same id.
pub struct Pushes {
    template: Vec<u8>,
    /// Where the counter's digits end.
    counter_end: usize,
    next: AtomicU64,
}

impl Pushes {
    pub fn new() -> Self {
        let mut template = format!(
            "POST /push?action=cdr&version=1 HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json; charset=utf8\r\n\
             {PUSH_ID_HEADER}7b1d2c00-0000-4000-8000-000000000000\r\nContent-Length: {BODY_SIZE}\r\n\r\n"
        );
        let start = template.find(PUSH_ID_HEADER).expect("just written") + PUSH_ID_HEADER.len();
        template += &cdr(BODY_SIZE);
        Self { template: template.into_bytes(), counter_end: start + 36, next: AtomicU64::new(0) }
    }

    /// Turns a copy of the template into the next push.
    fn renew(&self, request: &mut [u8]) {
        let mut number = self.next.fetch_add(1, Ordering::Relaxed);
        for digit in request[self.counter_end - COUNTER_DIGITS..self.counter_end].iter_mut().rev() {
            *digit = b"0123456789abcdef"[(number & 0xf) as usize];
            number >>= 4;
        }
    }
}

/// A call record of exactly `size` bytes.
fn cdr(size: usize) -> String {
    let head = r#"{"SdkAppId":1400880011,"SessionId":"7d7d6f02-3f7e-4a0c-b0f0-6a2f4a9b1c55","Caller":"0086138xxxx1234","Callee":"0086755xxxx0666","Direction":0,"Duration":312,"StartTimestamp":1787010000,"EndedTimestamp":1787010312,"EndStatusString":"ok","ServeParticipants":["#;
    let participant =
        r#"{"Mail":"agent@example.com","RecordId":"r-1","Type":"staffSeat","SkillGroupId":5,"Sequence":0}"#;
    let (mut text, tail) = (format!("{head}{participant}"), r#"],"UserRemark":""#);
    while text.len() + participant.len() + tail.len() + 3 < size {
        text = format!("{text},{participant}");
    }
    let padding = size - text.len() - tail.len() - 2;
    format!("{text}{tail}{}\"}}", "x".repeat(padding))
}

/// One kept connection.
struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    reply: Vec<u8>,
}

impl Connection {
    async fn connect(addr: SocketAddr, pushes: &Pushes) -> Result<Self> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, request: pushes.template.clone(), reply: Vec::with_capacity(1024) })
    }

    /// Sends the next push. Anything but its acknowledgement is an error.
    async fn push(&mut self, pushes: &Pushes) -> Result<()> {
        pushes.renew(&mut self.request);
        self.stream.write_all(&self.request).await?;
        self.reply.clear();
        loop {
            ensure!(self.stream.read_buf(&mut self.reply).await? > 0, "the server closed a connection");
            if let Some((body, size)) = reply_body(&self.reply)? {
                let shown = || String::from_utf8_lossy(&self.reply).into_owned();
                ensure!(body.len() == size && body.starts_with(ACKNOWLEDGED), "not an acknowledgement: {}", shown());
                return Ok(());
            }
        }
    }
}

/// What has come of a reply's body, and its whole size; nothing while more is to come.
fn reply_body(reply: &[u8]) -> Result<Option<(&[u8], usize)>> {
    let Some(head_end) = reply.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return Ok(None) };
    let (head, body) = (str::from_utf8(&reply[..head_end])?, &reply[head_end + 4..]);
    let size = head
        .split("\r\n")
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .context("a reply without Content-Length")?;
    let size = size.1.trim().parse()?;
    Ok((body.len() >= size).then_some((body, size)))
}

async fn connect_all(addr: SocketAddr, pushes: &Pushes, connections: usize) -> Result<Vec<Connection>> {
    let mut all = Vec::with_capacity(connections);
    for _ in 0..connections {
        all.push(Connection::connect(addr, pushes).await?);
    }
    Ok(all)
}

/// Every connection pushes again as soon as it is acknowledged. How many pushes were acknowledged, and in what time.
pub async fn closed_loop(
    addr: SocketAddr,
    pushes: &Arc<Pushes>,
    connections: usize,
    time: Duration,
) -> Result<(u64, Duration)> {
    let connections = connect_all(addr, pushes, connections).await?;
    let started = Instant::now();
    let mut senders = JoinSet::new();
    for mut connection in connections {
        let pushes = Arc::clone(pushes);
        senders.spawn(async move {
            let mut acknowledged = 0;
            while started.elapsed() < time {
                connection.push(&pushes).await?;
                acknowledged += 1;
            }
            anyhow::Ok(acknowledged)
        });
    }
    let mut acknowledged = 0;
    while let Some(sender) = senders.join_next().await {
        acknowledged += sender??;
    }
    Ok((acknowledged, started.elapsed()))
}

/// Pushes are due at an even pace, whatever the replies take; each latency counts from when its push was due (corrected for
/// coordinated omission). In microseconds.
pub async fn open_loop(
    addr: SocketAddr,
    pushes: &Arc<Pushes>,
    connections: usize,
    rate: u32,
    time: Duration,
) -> Result<Histogram<u64>> {
    let count = u64::from(rate) * time.as_millis() as u64 / 1000;
    let connections = connect_all(addr, pushes, connections).await?;
    let due = Arc::new(Semaphore::new(0));
    let taken = Arc::new(AtomicU64::new(0));
    let interval = Duration::from_secs(1) / rate;
    let started = Instant::now();
    // A thread, since the runtime's timer counts in whole milliseconds.
    let permits = Arc::clone(&due);
    let pacer = std::thread::spawn(move || {
        for number in 0..count {
            std::thread::sleep((started + interval * number as u32).saturating_duration_since(Instant::now()));
            permits.add_permits(1);
        }
    });
    let mut senders = JoinSet::new();
    for mut connection in connections {
        let (pushes, due, taken) = (Arc::clone(pushes), Arc::clone(&due), Arc::clone(&taken));
        senders.spawn(async move {
            let mut latencies = Histogram::<u64>::new(3)?;
            while let Ok(permit) = due.acquire().await {
                permit.forget();
                let number = taken.fetch_add(1, Ordering::Relaxed);
                if number + 1 == count {
                    due.close();
                }
                connection.push(&pushes).await?;
                latencies += (started + interval * number as u32).elapsed().as_micros() as u64;
            }
            anyhow::Ok(latencies)
        });
    }
    let mut latencies = Histogram::new(3)?;
    while let Some(sender) = senders.join_next().await {
        latencies.add(sender??)?;
    }
    ensure!(pacer.join().is_ok(), "the pacer panicked");
    ensure!(latencies.len() == count, "{} of {count} pushes acknowledged", latencies.len());
    Ok(latencies)
}
