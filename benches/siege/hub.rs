//! The hub that is measured: the program itself, with its defaults, in a process of its own.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::Context;

/// A running hub. Ended, and its store removed, when it is dropped.
pub(crate) struct Hub {
    pub(crate) address: SocketAddr,
    pub(crate) ops_address: SocketAddr,
    pub(crate) child: Child,
    pub(crate) folder: PathBuf,
}

impl Hub {
    pub(crate) fn start() -> anyhow::Result<Self> {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("measured-{}", std::process::id()));
        std::fs::remove_dir_all(&folder).ok();
        let (child, [address, ops_address]) = spawn(&folder, ["127.0.0.1:0", "127.0.0.1:0"])?;
        Ok(Self { address, ops_address, child, folder })
    }
}

/// Gives the addresses once it serves.
pub(crate) fn spawn(folder: &Path, [listen, ops_listen]: [&str; 2]) -> anyhow::Result<(Child, [SocketAddr; 2])> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_switchyard"))
        .args([
            "serve",
            "--listen",
            listen,
            "--ops-listen",
            ops_listen,
            "--web-listen",
            "",
            "--log-format",
            "json",
            "--data-dir",
        ])
        .arg(folder)
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
    Ok((child, [address("address")?, address("ops_address")?]))
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        std::fs::remove_dir_all(&self.folder).ok();
    }
}
