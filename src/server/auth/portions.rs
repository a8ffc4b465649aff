//! How much of the cluster one token may hold: the key `shares` of the tokens file.
//!
//! ```toml
//! shares = { clients = "10%", outcomes = 5000, new_ids_per_second = 50, sessions = "5%", stored_bytes = "20 GiB", in_flight_bytes = "8 MiB",
//!            large_bytes_per_second = "4 MiB" }
//! ```

use serde::Deserialize;

use crate::server::config::Config;

/// A hundred per cent, in hundredths of one.
const WHOLE: u32 = 10_000;
/// The portion of a token that names none.
const DEFAULT: Portion = Portion::Of(WHOLE / 4);

/// A resource of which each token has a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// Rows of the table of clients.
    Clients,
    /// Recorded outcomes of all clients.
    Outcomes,
    /// Ids that had neither session nor tombstone.
    NewIds,
    /// Sessions and tombstones.
    Sessions,
    /// Bytes of the sessions' content, as stored.
    StoredBytes,
    /// Bytes of leases, by the fixed formula.
    LeaseBytes,
    /// Bytes of operations admitted by one node and not settled.
    InFlightBytes,
    /// Bytes of writes that are larger than a round, while other tokens call too.
    LargeBytes,
}

impl Resource {
    /// All, in order.
    pub const ALL: [Resource; 8] = [
        Resource::Clients,
        Resource::Outcomes,
        Resource::NewIds,
        Resource::Sessions,
        Resource::StoredBytes,
        Resource::LeaseBytes,
        Resource::InFlightBytes,
        Resource::LargeBytes,
    ];

    /// Its key in the file, and its label in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Resource::Clients => "clients",
            Resource::Outcomes => "outcomes",
            Resource::NewIds => "new_ids_per_second",
            Resource::Sessions => "sessions",
            Resource::StoredBytes => "stored_bytes",
            Resource::LeaseBytes => "lease_bytes",
            Resource::InFlightBytes => "in_flight_bytes",
            Resource::LargeBytes => "large_bytes_per_second",
        }
    }

    fn is_bytes(self) -> bool {
        matches!(self, Resource::StoredBytes | Resource::LeaseBytes | Resource::InFlightBytes | Resource::LargeBytes)
    }

    /// Whether it is counted under a token's prefixes, no matter which token wrote it.
    fn is_of_ids(self) -> bool {
        matches!(self, Resource::Sessions | Resource::StoredBytes | Resource::LeaseBytes)
    }
}

/// How much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Portion {
    /// In hundredths of a per cent of what there may be in all.
    Of(u32),
    /// So many.
    Count(u64),
}

impl Portion {
    /// Everything: nothing is refused for it.
    pub const ALL: Self = Portion::Of(WHOLE);

    /// How many these are of `total`; `None`: all there may be.
    pub fn of(self, total: u64) -> Option<u64> {
        match self {
            Portion::Of(part) if part >= WHOLE => None,
            Portion::Of(part) => Some((u128::from(total) * u128::from(part) / u128::from(WHOLE)) as u64),
            Portion::Count(count) => Some(count),
        }
    }
}

/// The portions of one token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Portions([Portion; Resource::ALL.len()]);

impl Portions {
    /// Of this.
    pub fn of(&self, what: Resource) -> Portion {
        self.0[what as usize]
    }

    /// The file's portions, and defaults for the rest: everything for a cluster's operator, a quarter for any other token, but all stored
    /// bytes, sessions and leases for one that may write every id, and so delete it and take its lease.
    pub(super) fn new(file: Option<File>, is_admin: bool, has_prefixes: bool) -> Result<Self, String> {
        let file = file.unwrap_or_default();
        let said = [
            file.clients,
            file.outcomes,
            file.new_ids_per_second,
            file.sessions,
            file.stored_bytes,
            file.lease_bytes,
            file.in_flight_bytes,
            file.large_bytes_per_second,
        ];
        let mut portions = [DEFAULT; Resource::ALL.len()];
        for ((what, said), portion) in Resource::ALL.into_iter().zip(said).zip(&mut portions) {
            *portion = match said {
                Some(value) => parse(what, value)?,
                None if is_admin || (what.is_of_ids() && !has_prefixes) => Portion::ALL,
                None => DEFAULT,
            };
        }
        Ok(Self(portions))
    }
}

/// As it stands in the file.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    clients: Option<Value>,
    outcomes: Option<Value>,
    new_ids_per_second: Option<Value>,
    sessions: Option<Value>,
    stored_bytes: Option<Value>,
    lease_bytes: Option<Value>,
    in_flight_bytes: Option<Value>,
    large_bytes_per_second: Option<Value>,
}

#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum Value {
    Number(u64),
    Text(String),
}

fn parse(what: Resource, value: Value) -> Result<Portion, String> {
    let text = match value {
        Value::Number(count) => return Ok(Portion::Count(count)),
        Value::Text(text) => text,
    };
    let parsed = match text.strip_suffix('%') {
        Some(percent) => hundredths(percent.trim()).map(Portion::Of),
        None if what.is_bytes() => Config::bytes_of(&text).map(Portion::Count),
        None => None,
    };
    let name = what.name();
    let size = if what.is_bytes() { ", or a size like \"20 GiB\"" } else { "" };
    parsed.ok_or_else(|| format!("shares.{name} must be a number, or a share from \"0.01%\" to \"100%\"{size}: found {text:?}"))
}

/// "12.5" is 1250; `None`: it is none, 0 or above a hundred.
fn hundredths(percent: &str) -> Option<u32> {
    let (whole, part) = percent.split_once('.').unwrap_or((percent, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(part) || whole.len() > 3 || part.len() > 2 {
        return None;
    }
    let part: u32 = format!("{part:0<2}").parse().ok()?;
    let sum = whole.parse::<u32>().ok()? * 100 + part;
    (1..=WHOLE).contains(&sum).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn portions(text: &str, is_admin: bool, has_prefixes: bool) -> Result<Portions, String> {
        Portions::new(Some(toml::from_str(text).expect("its fields are known")), is_admin, has_prefixes)
    }

    #[test]
    fn a_token_has_a_quarter_by_default_and_an_operator_everything() {
        let quarter = portions("", false, true).expect("nothing is wrong");
        assert_eq!(Resource::ALL.map(|what| quarter.of(what).of(100_000)), [Some(25_000); 8]);
        let any_id = portions("", false, false).expect("nothing is wrong");
        let of_ids = [Resource::Sessions, Resource::StoredBytes, Resource::LeaseBytes];
        assert_eq!(of_ids.map(|what| any_id.of(what).of(100)), [None; 3], "it may delete them all");
        assert_eq!(any_id.of(Resource::Clients).of(100), Some(25));
        let operator = portions("", true, false).expect("nothing is wrong");
        assert_eq!(Resource::ALL.map(|what| operator.of(what).of(100)), [None; 8]);
    }

    #[test]
    fn a_portion_is_a_share_or_a_number_or_of_bytes_a_size() {
        let text = "clients = 7\noutcomes = \"0.25%\"\nsessions = \"100%\"\nstored_bytes = \"2 GiB\"\nlease_bytes = \"1 KiB\"\nin_flight_bytes = 4096\n\
                    large_bytes_per_second = \"1 MiB\"";
        let said = portions(text, false, true).expect("well formed");
        assert_eq!(said.of(Resource::Clients).of(100_000), Some(7));
        assert_eq!(said.of(Resource::Outcomes).of(1_000_000), Some(2500));
        assert_eq!(said.of(Resource::Sessions).of(10), None);
        assert_eq!(said.of(Resource::StoredBytes).of(10), Some(2 << 30));
        assert_eq!(said.of(Resource::LeaseBytes).of(10), Some(1 << 10));
        assert_eq!(said.of(Resource::InFlightBytes).of(10), Some(4096));
        assert_eq!(said.of(Resource::LargeBytes).of(10), Some(1 << 20));
        for wrong in ["\"\"", "\"%\"", "\"0%\"", "\"101%\"", "\"1.234%\"", "\"-1%\"", "\"7\"", "\"7 GiB\""] {
            let why = portions(&format!("clients = {wrong}"), false, true).expect_err(wrong);
            assert!(why.starts_with("shares.clients must be"), "{why}");
        }
    }
}
