//! The operating system's entropy.

use super::Random;

/// The operating system's entropy.
pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the operating system gives entropy, or nothing here can be trusted");
    }
}
