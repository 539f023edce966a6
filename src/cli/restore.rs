//! `switchyard restore`.

use std::{fs::File, io::BufReader, path::PathBuf};

use anyhow::Context;
use serde_json::json;

use super::show;
use crate::engine::{renew, restore};

/// Put a backup back, or tell a hub that its data directory was.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Makes a data directory of a backup, in a directory that has no store; no hub may use it meanwhile. Every stream gets a new
epoch: whoever comes back with a resume token of what was lost is told, and does not miss events in silence.

Without a backup it does that alone, for a data directory that was put back by other means, such as a snapshot of its volume.

Examples:
  switchyard restore hub.backup --data-dir /var/lib/switchyard
  switchyard restore --data-dir /var/lib/switchyard")]
pub struct Restore {
    /// The backup to put back
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
