//! A state as a stream of frames that any engine can write and read: the snapshot between nodes, and the backup format.
//!
//! ```text
//! frame   crc32c u32 (of all that follows) | number u64 | kind u8 | payload
//! Begin   magic | format u32 | applied? u8, term, node, index u64 | rows u64
//! Rows    consecutive bytes of: (table u8 | key len u32 | value len u64 | crc32c u32 of the row | key | value)*, keys ascending
//! End     rows u64 | crc32c u32 over the checksums of all frames before
//! ```
//! Little-endian. A row larger than a frame simply continues in the next one.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::engine::Base;
use super::error::Error;
use super::fault::Fault;
use super::rows::{Rows, Scan};
use crate::mutant::{self, Mutant};
use crate::types::{LogId, NodeId};

const MAGIC: &[u8; 8] = b"quorsnap";
const FORMAT: u32 = 1;
/// Checksum, number, kind.
const FRAME_HEADER: usize = 13;
const ROW_HEADER: usize = 17;
/// A frame holds at least a `Begin`.
const FRAME_BYTES_MIN: usize = 128;
/// Longest key a stream may bring, in bytes.
const KEY_BYTES_MAX: usize = 64 * 1024;
/// Longest value a stream may bring, in bytes.
const VALUE_BYTES_MAX: u64 = 64 * 1024 * 1024;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Begin = 1,
    Rows = 2,
    End = 3,
}

/// One flush point's content, streamed.
pub struct Snapshot {
    base: Arc<Base>,
    fault: Arc<Fault>,
    rows: Scan,
    /// Encoded rows that no frame holds yet.
    pending: BytesMut,
    next: u64,
    rows_read: u64,
    crc: u32,
    exhausted: bool,
    ended: bool,
}

impl Snapshot {
    pub(super) fn new(base: Arc<Base>, fault: Arc<Fault>) -> Self {
        let rows = Scan::all(&base);
        Self { base, fault, rows, pending: BytesMut::new(), next: 0, rows_read: 0, crc: 0, exhausted: false, ended: false }
    }

    /// The last entry it contains.
    pub fn applied(&self) -> Option<LogId> {
        self.base.head.applied
    }

    /// Its rows, to look at some of them. Blocking.
    pub fn rows(&self) -> Rows<'_> {
        Rows(&self.base)
    }

    /// Rows it contains.
    pub fn total(&self) -> u64 {
        self.base.head.rows
    }

    /// Rows read so far.
    pub fn done(&self) -> u64 {
        self.rows_read
    }

    /// The next frame, at most `bytes_max` long; `None` after the last. Blocking.
    ///
    /// Errors: [`Error::Corrupt`], [`Error::Io`], [`Error::Superseded`]: the stream must be given up; nothing was changed.
    /// The first two are final for the state as well.
    pub fn next_frame(&mut self, bytes_max: usize) -> Result<Option<Bytes>, Error> {
        assert!(bytes_max >= FRAME_BYTES_MIN, "a frame of {bytes_max} bytes holds nothing");
        if self.ended {
            return Ok(None);
        }
        if self.next == 0 {
            let begin = self.begin();
            return Ok(Some(self.frame(Kind::Begin, &begin)));
        }
        let room = bytes_max - FRAME_HEADER;
        while self.pending.len() < room && !self.exhausted {
            self.read_row().inspect_err(|error| {
                if error.is_final() && !mutant::is(Mutant::SnapshotDamageForgiven) {
                    self.fault.fail(error.clone());
                }
            })?;
        }
        if !self.pending.is_empty() {
            let payload = self.pending.split_to(room.min(self.pending.len()));
            return Ok(Some(self.frame(Kind::Rows, &payload)));
        }
        self.ended = true;
        let mut end = Vec::new();
        end.put_u64_le(self.rows_read);
        end.put_u32_le(self.crc);
        Ok(Some(self.frame(Kind::End, &end)))
    }

    fn read_row(&mut self) -> Result<(), Error> {
        let Some(row) = self.rows.next() else {
            self.exhausted = true;
            if self.rows_read != self.total() {
                let what = format!("rows are missing or left over found={} counted={}", self.rows_read, self.total());
                return Err(Error::corrupt(self.base.file.name(), what));
            }
            return Ok(());
        };
        let (table, key, value) = row?;
        self.rows_read += 1;
        self.pending.reserve(ROW_HEADER + key.len() + value.len());
        self.pending.put_u8(table);
        self.pending.put_u32_le(key.len() as u32);
        self.pending.put_u64_le(value.len() as u64);
        self.pending.put_u32_le(row_crc(table, &key, &value));
        self.pending.put_slice(&key);
        self.pending.put_slice(&value);
        Ok(())
    }

    fn begin(&self) -> Vec<u8> {
        let applied = self.applied();
        let id = applied.unwrap_or_default();
        let mut out = MAGIC.to_vec();
        out.put_u32_le(FORMAT);
        out.put_u8(u8::from(applied.is_some()));
        for number in [id.term, id.node.0, id.index, self.total()] {
            out.put_u64_le(number);
        }
        out
    }

    fn frame(&mut self, kind: Kind, payload: &[u8]) -> Bytes {
        let mut out = BytesMut::with_capacity(FRAME_HEADER + payload.len());
        out.put_u32_le(0);
        out.put_u64_le(self.next);
        out.put_u8(kind as u8);
        out.put_slice(payload);
        let crc = crc32c::crc32c(&out[4..]);
        out[..4].copy_from_slice(&crc.to_le_bytes());
        self.crc = crc32c::crc32c_append(self.crc, &crc.to_le_bytes());
        self.next += 1;
        out.freeze()
    }
}

fn row_crc(table: u8, key: &[u8], value: &[u8]) -> u32 {
    let crc = crc32c::crc32c_append(crc32c::crc32c(&[table]), &(key.len() as u64).to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(crc, key), value)
}

/// Reads a stream frame by frame; holds one row and one frame at most.
#[derive(Default)]
pub(in crate::storage) struct Decoder {
    next: u64,
    crc: u32,
    applied: Option<LogId>,
    total: u64,
    rows: u64,
    pending: BytesMut,
    last: Option<(u8, Bytes)>,
    ended: bool,
}

impl Decoder {
    /// Takes one frame and answers the rows that are complete now. After an error the stream must be given up.
    pub fn frame(&mut self, frame: &[u8]) -> Result<Vec<(u8, Bytes, Bytes)>, Error> {
        let (crc, mut body) = frame.split_first_chunk::<4>().ok_or_else(|| Error::invalid("a frame is too short"))?;
        if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
            return Err(Error::invalid("a frame's checksum does not match"));
        }
        if body.len() < FRAME_HEADER - 4 || body.get_u64_le() != self.next || self.ended {
            return Err(Error::invalid("a frame is out of order"));
        }
        let kind = body.get_u8();
        let crc_before = self.crc;
        self.crc = crc32c::crc32c_append(self.crc, crc);
        self.next += 1;
        match kind {
            kind if kind == Kind::Begin as u8 && self.next == 1 => self.begin(body).map(|()| Vec::new()),
            kind if kind == Kind::Rows as u8 && self.next > 1 => {
                self.pending.put_slice(body);
                self.complete_rows()
            }
            kind if kind == Kind::End as u8 && self.next > 1 => self.end(body, crc_before).map(|()| Vec::new()),
            _ => Err(Error::invalid(format!("a frame of this kind has no place here kind={kind}"))),
        }
    }

    /// The entry the stream ends at. Errors: the stream is not complete.
    pub fn finish(&self) -> Result<Option<LogId>, Error> {
        self.ended.then_some(self.applied).ok_or_else(|| Error::invalid("the stream is cut short"))
    }

    /// The entry the stream says it ends at; `None` also before its first frame.
    pub fn applied(&self) -> Option<LogId> {
        self.applied
    }

    /// Whether the last frame was taken: everything adds up.
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    fn begin(&mut self, mut body: &[u8]) -> Result<(), Error> {
        if body.len() != MAGIC.len() + 4 + 1 + 4 * 8 || !body.starts_with(MAGIC) {
            return Err(Error::invalid("the stream does not begin like one"));
        }
        body.advance(MAGIC.len());
        let format = body.get_u32_le();
        if format != FORMAT {
            return Err(Error::invalid(format!("the stream has an unknown format format={format}")));
        }
        let some = body.get_u8() == 1;
        let id = LogId { term: body.get_u64_le(), node: NodeId(body.get_u64_le()), index: body.get_u64_le() };
        self.applied = some.then_some(id.bounded().map_err(|error| Error::invalid(error.to_string()))?);
        self.total = body.get_u64_le();
        Ok(())
    }

    fn end(&mut self, mut body: &[u8], crc: u32) -> Result<(), Error> {
        if body.len() != 12 || !self.pending.is_empty() {
            return Err(Error::invalid("the stream ends within a row"));
        }
        let rows = body.get_u64_le();
        if rows != self.rows || rows != self.total || body.get_u32_le() != crc {
            return Err(Error::invalid(format!("the stream does not add up rows={} total={} end={rows}", self.rows, self.total)));
        }
        self.ended = true;
        Ok(())
    }

    fn complete_rows(&mut self) -> Result<Vec<(u8, Bytes, Bytes)>, Error> {
        let mut rows = Vec::new();
        while self.pending.len() >= ROW_HEADER {
            let mut header = &self.pending[..ROW_HEADER];
            let table = header.get_u8();
            let key_len = header.get_u32_le() as usize;
            let value_len = header.get_u64_le();
            let crc = header.get_u32_le();
            if key_len > KEY_BYTES_MAX || value_len > VALUE_BYTES_MAX {
                return Err(Error::invalid(format!("a row is too large key_bytes={key_len} value_bytes={value_len}")));
            }
            if self.pending.len() < ROW_HEADER + key_len + value_len as usize {
                break;
            }
            self.pending.advance(ROW_HEADER);
            let key = Bytes::copy_from_slice(&self.pending.split_to(key_len));
            let value = Bytes::copy_from_slice(&self.pending.split_to(value_len as usize));
            self.check_row(table, &key, &value, crc)?;
            rows.push((table, key, value));
        }
        Ok(rows)
    }

    fn check_row(&mut self, table: u8, key: &Bytes, value: &[u8], crc: u32) -> Result<(), Error> {
        if row_crc(table, key, value) != crc {
            return Err(Error::invalid("a row's checksum does not match"));
        }
        let here = (table, key.clone());
        if self.last.as_ref().is_some_and(|last| *last >= here) {
            return Err(Error::invalid("rows are out of order"));
        }
        self.last = Some(here);
        self.rows += 1;
        if self.rows > self.total {
            return Err(Error::invalid(format!("there are more rows than announced total={}", self.total)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::engine::{File, Head};
    use super::super::rows::Row;
    use super::*;
    use crate::env::RealDisk;

    fn stream(rows: &[(u8, Bytes, Bytes)], bytes_max: usize) -> Vec<Bytes> {
        let dir = tempfile::tempdir().expect("a directory");
        let file = File::create(&RealDisk, dir.path(), "test", 1 << 20).expect("a file");
        let applied = Some(LogId { term: 3, node: NodeId(2), index: 1 });
        let puts = rows.iter().map(|(table, key, value)| Row::put((*table, key, value)));
        file.commit(Head { applied, ..Head::default() }, puts).expect("a commit");
        let mut snapshot = Snapshot::new(file.base().expect("a base"), Arc::default());
        std::iter::from_fn(|| snapshot.next_frame(bytes_max).expect("a frame")).collect()
    }

    fn rows() -> Vec<(u8, Bytes, Bytes)> {
        let value = |len| Bytes::from(vec![7u8; len]);
        vec![(0, Bytes::new(), value(0)), (1, "a".into(), value(300)), (1, "ab".into(), value(1)), (255, "a".into(), value(2))]
    }

    #[test]
    fn a_stream_decodes_to_its_rows_however_it_is_cut() {
        for bytes_max in [128, 129, 200, 100_000] {
            let mut decoder = Decoder::default();
            let mut found = Vec::new();
            for frame in stream(&rows(), bytes_max) {
                assert!(decoder.finish().is_err(), "not before the end");
                found.extend(decoder.frame(&frame).expect("a good frame"));
            }
            assert_eq!(found, rows());
            assert_eq!(decoder.finish().expect("the end").map(|id| id.index), Some(1));
        }
    }

    #[test]
    fn every_flipped_bit_and_every_shortened_frame_is_refused() {
        let frames = stream(&rows(), 128);
        for (at, frame) in frames.iter().enumerate() {
            let refused = |altered: &[u8]| {
                let mut decoder = Decoder::default();
                frames[..at].iter().for_each(|frame| drop(decoder.frame(frame).expect("a good frame")));
                decoder.frame(altered).is_err()
            };
            for bit in 0..frame.len() * 8 {
                let mut flipped = frame.to_vec();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(refused(&flipped), "frame {at} bit {bit}");
            }
            for len in 0..frame.len() {
                assert!(refused(&frame[..len]), "frame {at} length {len}");
            }
        }
    }

    /// Frames that a liar made: their checksums are right.
    #[test]
    fn well_formed_lies_are_refused() {
        fn frame(number: u64, kind: u8, payload: &[u8]) -> Vec<u8> {
            let body = [&number.to_le_bytes()[..], &[kind], payload].concat();
            [&crc32c::crc32c(&body).to_le_bytes()[..], &body].concat()
        }
        let row = |key: &[u8], key_len: u32, value_len: u64| {
            [&[1u8][..], &key_len.to_le_bytes(), &value_len.to_le_bytes(), &row_crc(1, key, b"").to_le_bytes(), key].concat()
        };
        let begin = stream(&rows(), 128).swap_remove(0);
        let mut beyond = begin[FRAME_HEADER..].to_vec();
        // The applied entry's index.
        let index = MAGIC.len() + 4 + 1 + 16;
        beyond[index..index + 8].copy_from_slice(&(crate::limits::NUMBER_MAX + 1).to_le_bytes());
        let refused = Decoder::default().frame(&frame(0, 1, &beyond)).expect_err("no index").to_string();
        assert!(refused.contains("a number is out of range field=log_id.index value=4611686018427387905"), "{refused}");
        let lies: [&[Vec<u8>]; 9] = [
            &[frame(0, 1, &beyond)],
            &[frame(0, 2, b"")],
            &[frame(0, 1, b"quorsnap")],
            &[begin.to_vec(), frame(1, 1, &begin[FRAME_HEADER..])],
            &[begin.to_vec(), frame(1, 9, b"")],
            &[begin.to_vec(), frame(1, 2, &row(b"k", u32::MAX, 0))],
            &[begin.to_vec(), frame(1, 2, &row(b"k", 1, u64::MAX))],
            &[begin.to_vec(), frame(1, 2, &[row(b"k", 1, 0), row(b"k", 1, 0)].concat())],
            &[begin.to_vec(), frame(1, 2, &[b"a", b"b", b"c", b"d", b"e"].map(|key| row(key, 1, 0)).concat())],
        ];
        for (number, lie) in lies.iter().enumerate() {
            let mut decoder = Decoder::default();
            assert!(lie.iter().try_for_each(|frame| decoder.frame(frame).map(drop)).is_err(), "lie {number}");
            assert!(decoder.finish().is_err());
        }
    }
}
