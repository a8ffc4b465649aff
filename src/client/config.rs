//! The configuration of a client, shared by its parts.

use std::sync::Arc;
use std::time::Duration;

use super::credentials::Credentials;
use super::driver::connection::{Connector, Dial};
use super::seen::Seen;
use crate::env::{Clock, Random};
use crate::types::Nonce;

/// The configuration of a client.
pub(super) struct Config {
    pub endpoints: Vec<String>,
    pub write_deadline: Duration,
    pub read_deadline: Duration,
    pub connect_timeout: Duration,
    pub connector: Arc<dyn Connector>,
    pub credentials: Credentials,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub seen: Seen,
}

impl Config {
    pub fn dial(&self, address: &str) -> Dial {
        let (connector, credentials) = (self.connector.clone(), self.credentials.clone());
        Dial { connector, credentials, address: address.to_owned(), timeout: self.connect_timeout }
    }

    /// A new random nonce, to open a client with.
    pub fn nonce(&self) -> Nonce {
        let mut nonce = [0; 16];
        self.random.fill(&mut nonce);
        Nonce(nonce)
    }
}
