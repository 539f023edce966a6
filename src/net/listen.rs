//! Listening: the connections that come to an address, by TCP or by a Unix socket, with their socket options set.

use std::{fmt, io, net::SocketAddr, path::PathBuf};

use tokio::net::{TcpStream, UnixStream};
use tokio_stream::{
    Stream, StreamExt,
    wrappers::{TcpListenerStream, UnixListenerStream},
};
use tokio_util::either::Either;

use super::{
    Options,
    address::{ListenAddress, Listener},
};
use crate::model::Peer;

/// Where a port is, once it is bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bound {
    /// An address with its port.
    Tcp(SocketAddr),
    /// The file of a Unix socket.
    Unix(PathBuf),
}

impl Bound {
    /// The address of TCP; for a Unix socket the unspecified one, with port 0.
    pub fn tcp(&self) -> SocketAddr {
        match self {
            Self::Tcp(address) => *address,
            Self::Unix(_) => SocketAddr::from(([0, 0, 0, 0], 0)),
        }
    }
}

impl From<SocketAddr> for Bound {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A connection that came in.
pub(super) type Socket = Either<TcpStream, UnixStream>;

/// Binds an address and gives its connections. A name is resolved first, which may take as long as the system lets it. The
/// file of a Unix socket goes when the connections are dropped.
pub async fn listen(
    address: &ListenAddress,
    options: &Options,
) -> io::Result<(Bound, impl Stream<Item = io::Result<(Socket, Peer)>> + Send + Unpin + use<>)> {
    let user_timeout = options.user_timeout();
    match address.bind().await? {
        Listener::Tcp(listener) => {
            let bound = Bound::Tcp(listener.local_addr()?);
            let accepted = TcpListenerStream::new(listener).map(move |stream| {
                let stream = stream?;
                let peer = stream.peer_addr()?;
                stream.set_nodelay(true)?;
                // HTTP/2 pings cannot free a socket whose send buffer is full; this does.
                #[cfg(target_os = "linux")]
                socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(user_timeout))?;
                #[cfg(not(target_os = "linux"))]
                let _ = user_timeout;
                Ok((Either::Left(stream), peer.into()))
            });
            Ok((bound, Either::Left(accepted)))
        }
        Listener::Unix(listener, path) => {
            let file = File(path.clone());
            let accepted = UnixListenerStream::new(listener).map(move |stream| {
                let (stream, _file) = (stream?, &file);
                let user = stream.peer_cred().ok().map(|peer| peer.uid());
                Ok((Either::Right(stream), Peer::Unix(user)))
            });
            Ok((Bound::Unix(path), Either::Right(accepted)))
        }
    }
}

/// The file of a Unix socket, removed when nobody listens any more.
struct File(PathBuf);

impl Drop for File {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "cannot remove the file of the Unix socket");
        }
    }
}
