//! Bytes as they are stored: packed by clients, never unpacked by the server.

use std::fmt;

use bytes::Bytes;

/// How the bytes of a [`Blob`] are packed. The server never unpacks them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Codec {
    /// As they are: `raw_bytes == data.len()`.
    #[default]
    None,
    /// One zstd frame that unpacks to exactly `raw_bytes`.
    Zstd,
}

/// Bytes with what is needed to check and unpack them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Blob {
    /// How `data` is packed.
    pub codec: Codec,
    /// Length after unpacking, in bytes.
    pub raw_bytes: u64,
    /// CRC-32C of `data` as it is stored.
    pub crc32c: u32,
    /// The stored bytes.
    pub data: Bytes,
}

/// Content is what users entrusted to us: only its size is printed.
impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({:?}, {} of {} bytes)", self.codec, self.data.len(), self.raw_bytes)
    }
}

impl Blob {
    /// A blob of bytes as they are, with its checksum.
    pub fn plain(data: Bytes) -> Self {
        Self { codec: Codec::None, raw_bytes: data.len() as u64, crc32c: crc32c::crc32c(&data), data }
    }

    /// Whether the data still is what the checksum was made from, and its lengths agree.
    pub fn is_intact(&self) -> bool {
        let lengths_agree = self.codec != Codec::None || self.raw_bytes == self.data.len() as u64;
        lengths_agree && crc32c::crc32c(&self.data) == self.crc32c
    }

    /// Length as stored, in bytes.
    pub fn stored_bytes(&self) -> u64 {
        self.data.len() as u64
    }
}

/// Some consecutive items of a transcript, packed together; what one save appended. Immutable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// Items in it, at least one.
    pub item_count: u64,
    /// The packed items.
    pub blob: Blob,
}
