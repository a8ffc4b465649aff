//! Proxies between nodes: a separate one for every ordered pair, so that each direction of each pair can be treated
//! apart, without privileges, on any system.
//!
//! A node that does not run has no proxy listening: a connection to it is refused, as it is without a proxy.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::testing::inline::SeededRandom;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

/// Chunks on their way, in each direction of a connection.
const CHUNKS_MAX: usize = 64;
const CHUNK_BYTES: usize = 32 << 10;

/// How bytes from one node to another fare.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rule {
    /// Nothing arrives, until it does again: as with TCP over a network that drops all.
    pub stalled: bool,
    /// Everything arrives so much later.
    pub delay: Duration,
    /// Of a hundred chunks, so many have to be sent again; and a tenth of that loses the connection.
    pub loss_percent: u64,
}

/// Both directions of an ordered pair of nodes: who dials, and who listens.
type Pair = (usize, usize);

/// All proxies of a cluster.
pub struct Proxies {
    listening: BTreeMap<Pair, JoinHandle<()>>,
    ports: BTreeMap<Pair, u16>,
    targets: BTreeMap<usize, SocketAddr>,
    rules: BTreeMap<Pair, watch::Sender<Rule>>,
    /// Chunks that a rule held back.
    affected: Arc<AtomicU64>,
    random: Arc<SeededRandom>,
}

impl Proxies {
    /// Between nodes that listen there. Nothing listens yet. Errors: no free ports.
    pub fn new(
        targets: BTreeMap<usize, SocketAddr>,
        mut ports: impl FnMut() -> std::io::Result<u16>,
        seed: u64,
    ) -> std::io::Result<Self> {
        let mut proxies = Self {
            listening: BTreeMap::new(),
            ports: BTreeMap::new(),
            rules: BTreeMap::new(),
            affected: Arc::default(),
            random: Arc::new(SeededRandom::new(seed)),
            targets,
        };
        let nodes: Vec<usize> = proxies.targets.keys().copied().collect();
        for (from, to) in nodes.iter().flat_map(|from| nodes.iter().map(|to| (*from, *to))).filter(|(from, to)| from != to) {
            proxies.ports.insert((from, to), ports()?);
            proxies.rules.insert((from, to), watch::Sender::new(Rule::default()));
        }
        Ok(proxies)
    }

    /// Where `from` reaches the others.
    pub fn ways(&self, from: usize) -> Vec<(usize, String)> {
        self.ports
            .iter()
            .filter(|((dialer, _), _)| *dialer == from)
            .map(|((_, to), port)| (*to, format!("127.0.0.1:{port}")))
            .collect()
    }

    /// The port through which `from` dials `to`.
    pub fn port(&self, pair: Pair) -> u16 {
        self.ports[&pair]
    }

    /// Every ordered pair.
    pub fn pairs(&self) -> Vec<Pair> {
        self.ports.keys().copied().collect()
    }

    /// Connections to `node` are taken from now on. Errors: a port is in use.
    pub async fn open(&mut self, node: usize) -> std::io::Result<()> {
        for (from, to) in self.pairs().into_iter().filter(|(_, to)| *to == node) {
            // The one before has the port until its task has ended.
            if let Some(before) = self.listening.remove(&(from, to)) {
                before.abort();
                let _ = before.await;
            }
            let listener = TcpListener::bind(("127.0.0.1", self.ports[&(from, to)])).await?;
            let rules = [(from, to), (to, from)].map(|pair| self.rules[&pair].subscribe());
            let way = Way::new(self.targets[&to].to_string(), rules);
            let way = Way { affected: self.affected.clone(), random: self.random.clone(), ..way };
            self.listening.insert((from, to), tokio::spawn(way.serve(listener)));
        }
        Ok(())
    }

    /// Connections to `node` are refused from now on; those there are end with the node.
    pub fn close(&mut self, node: usize) {
        self.listening.iter().filter(|((_, to), _)| *to == node).for_each(|(_, task)| task.abort());
    }

    /// Sets how bytes fare from the first to the second of each pair.
    pub fn set(&self, pairs: &[Pair], rule: Rule) {
        for pair in pairs {
            self.rules[pair].send_replace(rule);
        }
    }

    /// All is well again.
    pub fn heal(&self) {
        for rule in self.rules.values() {
            rule.send_replace(Rule::default());
        }
    }

    /// Chunks that a rule held back, ever.
    pub fn affected(&self) -> u64 {
        self.affected.load(Ordering::Relaxed)
    }
}

/// From one node to another.
#[derive(Clone)]
pub(in crate::testing) struct Way {
    target: Arc<str>,
    there: watch::Receiver<Rule>,
    back: watch::Receiver<Rule>,
    affected: Arc<AtomicU64>,
    random: Arc<SeededRandom>,
}

impl Way {
    /// To what listens there, as the rules of both directions say.
    pub fn new(target: impl Into<Arc<str>>, [there, back]: [watch::Receiver<Rule>; 2]) -> Self {
        Self { target: target.into(), there, back, affected: Arc::default(), random: Arc::new(SeededRandom::new(0)) }
    }

    /// Until the listener fails.
    pub async fn serve(self, listener: TcpListener) {
        // Connections outlive the listener: the target's death ends them, not ours.
        while let Ok((dialer, _)) = listener.accept().await {
            tokio::spawn(self.clone().connection(dialer));
        }
    }

    async fn connection(mut self, dialer: TcpStream) {
        // A packet lost on either way keeps a connection from being made.
        if self.there.borrow().stalled || self.back.borrow().stalled {
            self.affected.fetch_add(1, Ordering::Relaxed);
        }
        let _ = self.there.wait_for(|rule| !rule.stalled).await;
        let _ = self.back.wait_for(|rule| !rule.stalled).await;
        let Ok(target) = TcpStream::connect(&*self.target).await else { return };
        let (Ok(()), Ok(())) = (dialer.set_nodelay(true), target.set_nodelay(true)) else { return };
        let (from_dialer, to_dialer) = dialer.into_split();
        let (from_target, to_target) = target.into_split();
        let mut ways = JoinSet::new();
        ways.spawn(self.clone().carry(from_dialer, to_target, self.there.clone()));
        ways.spawn(self.clone().carry(from_target, to_dialer, self.back.clone()));
        // Either end closed, or the connection was lost: both ways end.
        ways.join_next().await;
    }

    async fn carry(
        self,
        mut from: tokio::net::tcp::OwnedReadHalf,
        mut to: tokio::net::tcp::OwnedWriteHalf,
        mut rule: watch::Receiver<Rule>,
    ) {
        let (sender, mut receiver) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS_MAX);
        let arriving = rule.clone();
        let read = async move {
            let mut buffer = vec![0; CHUNK_BYTES];
            while let Ok(count @ 1..) = from.read(&mut buffer).await {
                let due = Instant::now() + arriving.borrow().delay;
                if sender.send((due, buffer[..count].to_vec())).await.is_err() {
                    return;
                }
            }
        };
        let write = async {
            while let Some((due, bytes)) = receiver.recv().await {
                if self.hold_back(due, &mut rule).await.is_err() || to.write_all(&bytes).await.is_err() {
                    return;
                }
            }
        };
        // What was read is written before the end is passed on; what can't be written need not be read.
        tokio::select! {
            () = write => {}
            () = async { read.await; std::future::pending().await } => {}
        }
    }

    /// Waits as the rule says. Errors: the connection is lost.
    async fn hold_back(&self, due: Instant, rule: &mut watch::Receiver<Rule>) -> Result<(), ()> {
        let now = *rule.borrow();
        if now != Rule::default() {
            self.affected.fetch_add(1, Ordering::Relaxed);
        }
        tokio::time::sleep_until(due).await;
        if self.random.below(100) < now.loss_percent {
            if self.random.below(10) == 0 {
                return Err(());
            }
            // A retransmission.
            tokio::time::sleep(Duration::from_millis(200 + self.random.below(200))).await;
        }
        rule.wait_for(|rule| !rule.stalled).await.map(drop).map_err(drop)
    }
}
