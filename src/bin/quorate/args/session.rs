//! Arguments behind the flags of `quorate session`.

use std::time::Duration;

use clap::Args;
use quorate::client;
use quorate::limits::{SESSION_ITEMS_MAX, SESSION_TTL_MAX};

/// Which session.
#[derive(Debug, Args)]
pub struct Id {
    /// The session; `-` reads the id from stdin
    #[arg(value_parser = id, required_unless_present = "named")]
    pub id: Option<String>,
    /// The session, for an id that is empty or begins with `-`
    #[arg(long = "id", value_name = "ID", conflicts_with = "id")]
    pub named: Option<String>,
}

/// The part of a session that is printed; by default all of it.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct Part {
    /// Version, sizes and times, without the content
    #[arg(long, group = "part")]
    pub info: bool,
    /// Everything but the messages
    #[arg(long, group = "part")]
    pub head: bool,
    /// The last so many messages, and all but the messages
    #[arg(long, value_name = "COUNT", group = "part", value_parser = items)]
    pub last: Option<u64>,
    /// The messages from this number on, and all but the messages; they are counted from 0
    #[arg(long, value_name = "NUMBER", group = "part")]
    pub from: Option<u64>,
    /// With --from: at most so many messages
    #[arg(long, value_name = "COUNT", requires = "from", value_parser = items, default_value_t = SESSION_ITEMS_MAX, hide_default_value = true)]
    pub limit: u64,
}

impl Part {
    /// As the client takes it.
    pub fn asked(self) -> client::Part {
        match self {
            Self { info: true, .. } => client::Part::Info,
            Self { head: true, .. } => client::Part::Head,
            Self { last: Some(last), .. } => client::Part::Last(last),
            Self { from: Some(item), limit, .. } => client::Part::From { item, limit },
            _ => client::Part::Whole,
        }
    }
}

fn items(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(items @ 1..=SESSION_ITEMS_MAX) => Ok(items),
        _ => Err(format!("must be a number of messages from 1 to {SESSION_ITEMS_MAX}")),
    }
}

/// An id in its place. Errors: it is empty, as an unset variable is.
pub fn id(text: &str) -> Result<String, String> {
    match text {
        "" => Err("the id is empty, as of a variable that is not set; `--id=` for the session with the empty id".into()),
        id => Ok(id.to_owned()),
    }
}

pub fn version(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "a version is a number; 0: must not exist".into())
}

pub fn fence(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "a fence is a number, as `quorate lease show` prints it".into())
}

pub fn ttl(text: &str) -> Result<Duration, String> {
    let ttl = humantime::parse_duration(text).map_err(|error| format!("{error}; e.g. 30m, 12h, 7d"))?;
    match ttl.as_millis() >= 1 && ttl <= SESSION_TTL_MAX {
        true => Ok(ttl),
        false => Err("must be 1ms to 10 years".into()),
    }
}

pub fn rate(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(rate @ 1..=1_000_000) => Ok(rate),
        _ => Err("must be a number from 1 to 1000000".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_stand_behind_flags_has_bounds() {
        assert_eq!(version("0"), Ok(0));
        assert!(version("-1").is_err() && version("abc").is_err());
        assert_eq!(ttl("1ms"), Ok(Duration::from_millis(1)));
        assert_eq!(ttl("3650d"), Ok(SESSION_TTL_MAX));
        for wrong in ["0s", "999us", "3651d", "1ns"] {
            assert_eq!(ttl(wrong), Err("must be 1ms to 10 years".into()), "{wrong}");
        }
        assert!(ttl("soon").is_err() && ttl("").is_err() && ttl("7").is_err());
        assert_eq!((items("1"), items("100000")), (Ok(1), Ok(100_000)));
        assert!(items("0").is_err() && items("100001").is_err() && items("all").is_err());
        assert!(rate("0").is_err() && rate("1") == Ok(1));
        assert!(id("").is_err() && id("a").is_ok());
    }
}
