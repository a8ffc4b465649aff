//! How a client reaches the cluster: by every node, or by one only, so that what another node has to do travels by way of that one.

use std::sync::Arc;
use std::time::Duration;

use quorate::client::{Builder, Client, Connecting, Connector, DialError, Tcp};
use quorate::testing::history::{Answer, Op};
use tonic::transport::Endpoint;

use crate::chaos::args::Options;
use crate::chaos::load::{AGENTS, CALLERS};

/// Of so many clients one is pinned to one node.
const PINNED_EVERY: usize = 3;

/// The nodes that a client reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    endpoints: Vec<String>,
    is_pinned: bool,
}

impl Reach {
    /// All of these.
    pub fn any(endpoints: &[String]) -> Self {
        Self { endpoints: endpoints.to_vec(), is_pinned: false }
    }

    /// This one, whatever it says of others.
    pub fn only(endpoint: &str) -> Self {
        Self { endpoints: vec![endpoint.to_owned()], is_pinned: true }
    }

    /// Of the caller or the agent with this number. Those that are pinned are spread over the nodes, by the seed: one of them leads.
    pub fn of(number: usize, options: &Options, endpoints: &[String]) -> Self {
        if !is_pinned(number, options) {
            return Self::any(endpoints);
        }
        let first = options.seed % endpoints.len() as u64;
        Self::only(&endpoints[(first as usize + number / PINNED_EVERY) % endpoints.len()])
    }

    /// Whether it is one node.
    pub fn is_pinned(&self) -> bool {
        self.is_pinned
    }

    /// A client's, which begins with the endpoint of this number.
    pub fn builder(&self, first: usize) -> Builder {
        let mut endpoints = self.endpoints.clone();
        endpoints.rotate_left(first % self.endpoints.len());
        let builder = Client::builder().endpoints(endpoints);
        match self.is_pinned {
            true => builder.connector(Arc::new(Only { endpoint: self.endpoints[0].clone(), tcp: Tcp::default() })),
            false => builder,
        }
    }
}

/// Whether a caller or an agent is pinned. The first is not: somebody must be able to save wherever that is possible. Where calls are
/// bounded none is: a client whose only node is away can only wait.
pub fn is_pinned(number: usize, options: &Options) -> bool {
    options.call_max.is_none() && number % PINNED_EVERY == 1
}

/// How many callers and agents are pinned.
pub fn pinned(options: &Options) -> usize {
    (0..CALLERS).chain(0..AGENTS).filter(|number| is_pinned(*number, options)).count()
}

/// How many writes of pinned callers were acknowledged.
pub fn acknowledged(ops: &[Op], options: &Options) -> usize {
    let of_pinned = |op: &&Op| op.client < CALLERS && is_pinned(op.client, options);
    ops.iter().filter(of_pinned).filter(|op| matches!(op.answer, Answer::Written { .. })).count()
}

/// Connects to one endpoint; nothing else is there.
struct Only {
    endpoint: String,
    tcp: Tcp,
}

impl Connector for Only {
    fn connect(&self, endpoint: Endpoint, within: Duration) -> Connecting {
        let uri = endpoint.uri();
        let is_it = format!("{}:{}", uri.host().unwrap_or_default(), uri.port_u16().unwrap_or_default()) == self.endpoint;
        if is_it {
            self.tcp.connect(endpoint, within)
        } else {
            Box::pin(async { Err(DialError::unreachable("pinned to another node")) })
        }
    }
}

#[test]
fn a_third_of_the_clients_is_pinned_to_nodes_in_turn_but_for_the_first_and_where_calls_are_bounded() {
    let endpoints: Vec<String> = (1..=3).map(|node| format!("127.0.0.1:{node}")).collect();
    let mut options = Options::small("x".into());
    let pinned_to = |options: &Options, number: usize| {
        let reach = Reach::of(number, options, &endpoints);
        reach.is_pinned().then(|| reach.endpoints.concat())
    };
    let all: Vec<Option<String>> = (0..CALLERS).map(|number| pinned_to(&options, number)).collect();
    assert_eq!(pinned(&options), (CALLERS + AGENTS) / 3);
    assert_eq!(all[0], None);
    let mut nodes: Vec<&String> = all.iter().flatten().collect();
    nodes.sort();
    assert_eq!(nodes, endpoints.iter().collect::<Vec<_>>(), "each node has one caller of its own");
    options.call_max = Some(Duration::from_secs(5));
    assert_eq!((pinned(&options), pinned_to(&options, 1)), (0, None));
}

#[tokio::test]
async fn a_pinned_client_dials_no_other_node() {
    let only = Only { endpoint: "127.0.0.1:1".to_owned(), tcp: Tcp::default() };
    let dial =
        |address: &str| only.connect(Endpoint::from_shared(format!("http://{address}")).expect("valid"), Duration::from_secs(5));
    let refused = dial("127.0.0.1:2").await.expect_err("another node");
    assert!(refused.text.contains("pinned"), "{refused:?}");
    // Nobody listens there, which is another reason.
    let refused = dial("127.0.0.1:1").await.expect_err("no listener");
    assert!(!refused.text.contains("pinned"), "{refused:?}");
}
