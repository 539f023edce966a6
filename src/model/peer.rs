//! Where a client is, as the system says. Pure.

use std::{fmt, net::SocketAddr};

/// The other end of a connection. Proves nothing about who that is: a proxy connects for everyone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// By TCP.
    Tcp(SocketAddr),
    /// On this machine, by a Unix socket; the user its process runs as, if the system says.
    Unix(Option<u32>),
}

impl Peer {
    /// Whether it is on this machine.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }

    /// Without the port: what it has in common with its other connections.
    pub fn host(&self) -> String {
        match self {
            Self::Tcp(address) => address.ip().to_string(),
            Self::Unix(_) => self.to_string(),
        }
    }
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(None) => f.write_str("unix"),
            Self::Unix(Some(user)) => write!(f, "unix:uid={user}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_named_and_local_as_its_address_says() {
        for (address, local) in [
            ("127.0.0.1:1", true),
            ("127.8.9.1:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("10.0.0.7:1", false),
            ("[2001:db8::1]:1", false),
            ("[fe80::1]:1", false),
            ("0.0.0.0:1", false),
        ] {
            let peer = Peer::from(address.parse::<SocketAddr>().expect("an address"));
            assert_eq!((peer.to_string().as_str(), peer.is_local()), (address, local));
        }
        for (peer, name) in [(Peer::Unix(None), "unix"), (Peer::Unix(Some(1000)), "unix:uid=1000")] {
            assert_eq!((peer.to_string().as_str(), peer.host().as_str(), peer.is_local()), (name, name, true));
        }
    }
}
