//! What an operator may set about the web listener.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::origin::{Hosts, Origins};
use crate::{
    model::limits,
    net::{AddressError, ListenAddress},
    session::ParkLimits,
};

/// The web listener; in the file under `[web]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
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
    /// Limit on the polls of the hub that wait for events.
    pub max_polls: usize,
    /// Limit on those of one principal, on a hub that asks for credentials.
    pub max_polls_per_principal: usize,
    /// Limit on the sessions of polls, per hub.
    pub max_parked: usize,
    /// Limit on those of one principal, on a hub that asks for credentials.
    pub max_parked_per_principal: usize,
    /// Limit on the bytes that wait in the session of polls between two of them, overhead included.
    pub parked_bytes: usize,
    /// A session of polls ends this long after the last of them, in milliseconds.
    pub parked_timeout_ms: u64,
}

/// An address to listen on, or none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: ListenAddress::from(std::net::SocketAddr::from(([127, 0, 0, 1], 50080))).into(),
            origins: Origins::default(),
            hosts: Hosts::default(),
            pages: PathBuf::new(),
            max_polls: 10_000,
            max_polls_per_principal: 1_000,
            max_parked: 10_000,
            max_parked_per_principal: 1_000,
            parked_bytes: 1024 * 1024,
            parked_timeout_ms: 60_000,
        }
    }
}

impl Options {
    /// What is out of range, with its key and what it may be.
    pub fn check(&self) -> Result<(), String> {
        let rules = [
            ("max_polls", self.max_polls as u64, 0, 1_000_000),
            ("max_polls_per_principal", self.max_polls_per_principal as u64, 0, 1_000_000),
            ("max_parked", self.max_parked as u64, 0, 1_000_000),
            ("max_parked_per_principal", self.max_parked_per_principal as u64, 0, 1_000_000),
            ("parked_bytes", self.parked_bytes as u64, 0, 1024 * 1024 * 1024),
            ("parked_timeout_ms", self.parked_timeout_ms, 100, limits::MAX_TIME_MS),
        ];
        for (key, value, least, most) in rules {
            if value < least || value > most {
                return Err(format!("web.{key} is {value} and must be {least} to {most}"));
            }
        }
        Ok(())
    }

    /// What sessions may do without a connection.
    pub(super) fn parked(&self) -> ParkLimits {
        ParkLimits {
            max: self.max_parked,
            max_per_principal: self.max_parked_per_principal,
            bytes: self.parked_bytes,
            time: self.parked_timeout(),
        }
    }

    /// How long a session may be without one.
    pub(super) fn parked_timeout(&self) -> Duration {
        Duration::from_millis(self.parked_timeout_ms)
    }
}
