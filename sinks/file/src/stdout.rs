//! Standard output as a destination. Confirmed when the operating system has taken it: there is nothing to fsync.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::error::{Error, failed};

pub(crate) struct Stdout {
    /// A handle of our own, past the buffer of [`io::stdout`], which would keep the rest of a failed write for later.
    output: Option<File>,
    /// A failed write ended within a line, perhaps.
    mid_line: bool,
}

impl Stdout {
    pub(crate) fn new() -> Self {
        Self { output: None, mid_line: false }
    }

    pub(crate) fn append(&mut self, lines: &[u8]) -> Result<(), Error> {
        let mid_line = self.mid_line;
        let output = self.output()?;
        let written = if mid_line { output.write_all(b"\n") } else { Ok(()) }.and_then(|()| output.write_all(lines));
        self.mid_line = written.is_err();
        written.map_err(failed("written", Path::new("standard output")))
    }

    /// A pipe without a reader is found here; a full disk behind a redirection is not.
    pub(crate) fn probe(&mut self) -> Result<(), Error> {
        let output = self.output()?;
        let mut polled = [PollFd::new(output, PollFlags::OUT)];
        let asked = poll(&mut polled, Some(&Timespec::default())).map_err(io::Error::from);
        asked.map_err(failed("polled", Path::new("standard output")))?;
        if polled[0].revents().intersects(PollFlags::ERR | PollFlags::NVAL) { Err(Error::NoReader) } else { Ok(()) }
    }

    fn output(&mut self) -> Result<&mut File, Error> {
        if self.output.is_none() {
            let own = io::stdout().as_fd().try_clone_to_owned();
            self.output = Some(File::from(own.map_err(failed("opened", Path::new("standard output")))?));
        }
        Ok(self.output.as_mut().expect("opened above"))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::OwnedFd;

    use sink_api::Fault;

    use super::*;

    #[test]
    fn a_pipe_takes_lines_until_its_reader_has_gone() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut stdout = Stdout { output: Some(File::from(OwnedFd::from(writer))), mid_line: false };
        stdout.probe().unwrap();
        stdout.append(b"{}\n").unwrap();
        let mut read = [0; 3];
        reader.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"{}\n");
        drop(reader);
        assert_eq!(Fault::from(stdout.probe().unwrap_err()).code, "pipe-closed");
        assert_eq!(Fault::from(stdout.append(b"{}\n").unwrap_err()).code, "pipe-closed");
    }
}
