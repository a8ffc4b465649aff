//! Building a client: validates, connects nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::admin::AdminPort;
use super::config::Config;
use super::credentials::{Credentials, Secured, Tls};
use super::driver::connection::{Connector, Tcp};
use super::handle::Handle;
use super::{Client, Error};
use crate::env::{Clock, Random, SystemClock, SystemRandom, u64_from};
use crate::limits::{ADDRESS_BYTES_MAX, NODES_MAX, WRITE_DEADLINE_MAX};
use crate::mutant::{self, Mutant};
use crate::types::set_log_hash_key;

/// Builds a client.
#[must_use = "a builder does nothing until it is built"]
pub struct Builder {
    endpoints: Vec<String>,
    write_deadline: Duration,
    read_deadline: Duration,
    connect_timeout: Duration,
    connector: Arc<dyn Connector>,
    tls: Option<Tls>,
    token: Option<Token>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    /// Time and entropy are this process's own.
    is_real: bool,
}

enum Token {
    Text(String),
    File(PathBuf),
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            write_deadline: Duration::from_secs(15),
            read_deadline: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(2),
            connector: Arc::new(Tcp::default()),
            tls: None,
            token: None,
            clock: Arc::new(SystemClock::new()),
            random: Arc::new(SystemRandom),
            is_real: true,
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

    /// Connects by TLS, and to nothing else.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Shows this token with every call. Only with [`Builder::tls`]: on an open connection everyone on the way could read it.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(Token::Text(token.into()));
        self
    }

    /// The token of a file, read again with each new connection.
    pub fn token_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.token = Some(Token::File(path.into()));
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
        (self.clock, self.random, self.is_real) = (clock, random, false);
        self
    }

    /// The client. It connects with the first call, on the runtime of that call.
    ///
    /// Errors: `Invalid`, naming what is wrong and both sides.
    pub fn build(self) -> Result<Client, Error> {
        let secured = self.tls.is_some();
        let endpoints = self.endpoints.iter().map(|endpoint| address(endpoint, secured)).collect::<Result<Vec<_>, _>>()?;
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
        if self.is_real {
            // Of this process alone: who reads its logs and guesses ids can't make a table once for all.
            set_log_hash_key(u64_from(&*self.random));
        }
        let credentials = credentials(self.token, secured)?;
        let connector: Arc<dyn Connector> = match self.tls {
            None => self.connector,
            Some(tls) => Arc::new(Secured::new(tls, self.clock.clone())?),
        };
        let config = Config {
            endpoints,
            write_deadline: self.write_deadline,
            read_deadline: self.read_deadline,
            connect_timeout: self.connect_timeout,
            connector,
            credentials,
            clock: self.clock,
            random: self.random,
            seen: Default::default(),
        };
        Ok(Client { handle: Handle::new(config), cache: Arc::default(), adapter: Arc::default(), turns: Arc::default() })
    }
}

impl Builder {
    /// The admin port at the one endpoint, in place of a cluster's client ports. Errors: as [`Builder::build`].
    #[doc(hidden)]
    pub fn build_admin(self) -> Result<AdminPort, Error> {
        let secured = self.tls.is_some();
        let [endpoint] = &self.endpoints[..] else { return Err(Error::invalid("one address of an admin port is needed")) };
        let address = address(endpoint, secured)?;
        let credentials = credentials(self.token, secured)?;
        let tls = self.tls.map(|tls| tls.for_http1(self.clock)).transpose()?;
        Ok(AdminPort::new(address, tls, credentials, self.connect_timeout))
    }
}

fn credentials(token: Option<Token>, secured: bool) -> Result<Credentials, Error> {
    let credentials = match token {
        None => Credentials::default(),
        Some(Token::Text(token)) => Credentials::token(&token)?,
        Some(Token::File(path)) => Credentials::token_file(path)?,
    };
    if credentials.is_some() && !secured {
        return Err(Error::invalid("a token needs tls: on an open connection everyone on the way could read it"));
    }
    Ok(credentials)
}

/// `host:port`, from that, from `https://host:port/` with TLS, or from `http://host:port/` without.
fn address(endpoint: &str, secured: bool) -> Result<String, Error> {
    let invalid = |why: &str| Error::invalid(format!("endpoint {why} endpoint={endpoint:?}"));
    let (ours, others) = if secured { ("https://", "http://") } else { ("http://", "https://") };
    let address = endpoint.trim().trim_start_matches(ours).trim_end_matches('/');
    if address.starts_with(others) {
        return Err(invalid(if secured {
            "is not https, and this client has tls"
        } else {
            "is https, and this client has no tls: pass --ca (QUORATE_CA), in a program `Builder::tls`"
        }));
    }
    if address.len() > ADDRESS_BYTES_MAX {
        return Err(invalid("is too long"));
    }
    let port = address
        .rsplit_once(':')
        .filter(|(host, _)| !host.is_empty() && (!host.contains(['/', '@']) || mutant::is(Mutant::ForeignSchemeAccepted)))
        .map(|(_, port)| port.parse::<u16>());
    if !matches!(port, Some(Ok(port)) if port > 0) || crate::tls::endpoint(address).is_err() {
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

    #[test]
    fn a_token_is_shown_by_tls_only_and_what_is_no_certificate_is_refused() {
        let valid = || Client::builder().endpoints(["a:1"]);
        let why = |builder: Builder| builder.build().expect_err("must be refused").to_string();
        assert!(why(valid().token("secret")).contains("needs tls"));
        assert!(why(valid().token("sec ret")).contains("a token is"));
        assert!(why(valid().token_file("/does/not/exist")).contains("path=/does/not/exist"));
        assert!(why(valid().tls(Tls::ca_pem("no certificate"))).contains("no certificate in PEM"));
        assert!(why(valid().tls(Tls::ca_file("/does/not/exist"))).contains("path=/does/not/exist"));
        assert!(why(Client::builder().endpoints(["https://a:1"])).contains("has no tls"));
        assert_eq!(address("https://a:1/", true).expect("fine"), "a:1");
        assert!(address("http://a:1", true).is_err());
    }
}
