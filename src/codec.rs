//! Not part of the interface: any release may change it.
//!
//! The bytes of log entries and of row values. The only module that names bincode (decision: nothing else may depend on it).
//!
//! ```text
//! payload = format: u8, body          row value = format: u8, body
//! entry: body = stamp_ms, command     numbers are varints, enums a tag byte, lists and byte strings a length and their content
//! ```
//!
//! An entry has the format of the cluster version in force where it was proposed. A row has the first format that can carry its value:
//! values of cluster version 1 keep the bytes that they had under version 1 (decision 0082).
//!
//! Decoding validates: a value that comes out keeps every promise its type makes. It never panics, never allocates more than a
//! small multiple of the input, and copies no content: every [`Blob`]'s data is a slice of the payload it was decoded from.

use std::cell::Cell;
use std::fmt;
use std::time::Duration;

pub(crate) use bincode::de::{BorrowDecode, BorrowDecoder};
pub(crate) use bincode::enc::{Encode, Encoder};
pub(crate) use bincode::error::{DecodeError, EncodeError};
use bytes::Bytes;

use crate::limits::{
    COUNTERS_MAX, LEASES_RENEWED_MAX, PEER_MESSAGE_BYTES_MAX, SESSION_CHUNKS_MAX, SESSION_TTL_MAX, TOMBSTONE_TTL_MAX,
    TRANSACTION_OPERATIONS_MAX,
};
use crate::machine::{Command, Entry};
use crate::types::{
    Aborted, Addition, Appended, Attributes, Base, Blob, Change, Chunk, ChunkSum, ClientId, Codec, ContentVersion, Counters,
    Expected, Expiry, Fence, Form, Holder, Label, LeaseTtl, LogId, Lost, NodeId, Nonce, OnConflict, Operation, Operations,
    OutOfRange, Outcome, Renewals, Repack, Request, Require, Revision, Saved, Sequence, SessionId, Swept, TooLarge, Transacted,
    Verdict, Version, Write, bounded,
};

/// The format of entries under cluster version 1, and of every row that it can carry.
pub const FORMAT: u8 = 1;
/// The format of entries under cluster version 2, and of rows that say what version 1 does not know.
pub const FORMAT_2: u8 = 2;
/// Most chunks an entry may carry. More than a session may hold, so that a client hears `TooLarge` from the machine; the
/// proposer refuses more than this before.
pub const ENTRY_CHUNKS_MAX: usize = 4 * SESSION_CHUNKS_MAX as usize;

const _: () = assert!(ENTRY_CHUNKS_MAX as u64 >= SESSION_CHUNKS_MAX);

/// Why bytes are no entry or row value. Nothing was changed. For an entry of the log or a row of a node's own disk it means damage, or
/// a format of a later release: stop, do not guess.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The field that could not be read.
    pub field: &'static str,
    /// The problem.
    pub problem: Problem,
}

/// A problem with a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The first byte names a format that is unknown, or not allowed yet.
    Format {
        /// The byte.
        format: u8,
        /// The cluster version in force, or the newest known row format.
        newest: u16,
    },
    /// The bytes end before the field does.
    Truncated,
    /// Bytes follow the last field.
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// The value is above its limit, or means nothing.
    Invalid(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = self.field;
        match &self.problem {
            Problem::Format { format, newest } => {
                write!(f, "format is not supported field={field} format={format} newest={newest}")
            }
            Problem::Truncated => write!(f, "bytes end too early field={field}"),
            Problem::Trailing { bytes } => write!(f, "bytes follow the last field={field} bytes={bytes}"),
            Problem::Invalid(why) => write!(f, "value is invalid field={field} problem={why}"),
        }
    }
}

impl std::error::Error for Error {}

/// Encodes an entry for the log and for peers, once, by its proposer.
///
/// `format` is the cluster version in force at the proposer. Panics on a format this release does not write, and on an entry that
/// [`decode`] would refuse (too many chunks, a longer time to live than allowed): replicas must never get one, so the proposer's own
/// validation comes before.
pub fn encode(entry: &Entry, format: u8) -> Bytes {
    assert!(format == FORMAT || format == FORMAT_2, "format is not written by this release format={format}");
    assert!(is_proposable(&entry.command, format.into()), "entry would be undecodable");
    let stored = match &entry.command {
        Command::Client(write) => write.stored_bytes(),
        Command::Sweep { .. } | Command::SetClusterVersion { .. } => 0,
    };
    let mut out = Vec::with_capacity(usize::try_from(stored).unwrap_or(0).saturating_add(128));
    out.push(format);
    match format {
        FORMAT => append(&mut out, &(entry.stamp_ms, Version1(&entry.command))),
        _ => append(&mut out, &(entry.stamp_ms, &entry.command)),
    }
    Bytes::from(out)
}

/// Whether [`decode`] takes the command back under this cluster version: the bounds that a proposer checks before it proposes (L43).
/// The operations of a transaction keep theirs by their type.
pub fn is_proposable(command: &Command, cluster_version: u16) -> bool {
    let Command::Client(write) = command else {
        return command.cluster_version() <= cluster_version;
    };
    let is_too_long = |expiry| matches!(expiry, Expiry::After(ttl) | Expiry::Idle(ttl) if ttl > SESSION_TTL_MAX);
    let stands_too_long = |attributes: &Attributes| attributes.tombstone_ttl.is_some_and(|ttl| ttl > TOMBSTONE_TTL_MAX);
    let ttls_fit = !write.expiries().any(is_too_long) && !write.attributes().any(stands_too_long);
    ttls_fit && write.chunk_count() <= ENTRY_CHUNKS_MAX as u64 && write.cluster_version() <= cluster_version
}

/// Decodes an entry of any format up to the cluster version in force. Blobs are slices of `payload`.
///
/// Errors: [`Error`] names the field. Every replica decides alike, for it looks at nothing but the arguments.
pub fn decode(payload: &Bytes, cluster_version: u16) -> Result<Entry, Error> {
    let format = *payload.first().ok_or(Error { field: "format", problem: Problem::Truncated })?;
    let known = format == FORMAT || format == FORMAT_2;
    if !known || u16::from(format) > cluster_version {
        return Err(Error { field: "format", problem: Problem::Format { format, newest: cluster_version } });
    }
    if payload.len() as u64 > PEER_MESSAGE_BYTES_MAX {
        let why = format!("bytes={} limit={PEER_MESSAGE_BYTES_MAX}", payload.len());
        return Err(Error { field: "payload", problem: Problem::Invalid(why) });
    }
    let Pair(stamp_ms, command) = decode_body(payload)?;
    Ok(Entry { stamp_ms, command })
}

/// Checks the one number of an entry that the machine's time becomes, without decoding the rest. A malformed entry is left to
/// [`decode`]. Errors: the number is out of range.
pub fn check_stamp(payload: &Bytes) -> Result<(), OutOfRange> {
    let stamp_ms = match payload.first() {
        Some(&(FORMAT | FORMAT_2)) => decode_number(&payload[1..]),
        _ => None,
    };
    bounded("entry.stamp_ms", stamp_ms.unwrap_or_default()).map(drop)
}

fn decode_number(bytes: &[u8]) -> Option<u64> {
    bincode::decode_from_slice(bytes, bincode::config::standard()).ok().map(|(number, _)| number)
}

/// The value of a row.
pub(crate) trait RowValue: Encode {
    /// The first format that can carry it.
    fn format(&self) -> u8 {
        FORMAT
    }
}

impl RowValue for Blob {}

impl RowValue for Outcome {
    fn format(&self) -> u8 {
        if self.verdict.cluster_version() == 1 { FORMAT } else { FORMAT_2 }
    }
}

/// Encodes the value of a row.
pub(crate) fn encode_row<T: RowValue>(value: &T) -> Bytes {
    // Rows of metadata fit here, and are encoded once.
    let mut short = [value.format(); 512];
    if let Ok(len) = bincode::encode_into_slice(value, &mut short[1..], bincode::config::standard()) {
        return Bytes::copy_from_slice(&short[..=len]);
    }
    // Of exactly its length: what is longer costs a second allocation for as long as the row lives.
    let mut out = Vec::with_capacity(row_bytes(value));
    out.push(value.format());
    append(&mut out, value);
    Bytes::from(out)
}

/// How many bytes [`encode_row`] takes for it.
pub(crate) fn row_bytes<T: Encode>(value: &T) -> usize {
    let mut size = bincode::enc::write::SizeWriter::default();
    bincode::encode_into_writer(value, &mut size, bincode::config::standard())
        .expect("counting fails on nothing, and no implementation here refuses a value");
    size.bytes_written + 1
}

/// Decodes the value of a row. Errors: [`Error`] names the field; a format that the value does not need is one too, since the row would
/// count for another digest than on other nodes.
pub(crate) fn decode_row<T: RowValue + for<'de, 'c> BorrowDecode<'de, Source<'c>>>(value: &Bytes) -> Result<T, Error> {
    let format = *value.first().ok_or(Error { field: "format", problem: Problem::Truncated })?;
    if format != FORMAT && format != FORMAT_2 {
        return Err(Error { field: "format", problem: Problem::Format { format, newest: u16::from(FORMAT_2) } });
    }
    let decoded: T = decode_body(value)?;
    if decoded.format() != format {
        let why = format!("format={format}, and the first that carries the value is {}", decoded.format());
        return Err(Error { field: "format", problem: Problem::Invalid(why) });
    }
    Ok(decoded)
}

fn append<T: Encode>(out: &mut Vec<u8>, value: &T) {
    bincode::encode_into_std_write(value, out, bincode::config::standard())
        .expect("a vector takes every byte, and no implementation here refuses a value");
}

/// Decodes everything behind the format byte.
fn decode_body<T: for<'de, 'c> BorrowDecode<'de, Source<'c>>>(payload: &Bytes) -> Result<T, Error> {
    let field = Cell::new("payload");
    let within = Cell::new(false);
    let source = Source { payload, field: &field, within: &within, format: payload[0] };
    let body = &payload[1..];
    let decoded = bincode::borrow_decode_from_slice_with_context(body, bincode::config::standard(), source);
    let (value, read) = decoded.map_err(|error| Error { field: field.get(), problem: problem(error) })?;
    match body.len() - read {
        0 => Ok(value),
        bytes => Err(Error { field: field.get(), problem: Problem::Trailing { bytes } }),
    }
}

fn problem(error: DecodeError) -> Problem {
    match error {
        DecodeError::UnexpectedEnd { .. } => Problem::Truncated,
        DecodeError::Other(why) => Problem::Invalid(why.to_owned()),
        DecodeError::OtherString(why) => Problem::Invalid(why),
        DecodeError::UnexpectedVariant { found, .. } => Problem::Invalid(format!("unknown discriminant={found}")),
        DecodeError::Utf8 { .. } => Problem::Invalid("not utf-8".to_owned()),
        other => Problem::Invalid(other.to_string()),
    }
}

/// The decoder's input: the payload, to slice content out of it, and the name of the field being read, for errors.
pub(crate) struct Source<'c> {
    payload: &'c Bytes,
    field: &'c Cell<&'static str>,
    /// Whether a verdict within another is being read: it holds no further ones, so that no bytes make reading recur.
    within: &'c Cell<bool>,
    /// The format byte: tags and fields of a later one are not read.
    pub format: u8,
}

/// Reads one field, remembering its name.
pub(crate) fn read<'de, 'c, T, D>(decoder: &mut D, field: &'static str) -> Result<T, DecodeError>
where
    T: BorrowDecode<'de, Source<'c>>,
    D: BorrowDecoder<'de, Context = Source<'c>>,
{
    decoder.context().field.set(field);
    T::borrow_decode(decoder)
}

/// Implements both directions for a struct with named fields, in the order given. Those behind `format 2:` are in a row of that format
/// only, and are their default in one of format 1.
macro_rules! fields {
    ($type:ident { $($field:ident),* $(,)? $(; format 2: $($later:ident),* $(,)?)? }) => {
        impl $crate::codec::Encode for $type {
            fn encode<E: $crate::codec::Encoder>(&self, encoder: &mut E) -> Result<(), $crate::codec::EncodeError> {
                $($crate::codec::Encode::encode(&self.$field, encoder)?;)*
                $(if $crate::codec::RowValue::format(self) >= $crate::codec::FORMAT_2 {
                    $($crate::codec::Encode::encode(&self.$later, encoder)?;)*
                })?
                Ok(())
            }
        }
        impl<'de, 'c> $crate::codec::BorrowDecode<'de, $crate::codec::Source<'c>> for $type {
            fn borrow_decode<D: $crate::codec::BorrowDecoder<'de, Context = $crate::codec::Source<'c>>>(
                decoder: &mut D,
            ) -> Result<Self, $crate::codec::DecodeError> {
                Ok(Self {
                    $($field: $crate::codec::read(decoder, concat!(stringify!($type), ".", stringify!($field)))?,)*
                    $($($later: match decoder.context().format {
                        $crate::codec::FORMAT => Default::default(),
                        _ => $crate::codec::read(decoder, concat!(stringify!($type), ".", stringify!($later)))?,
                    },)*)?
                })
            }
        }
    };
}
pub(crate) use fields;

/// Implements both directions for an enum: a tag byte, then the variant's fields. Tags are for ever; those from `until` on are read
/// only from format 2, and so is a field behind `format 2:`, which is its default in format 1.
macro_rules! variants {
    ($type:ident { $($tags:tt)* }) => { variants!($type until 255 { $($tags)* }); };
    ($type:ident until $until:literal {
        $($tag:literal $variant:ident $({ $($field:ident),* $(; format 2: $later:ident)? })? $(( $inner:ident ))?),* $(,)?
    }) => {
        impl Encode for $type {
            fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
                match self {
                    $(Self::$variant $({ $($field,)* $($later)? })? $(( $inner ))? => {
                        Encode::encode(&($tag as u8), encoder)?;
                        $($(Encode::encode($field, encoder)?;)* $(Encode::encode($later, encoder)?;)?)?
                        $(Encode::encode($inner, encoder)?;)?
                    })*
                }
                Ok(())
            }
        }
        impl<'de, 'c> BorrowDecode<'de, Source<'c>> for $type {
            fn borrow_decode<D: BorrowDecoder<'de, Context = Source<'c>>>(decoder: &mut D) -> Result<Self, DecodeError> {
                let tag: u8 = read(decoder, stringify!($type))?;
                if tag >= $until && decoder.context().format == FORMAT {
                    return Err(DecodeError::OtherString(format!("discriminant={tag} is not of format 1")));
                }
                match tag {
                    $($tag => Ok(Self::$variant
                        $({
                            $($field: read(decoder, concat!(stringify!($type), ".", stringify!($variant), ".", stringify!($field)))?,)*
                            $($later: match decoder.context().format {
                                FORMAT => Default::default(),
                                _ => read(decoder, concat!(stringify!($type), ".", stringify!($variant), ".", stringify!($later)))?,
                            })?
                        })?
                        $(({ let $inner = read(decoder, concat!(stringify!($type), ".", stringify!($variant)))?; $inner }))?
                    ),)*
                    other => Err(DecodeError::OtherString(format!("unknown discriminant={other}"))),
                }
            }
        }
    };
}

/// Implements both directions for a type around one other.
macro_rules! newtypes {
    ($($type:ident)*) => {$(
        impl Encode for $type {
            fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
                Encode::encode(&self.0, encoder)
            }
        }
        impl<'de, 'c> BorrowDecode<'de, Source<'c>> for $type {
            fn borrow_decode<D: BorrowDecoder<'de, Context = Source<'c>>>(decoder: &mut D) -> Result<Self, DecodeError> {
                read(decoder, stringify!($type)).map(Self)
            }
        }
    )*};
}

newtypes! { Version Revision ClientId Sequence NodeId Nonce Fence }
fields!(LogId { term, node, index });
fields!(Request { client, nonce, sequence, acknowledged_below });
fields!(Chunk { item_count, blob });
fields!(Outcome { revision, verdict });
fields!(ContentVersion { version, create_revision, items, next_chunk });
fields!(Saved { content, rebased });
fields!(Swept { sessions, clients, tombstones, leases });
variants!(Codec { 0 None, 1 Zstd });
variants!(Base { 0 Absent, 1 At { create_revision, version, items } });
variants!(Expected until 2 { 0 Absent, 1 At { version, create_revision }, 2 Incarnation { create_revision } });
variants!(OnConflict { 0 Reject, 1 Rebase });
variants!(Operation {
    0 Require { id, expected, fence },
    1 Save { id, change, attributes, fence },
    2 SaveIfVersion { id, expected, change, on_conflict, attributes, fence },
    3 Append { id, require, addition, attributes, fence },
    4 Delete { id, expected, fence },
});
fields!(Appended { content, chunks, counters });
variants!(Form { 0 Unknown, 1 Value, 2 Transcript });
variants!(Require {
    0 Any,
    1 Present,
    2 Absent,
    3 At { create_revision, version, items },
    4 AppendedOnly { create_revision, since },
});
fields!(ChunkSum { items, raw_bytes, stored_bytes, hash });
variants!(Write until 6 {
    0 Save { request, id, change, attributes; format 2: fence },
    1 SaveIfVersion { request, id, expected, change, on_conflict, attributes; format 2: fence },
    2 Delete { request, id, expected; format 2: fence },
    3 OpenClient { nonce },
    4 KeepAlive { client, nonce, acknowledged_below },
    5 CloseClient { client, nonce },
    6 Append { request, id, require, addition, attributes, fence },
    7 Touch { request, id, expiry, fence },
    8 AcquireLease { request, id, holder, ttl, steal },
    9 RenewLeases { request, leases, ttl },
    10 ReleaseLease { request, id, fence },
    11 Transaction { request, operations },
    12 Repack { request, repack },
});
variants!(Command { 0 Client(write), 1 Sweep { limit }, 2 SetClusterVersion { version } });
variants!(TooLarge until 5 {
    0 StoredBytes { now, limit },
    1 RawBytes { now, limit },
    2 Items { now, limit },
    3 Chunks { now, limit },
    4 Write { now, limit },
    5 Rows { now, limit },
});
variants!(Verdict until 17 {
    0 Saved(saved),
    1 Conflict { actual, tombstone },
    2 BaseMismatch,
    3 TooLarge(which),
    4 TooManySessions,
    5 Deleted { version },
    6 NotFound { tombstone },
    7 ClientOpened { client },
    8 ClientKept,
    9 ClientClosed,
    10 TooManyClients,
    11 ClientUnknown,
    12 Stale,
    13 WindowExceeded,
    14 Busy,
    15 Swept(swept),
    16 ClusterVersion { version },
    17 Appended(appended),
    18 WrongForm { form },
    19 Touched { deadline_ms },
    20 LeaseGranted { fence, deadline_ms },
    21 LeaseHeld { holder, deadline_ms },
    22 LeasesRenewed { deadline_ms, lost },
    23 LeaseReleased,
    24 LeaseLost,
    25 TooManyLeases,
    26 Leased { holder, deadline_ms },
    27 Fenced { current },
    28 Transacted(transacted),
    29 Aborted(aborted),
    30 BaseMismatchAt { index },
    31 Met,
    32 Repacked { first_chunk, chunks },
    33 NotRepacked,
});

/// A command as format 1 writes it: of the attributes, the expiry alone, and no fence.
struct Version1<'a>(&'a Command);

impl Encode for Version1<'_> {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        match self.0 {
            Command::Client(Write::Save { request, id, change, attributes, fence: None }) => {
                ((0u8, 0u8), request, id, change, attributes.expiry).encode(encoder)
            }
            Command::Client(Write::SaveIfVersion { request, id, expected, change, on_conflict, attributes, fence: None }) => {
                ((0u8, 1u8), request, id, expected, change, on_conflict, attributes.expiry).encode(encoder)
            }
            Command::Client(Write::Delete { request, id, expected, fence: None }) => {
                ((0u8, 2u8), request, id, expected).encode(encoder)
            }
            other => other.encode(encoder),
        }
    }
}

mod content;

use content::Pair;

#[cfg(test)]
mod tests {
    use super::*;

    /// A number as `src/docs/disk_format.md` says, written without the library.
    fn number(value: u64) -> Vec<u8> {
        match value {
            0..=250 => vec![value as u8],
            251..=0xffff => [&[251], &(value as u16).to_le_bytes()[..]].concat(),
            0x1_0000..=0xffff_ffff => [&[252], &(value as u32).to_le_bytes()[..]].concat(),
            _ => [&[253], &value.to_le_bytes()[..]].concat(),
        }
    }

    /// Both sides of each place where the form changes.
    const NUMBERS: [u64; 10] = [0, 1, 250, 251, 252, 0xffff, 0x1_0000, 0xffff_ffff, 0x1_0000_0000, u64::MAX];

    fn body(value: impl Encode) -> Vec<u8> {
        let mut out = Vec::new();
        append(&mut out, &value);
        out
    }

    fn back<T: for<'de, 'c> BorrowDecode<'de, Source<'c>>>(body: &[u8]) -> Result<T, Error> {
        decode_body(&Bytes::from([&[FORMAT], body].concat()))
    }

    #[test]
    fn every_form_of_a_value_is_written_as_the_format_says() {
        for value in NUMBERS {
            assert_eq!(body(value), number(value), "u64 {value}");
            assert_eq!(back::<u64>(&number(value)), Ok(value));
            if let Ok(value) = u32::try_from(value) {
                assert_eq!((body(value), back::<u32>(&number(value.into()))), (number(value.into()), Ok(value)), "u32 {value}");
            }
            if let Ok(value) = u16::try_from(value) {
                assert_eq!((body(value), back::<u16>(&number(value.into()))), (number(value.into()), Ok(value)), "u16 {value}");
            }
        }
        assert_eq!(body(251u8), [251], "a byte is itself, whatever its value");
        assert_eq!((body(false), body(true)), (vec![0], vec![1]));
        assert_eq!((body(None::<u64>), body(Some(300u64))), (vec![0], [&[1], &number(300)[..]].concat()));
        assert_eq!(body([7u8; 16]), [7; 16], "an array has no length");
        for length in [0, 250, 251, 70_000] {
            let text = "x".repeat(length);
            let written = [&number(length as u64), text.as_bytes()].concat();
            assert_eq!((body(text.as_str()), body(text.as_bytes())), (written.clone(), written));
        }
    }

    /// The library's other encodings are no value in disguise: a number that does not fit its type is an error.
    #[test]
    fn a_number_above_its_type_is_an_error_with_the_field() {
        for value in [0x1_0000, u64::MAX] {
            let error = back::<u16>(&number(value)).expect_err("above");
            assert!(matches!(error.problem, Problem::Invalid(_)), "{error}");
        }
        for wrong in [&[254, 0][..], &[255]] {
            assert!(back::<u64>(wrong).is_err(), "{wrong:?}");
        }
        assert!(back::<bool>(&[2]).is_err());
        assert!(back::<Option<u64>>(&[2, 0]).is_err());
    }
}
