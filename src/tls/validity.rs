//! From when until when a certificate is good. This and [`super::nodes`] are all that is read of one besides what rustls checks.

use super::material::Identity;

/// Both ends, in seconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first second.
    pub not_before: u64,
    /// The last second.
    pub not_after: u64,
}

impl Validity {
    /// Of the certificate and its intermediates together. `None`: one is not encoded as certificates are.
    pub fn of(identity: &Identity) -> Option<Self> {
        let mut all = identity.chain.iter().map(|certificate| Self::of_der(certificate));
        let first = all.next()??;
        all.try_fold(first, |both, next| {
            let next = next?;
            let not_before = both.not_before.max(next.not_before);
            Some(Self { not_before, not_after: both.not_after.min(next.not_after) })
        })
    }

    fn of_der(der: &[u8]) -> Option<Self> {
        let (_, validity, _) = element(from_validity(der)?)?;
        let (before_tag, before, rest) = element(validity)?;
        let (after_tag, after, _) = element(rest)?;
        Some(Self { not_before: seconds(before_tag, before)?, not_after: seconds(after_tag, after)? })
    }
}

/// The day of a second since the Unix epoch, as `2026-11-18`, in UTC.
pub fn day(second: u64) -> String {
    // The civil calendar from days, with years that begin in March; past the year 9999 it is all the same.
    let days = (second / 86_400).min(2_932_896) + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let (day, month) = (of_year - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = year_of_era + 400 * era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// When that was, for people: `expired on 2026-11-18, 10 days ago`.
pub fn expired(not_after_s: u64, now_s: u64) -> String {
    let since = now_s.saturating_sub(not_after_s);
    let (count, unit) = match since {
        0..3_600 => (since / 60, "minute"),
        3_600..86_400 => (since / 3_600, "hour"),
        _ => (since / 86_400, "day"),
    };
    format!("expired on {}, {count} {unit}{} ago", day(not_after_s), if count == 1 { "" } else { "s" })
}

/// A certificate's fields from its validity on.
///
/// RFC 5280 §4.1: `Certificate { tbs { [0] version?, serial, signature, issuer, validity { notBefore, notAfter }, subject, key, … }, … }`.
pub(super) fn from_validity(der: &[u8]) -> Option<&[u8]> {
    let (_, certificate, _) = element(der)?;
    let (_, mut tbs, _) = element(certificate)?;
    if tbs.first() == Some(&0xa0) {
        tbs = element(tbs)?.2;
    }
    for _ in ["serial", "signature", "issuer"] {
        tbs = element(tbs)?.2;
    }
    Some(tbs)
}

/// Tag and content of the first element, and what follows it.
pub(super) fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().try_fold(0usize, |all, byte| all.checked_mul(256)?.checked_add(usize::from(*byte)))?, rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// A `UTCTime` (23, two digits of the year) or `GeneralizedTime` (24), which certificates write in UTC with seconds and a `Z`.
fn seconds(tag: u8, text: &[u8]) -> Option<u64> {
    let digits = text.strip_suffix(b"Z")?;
    let number = |range: std::ops::Range<usize>| -> Option<u64> {
        digits.get(range)?.iter().try_fold(0, |all, byte| byte.is_ascii_digit().then(|| all * 10 + u64::from(byte - b'0')))
    };
    let (year, at) = match (tag, digits.len()) {
        (23, 12) => (number(0..2).map(|year| if year < 50 { 2000 + year } else { 1900 + year })?, 2),
        (24, 14) => (number(0..4)?, 4),
        _ => return None,
    };
    let field = |n: usize| number(at + 2 * n..at + 2 * n + 2);
    let (month, day, hour, minute, second) = (field(0)?, field(1)?, field(2)?, field(3)?, field(4)?);
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Days from the civil calendar, with years that begin in March.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    Some(days * 86_400 + hour * 3_600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_time_are_read_and_nothing_else() {
        assert_eq!(seconds(23, b"700101000000Z"), Some(0));
        assert_eq!(seconds(23, b"240229123456Z"), Some(1_709_210_096));
        assert_eq!(seconds(24, b"20500301000000Z"), Some(2_529_705_600));
        for bad in [&b"240229123456"[..], b"24022912345xZ", b"241329123456Z", b"Z", b"", b"2402291234Z"] {
            assert_eq!(seconds(23, bad), None, "{bad:?}");
        }
    }

    /// Each day of four centuries and more, both ways.
    #[test]
    fn a_day_is_written_as_it_is_read() {
        for days in 0..200_000 {
            let text = day(days * 86_400 + 86_399);
            let digits = format!("{}000000Z", text.replace('-', ""));
            assert_eq!(seconds(24, digits.as_bytes()), Some(days * 86_400), "{text}");
        }
        assert_eq!([day(0), day(1_795_043_211), day(u64::MAX)], ["1970-01-01", "2026-11-18", "9999-12-31"]);
    }

    #[test]
    fn an_end_says_how_long_ago_it_was() {
        assert_eq!(expired(1_795_043_211, 1_795_907_211), "expired on 2026-11-18, 10 days ago");
        assert_eq!(expired(0, 7_200), "expired on 1970-01-01, 2 hours ago");
        assert_eq!(expired(0, 61), "expired on 1970-01-01, 1 minute ago");
    }

    #[test]
    fn whatever_the_bytes_nothing_panics() {
        let mut bytes: Vec<u8> = vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 0x30, 0x82, 1, 0, 0xa0, 3, 2, 1, 2];
        bytes.extend((0..=255).cycle().take(600));
        for start in 0..bytes.len() {
            for end in [start, start + 1, bytes.len()] {
                let _ = Validity::of_der(&bytes[start.min(end)..end.min(bytes.len())]);
            }
        }
    }

    #[test]
    fn the_validity_of_a_real_certificate_and_its_intermediates_is_read() {
        let key = rcgen::KeyPair::generate().expect("a key");
        let signed = |first_year, last_year| {
            let mut params = rcgen::CertificateParams::new(vec!["a".to_owned()]).expect("a name");
            params.not_before = rcgen::date_time_ymd(first_year, 1, 2);
            params.not_after = rcgen::date_time_ymd(last_year, 3, 4);
            params.self_signed(&key).expect("signed").pem()
        };
        let of = |chain: String| {
            let identity = Identity::from_pem(chain.as_bytes(), key.serialize_pem().as_bytes()).expect("both fit");
            Validity::of(&identity)
        };
        let expected = Validity { not_before: 1_735_776_000, not_after: 2_687_731_200 };
        assert_eq!(of(signed(2025, 2055)), Some(expected));
        assert_eq!(of(signed(2025, 2060) + &signed(2020, 2055)), Some(expected), "with its intermediate");
    }
}
