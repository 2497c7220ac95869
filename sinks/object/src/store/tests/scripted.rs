//! A server that answers as its script says, or passes on to a real one and damages the reply; and records the heads of requests.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What becomes of a request.
pub(super) enum Act {
    /// This is answered, head and body.
    Answer(String),
    /// The real server answers.
    Pass,
    /// The real server answers; all but so many of the reply's last bytes arrive.
    Cut(usize),
    /// Nothing is ever answered.
    Hang,
}

pub(super) struct Scripted {
    pub(super) addr: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    /// `script` decides by the number of a request, from 0, and its head.
    pub(super) fn start(real: Option<SocketAddr>, script: impl Fn(usize, &str) -> Act + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let recorded = Arc::clone(&heads);
        std::thread::spawn(move || {
            let mut hanging = Vec::new();
            for stream in listener.incoming().map_while(Result::ok) {
                let Some((head, body)) = read_request(&stream) else { continue };
                let number = recorded.lock().unwrap().len();
                let act = script(number, &head);
                recorded.lock().unwrap().push(head.clone());
                match act {
                    Act::Answer(reply) => end(stream, reply.as_bytes()),
                    Act::Pass => end(stream, &ask(real.unwrap(), &head, &body)),
                    Act::Cut(count) => {
                        let reply = ask(real.unwrap(), &head, &body);
                        end(stream, &reply[..reply.len() - count]);
                    }
                    Act::Hang => hanging.push(stream),
                }
            }
        });
        Self { addr, heads }
    }

    /// The heads of requests so far, in lower case.
    pub(super) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().iter().map(|head| head.to_lowercase()).collect()
    }
}

/// A reply of S3 with an error.
pub(super) fn refusal(status: &str, headers: &str, code: &str) -> String {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>m</Message></Error>");
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

/// Answers as a store without a memory: everything it is asked for is there, with `length` bytes.
pub(super) fn agreeable(head: &str, length: usize) -> Act {
    let length = if head.starts_with("HEAD") { length } else { 0 };
    Act::Answer(format!("HTTP/1.1 200 OK\r\netag: \"opaque\"\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"))
}

fn read_request(stream: &TcpStream) -> Option<(String, Vec<u8>)> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    Some((head, body))
}

/// The whole reply of the real server, which is told to close behind it.
fn ask(real: SocketAddr, head: &str, body: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(real).unwrap();
    let head = head.strip_suffix("\r\n").unwrap();
    stream.write_all(format!("{head}connection: close\r\n\r\n").as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).unwrap();
    reply
}

fn end(mut stream: TcpStream, reply: &[u8]) {
    // Who asked may have gone already.
    drop(stream.write_all(reply));
    drop(stream.shutdown(Shutdown::Write));
}
