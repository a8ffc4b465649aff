//! `quorate cert dev`: a CA and certificates for a trial, and what to type next.

use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use quorate::env::read_file;
use quorate::server::node_uri;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};

use crate::args;
use crate::failure::Failure;
use crate::files;
use crate::output;

/// Clocks of other machines may be behind by so much.
const BACKDATED: Duration = Duration::from_secs(3600);
/// Of a file that holds a key.
const KEY_BYTES_MAX: u64 = 1 << 16;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Makes them, and says what to type next. Errors: a file is there already, or can't be written; those made before stay.
pub fn run(args: &args::Cert) -> Result<(), Failure> {
    let args::Cert::Dev(args) = args;
    let text = if make(args)? { next_steps(args) } else { format!("{}: {}", args.dir.display(), made(args)) };
    let done = format!("all of it is written dir={}", args.dir.display());
    output::after(&done, output::line(text.trim_end()).map_err(Failure::from))
}

/// Makes them; whether the CA is a new one. Errors: as [`run`].
pub fn make(args: &args::CertDev) -> Result<bool, Failure> {
    if args.nodes.is_empty() || args.hosts.is_empty() {
        return Err(Failure::usage("--nodes and --hosts must not be empty"));
    }
    std::fs::create_dir_all(&args.dir).map_err(|error| unusable(&args.dir, &error))?;
    let key = args.dir.join("ca-key.pem");
    let is_new = !key.exists();
    require_free(args, is_new)?;
    let key = if is_new { KeyPair::generate().map_err(|error| unmade(&error))? } else { known_key(&key)? };
    let ca = ca(args, key).map_err(|error| unmade(&error))?;
    if is_new {
        write(&args.dir, "ca", &ca.pem(), ca.key())?;
    }
    for node in &args.nodes {
        let both = [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        leaf(args, &ca, &format!("node-{node}"), Some(*node), &both)?;
    }
    if is_new {
        leaf(args, &ca, "client", None, &[ExtendedKeyUsagePurpose::ClientAuth])?;
    }
    Ok(is_new)
}

/// The sections of `cluster.toml` for certificates in this directory, and for tokens beside them.
pub fn sections(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "[tls]\ncert = \"{dir}/node-{{node}}.pem\"\nkey = \"{dir}/node-{{node}}-key.pem\"\nca = \"{dir}/ca.pem\"\n\
         client_certs = \"require\"\n\n[auth]\ntokens = \"{dir}/tokens.toml\"\n"
    )
}

/// The environment in which a shell's commands present the client's certificate, and the token beside it.
pub fn environment(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "export QUORATE_CA={dir}/ca.pem QUORATE_CERT={dir}/client.pem QUORATE_KEY={dir}/client-key.pem QUORATE_TOKEN_FILE={dir}/me.token"
    )
}

type Ca = CertifiedIssuer<'static, KeyPair>;

fn known_key(path: &Path) -> Result<KeyPair, Failure> {
    let unreadable = |error: String| Failure::usage(format!("can't read the CA's key: {error} path={}", path.display()));
    let bytes = read_file(path, KEY_BYTES_MAX).map_err(|error| unreadable(error.to_string()))?;
    KeyPair::from_pem(&String::from_utf8_lossy(&bytes)).map_err(|error| unreadable(error.to_string()))
}

/// The one with this key: whatever an earlier call signed with it is of the same CA.
fn ca(args: &args::CertDev, key: KeyPair) -> Result<Ca, rcgen::Error> {
    // The name stays as the first release wrote it: certificates name their issuer, and earlier ones must go on to fit.
    let mut params = params(args, "quorate throw-away authority", Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(params, key)
}

/// Of a node, whose certificate names it and all hosts, or of a client.
fn leaf(args: &args::CertDev, ca: &Ca, name: &str, node: Option<u64>, usages: &[ExtendedKeyUsagePurpose]) -> Result<(), Failure> {
    let hosts = if node.is_some() { args.hosts.clone() } else { Vec::new() };
    let made = params(args, name, hosts).and_then(|mut params| {
        if let Some(node) = node {
            params.subject_alt_names.push(SanType::URI(node_uri(node).try_into()?));
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages.to_vec();
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        Ok((params.signed_by(&key, ca)?, key))
    });
    let (certificate, key) = made.map_err(|error| unmade(&error))?;
    write(&args.dir, name, &certificate.pem(), &key)
}

fn params(args: &args::CertDev, name: &str, hosts: Vec<String>) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(hosts)?;
    params.distinguished_name.push(DnType::CommonName, name);
    let now = SystemTime::now();
    params.not_before = now.checked_sub(BACKDATED).unwrap_or(now).into();
    params.not_after = (now + DAY * args.days).into();
    Ok(params)
}

/// Errors: one of the files is there already; then none is made.
fn require_free(args: &args::CertDev, is_new: bool) -> Result<(), Failure> {
    let own = if is_new { &["ca", "client"][..] } else { &[] };
    let nodes = args.nodes.iter().map(|node| format!("node-{node}"));
    for name in own.iter().map(ToString::to_string).chain(nodes) {
        files::require_free(&args.dir.join(format!("{name}-key.pem")))?;
        files::require_free(&args.dir.join(format!("{name}.pem")))?;
    }
    Ok(())
}

/// `name.pem` for everyone, `name-key.pem` for the owner.
fn write(dir: &Path, name: &str, certificate: &str, key: &KeyPair) -> Result<(), Failure> {
    create(&dir.join(format!("{name}-key.pem")), &key.serialize_pem(), 0o600)?;
    create(&dir.join(format!("{name}.pem")), certificate, 0o644)
}

/// A new file that none else than who `mode` says may read. Errors: it is there already, or can't be written.
pub fn create(path: &Path, text: &str, mode: u32) -> Result<(), Failure> {
    use std::io::Write as _;
    let mut file = files::create(path, mode)?;
    file.write_all(text.as_bytes()).map_err(|error| files::unwritten(&error))?;
    files::publish(file)
}

fn unusable(path: &Path, error: &io::Error) -> Failure {
    Failure::usage(format!("can't write: {error}; name a directory that has none of them path={}", path.display()))
}

fn unmade(error: &rcgen::Error) -> Failure {
    Failure::usage(format!("can't make a certificate: {error}; check --hosts"))
}

fn made(args: &args::CertDev) -> String {
    match &args.nodes[..] {
        [node] => format!("a certificate for node {node}"),
        nodes => format!("certificates for nodes {}", nodes.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")),
    }
}

fn next_steps(args: &args::CertDev) -> String {
    let dir = args.dir.display();
    let sections = sections(&args.dir).lines().fold(String::new(), |text, line| format!("{text}  {line}\n").replace("  \n", "\n"));
    let mut text = format!(
        "{dir}: a CA, {}, and one for a client, good for {} days. The CA's key lies beside them: \
         for trials only.\n\nIn cluster.toml:\n\n{sections}\nThen:\n\n",
        made(args),
        args.days
    );
    let _ = writeln!(text, "  quorate token new me --scopes read,write,list,admin --file {dir}/tokens.toml > {dir}/me.token");
    for node in &args.nodes {
        let _ = writeln!(text, "  quorate serve --config cluster.toml --node {node} --bootstrap");
    }
    let _ = write!(text, "\n  {}\n  echo hello | quorate session put greeting\n  quorate status\n", environment(&args.dir));
    text
}
