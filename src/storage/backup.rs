//! A backup: one file that holds a state as of one entry, and says whose it is. Written front to back, read front to back.
//!
//! ```text
//! magic "quorbkup" | header bytes u32 | crc32c u32 of the header | header (text, see `Header`)
//! then records:  frame bytes u32 | frame     the frames of `state::Snapshot`, each numbered and with its own checksum
//! ```
//! Little-endian. The last frame ends the file, and carries the number of rows and a checksum over all the frames before it: a file
//! that was cut off, even between two records, is refused, and so is one that continues behind its end.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Read};

use bytes::{BufMut, Bytes, BytesMut};

use super::state::{self, Decoder, Snapshot};
use crate::limits::FRAME_BYTES_MAX;
use crate::types::{ClusterId, LogId, NodeId, bounded};

const MAGIC: &[u8; 8] = b"quorbkup";
const FIRST_LINE: &str = "quorate backup 1";
const HEADER_BYTES_MAX: u32 = 4096;
/// Bytes before the header.
const PREFIX_BYTES: usize = 16;

/// The origin and time of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its configured name.
    pub name: String,
    /// The node that wrote it.
    pub node: NodeId,
    /// That node's clock, in milliseconds since the Unix epoch.
    pub taken_ms: u64,
    /// The release that wrote it.
    pub release: String,
}

impl Header {
    fn encode(&self) -> Vec<u8> {
        let Self { cluster, name, node, taken_ms, release } = self;
        // A name is letters, digits, '-', '_' and '.': it can't end a line.
        let text = format!("{FIRST_LINE}\ncluster={cluster}\nname={name}\nnode={node}\ntaken_ms={taken_ms}\nrelease={release}\n");
        let mut out = MAGIC.to_vec();
        out.put_u32_le(text.len() as u32);
        out.put_u32_le(crc32c::crc32c(text.as_bytes()));
        out.put_slice(text.as_bytes());
        out
    }

    fn parse(bytes: &[u8]) -> Result<Self, Cow<'static, str>> {
        let text = std::str::from_utf8(bytes).map_err(|_| "the header is not text")?;
        let mut lines = text.lines();
        if lines.next() != Some(FIRST_LINE) {
            return Err("it is of another release's format".into());
        }
        let mut field = |name: &str| lines.next().and_then(|line| line.strip_prefix(name)).and_then(|rest| rest.strip_prefix('='));
        let cluster = field("cluster").and_then(ClusterId::from_hex).ok_or("the header has no cluster id")?;
        let name = field("name").ok_or("the header has no name")?.to_owned();
        let node = field("node").and_then(|node| node.parse().ok()).ok_or("the header has no node id")?;
        let taken_ms = field("taken_ms").and_then(|ms| ms.parse().ok()).ok_or("the header has no time")?;
        for (field, number) in [("node", node), ("taken_ms", taken_ms)] {
            bounded(field, number).map_err(|error| error.to_string())?;
        }
        let release = field("release").ok_or("the header has no release")?.to_owned();
        Ok(Self { cluster, name, node: NodeId(node), taken_ms, release })
    }
}

/// Where a file stops being a backup.
#[derive(Debug)]
pub struct Error {
    /// Whether it begins like a backup at all; without, there is nothing to be repaired.
    pub is_backup: bool,
    /// Bytes before the damaged record.
    pub offset: u64,
    /// Its number; 0 is the header.
    pub record: u64,
    /// The problem.
    pub what: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_backup {
            true => write!(f, "the backup is damaged: {} record={} offset={}", self.what, self.record, self.offset),
            false => write!(f, "this is no backup of quorate: {}", self.what),
        }
    }
}

impl std::error::Error for Error {}

/// Makes the bytes of a backup, piece by piece; holds one frame.
pub struct Writer {
    snapshot: Snapshot,
    header: Option<Header>,
}

impl Writer {
    /// Of this state, for this header.
    pub fn new(snapshot: Snapshot, header: Header) -> Self {
        Self { snapshot, header: Some(header) }
    }

    /// The last entry it contains.
    pub fn applied(&self) -> Option<LogId> {
        self.snapshot.applied()
    }

    /// Rows read so far, and rows in all.
    pub fn progress(&self) -> (u64, u64) {
        (self.snapshot.done(), self.snapshot.total())
    }

    /// The next bytes, at most a frame; `None` after the last. Blocking. Errors: as of [`Snapshot::next_frame`].
    pub fn next_piece(&mut self) -> Result<Option<Bytes>, state::Error> {
        if let Some(header) = self.header.take() {
            return Ok(Some(header.encode().into()));
        }
        let Some(frame) = self.snapshot.next_frame(FRAME_BYTES_MAX - 4)? else { return Ok(None) };
        let mut out = BytesMut::with_capacity(4 + frame.len());
        out.put_u32_le(frame.len() as u32);
        out.put_slice(&frame);
        Ok(Some(out.freeze()))
    }
}

/// Sums up what is read through it.
pub struct Summed<'s, R> {
    from: R,
    sum: &'s mut u32,
}

impl<'s, R> Summed<'s, R> {
    /// Nothing was read yet; `sum` becomes the checksum of all that is.
    pub fn new(from: R, sum: &'s mut u32) -> Self {
        *sum = 0;
        Self { from, sum }
    }
}

impl<R: Read> Read for Summed<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buf)?;
        *self.sum = crc32c::crc32c_append(*self.sum, &buf[..count]);
        Ok(count)
    }
}

/// The checksum of bytes that are no file.
pub fn checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

/// Reads a backup, verifying as it goes: an iterator over its rows in (table, key) order that ends after the first error.
///
/// It holds one frame and one row at most. Only after the last row was given is the file known to be whole.
pub struct Reader<R> {
    from: R,
    header: Header,
    decoder: Decoder,
    ready: VecDeque<(u8, Bytes, Bytes)>,
    offset: u64,
    record: u64,
    ended: bool,
}

impl<R: Read> Reader<R> {
    /// Reads the header and the first record. Blocking. Errors: it is no backup, or damaged at its very start.
    pub fn open(mut from: R) -> Result<Self, Error> {
        let refused = |what: String| Error { is_backup: true, offset: 0, record: 0, what };
        let mut prefix = Vec::with_capacity(PREFIX_BYTES);
        from.by_ref().take(PREFIX_BYTES as u64).read_to_end(&mut prefix).map_err(|error| refused(unread(&error)))?;
        if prefix.is_empty() || !prefix.starts_with(&MAGIC[..prefix.len().min(MAGIC.len())]) {
            let what = if prefix.is_empty() { "it is empty" } else { "it does not begin like one" };
            return Err(Error { is_backup: false, ..refused(what.into()) });
        }
        if prefix.len() < PREFIX_BYTES {
            return Err(refused(unread(&io::ErrorKind::UnexpectedEof.into())));
        }
        let rest = &prefix[MAGIC.len()..];
        let (len, crc) = (number(&rest[..4]), number(&rest[4..]));
        if len > HEADER_BYTES_MAX {
            return Err(refused(format!("the header is too long bytes={len}")));
        }
        let mut text = vec![0; len as usize];
        from.read_exact(&mut text).map_err(|error| refused(unread(&error)))?;
        if crc32c::crc32c(&text) != crc {
            return Err(refused("the header's checksum does not match".into()));
        }
        let header = Header::parse(&text).map_err(|what| refused(what.into_owned()))?;
        let offset = (PREFIX_BYTES + text.len()) as u64;
        let decoder = Decoder::default();
        let mut reader = Self { from, header, decoder, ready: VecDeque::new(), offset, record: 1, ended: false };
        reader.next_record()?;
        Ok(reader)
    }

    /// The origin and time of the backup.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The entry it says it ends at. Errors: it ends at none.
    pub fn applied(&self) -> Result<LogId, Error> {
        self.decoder.applied().ok_or_else(|| self.damaged("it contains no entry"))
    }

    /// Bytes read so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Damage at this place that only the reader of its rows can see.
    pub fn damaged(&self, what: impl fmt::Display) -> Error {
        Error { is_backup: true, offset: self.offset, record: self.record, what: what.to_string() }
    }

    /// Reads one record; after the last it makes sure that nothing follows.
    fn next_record(&mut self) -> Result<(), Error> {
        let mut len = [0; 4];
        self.from.read_exact(&mut len).map_err(|error| self.damaged(unread(&error)))?;
        let len = number(&len);
        if len as usize > FRAME_BYTES_MAX {
            return Err(self.damaged(format!("a record is too long bytes={len}")));
        }
        let mut frame = vec![0; len as usize];
        self.from.read_exact(&mut frame).map_err(|error| self.damaged(unread(&error)))?;
        let rows = self.decoder.frame(&frame).map_err(|error| self.damaged(error))?;
        self.ready.extend(rows);
        if self.decoder.is_ended() {
            self.ended = true;
            let mut one = [0; 1];
            match self.from.read(&mut one) {
                Ok(0) => {}
                Ok(_) => return Err(self.damaged("it continues behind its end")),
                Err(error) => return Err(self.damaged(unread(&error))),
            }
        }
        self.offset += 4 + u64::from(len);
        self.record += 1;
        Ok(())
    }
}

fn number(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |all, byte| all << 8 | u32::from(*byte))
}

fn unread(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "it is cut off".into(),
        _ => format!("it can't be read: {error}"),
    }
}

impl<R: Read> Iterator for Reader<R> {
    type Item = Result<(u8, Bytes, Bytes), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(row) = self.ready.pop_front() {
                return Some(Ok(row));
            }
            if self.ended {
                return None;
            }
            if let Err(error) = self.next_record() {
                self.ended = true;
                self.ready.clear();
                return Some(Err(error));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::NUMBER_MAX;

    /// Its checksum is right.
    #[test]
    fn a_header_with_a_number_out_of_range_is_damage_by_name() {
        let header = Header {
            cluster: ClusterId([7; 16]),
            name: "name".into(),
            node: NodeId(NUMBER_MAX),
            taken_ms: NUMBER_MAX,
            release: "1".into(),
        };
        let read = |header: &Header| Reader::open(&header.encode()[..]).err().expect("nothing follows").to_string();
        assert!(read(&header).contains("it is cut off"), "the header is taken: {}", read(&header));
        let beyond = Header { taken_ms: NUMBER_MAX + 1, ..header.clone() };
        assert!(read(&beyond).contains("the backup is damaged: a number is out of range field=taken_ms"), "{}", read(&beyond));
        let beyond = Header { node: NodeId(NUMBER_MAX + 1), ..header };
        assert!(read(&beyond).contains("the backup is damaged: a number is out of range field=node"), "{}", read(&beyond));
    }
}
