//! Reads a body: whole, within a size and a time.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Body;

use super::reply::Refusal;

/// Set aside for a body before its bytes come, at most: an announced length alone must not cost memory.
const AHEAD_MAX: usize = 64 << 10;

/// Reads `body`. A body whose announced length is past `size_max` is refused before a byte is read, so that a peer which waits for
/// `100 Continue` is not invited. One that comes in one piece is not copied.
pub async fn read<B>(body: B, size_max: u64, patience: Duration) -> Result<Bytes, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    let announced = body.size_hint();
    if announced.lower() > size_max {
        return Err(Refusal::BodyTooLarge { limit: size_max });
    }
    let exact = announced.exact().and_then(|size| usize::try_from(size).ok());
    tokio::time::timeout(patience, collect(body, exact, size_max)).await.unwrap_or(Err(Refusal::BodyLate))
}

async fn collect<B>(mut body: B, exact: Option<usize>, size_max: u64) -> Result<Bytes, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut first = Bytes::new();
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_broken| Refusal::BodyBroken)?;
        // Trailers say nothing that is asked for.
        let Ok(data) = frame.into_data() else { continue };
        let size = first.len() + whole.len() + data.len();
        if size as u64 > size_max {
            return Err(Refusal::BodyTooLarge { limit: size_max });
        }
        if size == data.len() {
            first = data;
            continue;
        }
        if whole.is_empty() {
            whole.reserve(exact.unwrap_or(size).min(AHEAD_MAX).max(size));
            whole.extend_from_slice(&std::mem::take(&mut first));
        }
        if whole.capacity() < size {
            whole.reserve(exact.unwrap_or(0).saturating_sub(whole.len()).max(data.len()));
        }
        whole.extend_from_slice(&data);
    }
    Ok(if whole.is_empty() { first } else { whole.freeze() })
}
