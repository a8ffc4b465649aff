//! The tokens file: who holds a token, and what it is good for. It holds hashes only, so that reading it lets nobody in.
//!
//! One SHA-256 is enough: a token is 256 bits of entropy, drawn by `quorate token new`, so there is nothing to guess, and a slow hash
//! would only cost every new connection its milliseconds (decision 0044). Comparison takes the same time wherever two hashes differ.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer};
use subtle::ConstantTimeEq as _;

use super::portions::{self, Portions};
use crate::env;
use crate::limits::SESSION_ID_BYTES_MAX;

/// Most tokens in one file.
pub const TOKENS_MAX: usize = 1024;
/// Longest name of a token, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// Most prefixes of one token.
const PREFIXES_MAX: usize = 64;

/// The SHA-256 of a token, as the file has it in hex digits.
pub fn hash_of(token: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, token.as_bytes()).as_ref());
    hash
}

/// The right a token gives. None includes another, but `admin` includes `list` and `metrics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Loading sessions.
    Read,
    /// Saving and deleting sessions.
    Write,
    /// Listing the ids of sessions, which are credentials themselves.
    List,
    /// Operating the cluster.
    Admin,
    /// Reading the metrics of its nodes, and nothing else.
    Metrics,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Scope::Read => "read",
            Scope::Write => "write",
            Scope::List => "list",
            Scope::Admin => "admin",
            Scope::Metrics => "metrics",
        })
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Scope::Read, Scope::Write, Scope::List, Scope::Admin, Scope::Metrics];
        let named = all.into_iter().find(|scope| scope.to_string() == text);
        named.ok_or_else(|| format!("is no scope: scope={text:?} scopes=read,write,list,admin,metrics"))
    }
}

/// One token: everything of it but the token.
#[derive(Clone, PartialEq, Eq)]
pub struct Grant {
    /// For people, and what a node tells the leader when it forwards a call.
    pub name: Arc<str>,
    /// Of the token.
    pub hash: [u8; 32],
    /// Sorted, without repetitions, not empty.
    scopes: Vec<Scope>,
    /// Ids must start with one of these; empty: any id.
    prefixes: Vec<String>,
    /// Milliseconds since the Unix epoch; from then on it is no longer valid.
    pub expires_ms: Option<u64>,
    /// How much its holder may hold.
    pub portions: Portions,
}

impl Grant {
    /// Whether it is good for this.
    pub fn has(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }

    /// All of them, sorted.
    pub fn scopes(&self) -> &[Scope] {
        &self.scopes
    }

    /// Ids must start with one of these; empty: any id.
    pub fn prefixes(&self) -> &[String] {
        &self.prefixes
    }

    /// Whether it is no longer valid at this time.
    pub fn is_expired(&self, now_ms: u64) -> bool {
        self.expires_ms.is_some_and(|end| now_ms >= end)
    }

    /// Whether an id, or every id with this beginning, starts with one of its prefixes.
    pub fn covers(&self, ids: &str) -> bool {
        self.prefixes.is_empty() || self.prefixes.iter().any(|prefix| ids.starts_with(prefix.as_str()))
    }
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "token:{:?} {:?}", self.name, self.scopes)
    }
}

/// All tokens of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    by_name: BTreeMap<Arc<str>, Grant>,
}

/// Why a text is no tokens file: one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "token", default)]
    tokens: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    #[serde(deserialize_with = "hash")]
    sha256: [u8; 32],
    scopes: Vec<String>,
    #[serde(default)]
    prefixes: Vec<String>,
    #[serde(default, deserialize_with = "expiry")]
    expires: Option<u64>,
    #[serde(default)]
    shares: Option<portions::File>,
}

impl Tokens {
    /// The tokens of a file's text. Errors: name the token and what is wrong with it, never a hash.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let file: File = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| 1 + text[..span.start.min(text.len())].matches('\n').count());
            Error(format!("line {line}: {}", error.message().replace('\n', " ")))
        })?;
        if file.tokens.len() > TOKENS_MAX {
            return Err(Error(format!("too many tokens: found={} limit={TOKENS_MAX}", file.tokens.len())));
        }
        let mut by_name: BTreeMap<Arc<str>, Grant> = BTreeMap::new();
        for entry in file.tokens {
            let name: Arc<str> = entry.name.as_str().into();
            let grant = grant(entry).map_err(|why| Error(format!("token {name:?}: {why}")))?;
            if let Some(other) = by_name.values().find(|other| other.name == name || other.hash == grant.hash) {
                return Err(Error(format!("token {name:?}: its name or its hash is also that of token {:?}", other.name)));
            }
            by_name.insert(name, grant);
        }
        Ok(Self { by_name })
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether nobody has one.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// All, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Grant> {
        self.by_name.values()
    }

    /// These tokens without the one of this name.
    pub fn without(&self, name: &str) -> Self {
        let kept = self.by_name.iter().filter(|(other, _)| &***other != name);
        Self { by_name: kept.map(|(name, grant)| (name.clone(), grant.clone())).collect() }
    }

    /// The token of this name.
    pub fn named(&self, name: &str) -> Option<&Grant> {
        self.by_name.get(name)
    }

    /// The token with this hash. Every one is compared, each in constant time.
    pub fn with_hash(&self, hash: &[u8; 32]) -> Option<&Grant> {
        self.by_name.values().fold(None, |found, grant| if bool::from(grant.hash.ct_eq(hash)) { Some(grant) } else { found })
    }
}

fn grant(entry: Entry) -> Result<Grant, String> {
    let name = &entry.name;
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
        return Err(format!("a name has 1 to {NAME_BYTES_MAX} letters, digits, '-', '_' and '.'"));
    }
    let mut scopes = entry.scopes.iter().map(|scope| scope.parse()).collect::<Result<Vec<Scope>, String>>()?;
    scopes.sort_unstable();
    scopes.dedup();
    if scopes.is_empty() {
        return Err("scopes is empty: some of read, write, list, admin, metrics".to_owned());
    }
    let prefixes = entry.prefixes;
    if prefixes.len() > PREFIXES_MAX || prefixes.iter().any(|prefix| prefix.len() > SESSION_ID_BYTES_MAX) {
        return Err(format!("prefixes are too many or too long: limits={PREFIXES_MAX},{SESSION_ID_BYTES_MAX}"));
    }
    if prefixes.iter().any(String::is_empty) {
        return Err("prefixes holds an empty text, which every id begins with: leave prefixes out if any id is meant".to_owned());
    }
    // A backup holds every session: an administrator who is kept to some would only seem to be.
    if scopes.contains(&Scope::Admin) && !prefixes.is_empty() {
        return Err("scope admin is for the whole cluster and can't be kept to prefixes".to_owned());
    }
    let portions = Portions::new(entry.shares, scopes.contains(&Scope::Admin), !prefixes.is_empty())?;
    Ok(Grant { name: entry.name.into(), hash: entry.sha256, scopes, prefixes, expires_ms: entry.expires, portions })
}

fn hash<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
    let text = String::deserialize(deserializer)?;
    let bytes: Option<Vec<u8>> = (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect();
    let digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let hash = bytes.filter(|_| digits).and_then(|bytes| bytes.try_into().ok());
    hash.ok_or_else(|| serde::de::Error::custom("sha256 must be 64 hex digits"))
}

fn expiry<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let at = humantime::parse_rfc3339_weak(&text);
    at.map(|at| Some(env::unix_ms(at))).map_err(|_| serde::de::Error::custom("expires must read like \"2030-01-31T00:00:00Z\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    fn refused(text: &str) -> String {
        let error = Tokens::parse(text).expect_err(text).to_string();
        assert!(!error.contains(HASH) && !error.contains('\n'), "{error}");
        error
    }

    fn token(rest: &str) -> String {
        format!("[[token]]\nname = \"a\"\nsha256 = \"{HASH}\"\n{rest}\n")
    }

    #[test]
    fn a_token_is_found_by_its_hash_and_carries_what_the_file_says() {
        let tokens = Tokens::parse(&token(
            "scopes = [\"write\", \"read\", \"read\"]\nprefixes = [\"x/\"]\nexpires = \"1970-01-01T00:00:01Z\"",
        ));
        let tokens = tokens.expect("well formed");
        let grant = tokens.with_hash(&hash_of("test")).expect("the hash of `test`");
        assert_eq!((&*grant.name, grant.expires_ms), ("a", Some(1000)));
        assert!(grant.has(Scope::Read) && grant.has(Scope::Write) && !grant.has(Scope::List) && !grant.has(Scope::Admin));
        assert!(grant.covers("x/1") && grant.covers("x/") && !grant.covers("x") && !grant.covers("") && !grant.covers("y"));
        assert!(tokens.with_hash(&hash_of("Test")).is_none());
        assert!(!format!("{tokens:?}").contains("9f86"), "{tokens:?}");
    }

    #[test]
    fn a_file_that_could_let_the_wrong_one_in_is_refused_by_name() {
        assert!(refused(&token("scopes = [\"all\"]")).contains("token \"a\": is no scope"));
        assert!(refused(&token("scopes = []")).contains("scopes is empty"));
        assert!(refused(&token("scopes = [\"read\"]\nprefixes = [\"x/\", \"\"]")).contains("leave prefixes out"));
        assert!(refused(&token("scopes = [\"admin\", \"read\"]\nprefixes = [\"x/\"]")).contains("whole cluster"));
        assert!(refused(&token("scopes = [\"read\"]\nprefix = \"x/\"")).contains("unknown field `prefix`"));
        assert!(refused(&token("scopes = [\"read\"]\nexpires = \"soon\"")).contains("expires must read like"));
        assert!(refused(&token("scopes = [\"read\"]").replace("9f86", "9g86")).contains("64 hex digits"));
        assert!(refused(&token("scopes = [\"read\"]").replace("9f86", "")).contains("64 hex digits"));
        assert!(refused(&token("scopes = [\"read\"]").replace("\"a\"", "\"a b\"")).contains("a name has"));
        let twice = format!("{}{}", token("scopes = [\"read\"]"), token("scopes = [\"write\"]").replace("\"a\"", "\"b\""));
        assert!(refused(&twice).contains("also that of token \"a\""));
    }
}
