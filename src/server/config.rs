//! `cluster.toml`: one file that describes the whole cluster and is the same on every host.
//!
//! This module promises that a [`Config`] it hands out is valid: every key known, every value in its range, every relation between
//! values kept. Limits that shape bytes or protocol are not here but in [`crate::limits`]: an operator must not be able to make two
//! replicas disagree. Precedence is flag, then environment, then file, then default; the binary applies the first two.

mod security;

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use crate::limits::{NODES_MAX, NUMBER_MAX};
use crate::types::{Member, NodeId, is_loopback, validate_address, validate_listen_address};

pub use security::{AuthConfig, ClientCerts, TlsConfig, TlsPaths};

/// Longest cluster name, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// Largest `cluster.toml`, in bytes.
pub const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// A whole cluster, as `cluster.toml` describes it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The cluster's name, for people and against mix-ups: nodes of clusters with different names refuse each other at bootstrap.
    /// 1 to [`NAME_BYTES_MAX`] bytes of letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// Where nodes keep their data: node N in the directory `N` below it. Default `quorate-data`, relative to the working directory.
    #[serde(default = "default_data_dir")]
    pub data_dir: PathBuf,
    /// The cluster version above which this node does not let the cluster rise: an upgrade stays open, and can be taken back, until no node
    /// holds it or `quorate upgrade finish` was typed. Default 0: nothing holds it.
    #[serde(default)]
    pub cluster_version_max: u16,
    /// The members, ordered by id. 1 to [`NODES_MAX`]; three or five is what tolerates a failure.
    #[serde(rename = "node", default)]
    pub members: Vec<MemberConfig>,
    /// Timing of the consensus.
    #[serde(default)]
    pub raft: RaftConfig,
    /// Disk and memory of a node.
    #[serde(default)]
    pub storage: StorageConfig,
    /// The node's logs and metrics.
    #[serde(default)]
    pub observe: ObserveConfig,
    /// Certificates; without them the ports are open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsConfig>,
    /// Tokens; without them every caller that can connect may do everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<AuthConfig>,
}

/// One `[[node]]`. Its addresses are where others reach it, and where it listens unless it says so apart.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct MemberConfig {
    /// At least 1, and never used for another node again.
    #[serde(deserialize_with = "node_id", serialize_with = "node_number")]
    pub id: NodeId,
    /// `host:port` for clients.
    pub client: String,
    /// `host:port` for the other nodes.
    pub peer: String,
    /// `host:port` for HTTP: `/livez`, `/readyz`, `/metrics`, `/version`.
    pub admin: String,
    /// Where it listens for clients, if not at `client`: `0.0.0.0` and `[::]` are every address of the machine. Of no interest to others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_listen: Option<String>,
    /// The address to listen at for peers, where it differs from `peer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_listen: Option<String>,
    /// The address to listen at for the admin port, where it differs from `admin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_listen: Option<String>,
}

impl MemberConfig {
    /// A node that listens where it is reached.
    pub fn new(id: NodeId, client: String, peer: String, admin: String) -> Self {
        Self { id, client, peer, admin, client_listen: None, peer_listen: None, admin_listen: None }
    }

    /// As a member without a vote.
    pub fn member(&self) -> Member {
        Member {
            id: self.id,
            client_address: self.client.clone(),
            peer_address: self.peer.clone(),
            admin_address: self.admin.clone(),
            voter: false,
        }
    }

    /// Where it listens for clients, peers and HTTP, each with the key that says so.
    pub fn listens(&self) -> [(&'static str, &str); 3] {
        [
            listen(("client", &self.client), ("client_listen", &self.client_listen)),
            listen(("peer", &self.peer), ("peer_listen", &self.peer_listen)),
            listen(("admin", &self.admin), ("admin_listen", &self.admin_listen)),
        ]
    }

    fn validate_listening(&self) -> Result<(), Error> {
        let id = self.id;
        let listens = self.listens();
        for (at, (key, address)) in listens.iter().enumerate() {
            validate_listen_address(address).map_err(|why| Error(format!("node {id}: {key} {why}: {key}={address:?}")))?;
            if let Some((other, _)) = listens[..at].iter().find(|(_, other)| other == address) {
                return Err(Error(format!("node {id}: {key}={address} is also its {other}")));
            }
        }
        Ok(())
    }
}

fn listen<'a>(reached: (&'static str, &'a String), apart: (&'static str, &'a Option<String>)) -> (&'static str, &'a str) {
    apart.1.as_ref().map_or((reached.0, reached.1), |address| (apart.0, address))
}

/// `[raft]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct RaftConfig {
    /// How often a leader shows that it lives. Default 250 ms, 10 ms to 10 s.
    #[serde(with = "humantime_serde")]
    pub heartbeat_interval: Duration,
    /// A follower waits at least so long for a leader before it asks for votes. Default 1 s; at least 3 heartbeats.
    #[serde(with = "humantime_serde")]
    pub election_timeout_min: Duration,
    /// ... and at most so long. Default 2 s, at most 60 s; above the minimum.
    #[serde(with = "humantime_serde")]
    pub election_timeout_max: Duration,
}

/// `[storage]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct StorageConfig {
    /// Pages of the state file kept in memory. Default 16 MiB, 1 MiB to 64 GiB.
    pub cache: ByteSize,
    /// Log kept behind the last flush for followers that lag. Default 256 MiB, 64 MiB to 1 TiB.
    pub log_kept: ByteSize,
    /// No entry stays in the log for longer, nor what it held in files that were part of it. Default 7 days, 1 min to 10 years; counted from
    /// the node's start, where that is later.
    #[serde(with = "humantime_serde")]
    pub log_kept_for: Duration,
    /// How often everything on the disk is read and checked, so that corruption is found before it is needed. Default 1 day; 0s: never; at
    /// least 1 s.
    #[serde(with = "humantime_serde")]
    pub scrub_interval: Duration,
    /// The scrubber's reads in a second, at most. Default 8 MiB, 64 KiB to 16 GiB.
    pub scrub_rate: ByteSize,
}

/// `[observe]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ObserveConfig {
    /// An answer that took longer is logged, with where the time went. Default 500 ms; 0s: never.
    #[serde(with = "humantime_serde")]
    pub slow_operation: Duration,
}

impl Default for ObserveConfig {
    fn default() -> Self {
        Self { slow_operation: Duration::from_millis(500) }
    }
}

impl Default for RaftConfig {
    fn default() -> Self {
        Self {
            heartbeat_interval: Duration::from_millis(250),
            election_timeout_min: Duration::from_secs(1),
            election_timeout_max: Duration::from_secs(2),
        }
    }
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self {
            cache: ByteSize::mib(16),
            log_kept: ByteSize::mib(256),
            log_kept_for: Duration::from_secs(7 * 24 * 3600),
            scrub_interval: Duration::from_secs(24 * 3600),
            scrub_rate: ByteSize::mib(8),
        }
    }
}

/// Why there is no configuration. Nothing was started; fix the file and start again. One line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

impl Config {
    /// The bytes of a size like "20 GiB"; `None`: it is not a size.
    pub(super) fn bytes_of(text: &str) -> Option<u64> {
        text.parse().ok().map(|size: ByteSize| size.as_u64())
    }

    /// Reads and checks a file. Errors: it can't be read, is no TOML, has an unknown key, or [`Config::validate`] fails.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let size = std::fs::metadata(path).map_err(|error| unreadable(path, &error))?.len();
        if size > FILE_BYTES_MAX {
            return Err(Error(format!("{} is too large for a configuration bytes={size} limit={FILE_BYTES_MAX}", path.display())));
        }
        let text = std::fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
        Self::parse(&text).map_err(|error| Error(format!("{}: {error}", path.display())))
    }

    /// Parses a configuration and checks it; members are then ordered by id. Errors: the key and both sides.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut config: Self = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| 1 + text[..span.start.min(text.len())].matches('\n').count());
            Error(format!("line {line}: {}", error.message().replace('\n', " ")))
        })?;
        config.members.sort_by_key(|member| member.id);
        config.validate()?;
        Ok(config)
    }

    /// The file that says all of this, defaults too; parsing it gives this configuration back.
    ///
    /// Errors: never for a valid configuration.
    pub fn to_toml(&self) -> Result<String, Error> {
        toml::to_string(self).map_err(|error| Error(format!("the configuration can't be written as TOML: {error}")))
    }

    /// Checks ranges and relations. Errors name the key and both sides.
    pub fn validate(&self) -> Result<(), Error> {
        self.validate_name()?;
        self.validate_members()?;
        self.raft.validate()?;
        self.storage.validate()?;
        self.validate_security()
    }

    /// The member with this id. Errors: there is none; the message lists those there are.
    pub fn member(&self, id: NodeId) -> Result<&MemberConfig, Error> {
        self.members.iter().find(|member| member.id == id).ok_or_else(|| {
            let ids = NodeId::listed(self.members.iter().map(|member| member.id));
            Error(format!("no [[node]] has this id: id={id} configured={ids}"))
        })
    }

    /// Where that node keeps its data.
    pub fn node_dir(&self, id: NodeId) -> PathBuf {
        self.data_dir.join(id.to_string())
    }

    /// Refuses addresses that other machines can reach where there are no certificates: nothing authenticates them. Errors: names the
    /// first such key.
    pub fn require_loopback(&self) -> Result<(), Error> {
        if self.tls.is_some() {
            return Ok(());
        }
        let listens = self.members.iter().flat_map(|member| member.listens().map(|(key, address)| (member.id, key, address)));
        let exposed = self.addresses().chain(listens).find(|(_, _, address)| !is_loopback(address));
        exposed.map_or(Ok(()), |(id, key, address)| {
            Err(Error(format!(
                "node {id}: {key}={address} is not a loopback address and the traffic is neither encrypted nor authenticated; \
                 give it certificates in [tls], keep it inside a trusted network and pass --insecure, or use 127.0.0.1"
            )))
        })
    }

    /// A stable hash of name, members and addresses: nodes that were given different clusters refuse to bootstrap one.
    ///
    /// FNV-1a over a canonical text, so the same on every platform and in every release. Tuning is left out: it may differ.
    pub fn configuration_hash(&self) -> u64 {
        let mut text = format!("quorate cluster 1\nname={}\n", self.name);
        for member in &self.members {
            text += &format!("node={} client={} peer={} admin={}\n", member.id, member.client, member.peer, member.admin);
        }
        text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    }

    fn addresses(&self) -> impl Iterator<Item = (NodeId, &'static str, &str)> {
        self.members.iter().flat_map(|member| {
            [("client", &member.client), ("peer", &member.peer), ("admin", &member.admin)]
                .map(|(key, address)| (member.id, key, address.as_str()))
        })
    }

    fn validate_name(&self) -> Result<(), Error> {
        let bytes = self.name.len();
        if bytes == 0 || bytes > NAME_BYTES_MAX {
            return Err(Error(format!("name must have 1 to {NAME_BYTES_MAX} bytes: bytes={bytes}")));
        }
        let odd = self.name.chars().find(|c| !(c.is_ascii_alphanumeric() || "-_.".contains(*c)));
        odd.map_or(Ok(()), |c| Err(Error(format!("name may hold letters, digits, '-', '_' and '.': found={c:?}"))))
    }

    fn validate_members(&self) -> Result<(), Error> {
        let count = self.members.len();
        if count == 0 || count > NODES_MAX {
            return Err(Error(format!("a cluster has 1 to {NODES_MAX} [[node]] entries: found={count}")));
        }
        if self.members[0].id == NodeId(0) {
            return Err(Error("node id must be at least 1: id=0".into()));
        }
        // They are ordered by id.
        if let Some(last) = self.members.last().filter(|last| last.id.0 > NUMBER_MAX) {
            return Err(Error(format!("node id must be at most {NUMBER_MAX}: id={}", last.id)));
        }
        if let Some(pair) = self.members.windows(2).find(|pair| pair[0].id == pair[1].id) {
            return Err(Error(format!("two [[node]] entries have the same id: id={}", pair[0].id)));
        }
        let mut seen = std::collections::BTreeMap::new();
        for (id, key, address) in self.addresses() {
            validate_address(address).map_err(|why| Error(format!("node {id}: {key} {why}: {key}={address:?}")))?;
            if let Some((other, other_key)) = seen.insert(address, (id, key)) {
                return Err(Error(format!("node {id}: {key}={address} is also {other_key} of node {other}")));
            }
        }
        self.members.iter().try_for_each(MemberConfig::validate_listening)
    }
}

impl RaftConfig {
    fn validate(&self) -> Result<(), Error> {
        let (beat, min, max) = (self.heartbeat_interval, self.election_timeout_min, self.election_timeout_max);
        let range = Duration::from_millis(10)..=Duration::from_secs(10);
        if !range.contains(&beat) {
            return Err(Error(format!(
                "raft.heartbeat_interval={beat:?} must be between {:?} and {:?}",
                range.start(),
                range.end()
            )));
        }
        if min < beat * 3 {
            return Err(Error(format!("raft.election_timeout_min={min:?} must be at least 3 * raft.heartbeat_interval={beat:?}")));
        }
        if max <= min {
            return Err(Error(format!("raft.election_timeout_max={max:?} must exceed raft.election_timeout_min={min:?}")));
        }
        let limit = Duration::from_secs(60);
        if max > limit {
            return Err(Error(format!("raft.election_timeout_max={max:?} must be at most {limit:?}")));
        }
        Ok(())
    }
}

impl StorageConfig {
    fn validate(&self) -> Result<(), Error> {
        within("storage.cache", self.cache, ByteSize::mib(1), ByteSize::gib(64))?;
        within("storage.log_kept", self.log_kept, ByteSize::mib(64), ByteSize::tib(1))?;
        let (least, most) = (Duration::from_secs(60), Duration::from_secs(10 * 365 * 24 * 3600));
        if !(least..=most).contains(&self.log_kept_for) {
            let kept = self.log_kept_for;
            return Err(Error(format!("storage.log_kept_for={kept:?} must be between {least:?} and {most:?}")));
        }
        within("storage.scrub_rate", self.scrub_rate, ByteSize::kib(64), ByteSize::gib(16))?;
        let interval = self.scrub_interval;
        if !interval.is_zero() && interval < Duration::from_secs(1) {
            return Err(Error(format!("storage.scrub_interval={interval:?} must be 0s, which is never, or at least 1s")));
        }
        Ok(())
    }
}

fn within(key: &str, value: ByteSize, min: ByteSize, max: ByteSize) -> Result<(), Error> {
    if value < min || value > max {
        return Err(Error(format!("{key}={value} must be between {min} and {max}")));
    }
    Ok(())
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    Error(format!(
        "can't read the configuration: {error}; name a cluster.toml with --config or QUORATE_CONFIG path={}",
        path.display()
    ))
}

fn default_data_dir() -> PathBuf {
    PathBuf::from("quorate-data")
}

fn node_id<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<NodeId, D::Error> {
    u64::deserialize(deserializer).map(NodeId)
}

fn node_number<S: serde::Serializer>(id: &NodeId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(id.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u64) -> String {
        let port = 7450 + 10 * id;
        format!(
            "[[node]]\nid = {id}\nclient = \"127.0.0.1:{port}\"\npeer = \"127.0.0.1:{}\"\nadmin = \"127.0.0.1:{}\"\n",
            port + 1,
            port + 2
        )
    }

    fn three() -> String {
        format!("name = \"test\"\n{}{}{}", node(1), node(2), node(3))
    }

    fn refused(text: &str) -> String {
        Config::parse(text).expect_err("must be refused").to_string()
    }

    /// Whatever can be set is in the shipped file with its default, as a line that only has to be uncommented.
    #[test]
    fn every_key_and_its_default_is_in_the_shipped_file() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster.toml");
        let shipped = std::fs::read_to_string(path).expect("it is there");
        let key =
            |line: &str| line.split_once(" = ").is_some_and(|(key, _)| key.bytes().all(|c| c.is_ascii_lowercase() || c == b'_'));
        let uncomment = |text: &str, also: fn(&str) -> bool| -> String {
            let line =
                |line: &str| line.strip_prefix("# ").filter(|line| key(line) || also(line)).unwrap_or(line).to_owned() + "\n";
            text.lines().map(line).collect()
        };
        // A section that is not there by default has no defaults, but keys that are right.
        Config::parse(&uncomment(&shipped, |line| line.starts_with('['))).expect("every section and line is valid");
        let there = shipped.find("\n# [").map_or(shipped.len(), |at| at);
        let uncommented = uncomment(&shipped[..there], |_| false);
        let explicit = Config::parse(&uncommented).expect("every line is valid");
        let default = Config::parse(&shipped).expect("valid");
        assert_eq!(explicit, default, "a default in the file is not the program's");
        let path = PathBuf::from("x");
        let [cert, key_file, ca, tokens] = std::array::from_fn(|_| path.clone());
        let tls = TlsConfig { cert, key: key_file, ca, client_ca: Some(path), client_certs: ClientCerts::Require };
        let all = Config { tls: Some(tls), auth: Some(AuthConfig { tokens }), ..default };
        let uncommented = uncomment(&shipped, |line| line.starts_with('['));
        for line in all.to_toml().expect("valid").lines().filter(|line| key(line)) {
            let name = line.split_once(" = ").map(|(name, _)| name).unwrap_or_default();
            let there = uncommented.lines().any(|line| line.starts_with(&format!("{name} = ")));
            assert!(there, "{name} is not in cluster.toml");
        }
    }

    #[test]
    fn the_shipped_file_is_a_valid_three_node_loopback_cluster() {
        let config = Config::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster.toml")).expect("valid");
        let ids: Vec<u64> = config.members.iter().map(|member| member.id.0).collect();
        assert_eq!(ids, [1, 2, 3]);
        assert_eq!(config.members[1].client, "127.0.0.1:7470");
        assert_eq!(config.require_loopback(), Ok(()));
        assert_eq!((config.raft, config.storage), (RaftConfig::default(), StorageConfig::default()), "it documents the defaults");
    }

    #[test]
    fn what_is_printed_is_the_same_configuration_with_every_default_spelled_out() {
        let config = Config::parse(&format!("{}[raft]\nelection_timeout_max = \"2s 500ms\"\n", three())).expect("valid");
        let text = config.to_toml().expect("a valid configuration");
        assert_eq!(Config::parse(&text), Ok(config), "{text}");
        for line in ["heartbeat_interval = \"250ms\"", "data_dir = \"quorate-data\"", "cache = "] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    /// An identity that is written with more could not be read again.
    #[test]
    fn a_node_id_above_the_bound_of_all_numbers_is_refused_with_both_sides() {
        let with = |id: u64| format!("name = \"test\"\n{}", node(1).replace("id = 1", &format!("id = {id}")));
        Config::parse(&with(NUMBER_MAX)).expect("within");
        let beyond = refused(&with(NUMBER_MAX + 1));
        assert!(beyond.contains("node id must be at most 4611686018427387904: id=4611686018427387905"), "{beyond}");
    }

    #[test]
    fn members_are_ordered_by_id_and_the_hash_does_not_see_their_order() {
        let forward = Config::parse(&three()).expect("valid");
        let backward = Config::parse(&format!("name = \"test\"\n{}{}{}", node(3), node(1), node(2))).expect("valid");
        assert_eq!(forward, backward);
        assert_eq!(forward.configuration_hash(), backward.configuration_hash());
    }

    #[test]
    fn the_hash_is_the_same_in_every_release_and_sees_name_and_addresses_but_not_tuning() {
        let config = Config::parse(&three()).expect("valid");
        assert_eq!(config.configuration_hash(), 0x8143_ae81_2af7_3e93, "a node of an older release would refuse this one");
        let tuned = Config::parse(&format!("{}[raft]\nheartbeat_interval = \"100ms\"\n", three())).expect("valid");
        assert_eq!(tuned.configuration_hash(), config.configuration_hash());
        let renamed = Config::parse(&three().replace("test", "prod")).expect("valid");
        assert_ne!(renamed.configuration_hash(), config.configuration_hash());
        let moved = Config::parse(&three().replace("7481", "7491")).expect("valid");
        assert_ne!(moved.configuration_hash(), config.configuration_hash());
    }

    #[test]
    fn an_unknown_key_is_refused_by_name_and_line() {
        let text = format!("{}[raft]\nheartbeat = \"1s\"\n", three());
        let message = refused(&text);
        assert!(message.contains("unknown field `heartbeat`") && message.starts_with("line 18"), "{message}");
        assert!(!message.contains('\n'), "one line: {message}");
    }

    #[test]
    fn relations_between_durations_name_both_sides() {
        let text = format!("{}[raft]\nheartbeat_interval = \"500ms\"\n", three());
        assert_eq!(refused(&text), "raft.election_timeout_min=1s must be at least 3 * raft.heartbeat_interval=500ms");
        let text = format!("{}[raft]\nelection_timeout_max = \"1s\"\n", three());
        assert_eq!(refused(&text), "raft.election_timeout_max=1s must exceed raft.election_timeout_min=1s");
    }

    #[test]
    fn sizes_out_of_range_are_refused() {
        assert!(refused(&format!("{}[storage]\ncache = \"1KiB\"\n", three())).starts_with("storage.cache=1.0 KiB must be between"));
    }

    #[test]
    fn a_name_id_or_address_that_cannot_work_is_refused() {
        assert!(refused("name = \"x\"").contains("1 to 16 [[node]] entries: found=0"));
        assert!(refused(&three().replace("\"test\"", "\"\"")).contains("name must have 1 to 64 bytes"));
        assert!(refused(&three().replace("id = 2", "id = 1")).contains("the same id: id=1"));
        assert!(refused(&three().replace("id = 2", "id = 0")).contains("at least 1"));
        assert!(refused(&three().replace("7471", "7470")).contains("node 2: peer=127.0.0.1:7470 is also client of node 2"));
        assert!(refused(&three().replace(":7471", "")).contains("node 2: peer must be host:port"));
        assert!(refused(&three().replace(":7471", ":0")).contains("port from 1 to 65535"));
        assert!(refused(&three().replace("127.0.0.1:7471", "http://a:1")).contains("node 2: peer must be host:port"));
    }

    #[test]
    fn an_address_others_can_reach_is_refused_by_key_unless_allowed() {
        let config = Config::parse(&three().replace("127.0.0.1:7471", "10.0.0.2:7471")).expect("valid");
        let message = config.require_loopback().expect_err("exposed").to_string();
        assert!(message.contains("node 2: peer=10.0.0.2:7471") && message.contains("--insecure"), "{message}");
        let loopback = Config::parse(&three().replace("127.0.0.1:7471", "[::1]:7471").replace("127.0.0.1:7461", "localhost:7461"));
        assert_eq!(loopback.expect("valid").require_loopback(), Ok(()));
    }

    /// A node's own address differs from the one it is reached at behind a container's published ports.
    #[test]
    fn a_node_may_listen_elsewhere_than_it_is_reached() {
        let apart = |keys: &str| three().replacen("id = 2\n", &format!("id = 2\n{keys}\n"), 1);
        let text = apart("client_listen = \"0.0.0.0:7460\"\npeer_listen = \"[::]:7461\"");
        let config = Config::parse(&text).expect("valid");
        let listens = config.members[1].listens();
        assert_eq!(listens, [("client_listen", "0.0.0.0:7460"), ("peer_listen", "[::]:7461"), ("admin", "127.0.0.1:7472")]);
        assert_eq!(
            config.configuration_hash(),
            Config::parse(&three()).expect("valid").configuration_hash(),
            "no other node cares"
        );
        assert_eq!(Config::parse(&config.to_toml().expect("valid")), Ok(config.clone()));
        let message = config.require_loopback().expect_err("exposed").to_string();
        assert!(message.starts_with("node 2: client_listen=0.0.0.0:7460"), "{message}");
        for (keys, why) in [
            ("client_listen = \"0.0.0.0\"", "node 2: client_listen must be host:port"),
            (
                "client_listen = \"0.0.0.0:1\"\npeer_listen = \"0.0.0.0:1\"",
                "node 2: peer_listen=0.0.0.0:1 is also its client_listen",
            ),
            ("admin_listen = \"127.0.0.1:7470\"", "node 2: admin_listen=127.0.0.1:7470 is also its client"),
            ("listen = \"0.0.0.0:1\"", "unknown field `listen`"),
        ] {
            assert!(refused(&apart(keys)).contains(why), "{}", refused(&apart(keys)));
        }
        for nowhere in ["0.0.0.0:7470", "[::]:7470"] {
            let message = refused(&three().replace("127.0.0.1:7470", nowhere));
            assert!(message.starts_with("node 2: client is where the others connect to") && message.contains("client_listen"));
        }
    }

    #[test]
    fn a_node_that_is_not_configured_is_named_with_those_that_are() {
        let config = Config::parse(&three()).expect("valid");
        assert_eq!(config.member(NodeId(9)).expect_err("none").to_string(), "no [[node]] has this id: id=9 configured=1,2,3");
        assert_eq!(config.node_dir(NodeId(2)), Path::new("quorate-data/2"));
    }
}
