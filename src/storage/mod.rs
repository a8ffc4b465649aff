//! What a node keeps on its disk: meaning-free keys and bytes, every record with a checksum of its own.

pub mod state;
