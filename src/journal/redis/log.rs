//! Reading a shard's stream of entries.

use bytes::Bytes;
use redis::{Value, cmd};

use super::calls::Calls;
use super::faults::{Fault, array_of, odd, text_of};
use super::keys::Keys;
use crate::names::Offset;

/// An entry as it lies there: offset, meta, body.
pub(super) type Raw = (Offset, Vec<u8>, Bytes);

/// At most `count` entries behind `after`.
pub(super) async fn entries_behind(
    calls: &Calls,
    keys: &Keys,
    shard: u16,
    after: Offset,
    count: u64,
) -> Result<Vec<Raw>, Fault> {
    let mut ask = cmd("XRANGE");
    ask.arg(keys.of(shard, "log")).arg(format!("({after}-0")).arg("+").arg("COUNT").arg(count);
    let entries = array_of(calls.one(shard, ask).await?)?;
    entries.into_iter().map(read_entry).collect()
}

fn read_entry(value: Value) -> Result<Raw, Fault> {
    let parts = array_of(value)?;
    let [id, fields] = <[Value; 2]>::try_from(parts).map_err(|parts| odd(&Value::Array(parts)))?;
    let offset = text_of(&id).and_then(|id| id.split('-').next()?.parse().ok()).ok_or_else(|| odd(&id))?;
    let (mut meta, mut body) = (Vec::new(), Vec::new());
    let mut fields = array_of(fields)?.into_iter();
    while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
        match (name, value) {
            (Value::BulkString(name), Value::BulkString(value)) if name == b"m" => meta = value,
            (Value::BulkString(name), Value::BulkString(value)) if name == b"d" => body = value,
            _ => {}
        }
    }
    Ok((Offset(offset), meta, body.into()))
}
