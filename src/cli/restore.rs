//! `switchyard restore`.

use std::{fs::File, io::BufReader, path::PathBuf};

use anyhow::Context;
use serde_json::json;

use super::show;
use crate::engine::{renew, restore};

/// Restore a backup, or give the streams of a data directory new epochs.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Creates a store from a backup, in a directory that has none; no hub may use it meanwhile. Every stream gets a new
epoch: a client with a resume token from the lost history gets EPOCH_CHANGED instead of silently missing events.

Without a backup it only assigns new epochs, for a data directory that was restored by other means, such as a
snapshot of its volume.

Examples:
  switchyard restore hub.backup --data-dir /var/lib/switchyard
  switchyard restore --data-dir /var/lib/switchyard")]
pub struct Restore {
    /// The backup to restore
    file: Option<PathBuf>,
    /// The data directory
    #[arg(long, value_name = "DIR", env = "SWITCHYARD_DATA_DIR")]
    data_dir: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Restore {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let restored = match &self.file {
            Some(file) => {
                let shown = file.display().to_string();
                let backup = File::open(file).with_context(|| format!("cannot read {shown}"))?;
                restore(BufReader::with_capacity(1024 * 1024, backup), &self.data_dir)
                    .with_context(|| format!("{shown} was not restored"))?
            }
            None => renew(&self.data_dir)?,
        };
        let (folder, streams) = (self.data_dir.display().to_string(), restored.streams);
        let told = if self.json {
            json!({ "data_dir": folder, "streams": streams }).to_string()
        } else {
            format!("{folder}: {streams} streams, each with a new epoch")
        };
        show::print(&told).map(drop)
    }
}
