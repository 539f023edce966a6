//! On what was measured.

use std::{fs, path::Path, process::Command};

use serde::Serialize;

/// The versions that this program was built with.
const LOCK_FILE: &str = include_str!("../../../Cargo.lock");

/// A machine and the programs on it.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    cores: usize,
    cpu: String,
    kernel: String,
    memory_kib: u64,
    /// Servers on core 0, load on core 1; the same for every contender.
    pinned: bool,
    hub: String,
    commit: String,
    nats_server: String,
    async_nats: String,
    tonic: String,
    rustc: String,
}

impl Machine {
    pub(crate) fn look(pinned: bool, hub: &Path, nats_server: &Path) -> Self {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
        Self {
            cores: cores(),
            cpu: field("/proc/cpuinfo", "model name"),
            kernel: read("/proc/sys/kernel/osrelease"),
            memory_kib: field("/proc/meminfo", "MemTotal").trim_end_matches(" kB").parse().unwrap_or_default(),
            pinned,
            hub: told_by(hub, &["--version"]),
            commit: told_by(Path::new("git"), &["-C", root, "describe", "--always", "--dirty"]),
            nats_server: told_by(nats_server, &["--version"]),
            async_nats: locked("async-nats"),
            tonic: locked("tonic"),
            rustc: told_by(Path::new("rustc"), &["--version"]),
        }
    }

    pub(crate) fn summary(&self) -> String {
        let pinned = if self.pinned { "servers on core 0, load on core 1" } else { "not pinned" };
        format!(
            "{} cores ({pinned}), {}, Linux {}, {}\n{} ({}), {}, async-nats {}, tonic {}",
            self.cores,
            self.cpu,
            self.kernel,
            self.rustc,
            self.hub,
            self.commit,
            self.nats_server,
            self.async_nats,
            self.tonic
        )
    }
}

/// How many cores the machine has, whichever of them this program may use.
pub(crate) fn cores() -> usize {
    read("/proc/cpuinfo").lines().filter(|line| line.starts_with("processor")).count()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// The value behind the first `name:`.
fn field(path: &str, name: &str) -> String {
    let line = |line: &str| Some(line.strip_prefix(name)?.trim().strip_prefix(':')?.trim().to_owned());
    read(path).lines().find_map(line).unwrap_or_default()
}

fn told_by(program: &Path, arguments: &[&str]) -> String {
    match Command::new(program).args(arguments).output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Err(error) => format!("unknown ({error})"),
    }
}

fn locked(package: &str) -> String {
    let name = format!("name = \"{package}\"\nversion = \"");
    let version = LOCK_FILE.split_once(&name).and_then(|(_, behind)| behind.split_once('"'));
    version.map_or_else(|| "unknown".to_owned(), |(version, _)| version.to_owned())
}
