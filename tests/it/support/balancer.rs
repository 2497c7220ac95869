//! A load balancer as small as one can be: every connection goes to the next replica in turn, and nothing is ever tried again. A
//! connection to a replica that is gone is closed, which the sender sees as no reply.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

pub struct Balancer {
    pub address: SocketAddr,
    backends: Arc<Mutex<Vec<SocketAddr>>>,
    running: JoinHandle<()>,
}

impl Balancer {
    /// Listens on loopback, with nobody behind it.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let backends = Arc::new(Mutex::new(Vec::new()));
        let running = tokio::spawn(accept(listener, Arc::clone(&backends)));
        Self { address, backends, running }
    }

    /// The push address behind it.
    pub fn url(&self) -> String {
        format!("http://{}/push", self.address)
    }

    /// Who is behind it from now on. Connections that are open stay where they are.
    pub fn lead_to(&self, backends: Vec<SocketAddr>) {
        *self.backends.lock().expect("no panic while locked") = backends;
    }

    /// How many are behind it.
    pub fn backends(&self) -> usize {
        self.backends.lock().expect("no panic while locked").len()
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.running.abort();
    }
}

async fn accept(listener: TcpListener, backends: Arc<Mutex<Vec<SocketAddr>>>) {
    let mut connections = JoinSet::new();
    for turn in 0_usize.. {
        let Ok((client, _)) = listener.accept().await else { continue };
        let backend = {
            let backends = backends.lock().expect("no panic while locked");
            (!backends.is_empty()).then(|| backends[turn % backends.len()])
        };
        if let Some(backend) = backend {
            connections.spawn(relay(client, backend));
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn relay(mut client: TcpStream, backend: SocketAddr) {
    if let Ok(mut replica) = TcpStream::connect(backend).await {
        // Without it the small writes of HTTP wait for one another.
        let undelayed = client.set_nodelay(true).and(replica.set_nodelay(true));
        undelayed.expect("an open socket");
        // Either side goes away as it likes.
        tokio::io::copy_bidirectional(&mut client, &mut replica).await.ok();
    }
}
