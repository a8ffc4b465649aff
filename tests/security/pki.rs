//! An authority of a test, and certificates as they should and should not be.

use std::sync::atomic::{AtomicU64, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};

/// Where every node of a test is reached.
pub const HOST: &str = "127.0.0.1";

/// Signs.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

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
    Expired,
}

impl Authority {
    pub fn new() -> Self {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let mut params = CertificateParams::default();
        let name = format!("authority {} of a test", MADE.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("signed"))
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// For a node reached at `host`.
    pub fn node(&self, host: &str, good: Good) -> Pair {
        self.sign(&[host], &[ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth], good)
    }

    /// For a client; even one on the host of a node.
    pub fn client(&self, good: Good) -> Pair {
        self.sign(&[HOST], &[ExtendedKeyUsagePurpose::ClientAuth], good)
    }

    fn sign(&self, hosts: &[&str], usages: &[ExtendedKeyUsagePurpose], good: Good) -> Pair {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).expect("hosts");
        params.extended_key_usages = usages.to_vec();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = if good == Good::Now { date_time_ymd(2090, 1, 1) } else { date_time_ymd(2021, 1, 1) };
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("signed");
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}
