//! The nodes that a certificate on the peer port speaks for: those it names, or, if it names none, those at its hosts.

use std::collections::BTreeSet;
use std::fmt;

use tokio_rustls::rustls::client::verify_server_name;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::server::ParsedCertificate;

use super::validity::{element, from_validity};

/// How a subject alternative name of the kind URI names a node; its id follows.
const NODE_URI: &str = "quorate:node:";
/// The object identifier of subject alternative names, 2.5.29.17.
const SUBJECT_ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1d, 0x11];
const EXTENSIONS: u8 = 0xa3;
const URI: u8 = 0x86;

/// The name that makes a certificate that of a node, as a subject alternative name of the kind URI.
pub fn node_uri(node: u64) -> String {
    format!("{NODE_URI}{node}")
}

/// The host of `host:port`, as certificates write it.
pub fn host_of(address: &str) -> &str {
    if let Some((host, _)) = address.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return host;
    }
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

/// The verified certificate of the other end of a connection.
#[derive(Clone)]
pub struct PeerCertificate {
    certificate: CertificateDer<'static>,
    /// `None`: it names no node.
    nodes: Option<BTreeSet<u64>>,
}

impl PeerCertificate {
    pub(super) fn new(certificate: &CertificateDer<'_>) -> Self {
        Self { certificate: certificate.clone().into_owned(), nodes: nodes_of(certificate) }
    }

    /// Whether the certificate is this node's: it names the node, or names none and is valid for one of `hosts`. One that names no node is
    /// any node's where `hosts` is empty. Errors: whose it is instead.
    pub fn speaks_for<'a>(&self, node: u64, hosts: impl IntoIterator<Item = &'a str>) -> Result<(), Error> {
        if let Some(nodes) = &self.nodes {
            return if nodes.contains(&node) { Ok(()) } else { Err(Error::Named(nodes.clone())) };
        }
        let hosts: BTreeSet<&str> = hosts.into_iter().collect();
        if hosts.is_empty() || hosts.iter().any(|host| self.is_good_for(host)) {
            Ok(())
        } else {
            Err(Error::Elsewhere(hosts.into_iter().collect::<Vec<_>>().join(",")))
        }
    }

    fn is_good_for(&self, host: &str) -> bool {
        let Ok(name) = ServerName::try_from(host) else { return false };
        ParsedCertificate::try_from(&self.certificate).is_ok_and(|certificate| verify_server_name(&certificate, &name).is_ok())
    }
}

impl fmt::Debug for PeerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerCertificate").field("nodes", &self.nodes).finish_non_exhaustive()
    }
}

/// Why a certificate does not speak for a node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The certificate names these nodes; none, if a name in it is no id.
    #[error("it is that of node {}", if .0.is_empty() { "?".to_owned() } else { .0.iter().map(u64::to_string).collect::<Vec<_>>().join(",") })]
    Named(BTreeSet<u64>),
    /// The certificate is not valid for these hosts, at which the node is reached.
    #[error("it names no node and is not good for the node's host {0}")]
    Elsewhere(String),
}

/// The nodes that a certificate names. `None`: it names none.
///
/// RFC 5280 §4.2.1.6: `Extension { oid, critical?, OCTET STRING { GeneralNames { [6] uri, … } } }`.
pub(super) fn nodes_of(der: &[u8]) -> Option<BTreeSet<u64>> {
    let mut rest = from_validity(der)?;
    for _ in ["validity", "subject", "key"] {
        rest = element(rest)?.2;
    }
    let extensions = elements(rest).find(|(tag, _)| *tag == EXTENSIONS)?.1;
    let is_names = |extension: &&[u8]| element(extension).is_some_and(|(_, oid, _)| oid == SUBJECT_ALTERNATIVE_NAMES);
    let names = elements(element(extensions)?.1).map(|(_, extension)| extension).find(is_names)?;
    let (_, names) = elements(names).last()?;
    let ids =
        elements(element(names)?.1).filter(|(tag, _)| *tag == URI).filter_map(|(_, uri)| uri.strip_prefix(NODE_URI.as_bytes()));
    let ids: Vec<Option<u64>> = ids.map(|id| std::str::from_utf8(id).ok()?.parse().ok()).collect();
    (!ids.is_empty()).then(|| ids.into_iter().flatten().collect())
}

/// Tag and content of one element after the other, until the end or what is none.
fn elements(mut der: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (tag, content, rest) = element(der)?;
        der = rest;
        Some((tag, content))
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn shown(hosts: &[&str], uris: &[&str]) -> PeerCertificate {
        let mut params = CertificateParams::new(hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>()).expect("names");
        params.subject_alt_names.extend(uris.iter().map(|uri| SanType::URI((*uri).try_into().expect("ASCII"))));
        let certificate = params.self_signed(&KeyPair::generate().expect("a key")).expect("signed");
        PeerCertificate::new(certificate.der())
    }

    #[test]
    fn a_certificate_that_names_nodes_speaks_for_them_alone_wherever_they_are() {
        let of_two = shown(&["10.0.0.2"], &["https://elsewhere", "quorate:node:2", "quorate:node:7"]);
        for node in [2, 7] {
            assert_eq!(of_two.speaks_for(node, ["10.9.9.9"]), Ok(()));
        }
        assert_eq!(of_two.speaks_for(1, ["10.0.0.2"]), Err(Error::Named([2, 7].into())));
        assert_eq!(Error::Named([2, 7].into()).to_string(), "it is that of node 2,7");
        let of_nobody = shown(&["10.0.0.2"], &["quorate:node:x"]);
        assert_eq!(of_nobody.speaks_for(2, ["10.0.0.2"]), Err(Error::Named([].into())));
    }

    #[test]
    fn a_certificate_that_names_no_node_speaks_for_those_at_its_hosts() {
        let of_host = shown(&["10.0.0.2", "two.example", "::1"], &["https://elsewhere"]);
        for host in ["10.0.0.2", "two.example", "::1"] {
            assert_eq!(of_host.speaks_for(2, ["10.9.9.9", host]), Ok(()), "{host}");
        }
        assert_eq!(of_host.speaks_for(1, ["10.0.0.1"]), Err(Error::Elsewhere("10.0.0.1".to_owned())));
        assert_eq!(of_host.speaks_for(9, []), Ok(()), "nothing is known of it");
    }

    #[test]
    fn whatever_the_bytes_nothing_panics() {
        let whole = shown(&["a.example"], &["quorate:node:2"]).certificate;
        for end in 0..whole.len() {
            assert_eq!(nodes_of(&whole[..end]), None, "{end}");
        }
        for at in 0..whole.len() {
            let mut changed = whole.to_vec();
            changed[at] = !changed[at];
            let _ = nodes_of(&changed);
        }
    }

    #[test]
    fn the_host_of_an_address_has_no_port_and_no_brackets() {
        for (address, host) in [("10.0.0.1:7461", "10.0.0.1"), ("[::1]:7461", "::1"), ("node.example:1", "node.example")] {
            assert_eq!(host_of(address), host);
        }
    }
}
