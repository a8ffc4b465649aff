//! Payloads: slices of one text, so that making one costs the generator nothing.

use bytes::Bytes;

use super::Rng;

/// Syllables words are made of: enough that a page is not all the same, few enough that it compresses like text.
const SYLLABLES: [&str; 32] = [
    "an", "be", "con", "de", "er", "for", "ge", "hand", "in", "jo", "ker", "lo", "men", "no", "or", "pre", "qui", "re", "ses",
    "ti", "un", "ver", "work", "ex", "you", "zo", "tool", "call", "re", "sult", "file", "line",
];
/// Words of the vocabulary. Low numbers are used most, as in any language.
const WORDS: u64 = 600;

/// A text to cut values from. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Corpus {
    text: Bytes,
}

impl Corpus {
    /// Printable ASCII without quotes or backslashes, so that it is the same within JSON. 64 KiB of it compress 4 to 5 times with
    /// zstd level 3, as agents' transcripts do; single kibibytes less, as theirs do too.
    pub fn text(seed: u64, bytes: usize) -> Self {
        let mut rng = Rng::new(seed);
        let words: Vec<String> = (0..WORDS).map(|_| word(&mut rng)).collect();
        let mut text = String::with_capacity(bytes + 64);
        let mut recent: Vec<String> = Vec::new();
        while text.len() < bytes {
            let sentence = sentence(&mut rng, &words, &mut recent);
            text.push_str(&sentence);
        }
        text.truncate(bytes);
        Self { text: text.into() }
    }

    /// Bytes no compression makes smaller. Not text: for plain values only.
    pub fn incompressible(seed: u64, bytes: usize) -> Self {
        let mut rng = Rng::new(seed);
        let mut noise = Vec::with_capacity(bytes + 8);
        while noise.len() < bytes {
            noise.extend_from_slice(&rng.number().to_le_bytes());
        }
        noise.truncate(bytes);
        Self { text: noise.into() }
    }

    /// A value of exactly so many bytes, cut at a random place; it shares the corpus where that is long enough.
    pub fn cut(&self, rng: &mut Rng, bytes: usize) -> Bytes {
        assert!(!self.text.is_empty(), "a corpus has bytes to cut from");
        if bytes <= self.text.len() {
            let start = rng.below((self.text.len() - bytes) as u64 + 1) as usize;
            return self.text.slice(start..start + bytes);
        }
        self.text.iter().copied().cycle().take(bytes).collect()
    }
}

fn word(rng: &mut Rng) -> String {
    (0..=rng.below(3)).map(|_| SYLLABLES[rng.below(SYLLABLES.len() as u64) as usize]).collect()
}

/// Some words, now and then a number; and, as tools' output does, lines that were seen just before with one thing changed.
fn sentence(rng: &mut Rng, words: &[String], recent: &mut Vec<String>) -> String {
    if rng.chance(0.45) && !recent.is_empty() {
        let again = &recent[rng.below(recent.len() as u64) as usize];
        return format!("{} {} ", rng.below(100_000), again);
    }
    let mut sentence = String::new();
    for _ in 0..6 + rng.below(12) {
        // Squared: frequent words are frequent.
        let at = (rng.unit().powi(2) * words.len() as f64) as usize;
        sentence.push_str(&words[at]);
        sentence.push(' ');
    }
    if rng.chance(0.3) {
        sentence.push_str(&rng.below(1_000_000).to_string());
    }
    sentence.push_str(". ");
    if recent.len() >= 24 {
        let at = rng.below(24) as usize;
        recent.swap_remove(at);
    }
    recent.push(sentence.clone());
    sentence
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ratio(bytes: &[u8]) -> f64 {
        bytes.len() as f64 / zstd::bulk::compress(bytes, 3).expect("compresses").len() as f64
    }

    #[test]
    fn text_compresses_like_transcripts_and_noise_does_not() {
        let corpus = Corpus::text(3, 1 << 20);
        let mut rng = Rng::new(4);
        let mut mean = |bytes: usize| (0..20).map(|_| ratio(&corpus.cut(&mut rng, bytes))).sum::<f64>() / 20.0;
        let (page, book) = (mean(64 << 10), mean(512 << 10));
        assert!((4.0..=5.0).contains(&page), "{page}");
        assert!((4.0..=5.2).contains(&book), "{book}");
        assert!((1.4..=3.0).contains(&mean(1 << 10)));
        let noise = Corpus::incompressible(3, 1 << 16);
        assert!(ratio(&noise.cut(&mut Rng::new(1), 1 << 15)) < 1.01);
    }

    #[test]
    fn cuts_are_as_long_as_asked_and_are_plain_in_json() {
        let corpus = Corpus::text(3, 1000);
        let mut rng = Rng::new(5);
        for bytes in [0, 1, 999, 1000, 5000] {
            let cut = corpus.cut(&mut rng, bytes);
            assert_eq!(cut.len(), bytes);
            assert!(cut.iter().all(|byte| (b' '..=b'~').contains(byte) && !b"\"\\".contains(byte)));
        }
    }
}
