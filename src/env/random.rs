//! Entropy.

/// Random bytes.
pub trait Random: Send + Sync + 'static {
    /// Fills `bytes` with entropy. It never fails: without entropy a node must not start, so the system's own ends the process.
    fn fill(&self, bytes: &mut [u8]);
}

/// Eight random bytes as a number.
pub fn u64_from(random: &dyn Random) -> u64 {
    let mut bytes = [0; 8];
    random.fill(&mut bytes);
    u64::from_le_bytes(bytes)
}
