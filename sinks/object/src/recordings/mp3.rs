//! How long an MP3 plays, found while its bytes pass by: the headers of its frames are counted, nothing is decoded.
//!
//! Every frame says its own length, so that constant and variable bit rates are counted alike. The first frame of a VBR file often is
//! none of sound, but holds a count of the others (Xing, Info, VBRI): it is not counted, and its word is taken where the frames could
//! not be followed. Tags (ID3v2, ID3v1, APE) are passed over. What does not look like MPEG audio gives no duration.
//!
//! ```text
//!  frame header, 32 bits: 11111111 111vvllp bbbbrrpx mm……
//!  v version, l layer, b bit rate, r sample rate, p padding, m channel mode
//! ```
//!
//! Sources: ISO 11172-3 and 13818-3 (tables), the Xing and VBRI headers as LAME and Fraunhofer write them.

/// kbit/s by bit rate index; 0 is "free format", of which no length is known.
const RATES_V1: [[u32; 15]; 3] = [
    [0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448],
    [0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
    [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
];
const RATES_V2: [[u32; 15]; 3] = [
    [0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256],
    [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
    [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
];
const HZ_V1: [u32; 3] = [44_100, 48_000, 32_000];

const HEADER_LEN: usize = 4;
const ID3V2_HEADER_LEN: usize = 10;

/// Where no frame is met within so many bytes, tags not counted, it is none of MPEG.
const SEARCH_LEN_MAX: u64 = 128 << 10;

/// The fixed part of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    /// 1: MPEG-1; 2: MPEG-2; 4: MPEG-2.5. What the sample rate of MPEG-1 is divided by.
    divisor: u32,
    /// 1 to 3.
    layer: usize,
    hz: u32,
    /// Of the frame, this header included.
    len: usize,
    samples: u32,
    is_mono: bool,
}

/// Counts frames.
#[derive(Debug, Default)]
pub(super) struct Clock {
    /// What was fed and not judged yet: less than two frames.
    pending: Vec<u8>,
    /// So many bytes belong to the frame or tag that was met last.
    skip: u64,
    /// The first frame: the others are like it.
    first: Option<Header>,
    frames: u64,
    /// What a Xing, Info or VBRI header says.
    frames_told: Option<u64>,
    /// Bytes of frames, and bytes that are neither frame nor tag.
    sound: u64,
    junk: u64,
    /// Nothing more is counted: a tag of the end was met, or no frame at all.
    is_over: bool,
}

/// What stands at a place.
enum Found {
    Tag(u64),
    Frame(Header),
    Junk,
    End,
    /// More bytes are needed to tell.
    Unclear,
}

impl Clock {
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        if self.is_over {
            return;
        }
        self.pending.extend_from_slice(bytes);
        self.count(false);
    }

    /// Seconds, to the millisecond; `None` where the bytes are not understood.
    pub(super) fn seconds(mut self) -> Option<f64> {
        self.count(true);
        let first = self.first?;
        if self.skip > 0 && self.frames > 0 {
            // The last frame is cut off, and does not play.
            self.frames -= 1;
        }
        let is_followed = self.junk * 10 <= self.sound;
        let frames = match self.frames_told {
            Some(told) if !is_followed => told,
            _ if is_followed => self.frames,
            _ => return None,
        };
        let seconds = frames as f64 * f64::from(first.samples) / f64::from(first.hz);
        (frames > 0).then(|| (seconds * 1000.0).round() / 1000.0)
    }

    fn count(&mut self, is_last: bool) {
        let mut at = 0;
        while at < self.pending.len() && !self.is_over {
            let rest = &self.pending[at..];
            if self.skip > 0 {
                let passed = self.skip.min(rest.len() as u64);
                self.skip -= passed;
                at += usize::try_from(passed).expect("within the bytes at hand");
                continue;
            }
            match self.look(rest, is_last) {
                Found::Tag(len) => self.skip = len,
                Found::Frame(header) => {
                    let told = if self.first.is_none() { told_frames(rest, header) } else { None };
                    self.frames_told = self.frames_told.or(told);
                    self.frames += u64::from(told.is_none());
                    self.first.get_or_insert(header);
                    self.sound += header.len as u64;
                    self.skip = header.len as u64;
                }
                Found::Junk => {
                    self.junk += 1;
                    at += 1;
                    self.is_over = self.first.is_none() && self.junk > SEARCH_LEN_MAX;
                }
                Found::End => self.is_over = true,
                Found::Unclear => break,
            }
        }
        self.pending.drain(..at);
    }

    fn look(&self, rest: &[u8], is_last: bool) -> Found {
        if rest.len() < ID3V2_HEADER_LEN && !is_last {
            return Found::Unclear;
        }
        if let [b'I', b'D', b'3', _, _, flags, size @ ..] = rest
            && size.len() >= 4
        {
            let size = size[..4].iter().fold(0_u64, |size, byte| size << 7 | u64::from(byte & 0x7f));
            let footer = if flags & 0x10 == 0 { 0 } else { ID3V2_HEADER_LEN as u64 };
            return Found::Tag(ID3V2_HEADER_LEN as u64 + size + footer);
        }
        if self.first.is_some() && (rest.starts_with(b"TAG") || rest.starts_with(b"APETAGEX")) {
            return Found::End;
        }
        let Some(header) = Header::read(rest) else { return Found::Junk };
        match self.first {
            Some(first) if header.is_like(first) => Found::Frame(header),
            Some(_) => Found::Junk,
            // Four bytes of anything can look like a header; two in their places hardly ever do.
            None if rest.len() < header.len + HEADER_LEN && !is_last => Found::Unclear,
            None if rest.len() == header.len => Found::Frame(header),
            None => match rest.get(header.len..).and_then(Header::read) {
                Some(next) if next.is_like(header) => Found::Frame(header),
                _ => Found::Junk,
            },
        }
    }
}

impl Header {
    fn read(bytes: &[u8]) -> Option<Self> {
        let [0xff, second, third, fourth, ..] = *bytes else { return None };
        if second & 0xe0 != 0xe0 {
            return None;
        }
        let divisor = match second >> 3 & 3 {
            0 => 4,
            2 => 2,
            3 => 1,
            _ => return None,
        };
        let layer = match second >> 1 & 3 {
            0 => return None,
            bits => 4 - usize::from(bits),
        };
        let table = if divisor == 1 { &RATES_V1 } else { &RATES_V2 };
        let kbits = *table[layer - 1].get(usize::from(third >> 4)).filter(|kbits| **kbits > 0)?;
        let hz = HZ_V1.get(usize::from(third >> 2 & 3))? / divisor;
        let padding = u32::from(third >> 1 & 1);
        let samples = match (layer, divisor) {
            (1, _) => 384,
            (3, 2 | 4) => 576,
            _ => 1152,
        };
        let len = match layer {
            1 => (12 * kbits * 1000 / hz + padding) * 4,
            _ => samples / 8 * kbits * 1000 / hz + padding,
        };
        Some(Self { divisor, layer, hz, len: len as usize, samples, is_mono: fourth >> 6 == 3 })
    }

    /// Bit rate, padding and channel mode may change within a file.
    fn is_like(self, other: Self) -> bool {
        (self.divisor, self.layer, self.hz) == (other.divisor, other.layer, other.hz)
    }
}

/// How many frames follow, where this one says so rather than to hold sound.
fn told_frames(frame: &[u8], header: Header) -> Option<u64> {
    let u32_at = |at: usize| Some(u32::from_be_bytes(frame.get(at..at + 4)?.try_into().ok()?));
    let side = match (header.divisor, header.is_mono) {
        (1, false) => 32,
        (1, true) | (_, false) => 17,
        (_, true) => 9,
    };
    let xing = HEADER_LEN + side;
    let is_at = |mark: &[u8], at: usize| frame.get(at..).is_some_and(|rest| rest.starts_with(mark));
    if is_at(b"Xing", xing) || is_at(b"Info", xing) {
        let has_count = u32_at(xing + 4)? & 1 == 1;
        return Some(if has_count { u64::from(u32_at(xing + 8)?) } else { 0 });
    }
    let vbri = HEADER_LEN + 32;
    is_at(b"VBRI", vbri).then(|| u32_at(vbri + 14).map(u64::from)).flatten()
}

#[cfg(test)]
#[path = "mp3_tests.rs"]
mod tests;
