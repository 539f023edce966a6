//! A hub over its lives, at one address and on one data directory.

use std::{net::SocketAddr, time::Duration};

use crate::{
    harness::{Folder, Process},
    verifying::free_address,
};

pub(super) struct Home {
    folder: Folder,
    pub(super) address: SocketAddr,
    hub: Option<Process>,
    /// Of hubs that are started from now on, besides those that all have.
    settings: Vec<String>,
}

impl Home {
    /// No hub yet.
    pub(super) fn new() -> Self {
        Self { folder: Folder::new(), address: free_address(), hub: None, settings: Vec::new() }
    }

    /// Hubs that are started from now on have this setting.
    pub(super) fn set(&mut self, setting: &str) {
        self.settings.push(setting.to_owned());
    }

    /// A hub that serves.
    pub(super) async fn started() -> Self {
        let mut home = Self::new();
        home.start().await;
        home
    }

    /// Starts the next hub; the runtime goes on meanwhile.
    pub(super) async fn start(&mut self) {
        let settings = [format!("listen={}", self.address), "drain.spread_ms=200".to_owned(), "node=home".to_owned()];
        let mut flags = vec!["--data-dir".to_owned(), self.folder.text().to_owned()];
        let settings = settings.into_iter().chain(self.settings.iter().cloned());
        flags.extend(settings.flat_map(|setting| ["--set".to_owned(), setting]));
        let start = move || Process::start(&flags.iter().map(String::as_str).collect::<Vec<_>>());
        self.hub = Some(tokio::task::spawn_blocking(start).await.expect("a hub"));
    }

    /// Kills the hub.
    pub(super) async fn kill(&mut self) {
        self.end("KILL").await;
    }

    /// Stops the hub in order.
    pub(super) async fn stop(&mut self) {
        self.end("TERM").await;
    }

    async fn end(&mut self, signal: &str) {
        let Some(mut hub) = self.hub.take() else { return };
        hub.signal(signal);
        tokio::task::spawn_blocking(move || hub.exit(Duration::from_secs(25))).await.expect("joined");
    }

    /// Sends a signal to the hub.
    pub(super) fn signal(&self, name: &str) {
        self.hub.as_ref().expect("a hub").signal(name);
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Some(hub) = &self.hub {
            // One that is stopped would not be killed in time otherwise.
            hub.signal("CONT");
        }
    }
}
