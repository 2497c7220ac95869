//! The disk's own share: what one fdatasync of a small write takes, at the pace of the pushes.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;
use rustix::fs::{FallocateFlags, fallocate};

const FILE_SIZE: u64 = 64 << 20;
const WRITE_SIZE: u64 = 2048;

/// Writes and syncs in a preallocated file in `dir`, `rate` times a second or, where the disk is slower, as often as it can. The time
/// of each write with its sync, in microseconds.
pub fn sync_latencies(dir: &Path, rate: u32, time: Duration) -> Result<Histogram<u64>> {
    let path = dir.join("fdatasync");
    let file = File::create(&path)?;
    fallocate(&file, FallocateFlags::empty(), 0, FILE_SIZE)?;
    file.sync_all()?;
    let block = [0x5a; WRITE_SIZE as usize];
    let interval = Duration::from_secs(1) / rate;
    let mut latencies = Histogram::new(3)?;
    let started = Instant::now();
    let (mut due, mut offset) = (started, 0);
    while started.elapsed() < time {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        due += interval;
        let before = Instant::now();
        file.write_all_at(&block, offset)?;
        file.sync_data()?;
        latencies += before.elapsed().as_micros() as u64;
        offset = (offset + WRITE_SIZE) % FILE_SIZE;
    }
    std::fs::remove_file(path)?;
    Ok(latencies)
}
