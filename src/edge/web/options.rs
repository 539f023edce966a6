//! What an operator may set about the web listener.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::origin::{Hosts, Origins};
use crate::net::{AddressError, ListenAddress};

/// The web listener; in the file under `[web]`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Where browsers and plain HTTP clients connect; empty for nowhere.
    pub listen: WebListen,
    /// The origins of pages that may use the hub besides those it serves itself, with commas between them:
    /// `https://app.example.com`.
    pub origins: Origins,
    /// The names under which the hub is reached by HTTP, with commas between them. Addresses and `localhost` always count.
    pub hosts: Hosts,
    /// A folder with files that are served at `/`, for pages under development; empty for none.
    pub pages: PathBuf,
}

/// An address to listen on, or none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WebListen(Option<ListenAddress>);

impl WebListen {
    /// Nowhere.
    pub const OFF: Self = Self(None);

    /// Where to listen, if anywhere.
    pub fn address(&self) -> Option<&ListenAddress> {
        self.0.as_ref()
    }
}

impl From<ListenAddress> for WebListen {
    fn from(address: ListenAddress) -> Self {
        Self(Some(address))
    }
}

impl TryFrom<String> for WebListen {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        if text.is_empty() { Ok(Self::OFF) } else { text.parse().map(|address| Self(Some(address))) }
    }
}

impl From<WebListen> for String {
    fn from(listen: WebListen) -> Self {
        listen.0.map_or_else(Self::new, Self::from)
    }
}
