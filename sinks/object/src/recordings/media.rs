//! What bytes are, by their first ones: which recording, or none at all. The sender's own word is not asked where the bytes say it.

/// So many first bytes are enough.
pub(super) const HEAD_LEN: usize = 512;

/// A kind of recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Media {
    pub(super) content_type: &'static str,
    pub(super) extension: &'static str,
}

/// The bytes are no recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotMedia {
    Empty,
    /// HTML or XML, as pages of errors are.
    Markup,
    Json,
    Text,
}

impl NotMedia {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "nothing at all",
            Self::Markup => "a page of HTML or XML",
            Self::Json => "JSON",
            Self::Text => "text",
        }
    }
}

const MP3: Media = Media { content_type: "audio/mpeg", extension: "mp3" };
/// Bytes that nobody knows are kept as they are: better an odd recording than a lost one.
const UNKNOWN: Media = Media { content_type: "application/octet-stream", extension: "bin" };

/// Where in a file its mark stands.
const MARKS: [(usize, &[u8], Media); 9] = [
    (0, b"ID3", MP3),
    (8, b"WAVE", Media { content_type: "audio/wav", extension: "wav" }),
    (0, b"OggS", Media { content_type: "audio/ogg", extension: "ogg" }),
    (0, b"fLaC", Media { content_type: "audio/flac", extension: "flac" }),
    (0, b"#!AMR", Media { content_type: "audio/amr", extension: "amr" }),
    (4, b"ftypM4A", Media { content_type: "audio/mp4", extension: "m4a" }),
    (4, b"ftyp", Media { content_type: "video/mp4", extension: "mp4" }),
    (0, b"\x1a\x45\xdf\xa3", Media { content_type: "video/webm", extension: "webm" }),
    (0, b"FORM", Media { content_type: "audio/aiff", extension: "aiff" }),
];

impl Media {
    /// `head` are the first [`HEAD_LEN`] bytes, or all there are; `declared` is the media type that the server gave.
    pub(super) fn of(head: &[u8], declared: Option<&str>) -> Result<Self, NotMedia> {
        if head.is_empty() {
            return Err(NotMedia::Empty);
        }
        let found = MARKS.iter().find(|(at, mark, _)| head.get(*at..).is_some_and(|rest| rest.starts_with(mark)));
        if let Some((_, _, media)) = found {
            return Ok(*media);
        }
        match head {
            // The same sync as MP3, but with no layer.
            [0xff, second, ..] if second & 0xf6 == 0xf0 => Ok(Media { content_type: "audio/aac", extension: "aac" }),
            [0xff, second, third, ..] if second & 0xe0 == 0xe0 && second & 0x06 != 0 && third & 0xf0 != 0xf0 => Ok(MP3),
            _ => text(head, declared).map_or(Ok(UNKNOWN), Err),
        }
    }

    pub(super) fn is_mp3(self) -> bool {
        self == MP3
    }

    /// The media type of an object that was archived under this extension.
    pub(super) fn of_extension(extension: &str) -> Self {
        let known = MARKS.iter().map(|(_, _, media)| *media).find(|media| media.extension == extension);
        known.unwrap_or(if extension == "aac" {
            Media { content_type: "audio/aac", extension: "aac" }
        } else {
            UNKNOWN
        })
    }
}

/// What kind of text this is, if it is one. Plain text counts where the server does not call it sound or bytes.
fn text(head: &[u8], declared: Option<&str>) -> Option<NotMedia> {
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    // A character may be cut at the end.
    let readable = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => std::str::from_utf8(&head[..error.valid_up_to()]).ok()?,
        Err(_) => return None,
    };
    if readable.chars().any(|c| c.is_control() && !c.is_ascii_whitespace()) {
        return None;
    }
    let declared = declared.unwrap_or("text/plain").trim().to_ascii_lowercase();
    let is_called_media =
        ["audio/", "video/", "application/octet-stream", "binary/"].iter().any(|of| declared.starts_with(of));
    match readable.trim_start().chars().next() {
        Some('<') => Some(NotMedia::Markup),
        Some('{' | '[') => Some(NotMedia::Json),
        _ if is_called_media => None,
        _ => Some(NotMedia::Text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recordings_are_known_by_their_first_bytes() {
        for (head, content_type) in [
            (&b"ID3\x04\x00"[..], "audio/mpeg"),
            (b"\xff\xfb\x90\x64", "audio/mpeg"),
            (b"\xff\xe3\x18\xc4", "audio/mpeg"),
            (b"\xff\xf1\x50\x80", "audio/aac"),
            (b"RIFF\x24\x00\x00\x00WAVEfmt ", "audio/wav"),
            (b"OggS\x00", "audio/ogg"),
            (b"fLaC\x00", "audio/flac"),
            (b"#!AMR\n\x3c", "audio/amr"),
            (b"\x00\x00\x00\x20ftypM4A ", "audio/mp4"),
            (b"\x00\x00\x00\x20ftypisom", "video/mp4"),
            (b"\x00\x01\x02\x03", "application/octet-stream"),
            (b"\xff\xff\xff\xff", "application/octet-stream"),
        ] {
            let media = Media::of(head, Some("text/html")).unwrap();
            assert_eq!(media.content_type, content_type, "{head:?}");
            assert_eq!(Media::of_extension(media.extension), media);
        }
    }

    #[test]
    fn pages_of_errors_are_no_recordings_whatever_they_are_called() {
        for (head, declared, expected) in [
            (&b""[..], Some("audio/mpeg"), NotMedia::Empty),
            (b"<!DOCTYPE html>", Some("audio/mpeg"), NotMedia::Markup),
            (b"\xef\xbb\xbf \n<?xml version='1.0'?>", None, NotMedia::Markup),
            (b"{\"code\": 1}", Some("audio/mpeg"), NotMedia::Json),
            (b"not found", Some("text/plain; charset=utf-8"), NotMedia::Text),
            (b"not found", None, NotMedia::Text),
            ("die Aufnahme fehlt \u{fc}".as_bytes(), None, NotMedia::Text),
        ] {
            assert_eq!(Media::of(head, declared), Err(expected), "{head:?}");
        }
        assert!(Media::of(b"plain bytes", Some("audio/mpeg")).is_ok());
        let cut = &"ü".as_bytes()[..1];
        assert_eq!(Media::of(&[b"page ".as_slice(), cut].concat(), None), Err(NotMedia::Text));
    }
}
