//! turmoil's network behind the two seams through which production reaches its own.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use quorate::client::Connector;
use quorate::raft::net::{Accepted, Incoming, Net};
use tonic::codegen::Service;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};
use turmoil::net::{TcpListener, TcpStream};

/// The simulated network, for nodes and clients.
#[derive(Clone, Copy)]
pub struct SimNet;

#[tonic::async_trait]
impl Net for SimNet {
    async fn listen(&self, address: &str) -> io::Result<(SocketAddr, Incoming)> {
        let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        let port = port.ok_or_else(|| io::Error::other(format!("no port address={address}")))?;
        let listener = Arc::new(TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?);
        let bound = listener.local_addr()?;
        let incoming = futures_util::stream::unfold(listener, |listener| async move {
            let accepted = listener.accept().await.map(|(stream, _)| Accepted::new(stream));
            Some((accepted, listener))
        });
        Ok((bound, Box::pin(incoming)))
    }

    fn channel(&self, endpoint: Endpoint) -> Channel {
        endpoint.connect_with_connector_lazy(Dial)
    }
}

impl Connector for SimNet {
    fn connect(&self, endpoint: Endpoint) -> Pin<Box<dyn Future<Output = Result<Channel, tonic::transport::Error>> + Send>> {
        Box::pin(async move { endpoint.connect_with_connector(Dial).await })
    }
}

#[derive(Clone, Copy)]
struct Dial;

impl Service<Uri> for Dial {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(async move {
            let host = uri.host().unwrap_or_default();
            let stream = TcpStream::connect((host, uri.port_u16().unwrap_or_default())).await?;
            Ok(TokioIo::new(stream))
        })
    }
}
