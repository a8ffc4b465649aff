//! Certificates and tokens on the command line.

use std::fmt;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use quorate::server::auth::Scope;
use quorate::server::config::TlsPaths;

use super::{Ask, Output};

/// The credentials that a command presents to the cluster, and the CA it trusts.
#[derive(Clone, Debug, Default, Args)]
pub struct Credentials {
    /// CA certificates (PEM) that the nodes' certificates are checked against; turns TLS on
    #[arg(long, value_name = "FILE", env = "QUORATE_CA", help_heading = "Connection")]
    pub ca: Option<PathBuf>,
    /// Show this certificate, where the nodes ask for one
    #[arg(long, value_name = "FILE", env = "QUORATE_CERT", requires = "key", help_heading = "Connection")]
    pub cert: Option<PathBuf>,
    /// Its private key
    #[arg(long, value_name = "FILE", env = "QUORATE_KEY", requires = "cert", help_heading = "Connection")]
    pub key: Option<PathBuf>,
    /// Show the token in this file; QUORATE_TOKEN holds one itself
    #[arg(long, value_name = "FILE", env = "QUORATE_TOKEN_FILE", help_heading = "Connection")]
    pub token_file: Option<PathBuf>,
    // Not to be typed: other users of the machine see what is.
    #[arg(long, env = "QUORATE_TOKEN", hide = true, hide_env_values = true)]
    pub token: Option<Secret>,
}

/// A text that no `Debug` shows.
#[derive(Clone)]
pub struct Secret(pub String);

impl std::str::FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Paths of `serve` in place of those in the file.
#[derive(Debug, Args)]
pub struct NodeCredentials {
    /// In place of [tls] cert: the node's certificate
    #[arg(long, value_name = "FILE", env = "QUORATE_TLS_CERT", help_heading = "In place of the file's")]
    pub tls_cert: Option<PathBuf>,
    /// In place of [tls] key
    #[arg(long, value_name = "FILE", env = "QUORATE_TLS_KEY", help_heading = "In place of the file's")]
    pub tls_key: Option<PathBuf>,
    /// In place of [tls] ca
    #[arg(long, value_name = "FILE", env = "QUORATE_TLS_CA", help_heading = "In place of the file's")]
    pub tls_ca: Option<PathBuf>,
    /// In place of [tls] client_ca
    #[arg(long, value_name = "FILE", env = "QUORATE_TLS_CLIENT_CA", help_heading = "In place of the file's")]
    pub tls_client_ca: Option<PathBuf>,
    /// In place of [auth] tokens
    #[arg(long, value_name = "FILE", env = "QUORATE_TOKENS", help_heading = "In place of the file's")]
    pub tokens: Option<PathBuf>,
}

impl NodeCredentials {
    pub fn into_paths(self) -> TlsPaths {
        let Self { tls_cert, tls_key, tls_ca, tls_client_ca, tokens } = self;
        TlsPaths { cert: tls_cert, key: tls_key, ca: tls_ca, client_ca: tls_client_ca, tokens }
    }
}

/// `quorate cert`.
#[derive(Debug, Subcommand)]
pub enum Cert {
    /// Make a throw-away CA with certificates for nodes and a client, to try things out
    Dev(CertDev),
}

/// `quorate cert dev`.
#[derive(Debug, Args)]
#[command(after_help = "Where DIR has a CA already, certificates for further nodes are signed by it: --nodes 4 --hosts 10.0.0.4.

The CA's key lies beside the certificates: everyone who reads DIR can make a certificate for any name. For anything that lasts let a \
CA that you trust sign them; `quorate help certificates` says what must be in them.")]
pub struct CertDev {
    /// Where to write them; made if it is missing; nothing in it is overwritten
    pub dir: PathBuf,
    /// Ids of the nodes
    #[arg(long, value_name = "ID,...", value_delimiter = ',', default_value = "1,2,3")]
    pub nodes: Vec<u64>,
    /// Names and addresses that nodes are reached at, in every node's certificate
    #[arg(long, value_name = "HOST,...", value_delimiter = ',', default_value = "localhost,127.0.0.1,::1")]
    pub hosts: Vec<String>,
    /// How long they are good for
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub days: u32,
}

/// `quorate token`.
#[derive(Debug, Subcommand)]
pub enum Token {
    /// Draw a token: print it once, and the lines for the file of tokens
    New(TokenNew),
    /// Show the names, scopes, prefixes and ends of a file's tokens; the tokens themselves are in no file
    Ls(TokenLs),
    /// Say what a token is good for, by a file of tokens or by trying it on a cluster
    #[command(after_help = TEST_HELP)]
    Test(TokenTest),
    /// Take a token out of a file by its name
    #[command(
        after_help = "Nodes take a changed file within seconds, for connections that are open too: change the file on every host. Comments \
and the other tokens stay as they are, and so do the file's owner, group and mode."
    )]
    Revoke(TokenRevoke),
}

const TEST_HELP: &str = "The token is what --token-file, QUORATE_TOKEN_FILE or QUORATE_TOKEN holds. With --file only that file is read. Without, the cluster is \
asked for one session, one page of ids and one node's events, and a save is tried that no session can fit: nothing is changed. Exit code 1: \
the token is unknown, or no longer valid.";

/// `quorate token ls`.
#[derive(Debug, Args)]
pub struct TokenLs {
    /// The file of tokens
    #[arg(long, value_name = "FILE", env = "QUORATE_TOKENS")]
    pub file: PathBuf,
    /// How to print them
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// `quorate token test`.
#[derive(Debug, Args)]
pub struct TokenTest {
    /// Ask this file of tokens and no cluster
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Whether it may read and write this session; to be given where the token is for certain prefixes only [default: one that is not
    /// there]
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,
    #[command(flatten)]
    pub ask: Ask,
}

/// `quorate token revoke`.
#[derive(Debug, Args)]
pub struct TokenRevoke {
    /// Its name, as `token ls` shows it
    pub name: String,
    /// The file of tokens
    #[arg(long, value_name = "FILE", env = "QUORATE_TOKENS")]
    pub file: PathBuf,
}

/// `quorate token new`.
#[derive(Debug, Args)]
#[command(
    after_help = "The file holds only a hash: a token that is lost can't be read again, draw another. Nodes take a changed file within \
seconds. Scopes: read loads sessions, write saves and deletes them, list shows ids, admin operates the cluster and lists, metrics \
reads a node's metrics and nothing else."
)]
pub struct TokenNew {
    /// Its name, for people: 1 to 64 letters, digits, '-', '_', '.'
    pub name: String,
    /// The rights of the token: some of read, write, list, admin, metrics
    #[arg(long, value_name = "SCOPE,...", value_delimiter = ',', required = true)]
    pub scopes: Vec<Scope>,
    /// Only for ids with this prefix; may be given several times [default: all ids]
    #[arg(long = "prefix", value_name = "PREFIX")]
    pub prefixes: Vec<String>,
    /// Until so long from now, e.g. 12h, 30d [default: for ever]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub ttl: Option<std::time::Duration>,
    /// Append its lines to this file, made if it is missing, and print the token alone
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}
