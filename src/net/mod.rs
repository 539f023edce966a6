//! From a listener to whatever speaks with clients: the accept loop, with every limit set, and HTTP as one that speaks.
//!
//! tonic's own `serve` is not used: it leaves limits open that hyper closes, cannot bound its shutdown, and retries a
//! failing accept in a hot loop (docs/adr/0004). The room owns the connections and how they end. It knows nothing of
//! gRPC, and the accept loop ([`Acceptor`]) nothing of HTTP: whatever implements [`Serve`] has its limits, TLS, and drain.

mod accept;
mod address;
mod certificates;
mod connection;
mod http;
mod listen;
mod options;
mod tls;
mod tls_options;
mod transport;

pub use accept::{Acceptor, Serve, ServeError};
pub use address::{AddressError, ListenAddress};
pub use certificates::CertificateError;
pub use connection::{Connection, Connections, OpenStream, SessionPermit, WatchPermit};
pub use http::{Ahead, AtItsOwnPace, Http, Inbound, InboundError, Takeover, TunnelProtocol, Upgraded};
pub use listen::{Bound, listen};
pub use options::Options;
pub use tls::Tls;
pub use tls_options::{ClientAuth, TlsOptions, TlsVersion};
pub use transport::Transport;
