//! A CA of a test, and certificates as they should and should not be.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use quorate::tls::node_uri;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
    date_time_ymd,
};

/// Where every node of a test is reached.
pub const HOST: &str = "127.0.0.1";

/// Signs.
pub struct Ca(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, both in PEM.
#[derive(Clone)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

/// How long it is good.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Good {
    Now,
    /// For so many days from now.
    Days(u32),
    Expired,
}

impl Ca {
    pub fn new() -> Self {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let mut params = CertificateParams::default();
        let name = format!("CA {} of a test", MADE.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("signed"))
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// For a node reached at `host`, that is not named.
    pub fn node(&self, host: &str, good: Good) -> Pair {
        self.sign(host, None, &[ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth], good)
    }

    /// For the node of this id.
    pub fn named(&self, node: u64, host: &str) -> Pair {
        self.sign(host, Some(node), &[ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth], Good::Now)
    }

    /// For a client; even one on the host of a node.
    pub fn client(&self, good: Good) -> Pair {
        self.sign(HOST, None, &[ExtendedKeyUsagePurpose::ClientAuth], good)
    }

    fn sign(&self, host: &str, node: Option<u64>, usages: &[ExtendedKeyUsagePurpose], good: Good) -> Pair {
        let mut params = CertificateParams::new([host.to_owned()]).expect("a host");
        params.subject_alt_names.extend(node.map(|node| SanType::URI(node_uri(node).try_into().expect("ASCII"))));
        params.extended_key_usages = usages.to_vec();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = match good {
            Good::Now => date_time_ymd(2090, 1, 1),
            Good::Days(days) => (SystemTime::now() + Duration::from_secs(24 * 3600) * days).into(),
            Good::Expired => date_time_ymd(2021, 1, 1),
        };
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("signed");
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}
