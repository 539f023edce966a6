//! Where a port listens: the address as the operator wrote it, and the socket it becomes.
//!
//! Owns how such an address is read, how a name becomes addresses, which of them is bound, and the file of a Unix socket.
//! It never accepts a connection.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::{Deserialize, Serialize};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, UnixListener, UnixStream, lookup_host};

/// So many connections may wait to be accepted.
const BACKLOG: u32 = 1024;
/// So many addresses of a name are tried.
const MOST_ADDRESSES: usize = 16;
/// The longest name of a host, in bytes.
const MAX_HOST_BYTES: usize = 253;

/// What the address of a Unix socket begins with.
const UNIX: &str = "unix:";
/// The longest path of a Unix socket that all systems have, in bytes.
const MAX_PATH_BYTES: usize = 103;

/// An address to listen on: `HOST:PORT`, where the host is a name, an IPv4 address, an IPv6 address in brackets, or empty
/// for all interfaces; or `unix:/PATH` for a Unix socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ListenAddress(Place);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Tcp { host: Host, port: u16 },
    Unix(PathBuf),
}

/// What is bound.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
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
    /// A file, without what says that it is to be a socket.
    #[error("{0:?} is a path: write unix:{0} for a Unix socket, or HOST:PORT")]
    Path(String),
    /// Relative, or longer than a Unix socket may have.
    #[error("{0:?} is no Unix socket: write unix: and an absolute path of at most {MAX_PATH_BYTES} bytes")]
    Unix(String),
    /// As clients write it.
    #[error("{0:?} is a URL: write HOST:PORT")]
    Url(String),
}

impl ListenAddress {
    /// The port; 0 for one of the system's choice, and of a Unix socket.
    pub fn port(&self) -> u16 {
        match self.0 {
            Place::Tcp { port, .. } => port,
            Place::Unix(_) => 0,
        }
    }

    pub(super) async fn bind(&self) -> io::Result<Listener> {
        match &self.0 {
            Place::Tcp { host, port } => self.bind_tcp(host, *port).await.map(Listener::Tcp),
            Place::Unix(path) => bind_unix(path).await.map(|listener| Listener::Unix(listener, path.clone())),
        }
    }

    /// Binds the first address that this machine has. Of a name, IPv4 addresses come first: so `localhost` is 127.0.0.1
    /// wherever it is that, too, in whichever order the system names them. A port that is taken is not looked for on another
    /// address.
    async fn bind_tcp(&self, host: &Host, port: u16) -> io::Result<TcpListener> {
        let addresses = host.resolve(port).await?;
        let mut not_here = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in &addresses {
            match bind(*address) {
                Ok(listener) => {
                    if matches!(host, Host::Name(_)) {
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
}

impl Host {
    async fn resolve(&self, port: u16) -> io::Result<Vec<SocketAddr>> {
        match self {
            Host::Address(address) => Ok(vec![*address]),
            Host::AllInterfaces => {
                let all: [IpAddr; 2] = [Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()];
                Ok(all.map(|address| SocketAddr::new(address, port)).into())
            }
            Host::Name(name) => {
                let mut addresses: Vec<_> = lookup_host((name.as_str(), port)).await?.take(MOST_ADDRESSES).collect();
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

/// Binds a Unix socket. Its file is made with the rights that the process gives to files (`umask`); one that a hub left
/// behind when it was killed is replaced.
async fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_left_behind(path).await => {
            std::fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        bound => bound,
    }
    .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

/// Whether a file is a socket that nobody listens on.
async fn is_left_behind(path: &Path) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    is_socket && UnixStream::connect(path).await.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
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
        if let Some(path) = text.strip_prefix(UNIX) {
            // As gRPC writes it, too: unix:///path.
            let path = path.strip_prefix("//").unwrap_or(path);
            let is_good = path.starts_with('/') && path.len() <= MAX_PATH_BYTES && !path.contains('\0');
            return if is_good { Ok(Self(Place::Unix(path.into()))) } else { Err(AddressError::Unix(told())) };
        }
        if text.starts_with('/') {
            return Err(AddressError::Path(told()));
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
            return Ok(Self(Place::Tcp { host: Host::AllInterfaces, port }));
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if host.len() > MAX_HOST_BYTES || !host.chars().all(allowed) {
            return Err(AddressError::Host(told()));
        }
        Ok(Self(Place::Tcp { host: Host::Name(host.to_owned()), port }))
    }
}

impl From<SocketAddr> for ListenAddress {
    fn from(address: SocketAddr) -> Self {
        Self(Place::Tcp { host: Host::Address(address), port: address.port() })
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
        match &self.0 {
            Place::Tcp { host: Host::AllInterfaces, port } => write!(f, ":{port}"),
            Place::Tcp { host: Host::Address(address), .. } => write!(f, "{address}"),
            Place::Tcp { host: Host::Name(name), port } => write!(f, "{name}:{port}"),
            Place::Unix(path) => write!(f, "{UNIX}{}", path.display()),
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
        let longest_path = format!("unix:/{}", "x".repeat(MAX_PATH_BYTES - 1));
        let good = [
            "127.0.0.1:50051",
            "[::]:50051",
            "[fe80::1%2]:1",
            ":50051",
            ":0",
            "localhost:1",
            "hub-0.example.:65535",
            "unix:/run/hub.sock",
        ];
        for text in good.into_iter().chain([longest.as_str(), longest_path.as_str()]) {
            let address: ListenAddress = text.parse().expect(text);
            assert_eq!(address.to_string(), text);
            assert_eq!(address.to_string().parse(), Ok(address));
        }
    }

    #[test]
    fn what_is_no_address_is_told_with_what_is_wrong() {
        let too_long = format!("{}:1", "x".repeat(MAX_HOST_BYTES + 1));
        let long_path = format!("unix:/{}", "x".repeat(MAX_PATH_BYTES));
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
            ("unix:run/hub.sock", "absolute path"),
            (long_path.as_str(), "absolute path"),
            ("/run/hub.sock", "write unix:/run/hub.sock"),
            ("http://localhost:1", "is a URL"),
        ] {
            let refusal = refusal(text);
            assert!(refusal.contains(told) && refusal.contains(&format!("{text:?}")), "{refusal}");
        }
    }

    async fn bind(text: &str) -> io::Result<TcpListener> {
        match text.parse::<ListenAddress>().expect("an address").bind().await? {
            Listener::Tcp(listener) => Ok(listener),
            Listener::Unix(..) => Err(io::Error::other("a Unix socket")),
        }
    }

    #[tokio::test]
    async fn a_name_becomes_the_first_of_its_addresses_that_is_here_and_free() {
        let free = bind("localhost:0").await.expect("a port");
        let free_at = free.local_addr().expect("an address");
        assert!(free_at.ip().is_loopback(), "{free_at}");
        let error = bind(&format!("localhost:{}", free_at.port())).await.expect_err("taken").to_string();
        assert!(error.contains(&free_at.to_string()), "{error}");
        // TEST-NET-1: nobody has it.
        let elsewhere = bind("192.0.2.1:0").await;
        assert_eq!(elsewhere.expect_err("not here").kind(), io::ErrorKind::AddrNotAvailable);
    }

    #[tokio::test]
    async fn all_interfaces_take_what_comes_by_ipv4() {
        let listener = bind(":0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let client = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await;
        assert!(client.is_ok(), "{client:?}");
    }
}
