//! What an operator may set about the operator's port.

use serde::{Deserialize, Serialize};

use crate::model::{Peer, limits::MAX_TIME_MS};

/// Limits of the operator's port; in the file under `[ops]`. They are small: probes come one at a time, and files that are
/// open here are missing elsewhere.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Limit on connections to the operator's port; further ones are closed at once. The same number of files is
    /// reserved for them.
    pub max_connections: usize,
    /// A connection to the operator's port without a request for this long is closed, in milliseconds.
    pub idle_timeout_ms: u64,
    /// From where the log filter may be changed with `PUT /log`: `local` (from this machine), `all`, or `off` for
    /// nowhere.
    pub log_changes: LogChanges,
}

/// Who may change what is logged while the hub runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogChanges {
    /// Nobody.
    Off,
    /// Who is on this machine.
    Local,
    /// Everybody who reaches the operator's port.
    All,
}

impl LogChanges {
    /// Whether somebody at that address may.
    pub(super) fn allow(self, peer: Option<Peer>) -> bool {
        match self {
            Self::Off => false,
            Self::Local => peer.is_some_and(|peer| peer.is_local()),
            Self::All => true,
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self { max_connections: 32, idle_timeout_ms: 5_000, log_changes: LogChanges::Local }
    }
}

impl Options {
    /// What is out of range, with its key and what it may be.
    pub fn check(&self) -> Result<(), String> {
        let rules = [
            ("max_connections", self.max_connections as u64, 2, 10_000),
            ("idle_timeout_ms", self.idle_timeout_ms, 100, MAX_TIME_MS),
        ];
        match rules.iter().find(|(_, value, least, most)| value < least || value > most) {
            Some((key, value, least, most)) => Err(format!("ops.{key} is {value} and must be {least} to {most}")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_logged_is_changed_from_this_machine_unless_it_is_said_otherwise() {
        let may = |who: LogChanges, peer: &str| {
            let address: std::net::IpAddr = peer.parse().expect("an address");
            who.allow(Some(std::net::SocketAddr::new(address, 1).into()))
        };
        let usual = Options::default().log_changes;
        for peer in ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"] {
            assert!(may(usual, peer) && may(LogChanges::All, peer) && !may(LogChanges::Off, peer), "{peer}");
        }
        for peer in ["10.0.0.7", "192.168.1.1", "::ffff:10.0.0.7", "2001:db8::1", "fe80::1", "0.0.0.0"] {
            assert!(!may(usual, peer) && may(LogChanges::All, peer) && !may(LogChanges::Off, peer), "{peer}");
        }
        assert!(!usual.allow(None) && usual.allow(Some(Peer::Unix(None))));
    }
}
