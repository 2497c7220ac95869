//! Making a segment file: from the spare one where there is one, else new.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use super::catalog::{Segment, SegmentState};
use super::file_header::{FILE_HEADER_LEN, FileHeader, Writer};
use super::fs::Handle;
use super::shared::{Shared, lock};
use crate::crash::crash_point;

/// A segment that was just made, and its file.
pub(super) struct Made {
    pub segment: Arc<Segment>,
    pub file: Handle,
}

/// Makes the segment that begins with `first`. Its header and its name are on stable storage when this returns.
pub(super) fn make_segment(shared: &Shared, first: u64) -> io::Result<Made> {
    let temporary = shared.layout.dir.join("new.segment.tmp");
    let made = try_make(shared, first, &temporary);
    if made.is_err() {
        // Whatever is left of it is removed when the journal is opened, if not now.
        drop(shared.fs.remove(&temporary));
    }
    made
}

fn try_make(shared: &Shared, first: u64, temporary: &std::path::Path) -> io::Result<Made> {
    let (file, recycled) = blank_file(shared, temporary)?;
    let generation = fastrand::u64(1..);
    let header = FileHeader { log_id: shared.log_id, generation, first, recycled, writer: Writer::this() };
    file.write_all_at(&header.to_bytes(), 0)?;
    crash_point("journal.segment_create");
    file.sync()?;
    shared.fs.rename(temporary, &shared.layout.segment(first))?;
    crash_point("journal.segment_rename");
    shared.fs.sync_dir(&shared.layout.dir)?;
    let state = SegmentState {
        next: first,
        end: FILE_HEADER_LEN,
        size: shared.options.segment_size,
        entries: 0,
        newest_ms: i64::MIN,
        positions: Some(Vec::new()),
    };
    Ok(Made { segment: Arc::new(Segment::new(first, generation, state)), file })
}

/// A file of the size of a segment, and whether it held frames before.
fn blank_file(shared: &Shared, temporary: &std::path::Path) -> io::Result<(Handle, bool)> {
    let mut spare = lock(&shared.spare);
    if std::mem::take(&mut *spare) {
        shared.fs.rename(&shared.layout.spare(), temporary)?;
        // Before its header changes: a crash must not bring it back under the name that it had as a segment.
        shared.fs.sync_dir(&shared.layout.dir)?;
        let file = shared.fs.open(temporary)?;
        let mut start = [0; FILE_HEADER_LEN as usize];
        file.read_at(&mut start, 0)?;
        return Ok((file, start.iter().any(|byte| *byte != 0)));
    }
    let file = shared.fs.create(temporary)?;
    match file.allocate(shared.options.segment_size) {
        // It grows as it is written, then.
        Err(error) if error.kind() == ErrorKind::Unsupported => {}
        other => other?,
    }
    Ok((file, false))
}
