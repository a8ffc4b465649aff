//! Blobs, chunks, changes, expectations and deadlines.

use std::time::Duration;

use bytes::Bytes;

use super::super::v1;
use super::{counters, in_range, out_of_range, required, unknown_value};
use crate::limits::{SESSION_CHUNKS_MAX, SESSION_RAW_BYTES_MAX, SESSION_TTL_MAX, TOMBSTONE_TTL_MAX};
use crate::types::{
    Addition, Base, Blob, Change, Chunk, Codec, Expected, Expiry, Form, OnConflict, Refusal, Require, Revision, Version,
};

/// Largest item count of a chunk. It only keeps sums from overflowing: how many items a session may hold is the machine's to say.
const CHUNK_ITEMS_MAX: u64 = u32::MAX as u64;

pub(crate) fn codec_to(codec: Codec) -> i32 {
    match codec {
        Codec::None => v1::Codec::None.into(),
        Codec::Zstd => v1::Codec::Zstd.into(),
    }
}

pub(crate) fn codec_from(field: &str, value: i32) -> Result<Codec, Refusal> {
    match v1::Codec::try_from(value) {
        Ok(v1::Codec::None) => Ok(Codec::None),
        Ok(v1::Codec::Zstd) => Ok(Codec::Zstd),
        Ok(v1::Codec::Unspecified) | Err(_) => Err(unknown_value(&format!("{field}.codec"), value)),
    }
}

/// A blob whose lengths agree. Its checksum is not looked at: that is for the last holder of the data, once.
pub(crate) fn blob_from_parts(field: &str, codec: Codec, raw_bytes: u64, crc32c: u32, data: Bytes) -> Result<Blob, Refusal> {
    let stored = data.len() as u64;
    let (min, max) = match codec {
        Codec::None => (stored, stored),
        Codec::Zstd if stored == 0 => return Err(Refusal::invalid(format!("packed data is empty field={field}.data"))),
        Codec::Zstd => (0, SESSION_RAW_BYTES_MAX),
    };
    in_range(format_args!("{field}.raw_bytes"), raw_bytes, min, max)?;
    Ok(Blob { codec, raw_bytes, crc32c, data })
}

fn blob_from(field: &str, blob: v1::Blob) -> Result<Blob, Refusal> {
    blob_from_parts(field, codec_from(field, blob.codec)?, blob.raw_bytes, blob.crc32c, blob.data)
}

fn blob_to(blob: &Blob) -> v1::Blob {
    v1::Blob { codec: codec_to(blob.codec), raw_bytes: blob.raw_bytes, crc32c: blob.crc32c, data: blob.data.clone() }
}

pub(crate) fn item_count(value: u64) -> Result<u64, Refusal> {
    in_range("chunk.item_count", value, 1, CHUNK_ITEMS_MAX)
}

pub(super) fn chunks_from(chunks: Vec<v1::Chunk>) -> Result<Vec<Chunk>, Refusal> {
    if chunks.len() as u64 > SESSION_CHUNKS_MAX {
        return Err(out_of_range("chunks", chunks.len(), 0, SESSION_CHUNKS_MAX));
    }
    chunks.into_iter().map(chunk_from).collect()
}

fn chunk_from(chunk: v1::Chunk) -> Result<Chunk, Refusal> {
    let blob = blob_from("chunk.blob", required("chunk.blob", chunk.blob)?)?;
    Ok(Chunk { item_count: item_count(chunk.item_count)?, blob })
}

pub(super) fn chunks_to(chunks: &[Chunk]) -> Vec<v1::Chunk> {
    chunks.iter().map(chunk_to).collect()
}

fn chunk_to(chunk: &Chunk) -> v1::Chunk {
    v1::Chunk { item_count: chunk.item_count, blob: Some(blob_to(&chunk.blob)) }
}

pub(super) fn change_from(change: Option<v1::Change>) -> Result<Change, Refusal> {
    match required("change", change.and_then(|change| change.change))? {
        v1::change::Change::Full(full) => Ok(Change::Full {
            chunks: chunks_from(full.chunks)?,
            head: blob_from("full.head", required("full.head", full.head)?)?,
            counters: counters(full.counters)?,
        }),
        v1::change::Change::Delta(delta) => delta_from(delta),
    }
}

fn delta_from(delta: v1::change::Delta) -> Result<Change, Refusal> {
    let head = delta.head.map(|head| blob_from("delta.head", head)).transpose()?;
    let base = match delta.base {
        Some(base) => Base::At {
            create_revision: Revision(base.create_revision),
            version: Version(in_range("delta.base.version", base.version, 1, u64::MAX)?),
            items: base.items,
        },
        None if head.is_none() => return Err(Refusal::invalid("a delta without a base must bring a head field=delta.head")),
        None => Base::Absent,
    };
    Ok(Change::Delta { base, chunks: chunks_from(delta.chunks)?, head, counters: counters(delta.counters)? })
}

pub(super) fn change_to(change: &Change) -> v1::Change {
    let change = match change {
        Change::Full { chunks, head, counters } => v1::change::Change::Full(v1::change::Full {
            chunks: chunks_to(chunks),
            head: Some(blob_to(head)),
            counters: counters.as_slice().to_vec(),
        }),
        Change::Delta { base, chunks, head, counters } => v1::change::Change::Delta(v1::change::Delta {
            base: match *base {
                Base::Absent => None,
                Base::At { create_revision, version, items } => {
                    Some(v1::change::Base { create_revision: create_revision.0, version: version.0, items })
                }
            },
            chunks: chunks_to(chunks),
            head: head.as_ref().map(blob_to),
            counters: counters.as_slice().to_vec(),
        }),
    };
    v1::Change { change: Some(change) }
}

pub(super) fn expiry_from(expiry: Option<v1::Expiry>) -> Result<Expiry, Refusal> {
    let Some(expiry) = expiry else { return Ok(Expiry::Keep) };
    match required("expiry", expiry.expiry)? {
        v1::expiry::Expiry::Keep(_) => Ok(Expiry::Keep),
        v1::expiry::Expiry::Never(_) => Ok(Expiry::Never),
        v1::expiry::Expiry::AfterMs(ms) => ttl("expiry.after_ms", ms).map(Expiry::After),
        v1::expiry::Expiry::IdleMs(ms) => ttl("expiry.idle_ms", ms).map(Expiry::Idle),
    }
}

fn ttl(field: &str, ms: u64) -> Result<Duration, Refusal> {
    in_range(field, ms, 1, SESSION_TTL_MAX.as_millis() as u64).map(Duration::from_millis)
}

pub(super) fn tombstone_ttl_from(ms: u64) -> Result<Duration, Refusal> {
    in_range("tombstone_ttl_ms", ms, 0, TOMBSTONE_TTL_MAX.as_millis() as u64).map(Duration::from_millis)
}

pub(super) fn millis(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn expiry_to(expiry: Expiry) -> Option<v1::Expiry> {
    let expiry = match expiry {
        Expiry::Keep => return None,
        Expiry::Never => v1::expiry::Expiry::Never(v1::Empty {}),
        Expiry::After(ttl) => v1::expiry::Expiry::AfterMs(millis(ttl)),
        Expiry::Idle(ttl) => v1::expiry::Expiry::IdleMs(millis(ttl)),
    };
    Some(v1::Expiry { expiry: Some(expiry) })
}

pub(super) fn expected_from(expected: v1::Expected) -> Result<Expected, Refusal> {
    match required("expected", expected.expected)? {
        v1::expected::Expected::Absent(_) => Ok(Expected::Absent),
        v1::expected::Expected::At(at) => Ok(Expected::At {
            version: Version(in_range("expected.version", at.version, 1, u64::MAX)?),
            create_revision: Some(Revision(at.create_revision)).filter(|revision| revision.0 != 0),
        }),
        v1::expected::Expected::Incarnation(create_revision) => {
            Ok(Expected::Incarnation { create_revision: Revision(in_range("expected.incarnation", create_revision, 1, u64::MAX)?) })
        }
    }
}

pub(super) fn expected_to(expected: Expected) -> v1::Expected {
    let expected = match expected {
        Expected::Absent => v1::expected::Expected::Absent(v1::Empty {}),
        Expected::At { version, create_revision } => v1::expected::Expected::At(v1::expected::At {
            version: version.0,
            create_revision: create_revision.map_or(0, |revision| revision.0),
        }),
        Expected::Incarnation { create_revision } => v1::expected::Expected::Incarnation(create_revision.0),
    };
    v1::Expected { expected: Some(expected) }
}

/// Unspecified is `Reject`, which changes nothing.
pub(super) fn on_conflict_from(value: i32) -> Result<OnConflict, Refusal> {
    match v1::OnConflict::try_from(value) {
        Ok(v1::OnConflict::Unspecified | v1::OnConflict::Reject) => Ok(OnConflict::Reject),
        Ok(v1::OnConflict::Rebase) => Ok(OnConflict::Rebase),
        Err(_) => Err(unknown_value("on_conflict", value)),
    }
}

pub(super) fn on_conflict_to(on_conflict: OnConflict) -> i32 {
    match on_conflict {
        OnConflict::Reject => v1::OnConflict::Reject.into(),
        OnConflict::Rebase => v1::OnConflict::Rebase.into(),
    }
}

pub(super) fn form_from(value: i32) -> Result<Form, Refusal> {
    match v1::Form::try_from(value) {
        Ok(v1::Form::Unspecified) => Ok(Form::Unknown),
        Ok(v1::Form::Value) => Ok(Form::Value),
        Ok(v1::Form::Transcript) => Ok(Form::Transcript),
        Err(_) => Err(unknown_value("form", value)),
    }
}

pub(super) fn form_to(form: Form) -> i32 {
    match form {
        Form::Unknown => v1::Form::Unspecified.into(),
        Form::Value => v1::Form::Value.into(),
        Form::Transcript => v1::Form::Transcript.into(),
    }
}

pub(super) fn require_from(require: Option<v1::Require>) -> Result<Require, Refusal> {
    let Some(require) = require else { return Ok(Require::Any) };
    match required("append.require", require.require)? {
        v1::require::Require::Any(_) => Ok(Require::Any),
        v1::require::Require::Present(_) => Ok(Require::Present),
        v1::require::Require::Absent(_) => Ok(Require::Absent),
        v1::require::Require::At(v1::require::At { create_revision: None, version: None, items: None }) => {
            Err(Refusal::invalid("one of create_revision, version and items must be given field=append.require.at"))
        }
        v1::require::Require::At(v1::require::At { create_revision, version, items }) => Ok(Require::At {
            create_revision: create_revision.map(Revision),
            version: version.map(|version| in_range("append.require.version", version, 1, u64::MAX).map(Version)).transpose()?,
            items,
        }),
        v1::require::Require::AppendedOnly(v1::require::AppendedOnly { create_revision, since }) => Ok(Require::AppendedOnly {
            create_revision: Revision(in_range("append.require.create_revision", create_revision, 1, u64::MAX)?),
            since: Version(in_range("append.require.since", since, 1, u64::MAX)?),
        }),
    }
}

pub(super) fn require_to(require: Require) -> Option<v1::Require> {
    let require = match require {
        Require::Any => return None,
        Require::Present => v1::require::Require::Present(v1::Empty {}),
        Require::Absent => v1::require::Require::Absent(v1::Empty {}),
        Require::At { create_revision, version, items } => v1::require::Require::At(v1::require::At {
            create_revision: create_revision.map(|revision| revision.0),
            version: version.map(|version| version.0),
            items,
        }),
        Require::AppendedOnly { create_revision, since } => {
            v1::require::Require::AppendedOnly(v1::require::AppendedOnly { create_revision: create_revision.0, since: since.0 })
        }
    };
    Some(v1::Require { require: Some(require) })
}

pub(super) fn addition_from(
    require: Require,
    chunks: Vec<v1::Chunk>,
    head_if_created: Option<v1::Blob>,
    increments: Vec<u64>,
) -> Result<Addition, Refusal> {
    if require.may_create() && head_if_created.is_none() {
        return Err(Refusal::invalid("an append that may create the session must bring a head field=append.head_if_created"));
    }
    let head_if_created = head_if_created.map(|head| blob_from("append.head_if_created", head)).transpose()?;
    Ok(Addition { chunks: chunks_from(chunks)?, head_if_created, counters: counters(increments)? })
}

pub(super) fn addition_to(addition: &Addition) -> (Vec<v1::Chunk>, Option<v1::Blob>, Vec<u64>) {
    let Addition { chunks, head_if_created, counters } = addition;
    (chunks_to(chunks), head_if_created.as_ref().map(blob_to), counters.as_slice().to_vec())
}
