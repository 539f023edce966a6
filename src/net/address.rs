//! Where a port listens: the address as the operator wrote it, and the socket it becomes.
//!
//! Owns how such an address is read, how a name becomes addresses, and which of them is bound. It never accepts a
//! connection.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, lookup_host};

/// So many connections may wait to be accepted.
const BACKLOG: u32 = 1024;
/// So many addresses of a name are tried.
const MOST_ADDRESSES: usize = 16;
/// The longest name of a host, in bytes.
const MAX_HOST_BYTES: usize = 253;

/// An address to listen on: `HOST:PORT`, where the host is a name, an IPv4 address, an IPv6 address in brackets, or empty
/// for all interfaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ListenAddress {
    host: Host,
    port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    /// Of IPv6 and IPv4, as far as the machine has them.
    AllInterfaces,
    Address(SocketAddr),
    Name(String),
}

/// Why a text is no address to listen on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Only the host is there.
    #[error("{0:?} has no port: write HOST:PORT, or :PORT for all interfaces")]
    NoPort(String),
    /// What stands behind the last colon is none.
    #[error("{0:?} has no port from 0 to 65535 after its last colon")]
    Port(String),
    /// An IPv6 address has colons of its own.
    #[error("{0:?} is an IPv6 address without brackets, or is invalid: write [::1]:50051")]
    Brackets(String),
    /// What stands before the port is neither an address nor a name.
    #[error("{0:?} has no name or address of a host before its port")]
    Host(String),
    /// A file, not a port.
    #[error("{0:?} is a Unix socket, and the hub listens on TCP only: write HOST:PORT")]
    Unix(String),
    /// As clients write it.
    #[error("{0:?} is a URL: write HOST:PORT")]
    Url(String),
}

impl ListenAddress {
    /// The port; 0 for one of the system's choice.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Binds the first address that this machine has. Of a name, IPv4 addresses come first: so `localhost` is 127.0.0.1
    /// wherever it is that, too, in whichever order the system names them. A port that is taken is not looked for on another
    /// address.
    pub(super) async fn bind(&self) -> io::Result<TcpListener> {
        let addresses = self.resolve().await?;
        let mut not_here = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in &addresses {
            match bind(*address) {
                Ok(listener) => {
                    if matches!(self.host, Host::Name(_)) {
                        let bound = listener.local_addr()?;
                        tracing::info!(listen = %self, address = %bound, addresses = addresses.len(), "the name was resolved");
                    }
                    return Ok(listener);
                }
                Err(NotBound::NotHere(error)) => not_here = at(*address, &error),
                Err(NotBound::Failed(error)) => return Err(at(*address, &error)),
            }
        }
        Err(not_here)
    }

    async fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        match &self.host {
            Host::Address(address) => Ok(vec![*address]),
            Host::AllInterfaces => {
                let all: [IpAddr; 2] = [Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()];
                Ok(all.map(|address| SocketAddr::new(address, self.port)).into())
            }
            Host::Name(name) => {
                let mut addresses: Vec<_> =
                    lookup_host((name.as_str(), self.port)).await?.take(MOST_ADDRESSES).collect();
                addresses.sort_by_key(SocketAddr::is_ipv6);
                Ok(addresses)
            }
        }
    }
}

/// Why an address is not bound.
enum NotBound {
    /// This machine does not have it; another of the same name may do.
    NotHere(io::Error),
    Failed(io::Error),
}

fn bind(address: SocketAddr) -> Result<TcpListener, NotBound> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = socket.map_err(NotBound::NotHere)?;
    let bind = || {
        if address.is_ipv6() && address.ip().is_unspecified() {
            // `[::]` is IPv4, too, whatever the system's own choice is.
            SockRef::from(&socket).set_only_v6(false)?;
        }
        // Connections of the process before may still be ending.
        socket.set_reuseaddr(true)?;
        socket.bind(address)
    };
    bind().map_err(|error| match error.kind() {
        io::ErrorKind::AddrNotAvailable => NotBound::NotHere(error),
        _ => NotBound::Failed(error),
    })?;
    socket.listen(BACKLOG).map_err(NotBound::Failed)
}

/// Says which of several addresses it was.
fn at(address: SocketAddr, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{address}: {error}"))
}

impl FromStr for ListenAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(address.into());
        }
        let told = || text.to_owned();
        if text.starts_with("unix:") || text.starts_with('/') {
            return Err(AddressError::Unix(told()));
        }
        if text.contains("://") {
            return Err(AddressError::Url(told()));
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(|| AddressError::NoPort(told()))?;
        if host.contains(['[', ']', ':']) {
            return Err(if text.ends_with(']') {
                AddressError::NoPort(told())
            } else {
                AddressError::Brackets(told())
            });
        }
        let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse().ok().filter(|_| digits).ok_or_else(|| AddressError::Port(told()))?;
        if host.is_empty() {
            return Ok(Self { host: Host::AllInterfaces, port });
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if host.len() > MAX_HOST_BYTES || !host.chars().all(allowed) {
            return Err(AddressError::Host(told()));
        }
        Ok(Self { host: Host::Name(host.to_owned()), port })
    }
}

impl From<SocketAddr> for ListenAddress {
    fn from(address: SocketAddr) -> Self {
        Self { host: Host::Address(address), port: address.port() }
    }
}

impl TryFrom<String> for ListenAddress {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<ListenAddress> for String {
    fn from(address: ListenAddress) -> Self {
        address.to_string()
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::AllInterfaces => write!(f, ":{}", self.port),
            Host::Address(address) => write!(f, "{address}"),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        text.parse::<ListenAddress>().expect_err(text).to_string()
    }

    #[test]
    fn addresses_are_taken_as_they_are_written() {
        let longest = format!("{}:1", "x".repeat(MAX_HOST_BYTES));
        let good =
            ["127.0.0.1:50051", "[::]:50051", "[fe80::1%2]:1", ":50051", ":0", "localhost:1", "hub-0.example.:65535"];
        for text in good.into_iter().chain([longest.as_str()]) {
            let address: ListenAddress = text.parse().expect(text);
            assert_eq!(address.to_string(), text);
            assert_eq!(address.to_string().parse(), Ok(address));
        }
    }

    #[test]
    fn what_is_no_address_is_told_with_what_is_wrong() {
        let too_long = format!("{}:1", "x".repeat(MAX_HOST_BYTES + 1));
        for (text, told) in [
            ("", "has no port:"),
            ("foo", "has no port:"),
            ("[::1]", "has no port:"),
            ("foo:", "no port from 0"),
            ("foo:http", "no port from 0"),
            ("foo:65536", "no port from 0"),
            ("foo:+1", "no port from 0"),
            ("::1:50051", "without brackets"),
            ("[::1", "without brackets"),
            ("[nonsense]:1", "without brackets"),
            ("a b:1", "no name or address"),
            ("*:1", "no name or address"),
            (too_long.as_str(), "no name or address"),
            ("unix:/run/hub.sock", "Unix socket"),
            ("/run/hub.sock", "Unix socket"),
            ("http://localhost:1", "is a URL"),
        ] {
            let refusal = refusal(text);
            assert!(refusal.contains(told) && refusal.contains(&format!("{text:?}")), "{refusal}");
        }
    }

    #[tokio::test]
    async fn a_name_becomes_the_first_of_its_addresses_that_is_here_and_free() {
        let free = "localhost:0".parse::<ListenAddress>().expect("an address").bind().await.expect("a port");
        let bound = free.local_addr().expect("an address");
        assert!(bound.ip().is_loopback(), "{bound}");
        let taken: ListenAddress = format!("localhost:{}", bound.port()).parse().expect("an address");
        let error = taken.bind().await.expect_err("taken").to_string();
        assert!(error.contains(&bound.to_string()), "{error}");
        // TEST-NET-1: nobody has it.
        let elsewhere = "192.0.2.1:0".parse::<ListenAddress>().expect("an address").bind().await;
        assert_eq!(elsewhere.expect_err("not here").kind(), io::ErrorKind::AddrNotAvailable);
    }

    #[tokio::test]
    async fn all_interfaces_take_what_comes_by_ipv4() {
        let listener = ":0".parse::<ListenAddress>().expect("an address").bind().await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let client = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await;
        assert!(client.is_ok(), "{client:?}");
    }
}
