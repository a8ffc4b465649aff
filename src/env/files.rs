//! Small files that a person or a tool writes: certificates, tokens.

use std::io::{self, Read};
use std::path::Path;

/// A whole file of at most `limit` bytes. Errors: the operating system's, or it is larger.
pub fn read_file(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("the file is too large limit={limit}")));
    }
    Ok(bytes)
}
