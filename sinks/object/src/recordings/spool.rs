//! A recording while it is fetched: in a temporary file without a name, which is gone with the value that stands for it, also after
//! a crash.
//!
//! A store takes an object's metadata before its bytes, and the SHA-256 that belongs there is known only after the last of them. So
//! the bytes wait here, cost no memory, and what the store gets is complete and was looked at. Whatever is to be known of them is found
//! while they pass by.

use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};
use bytes::{Bytes, BytesMut};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _, BufWriter};

use super::media::HEAD_LEN;
use super::mp3::Clock;
use crate::store::hex;

const BUFFER_LEN: usize = 128 << 10;

/// Bytes on their way in.
pub(super) struct Spool {
    dir: PathBuf,
    file: BufWriter<File>,
    facts: Facts,
    sha256: Context,
    clock: Clock,
}

#[derive(Default)]
struct Facts {
    length_bytes: u64,
    head: Vec<u8>,
}

/// A whole recording, to be read once.
pub(super) struct Spooled {
    file: File,
    pub(super) length_bytes: u64,
    /// In lower-case hex.
    pub(super) sha256: String,
    /// The first [`HEAD_LEN`] bytes, or all there are.
    pub(super) head: Vec<u8>,
    /// How long it plays, if it is MPEG audio.
    pub(super) seconds: Option<f64>,
}

impl Spool {
    /// Empty, in `dir`.
    pub(super) async fn create(dir: &Path) -> io::Result<Self> {
        let dir = dir.to_path_buf();
        let made_in = dir.clone();
        let file = tokio::task::spawn_blocking(move || tempfile::tempfile_in(made_in)).await??;
        Ok(Self {
            dir,
            file: BufWriter::with_capacity(BUFFER_LEN, File::from_std(file)),
            facts: Facts::default(),
            sha256: Context::new(&SHA256),
            clock: Clock::default(),
        })
    }

    pub(super) fn length_bytes(&self) -> u64 {
        self.facts.length_bytes
    }

    pub(super) async fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let missing = HEAD_LEN.saturating_sub(self.facts.head.len()).min(bytes.len());
        self.facts.head.extend_from_slice(&bytes[..missing]);
        self.facts.length_bytes += bytes.len() as u64;
        self.sha256.update(bytes);
        self.clock.feed(bytes);
        self.file.write_all(bytes).await
    }

    /// Forgets what came so far.
    pub(super) async fn restart(&mut self) -> io::Result<()> {
        *self = Self::create(&self.dir).await?;
        Ok(())
    }

    pub(super) async fn finish(mut self) -> io::Result<Spooled> {
        self.file.flush().await?;
        let mut file = self.file.into_inner();
        file.rewind().await?;
        let Facts { length_bytes, head } = self.facts;
        let sha256 = hex(self.sha256.finish().as_ref());
        Ok(Spooled { file, length_bytes, sha256, head, seconds: self.clock.seconds() })
    }
}

impl Spooled {
    /// The next piece; empty at the end.
    pub(super) async fn piece(&mut self) -> io::Result<Bytes> {
        let mut piece = BytesMut::with_capacity(BUFFER_LEN);
        self.file.read_buf(&mut piece).await?;
        Ok(piece.freeze())
    }
}
