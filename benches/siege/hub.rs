//! The hub under siege: the program itself, with its defaults, in a process of its own.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use anyhow::Context;

/// A running hub. Ended, and its store removed, when it is dropped.
pub(crate) struct Hub {
    pub(crate) address: SocketAddr,
    pub(crate) ops_address: SocketAddr,
    child: Child,
    folder: PathBuf,
}

impl Hub {
    pub(crate) fn start() -> anyhow::Result<Self> {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("siege-{}", std::process::id()));
        std::fs::remove_dir_all(&folder).ok();
        let mut child = Command::new(env!("CARGO_BIN_EXE_switchyard"))
            .args(["serve", "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--log-format", "json"])
            .arg("--data-dir")
            .arg(&folder)
            .stderr(Stdio::piped())
            .spawn()?;
        let mut log = BufReader::new(child.stderr.take().context("no log")?);
        let serving: serde_json::Value = loop {
            let mut line = String::new();
            anyhow::ensure!(log.read_line(&mut line)? > 0, "the hub ended before it served");
            let parsed: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            if parsed["message"] == "serving" {
                break parsed;
            }
        };
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        let address = |key: &str| serving[key].as_str().and_then(|text| text.parse().ok()).context("no address");
        Ok(Self { address: address("address")?, ops_address: address("ops_address")?, child, folder })
    }

    /// Resident memory, in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0) * 1024
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        std::fs::remove_dir_all(&self.folder).ok();
    }
}
