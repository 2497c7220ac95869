//! An HTTP server that recordings lie on, and that misbehaves as told: every answer comes from a script. HTTP/1.1 by hand, one request
//! per connection, since a well-behaved server library would not truncate, stall or lie.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

/// What was asked.
#[derive(Debug, Clone)]
pub struct Request {
    /// With its query.
    pub path: String,
    /// Names in lower case.
    headers: Vec<(String, String)>,
}

/// What is answered.
#[derive(Debug, Clone)]
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Arc<Vec<u8>>,
    /// The part of the body that is sent at all.
    from: usize,
    said_length: Option<u64>,
    cut_at: Option<usize>,
    stalls: bool,
    is_chunked: bool,
}

type Script = Arc<dyn Fn(&Request) -> Reply + Send + Sync>;

/// A running server; ends with its value.
pub struct Recorder {
    address: SocketAddr,
    log: Arc<Mutex<Vec<Request>>>,
    is_over: Arc<AtomicBool>,
    listening: Option<JoinHandle<()>>,
}

impl Recorder {
    /// On a free port of loopback.
    ///
    /// # Panics
    /// When there is none.
    pub fn start(script: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (log, is_over) = (Arc::<Mutex<Vec<Request>>>::default(), Arc::<AtomicBool>::default());
        let listening = thread::spawn({
            let (script, log, is_over): (Script, _, _) = (Arc::new(script), Arc::clone(&log), Arc::clone(&is_over));
            move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    if is_over.load(Ordering::Acquire) {
                        return;
                    }
                    let (script, log) = (Arc::clone(&script), Arc::clone(&log));
                    // Clients go away as they like.
                    thread::spawn(move || drop(serve(stream, &script, &log)));
                }
            }
        });
        Self { address, log, is_over, listening: Some(listening) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `path` begins with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Everything that was asked so far.
    pub fn requests(&self) -> Vec<Request> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        // Wakes the thread that listens.
        drop(TcpStream::connect(self.address));
        if let Some(listening) = self.listening.take() {
            listening.join().ok();
        }
    }
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The first byte of a range that has no end.
    pub fn range_from(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }

    fn read(stream: &TcpStream) -> io::Result<Self> {
        let mut lines = BufReader::new(stream).lines();
        let first = lines.next().ok_or(io::ErrorKind::UnexpectedEof)??;
        let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut headers = Vec::new();
        for line in lines {
            let line = line?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        Ok(Self { path, headers })
    }
}

impl Reply {
    /// An answer of this status with a few bytes.
    pub fn status(status: u16) -> Self {
        let body = Arc::new(b"<Error><Code>Told</Code></Error>".to_vec());
        Self {
            status,
            headers: Vec::new(),
            body,
            from: 0,
            said_length: None,
            cut_at: None,
            stalls: false,
            is_chunked: false,
        }
    }

    /// These bytes, as they are.
    pub fn whole(body: Arc<Vec<u8>>) -> Self {
        Self { body, ..Self::status(200) }
    }

    /// These bytes, or the range of them that is asked for, unless they are of another edition than the asker's.
    pub fn file(request: &Request, body: Arc<Vec<u8>>, etag: &str) -> Self {
        let etag = format!("\"{etag}\"");
        let is_same = request.header("if-range").is_none_or(|asked| asked == etag);
        let reply = Self::whole(body).header("etag", &etag).header("accept-ranges", "bytes");
        match request.range_from().filter(|_| is_same) {
            Some(from) => reply.part(from),
            None => reply,
        }
    }

    /// The bytes from here on, as a part.
    pub fn part(self, from: usize) -> Self {
        let len = self.body.len();
        if from >= len {
            return Self { status: 416, from: len, ..self }.header("content-range", &format!("bytes */{len}"));
        }
        Self { status: 206, from, ..self }.header("content-range", &format!("bytes {from}-{}/{len}", len - 1))
    }

    pub fn redirect(location: &str) -> Self {
        Self::status(302).header("location", location)
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Closes the connection after so many bytes of the body.
    pub fn cut_at(self, bytes: usize) -> Self {
        Self { cut_at: Some(bytes), ..self }
    }

    /// Sends nothing more where it would close.
    pub fn stalling(self) -> Self {
        Self { stalls: true, ..self }
    }

    /// Says another length than the body has.
    pub fn saying_length(self, length: u64) -> Self {
        Self { said_length: Some(length), ..self }
    }

    /// Without a length, in chunks.
    pub fn chunked(self) -> Self {
        Self { is_chunked: true, ..self }
    }

    fn send(&self, mut stream: &TcpStream) -> io::Result<()> {
        let body = &self.body[self.from..];
        let mut head = format!("HTTP/1.1 {} Told\r\nconnection: close\r\n", self.status);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if self.is_chunked {
            head.push_str("transfer-encoding: chunked\r\n");
        } else {
            head.push_str(&format!("content-length: {}\r\n", self.said_length.unwrap_or(body.len() as u64)));
        }
        stream.write_all(format!("{head}\r\n").as_bytes())?;
        let sent = &body[..self.cut_at.unwrap_or(body.len()).min(body.len())];
        if self.is_chunked {
            for chunk in sent.chunks(10_000) {
                stream.write_all(format!("{:x}\r\n", chunk.len()).as_bytes())?;
                stream.write_all(chunk)?;
                stream.write_all(b"\r\n")?;
            }
            if self.cut_at.is_none() {
                stream.write_all(b"0\r\n\r\n")?;
            }
        } else {
            stream.write_all(sent)?;
        }
        if self.stalls {
            // Until the client goes away.
            let _gone = stream.read(&mut [0])?;
        }
        Ok(())
    }
}

fn serve(stream: TcpStream, script: &Script, log: &Mutex<Vec<Request>>) -> io::Result<()> {
    let request = Request::read(&stream)?;
    log.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
    script(&request).send(&stream)?;
    stream.shutdown(std::net::Shutdown::Both)
}
