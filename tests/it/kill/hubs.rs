//! The hubs that live and die on one data directory.

use std::time::Duration;

use super::Life;
use crate::{
    harness::{Process, pause, program},
    stored::Folder,
};

pub(super) struct Hubs {
    folder: Folder,
    hub: Option<Process>,
    number: usize,
}

impl Hubs {
    pub(super) fn new() -> Self {
        Self { folder: Folder::new(), hub: None, number: 0 }
    }

    /// The next one, when it serves; the runtime goes on while it starts.
    pub(super) async fn start(&mut self) -> Life {
        let hub = start(self.flags()).await;
        let address = hub.address;
        self.hub = Some(hub);
        self.number += 1;
        Life { address, number: self.number }
    }

    fn flags(&self) -> Vec<String> {
        // Little memory for the tail, so that those who come back read the file.
        let flags = ["--data-dir", self.folder.text(), "--set", "engine.tail_cache_bytes=131072"];
        flags.map(str::to_owned).to_vec()
    }

    pub(super) fn kill(&mut self) {
        if let Some(mut hub) = self.hub.take() {
            hub.signal("KILL");
            hub.exit(Duration::from_secs(10));
        }
    }

    /// One that dies somewhere on its way to serve.
    pub(super) async fn kill_early(&self, random: &mut fastrand::Rng) {
        let ports = [
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--ops-listen",
            "127.0.0.1:0",
            "--web-listen",
            "127.0.0.1:0",
            "--log",
            "error",
        ];
        let mut child = program().args(ports).args(self.flags()).spawn().expect("the program starts");
        pause(Duration::from_millis(random.u64(1..60))).await;
        child.kill().expect("killed");
        child.wait().expect("dead");
    }
}

/// A hub, when it serves; the runtime goes on while it starts.
pub(super) async fn start(flags: Vec<String>) -> Process {
    let start = move || Process::start(&flags.iter().map(String::as_str).collect::<Vec<_>>());
    tokio::task::spawn_blocking(start).await.expect("a hub")
}
