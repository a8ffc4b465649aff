//! Building a client: validates, connects nothing.

use std::sync::Arc;
use std::time::Duration;

use super::connection::{self, Connector, Tcp};
use super::driver::Config;
use super::handle::Handle;
use super::{Client, Error};
use crate::env::{Clock, Random, SystemClock, SystemRandom};
use crate::limits::{ADDRESS_BYTES_MAX, NODES_MAX, WRITE_DEADLINE_MAX};

/// What a client is built from.
#[must_use = "a builder does nothing until it is built"]
pub struct Builder {
    endpoints: Vec<String>,
    write_deadline: Duration,
    read_deadline: Duration,
    connect_timeout: Duration,
    connector: Arc<dyn Connector>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            write_deadline: Duration::from_secs(15),
            read_deadline: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(2),
            connector: Arc::new(Tcp),
            clock: Arc::new(SystemClock::new()),
            random: Arc::new(SystemRandom),
        }
    }
}

impl Builder {
    /// Client addresses of some or all nodes, `host:port` each; any of them will do, hints lead to the others.
    pub fn endpoints<E: Into<String>>(mut self, endpoints: impl IntoIterator<Item = E>) -> Self {
        self.endpoints = endpoints.into_iter().map(Into::into).collect();
        self
    }

    /// How long a write may take with all its retries; 15 s, at most 120 s.
    pub fn write_deadline(mut self, deadline: Duration) -> Self {
        self.write_deadline = deadline;
        self
    }

    /// How long a read may take with all its retries; 5 s, at most 120 s.
    pub fn read_deadline(mut self, deadline: Duration) -> Self {
        self.read_deadline = deadline;
        self
    }

    /// How long to wait for one connection; 2 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Replaces how connections are opened, for a simulation.
    #[doc(hidden)]
    pub fn connector(mut self, connector: Arc<dyn Connector>) -> Self {
        self.connector = connector;
        self
    }

    /// Replaces time and entropy, for a simulation. The clock must go with tokio's.
    #[doc(hidden)]
    pub fn env(mut self, clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Self {
        (self.clock, self.random) = (clock, random);
        self
    }

    /// The client. It connects with the first call, on the runtime of that call.
    ///
    /// Errors: `Invalid`, naming what is wrong and both sides.
    pub fn build(self) -> Result<Client, Error> {
        let endpoints = self.endpoints.iter().map(|endpoint| address(endpoint)).collect::<Result<Vec<_>, _>>()?;
        if endpoints.is_empty() || endpoints.len() > NODES_MAX {
            return Err(Error::invalid(format!("endpoints are out of range endpoints={} min=1 max={NODES_MAX}", endpoints.len())));
        }
        for (name, value) in [("write_deadline", self.write_deadline), ("read_deadline", self.read_deadline)] {
            if value.is_zero() || value > WRITE_DEADLINE_MAX {
                return Err(Error::invalid(format!("{name} is out of range {name}={value:?} max={WRITE_DEADLINE_MAX:?}")));
            }
        }
        if self.connect_timeout.is_zero() {
            return Err(Error::invalid("connect_timeout must be above 0s connect_timeout=0s"));
        }
        let config = Config {
            endpoints,
            write_deadline: self.write_deadline,
            read_deadline: self.read_deadline,
            connect_timeout: self.connect_timeout,
            connector: self.connector,
            clock: self.clock,
            random: self.random,
        };
        Ok(Client { handle: Handle::new(config), cache: Arc::default(), adapter: Arc::default() })
    }
}

/// `host:port`, from that or from `http://host:port/`.
fn address(endpoint: &str) -> Result<String, Error> {
    let invalid = |why: &str| Error::invalid(format!("endpoint {why} endpoint={endpoint:?}"));
    let address = endpoint.trim().trim_start_matches("http://").trim_end_matches('/');
    if address.len() > ADDRESS_BYTES_MAX {
        return Err(invalid("is too long"));
    }
    let port = address
        .rsplit_once(':')
        .filter(|(host, _)| !host.is_empty() && !host.contains(['/', '@']))
        .map(|(_, port)| port.parse::<u16>());
    if !matches!(port, Some(Ok(port)) if port > 0) || connection::endpoint(address).is_err() {
        return Err(invalid("is not host:port"));
    }
    Ok(address.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::ErrorKind;
    use super::*;

    #[test]
    fn building_checks_and_connects_nothing() {
        assert!(Client::builder().endpoints(["127.0.0.1:1", "http://[::1]:7460/", "node-1.example:7460"]).build().is_ok());
        for endpoint in ["", "host", ":7460", "host:", "host:0", "host:99999", "a b:1", "https://host:1", "host:1/path"] {
            let error = Client::builder().endpoints([endpoint]).build().expect_err(endpoint);
            assert_eq!(error.kind(), ErrorKind::Invalid, "{endpoint}");
        }
        assert!(Client::builder().build().is_err());
        let valid = || Client::builder().endpoints(["a:1"]);
        assert!(valid().write_deadline(Duration::ZERO).build().is_err());
        assert!(valid().read_deadline(Duration::from_secs(121)).build().is_err());
        assert!(valid().connect_timeout(Duration::ZERO).build().is_err());
    }
}
