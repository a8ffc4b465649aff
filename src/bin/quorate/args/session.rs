//! Arguments behind the flags of `quorate session`.

use std::time::Duration;

use clap::Args;
use quorate::limits::SESSION_TTL_MAX;

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
        assert!(rate("0").is_err() && rate("1") == Ok(1));
        assert!(id("").is_err() && id("a").is_ok());
    }
}
