//! Small files that a person or a tool writes: certificates, tokens; and who may read a file.

use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt as _;
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

/// The mode of the file at `path`, if every user of this machine may read or change it, or enter it as a directory. Links are followed.
/// `None` also if there is no file, or it can't be read.
pub fn open_to_all(path: &Path) -> Option<u32> {
    let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o7777;
    (mode & 0o007 != 0).then_some(mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_open_to_all_by_its_last_three_bits_and_a_link_by_what_it_leads_to() {
        let dir = tempfile::tempdir().expect("a directory");
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        std::fs::write(&file, "").expect("writable");
        std::os::unix::fs::symlink(&file, &link).expect("writable");
        for (mode, open) in [(0o600, None), (0o640, None), (0o660, None), (0o644, Some(0o644)), (0o602, Some(0o602)), (0o700, None)]
        {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).expect("it is ours");
            assert_eq!([open_to_all(&file), open_to_all(&link)], [open; 2], "{mode:o}");
        }
        assert_eq!(open_to_all(&dir.path().join("none")), None);
    }
}
