//! Where else a client may connect: the addresses of other hubs, as the operator wrote them. Pure.

use std::{fmt, net::Ipv6Addr, sync::Arc};

use serde::{Deserialize, Serialize};

use super::limits::{MAX_ALTERNATIVE_BYTES, MAX_ALTERNATIVES};

/// Addresses in the form in which clients write them: `https://hub-1.example:50051`. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Alternatives(Arc<[Box<str>]>);

/// Why a text is no list of addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AlternativesError {
    /// There are more than [`MAX_ALTERNATIVES`].
    #[error("{count} addresses; the limit is {MAX_ALTERNATIVES}")]
    TooMany {
        /// How many there are.
        count: usize,
    },
    /// One is longer than [`MAX_ALTERNATIVE_BYTES`].
    #[error("an address has {bytes} bytes; the limit is {MAX_ALTERNATIVE_BYTES}")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// One is not what clients connect to.
    #[error("{0:?} is not the address of a hub: write http://HOST:PORT or https://HOST:PORT")]
    Form(String),
}

impl Alternatives {
    /// Reads addresses with commas between them; an empty text has none.
    pub fn parse(text: &str) -> Result<Self, AlternativesError> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let addresses: Vec<&str> = text.split(',').map(str::trim).collect();
        if addresses.len() > MAX_ALTERNATIVES {
            return Err(AlternativesError::TooMany { count: addresses.len() });
        }
        for address in &addresses {
            if address.len() > MAX_ALTERNATIVE_BYTES {
                return Err(AlternativesError::TooLong { bytes: address.len() });
            }
            if !is_address(address) {
                return Err(AlternativesError::Form((*address).to_owned()));
            }
        }
        Ok(Self(addresses.into_iter().map(Box::from).collect()))
    }

    /// Each of them, in the order in which they were written.
    pub fn addresses(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.iter().map(AsRef::as_ref)
    }
}

/// True for `http://HOST:PORT` and `https://HOST:PORT`.
fn is_address(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let Some((host, port)) = rest.and_then(|rest| rest.rsplit_once(':')) else { return false };
    let is_port = port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0);
    let in_brackets = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = match in_brackets {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)),
    };
    is_port && is_host
}

impl fmt::Display for Alternatives {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

impl TryFrom<String> for Alternatives {
    type Error = AlternativesError;

    fn try_from(text: String) -> Result<Self, AlternativesError> {
        Self::parse(&text)
    }
}

impl From<Alternatives> for String {
    fn from(alternatives: Alternatives) -> Self {
        alternatives.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_clients_write_them() {
        let read =
            |text: &str| Alternatives::parse(text).expect(text).addresses().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(read(""), [""; 0]);
        assert_eq!(read(" "), [""; 0]);
        assert_eq!(read("https://hub-1.example:50051"), ["https://hub-1.example:50051"]);
        assert_eq!(read("http://a:1, http://[::1]:65535"), ["http://a:1", "http://[::1]:65535"]);
        let written = "https://a:1,https://b:2";
        assert_eq!(Alternatives::parse(written).map(String::from), Ok(written.to_owned()));
    }

    #[test]
    fn what_no_client_can_connect_to_is_refused() {
        for bad in [
            "hub-1:50051",
            "unix:/run/hub.sock",
            "https://hub-1",
            "https://hub-1:0",
            "https://hub-1:65536",
            "https://hub-1:+1",
            "https://hub-1:",
            "https://:50051",
            "https://hub-1:50051/",
            "https://a:1@hub-1:50051",
            "https://hub 1:50051",
            "https://::1:50051",
            "https://[hub]:50051",
            "ftp://hub-1:50051",
            "https://a:1,",
            ",https://a:1",
        ] {
            assert!(matches!(Alternatives::parse(bad), Err(AlternativesError::Form(_))), "{bad}");
        }
    }

    #[test]
    fn they_are_limited_in_number_and_length() {
        let all = |count: usize| vec!["http://a:1"; count].join(",");
        assert!(Alternatives::parse(&all(MAX_ALTERNATIVES)).is_ok());
        let count = MAX_ALTERNATIVES + 1;
        assert_eq!(Alternatives::parse(&all(count)), Err(AlternativesError::TooMany { count }));
        let long = |bytes: usize| format!("http://{}:1", "a".repeat(bytes - "http://:1".len()));
        assert!(Alternatives::parse(&long(MAX_ALTERNATIVE_BYTES)).is_ok());
        let bytes = MAX_ALTERNATIVE_BYTES + 1;
        assert_eq!(Alternatives::parse(&long(bytes)), Err(AlternativesError::TooLong { bytes }));
    }
}
