//! Numbers from a seed: the same on every machine and in every release.

use std::f64::consts::TAU;

/// A small generator (splitmix64). Not for secrets.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// Starts from a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Another generator, for the part of the work that this number names.
    pub fn fork(&self, part: u64) -> Self {
        let mut other = Self(self.0 ^ part.wrapping_mul(0xd605_1e9d_6cc1_9f2b));
        Self(other.number())
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which must be above 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "there is no number below 0");
        ((u128::from(self.number()) * u128::from(bound)) >> 64) as u64
    }

    /// From 0 to below 1.
    pub fn unit(&mut self) -> f64 {
        (self.number() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// True with this probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Standard normal.
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (TAU * self.unit()).cos()
    }

    /// Log-normal by its median and the deviation of its logarithm.
    pub fn log_normal(&mut self, median: f64, sigma: f64) -> f64 {
        median * (sigma * self.normal()).exp()
    }

    /// Exponential by its mean.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers_and_parts_differ() {
        let numbers = |mut rng: Rng| (0..4).map(|_| rng.number()).collect::<Vec<_>>();
        assert_eq!(numbers(Rng::new(7)), numbers(Rng::new(7)));
        assert_ne!(numbers(Rng::new(7).fork(1)), numbers(Rng::new(7).fork(2)));
    }

    #[test]
    fn distributions_have_the_means_they_are_asked_for() {
        let (mut rng, count) = (Rng::new(1), 100_000);
        let mut mean = |draw: &dyn Fn(&mut Rng) -> f64| (0..count).map(|_| draw(&mut rng)).sum::<f64>() / f64::from(count);
        assert!((mean(&Rng::normal)).abs() < 0.02);
        assert!((mean(&|rng| rng.normal().powi(2)) - 1.0).abs() < 0.03);
        assert!((mean(&|rng| rng.exponential(5.0)) - 5.0).abs() < 0.1);
        assert!((mean(&|rng| rng.log_normal(100.0, 0.5)) - 100.0 * (0.125_f64).exp()).abs() < 2.0);
        assert!((mean(&|rng| rng.below(11) as f64) - 5.0).abs() < 0.05);
    }
}
