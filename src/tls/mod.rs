//! Not part of the interface: any release may change it.
//!
//! TLS on every port: the one owner of rustls.
//!
//! It promises TLS 1.3 and nothing older, with rustls' `ring` provider whatever other provider the process may hold; that what a
//! connection believes and shows can be replaced while it is used, for connections made from then on; that nothing is resumed, so a
//! certificate that is no longer believed opens no further connection; and that a key is in no `Debug` and no error.
//!
//! It reads no files and logs nothing: its user does.

#[cfg(feature = "server")]
mod accept;
mod connect;
mod dial;
mod endpoint;
mod material;
#[cfg(feature = "server")]
mod nodes;
mod validity;

#[cfg(feature = "server")]
pub use accept::{Acceptor, ClientCertificates, Hosts, Port, check_member};
pub use connect::{TlsConnector, refused_by_peer};
pub use dial::{DialError, Heard, Obstacle, Starts, TcpDial};
pub use endpoint::endpoint;
#[cfg(feature = "server")]
pub use endpoint::{CONNECTION_WINDOW_BYTES, KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT, STREAM_WINDOW_BYTES};
pub use material::{Error, Identity, Roots};
#[cfg(feature = "server")]
pub use nodes::{PeerCertificate, host_of, node_uri};
#[cfg(feature = "server")]
pub use validity::{Validity, day};
