//! `[tls]` and `[auth]`: the files with certificates and tokens. Their content is checked where they are read.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Config, Error};
use crate::types::NodeId;

/// Stands for the node's id in a path, since all nodes share one file.
const NODE: &str = "{node}";

/// `[tls]`. PEM files; `{node}` in a path is the node's id. Relative paths start at the working directory.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// The node's certificate with its intermediates: valid for serving at its hosts, and for connecting to its peers.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// CAs that sign the nodes' certificates.
    pub ca: PathBuf,
    /// CAs that sign clients' certificates. Default: `ca`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<PathBuf>,
    /// Whether clients present certificates. Default `none`.
    #[serde(default)]
    pub client_certs: ClientCerts,
}

/// Whether clients present certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientCerts {
    /// Clients are not asked for a certificate.
    #[default]
    None,
    /// Clients may present a certificate, which must be valid.
    Request,
    /// Clients must present a valid certificate.
    Require,
}

/// `[auth]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AuthConfig {
    /// The file of tokens, equal on every node.
    pub tokens: PathBuf,
}

/// Paths that flags or the environment give in place of the file's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsPaths {
    /// The certificate, as [`TlsConfig::cert`].
    pub cert: Option<PathBuf>,
    /// The private key, as [`TlsConfig::key`].
    pub key: Option<PathBuf>,
    /// The nodes' CAs, as [`TlsConfig::ca`].
    pub ca: Option<PathBuf>,
    /// The clients' CAs, as [`TlsConfig::client_ca`].
    pub client_ca: Option<PathBuf>,
    /// The file of tokens, as [`AuthConfig::tokens`].
    pub tokens: Option<PathBuf>,
}

impl TlsConfig {
    /// The paths with the node's id filled in.
    pub fn of_node(&self, node: NodeId) -> Self {
        let id = node.to_string();
        let of = |path: &Path| match path.to_str() {
            Some(text) => PathBuf::from(text.replace(NODE, &id)),
            None => path.to_owned(),
        };
        Self {
            cert: of(&self.cert),
            key: of(&self.key),
            ca: of(&self.ca),
            client_ca: self.client_ca.as_deref().map(of),
            client_certs: self.client_certs,
        }
    }
}

impl Config {
    /// Puts other paths in place of the file's. Errors: without a `[tls]` they are not enough for one, or [`Config::validate`] fails.
    pub fn use_paths(&mut self, paths: TlsPaths) -> Result<(), Error> {
        let TlsPaths { cert, key, ca, client_ca, tokens } = paths;
        match (&mut self.tls, cert, key, ca) {
            (Some(tls), cert, key, ca) => {
                tls.cert = cert.unwrap_or_else(|| tls.cert.clone());
                tls.key = key.unwrap_or_else(|| tls.key.clone());
                tls.ca = ca.unwrap_or_else(|| tls.ca.clone());
                tls.client_ca = client_ca.or_else(|| tls.client_ca.clone());
            }
            (None, Some(cert), Some(key), Some(ca)) => {
                self.tls = Some(TlsConfig { cert, key, ca, client_ca, client_certs: ClientCerts::None });
            }
            (None, None, None, None) if client_ca.is_none() => {}
            _ => {
                return Err(Error("certificates need all of cert, key and ca, by [tls] or by flags or the environment".to_owned()));
            }
        }
        if let Some(tokens) = tokens {
            self.auth = Some(AuthConfig { tokens });
        }
        self.validate()
    }

    pub(super) fn validate_security(&self) -> Result<(), Error> {
        if let Some(auth) = self.auth.as_ref().filter(|_| self.tls.is_none()) {
            return Err(Error(format!(
                "[auth] needs [tls]: on an open connection a token can be stolen, and a node can't prove for whom it forwards tokens={}",
                auth.tokens.display()
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: &str = "name = \"x\"\n[[node]]\nid = 1\nclient = \"a:1\"\npeer = \"a:2\"\nadmin = \"a:3\"\n";
    const TLS: &str = "[tls]\ncert = \"c/{node}.pem\"\nkey = \"c/{node}-key.pem\"\nca = \"c/ca.pem\"\n";

    #[test]
    fn paths_name_the_node_and_the_file_prints_as_it_was_read() {
        let config = Config::parse(&format!("{NODES}{TLS}client_certs = \"require\"\n[auth]\ntokens = \"t\"\n")).expect("valid");
        let tls = config.tls.as_ref().expect("given").of_node(NodeId(7));
        assert_eq!((tls.cert, tls.key), (PathBuf::from("c/7.pem"), PathBuf::from("c/7-key.pem")));
        assert_eq!(tls.client_certs, ClientCerts::Require);
        assert_eq!(Config::parse(&config.to_toml().expect("valid")), Ok(config.clone()));
        assert_eq!(config.require_loopback(), Ok(()), "with certificates any address will do");
    }

    #[test]
    fn what_cannot_be_safe_is_refused() {
        let refused = |text: &str| Config::parse(&format!("{NODES}{text}")).expect_err(text).to_string();
        assert!(refused("[auth]\ntokens = \"t\"\n").contains("[auth] needs [tls]"));
        assert!(refused("[tls]\ncert = \"c\"\n").contains("missing field `key`"));
        assert!(refused(&format!("{TLS}client_certs = \"maybe\"\n")).contains("unknown variant `maybe`"));
    }

    #[test]
    fn a_flag_goes_before_the_file_and_half_of_a_certificate_is_refused() {
        let path = |text: &str| Some(PathBuf::from(text));
        let mut config = Config::parse(NODES).expect("valid");
        let half = TlsPaths { cert: path("c"), ..TlsPaths::default() };
        assert!(config.use_paths(half.clone()).is_err());
        let whole = TlsPaths { key: path("k"), ca: path("a"), tokens: path("t"), ..half.clone() };
        config.use_paths(whole).expect("all there");
        assert_eq!(config.tls.as_ref().map(|tls| tls.ca.clone()), path("a"));
        let mut config = Config::parse(&format!("{NODES}{TLS}")).expect("valid");
        config.use_paths(half).expect("the rest is in the file");
        let tls = config.tls.expect("given");
        assert_eq!((tls.cert, tls.ca), (PathBuf::from("c"), PathBuf::from("c/ca.pem")));
    }
}
