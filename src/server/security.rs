//! Certificates and tokens of a running node: read when it starts, and again while it runs.
//!
//! The files are read every [`RELOAD_INTERVAL`]. Changed certificates are put in force for new connections, and tokens for open ones too.
//! A file that can't be used leaves the last good one in force, and is reported: in the log once, in `/readyz?verbose` and in the metrics
//! for as long as it lasts. A signal would be one more thing to remember, and would not find the files of a mounted secret (decision 0045);
//! it reloads at once all the same, and the log shows the result.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::MissedTickBehavior;

use super::auth::{Guard, Tokens};
use super::config::{ClientCerts, Config, TlsConfig};
use crate::env::{Clock, read_file};
use crate::raft::Node;
use crate::tls::{self, Acceptor, ClientCertificates, Hosts, Identity, Port, Roots, TlsConnector, Validity, host_of};
use crate::types::NodeId;

/// How often the files are looked at.
const RELOAD_INTERVAL: Duration = Duration::from_secs(2);
/// Largest file of certificates, of a key or of tokens.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// A certificate that ends so soon is reported.
pub const EXPIRES_SOON: Duration = Duration::from_secs(14 * 24 * 3600);

/// The state of the credentials in force; for health and metrics.
#[derive(Debug, Default)]
pub struct State {
    /// Why what the files hold now is not in force.
    problem: Mutex<Option<String>>,
    /// Of this node's certificate, in seconds since the Unix epoch; 0: it has none.
    not_after: AtomicU64,
    reloads: AtomicU64,
    /// Connections that were no TLS or had nothing to show that is believed: of the client, peer and admin port.
    pub refused: [Arc<AtomicU64>; 3],
}

/// The [`State`] at one instant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Why what the files hold now is not in force.
    pub problem: Option<String>,
    /// The last second of this node's certificate since the Unix epoch, if it has one.
    pub not_after: Option<u64>,
    /// How often something else was put in force.
    pub reloads: u64,
    /// Of the client, peer and admin port.
    pub refused: [u64; 3],
}

impl State {
    pub fn report(&self) -> Report {
        let not_after = self.not_after.load(Ordering::Relaxed);
        Report {
            problem: self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            not_after: (not_after > 0).then_some(not_after),
            reloads: self.reloads.load(Ordering::Relaxed),
            refused: self.refused.each_ref().map(|refused| refused.load(Ordering::Relaxed)),
        }
    }
}

/// TLS of the three ports, and of connections to peers.
#[derive(Clone)]
pub struct Ports {
    pub client: Acceptor,
    pub peer: Acceptor,
    pub admin: Acceptor,
    pub connector: TlsConnector,
    hosts: Hosts,
}

/// The credentials of one node.
pub struct Security {
    pub guard: Guard,
    pub ports: Option<Ports>,
    pub state: Arc<State>,
    files: Files,
    seen: Contents,
    configured: BTreeSet<String>,
    clock: Arc<dyn Clock>,
    asked: Arc<Notify>,
}

/// Asks a running node to read its certificates and tokens at once.
#[derive(Clone)]
pub struct Reload(Arc<Notify>);

impl Reload {
    /// Reads the files now. The result is in the log.
    pub fn ask(&self) {
        self.0.notify_one();
    }
}

impl Security {
    /// Reads what the configuration names for this node. Errors: one line that names the file; nothing was started.
    pub fn load(config: &Config, node: NodeId, clock: Arc<dyn Clock>) -> Result<Self, String> {
        let files = Files::of(config, node)?;
        let seen = files.read()?;
        let configured: BTreeSet<String> = config.members.iter().map(|member| host_of(&member.peer).to_owned()).collect();
        let state = Arc::new(State::default());
        let (mut ports, mut tokens) = (None, None);
        if let (Some(tls), Some(parsed)) = (&files.tls, files.parse_tls(&seen, &*clock)?) {
            let hosts = Hosts::default();
            hosts.set(configured.clone());
            ports = Some(Ports::new(tls, &parsed, hosts, &clock)?);
            state.not_after.store(parsed.validity.not_after, Ordering::Relaxed);
        }
        if let Some(path) = &files.tokens {
            tokens = Some(parse_tokens(path, &seen)?);
        }
        let guard = Guard::new(tokens, clock.clone());
        Ok(Self { guard, ports, state, files, seen, configured, clock, asked: Arc::default() })
    }

    /// Keeps what is in force current until `stop`; its spawner joins it.
    pub async fn run(mut self, node: Node, mut stop: watch::Receiver<bool>) {
        let mut tick = tokio::time::interval(RELOAD_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !*stop.borrow() {
            let asked = tokio::select! {
                _ = tick.tick(), if self.watches() => false,
                () = self.asked.notified() => true,
                _ = stop.changed() => continue,
            };
            if !self.watches() {
                tracing::info!("asked to read certificates and tokens again: none are configured");
                continue;
            }
            self.follow_members(&node);
            let before = self.state.report().reloads;
            let files = self.files.clone();
            match tokio::task::spawn_blocking(move || files.read()).await {
                Ok(Ok(contents)) if contents == self.seen && self.state.report().problem.is_none() => {}
                Ok(Ok(contents)) => self.on_change(contents, &node),
                Ok(Err(why)) => self.tell(Some(why), &node),
                Err(_) => return,
            }
            if asked {
                self.answer(before);
            }
        }
    }

    /// How a node is asked to read the files at once.
    pub fn reload(&self) -> Reload {
        Reload(self.asked.clone())
    }

    /// Logs the result of a requested reload, even if nothing is new.
    fn answer(&self, before: u64) {
        let report = self.state.report();
        match report.problem {
            Some(problem) => {
                tracing::warn!(problem, "asked to read certificates and tokens again: the last good ones stay in force");
            }
            None => tracing::info!(changed = report.reloads - before, "asked to read certificates and tokens again: done"),
        }
    }

    fn watches(&self) -> bool {
        self.files.tls.is_some() || self.files.tokens.is_some()
    }

    /// A member that joined may connect, wherever its host.
    fn follow_members(&self, node: &Node) {
        if let Some(ports) = &self.ports {
            let members = node.members().into_iter().map(|member| host_of(&member.peer_address).to_owned());
            ports.hosts.set(self.configured.iter().cloned().chain(members).collect());
        }
    }

    /// Puts in force what can be; tokens and certificates each for themselves.
    fn on_change(&mut self, contents: Contents, node: &Node) {
        let tls = if contents.tls() == self.seen.tls() { Ok(false) } else { self.change_tls(&contents) };
        let tokens = if contents.tokens == self.seen.tokens { Ok(false) } else { self.change_tokens(&contents) };
        for what in [("certificates", &tls), ("tokens", &tokens)] {
            if let (what, Ok(true)) = what {
                self.state.reloads.fetch_add(1, Ordering::Relaxed);
                tracing::info!(what, "read again, and in force");
                node.events().note("credentials", format!("{what} were read again"));
            }
        }
        // What can't be used is not taken as seen, so that it is tried until it can.
        match &tls {
            Ok(_) => self.seen.take_tls(&contents),
            Err(why) => tracing::debug!(why, "the certificates can't be used"),
        }
        if tokens.is_ok() {
            self.seen.tokens = contents.tokens;
        }
        self.tell(tls.err().or(tokens.err()), node);
    }

    fn change_tls(&self, contents: &Contents) -> Result<bool, String> {
        let (Some(tls), Some(ports)) = (&self.files.tls, &self.ports) else { return Ok(false) };
        let Some(parsed) = self.files.parse_tls(contents, &*self.clock)? else { return Ok(false) };
        ports.replace(tls, &parsed, &self.clock)?;
        self.state.not_after.store(parsed.validity.not_after, Ordering::Relaxed);
        Ok(true)
    }

    fn change_tokens(&self, contents: &Contents) -> Result<bool, String> {
        let Some(path) = &self.files.tokens else { return Ok(false) };
        self.guard.replace(parse_tokens(path, contents)?);
        Ok(true)
    }

    fn tell(&self, problem: Option<String>, node: &Node) {
        let mut known = self.state.problem.lock().unwrap_or_else(PoisonError::into_inner);
        if *known == problem {
            return;
        }
        match &problem {
            Some(problem) => {
                tracing::warn!(problem, "changed credentials can't be used, the last good ones stay in force");
                node.events().note("credentials", format!("can't be used, the last good ones stay in force: {problem}"));
            }
            None => tracing::info!("the credentials are good again"),
        }
        *known = problem;
    }
}

/// The paths, for one node.
#[derive(Clone, Debug)]
struct Files {
    tls: Option<TlsConfig>,
    tokens: Option<PathBuf>,
    node: NodeId,
    /// Where its peers reach this node.
    host: String,
}

/// The contents of the files.
#[derive(Clone, Default, PartialEq, Eq)]
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    cas: Vec<u8>,
    client_cas: Vec<u8>,
    tokens: Vec<u8>,
}

impl Contents {
    fn tls(&self) -> [&[u8]; 4] {
        [&self.certificate, &self.key, &self.cas, &self.client_cas]
    }

    fn take_tls(&mut self, other: &Self) {
        let tokens = std::mem::take(&mut self.tokens);
        *self = Self { tokens, ..other.clone() };
    }
}

/// Certificates that fit each other, and the node.
struct Parsed {
    identity: Identity,
    peers: Roots,
    clients: Roots,
    validity: Validity,
}

impl Files {
    fn of(config: &Config, node: NodeId) -> Result<Self, String> {
        let member = config.member(node).map_err(|error| error.to_string())?;
        let tls = config.tls.as_ref().map(|tls| tls.of_node(node));
        let tokens = config.auth.as_ref().map(|auth| auth.tokens.clone());
        Ok(Self { tls, tokens, node, host: host_of(&member.peer).to_owned() })
    }

    fn read(&self) -> Result<Contents, String> {
        let read = |path: &Path| {
            let error = |error| format!("can't read a file of [tls] or [auth]: {error} path={}", path.display());
            read_file(path, FILE_BYTES_MAX).map_err(error)
        };
        let mut contents = Contents::default();
        if let Some(TlsConfig { cert, key, ca, client_ca, .. }) = &self.tls {
            (contents.certificate, contents.key, contents.cas) = (read(cert)?, read(key)?, read(ca)?);
            contents.client_cas = read(client_ca.as_ref().unwrap_or(ca))?;
        }
        if let Some(tokens) = &self.tokens {
            contents.tokens = read(tokens)?;
        }
        Ok(contents)
    }

    fn parse_tls(&self, contents: &Contents, clock: &dyn Clock) -> Result<Option<Parsed>, String> {
        let Some(tls) = &self.tls else { return Ok(None) };
        let of = |path: &Path, error: tls::Error| format!("{error} path={}", path.display());
        let identity = Identity::from_pem(&contents.certificate, &contents.key).map_err(|error| of(&tls.cert, error))?;
        let peers = Roots::from_pem(&contents.cas).map_err(|error| of(&tls.ca, error))?;
        let clients = tls.client_ca.as_ref().unwrap_or(&tls.ca);
        let clients = Roots::from_pem(&contents.client_cas).map_err(|error| of(clients, error))?;
        let odd = || format!("the certificate's validity can't be read path={}", tls.cert.display());
        let validity = Validity::of(&identity).ok_or_else(odd)?;
        let now_s = clock.wall_ms() / 1000;
        if now_s < validity.not_before || now_s > validity.not_after {
            return Err(format!("{} path={}", not_now(&validity, now_s), tls.cert.display()));
        }
        tls::check_member(&identity, &peers, self.node.0, &self.host, clock.wall_ms()).map_err(|error| of(&tls.cert, error))?;
        Ok(Some(Parsed { identity, peers, clients, validity }))
    }
}

/// Why a certificate is not good at this second since the Unix epoch.
fn not_now(validity: &Validity, now_s: u64) -> String {
    let apart = |s: u64| match s.abs_diff(now_s) / 86_400 {
        0 => "less than a day".to_owned(),
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    };
    let Validity { not_before, not_after } = *validity;
    match now_s > not_after {
        true => format!("the certificate expired on {}, {} ago; renew it", tls::day(not_after), apart(not_after)),
        false => format!(
            "the certificate is valid only from {} on, which is {} from now by this machine's clock; check the clock",
            tls::day(not_before),
            apart(not_before)
        ),
    }
}

impl Ports {
    fn new(tls: &TlsConfig, parsed: &Parsed, hosts: Hosts, clock: &Arc<dyn Clock>) -> Result<Self, String> {
        let acceptor = |port: Port| Acceptor::new(&parsed.identity, &port, clock.clone()).map_err(|error| error.to_string());
        let [client, peer, admin] = ports(tls, parsed, &hosts);
        let connector =
            TlsConnector::new(&parsed.peers, Some(&parsed.identity), clock.clone()).map_err(|error| error.to_string())?;
        Ok(Self { client: acceptor(client)?, peer: acceptor(peer)?, admin: acceptor(admin)?, connector, hosts })
    }

    fn replace(&self, tls: &TlsConfig, parsed: &Parsed, clock: &Arc<dyn Clock>) -> Result<(), String> {
        // Made again once first: then putting it in force can't fail halfway.
        let _ = Self::new(tls, parsed, self.hosts.clone(), clock)?;
        let replace = |acceptor: &Acceptor, port: Port| acceptor.replace(&parsed.identity, &port, clock.clone());
        let [client, peer, admin] = ports(tls, parsed, &self.hosts);
        replace(&self.client, client)
            .and_then(|()| replace(&self.peer, peer))
            .and_then(|()| replace(&self.admin, admin))
            .and_then(|()| self.connector.replace(&parsed.peers, Some(&parsed.identity), clock.clone()))
            .map_err(|error| error.to_string())
    }
}

fn ports(tls: &TlsConfig, parsed: &Parsed, hosts: &Hosts) -> [Port; 3] {
    let clients = match tls.client_certs {
        ClientCerts::None => ClientCertificates::None,
        ClientCerts::Request => ClientCertificates::Request(parsed.clients.clone()),
        ClientCerts::Require => ClientCertificates::Require(parsed.clients.clone()),
    };
    [Port::Client(clients), Port::Peer(parsed.peers.clone(), hosts.clone()), Port::Admin]
}

fn parse_tokens(path: &Path, contents: &Contents) -> Result<Tokens, String> {
    let text = std::str::from_utf8(&contents.tokens).map_err(|_| format!("the tokens file is no text path={}", path.display()))?;
    Tokens::parse(text).map_err(|error| format!("{}: {error}", path.display()))
}

/// Checks the files that the configuration names for this node: they exist, fit each other and the node, and are valid now.
///
/// Errors: one line that names the file.
pub fn check(config: &Config, node: NodeId, clock: Arc<dyn Clock>) -> Result<(), super::StartError> {
    Security::load(config, node, clock).map(drop).map_err(super::StartError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_is_not_good_now_is_reported_with_dates() {
        const DAY: u64 = 86_400;
        let validity = Validity { not_before: 1_787_263_611, not_after: 1_795_043_211 };
        let text = |now_s| not_now(&validity, now_s);
        assert_eq!(text(1_795_907_211), "the certificate expired on 2026-11-18, 10 days ago; renew it".to_owned());
        assert!(text(1_795_043_212).contains("less than a day ago"), "{}", text(1_795_043_212));
        assert!(text(1_795_043_211 + DAY).contains(", 1 day ago"), "{}", text(1_795_043_211 + DAY));
        let early = text(1_787_263_611 - 3 * DAY);
        assert!(
            early.contains("only from 2026-08-20 on") && early.contains("3 days from now") && early.contains("clock"),
            "{early}"
        );
        let odd = not_now(&Validity { not_before: u64::MAX, not_after: u64::MAX }, 0);
        assert!(odd.contains("9999-12-31"), "{odd}");
    }
}
