//! `switchyard backup`.

use std::{
    fs::File,
    io::{self, BufReader, IsTerminal, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use serde_json::json;

use super::{
    new_file::NewFile,
    reach::{Reach, Reached},
    show,
    stop::interrupts,
};
use crate::{engine::check_backup, proto::v1::BackupRequest};

/// How often a person is told how far it is.
const TELL_INTERVAL: Duration = Duration::from_millis(500);

/// Back up everything that a hub stores, while it runs.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The file has all streams with their events and groups, as they were at one moment after the command began. It also
has the secret that signs resume tokens: protect it like the data itself. The file appears, and replaces one of the
same name, only when it is complete and was read back. `switchyard restore` restores it. A backup may take any time;
--timeout is how long the hub may send nothing.

Examples:
  switchyard backup hub.backup
  switchyard backup /backups/hub.backup --server https://hub.example:50051 --token-file backup.token")]
pub struct Backup {
    /// The file to write
    file: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

impl Backup {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let shown = self.file.display().to_string();
        let cannot = || format!("cannot write {shown}");
        let mut interrupts = interrupts()?;
        let mut hub = self.reach.connect().await?;
        let mut partial = NewFile::beside(&self.file, ".partial").with_context(cannot)?;
        let bytes = tokio::select! {
            copied = copy(&mut hub, &mut partial.file) => copied?.with_context(cannot)?,
            _ = interrupts.recv() => bail!("stopped: {shown} was not written"),
        };
        let checked = check_backup(BufReader::new(File::open(&partial.path).with_context(cannot)?));
        let streams = checked.with_context(|| format!("{shown} was not written"))?.streams;
        partial.keep(&self.file).and_then(|()| sync_folder_of(&self.file)).with_context(cannot)?;
        let told = if self.json {
            json!({ "file": shown, "bytes": bytes, "streams": streams }).to_string()
        } else {
            format!("{shown}: {streams} streams, {}", show::bytes(bytes))
        };
        show::print(&told).map(drop)
    }
}

/// The name of a file is there after a loss of power.
fn sync_folder_of(file: &Path) -> io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// Writes all pieces into a file, and gives how many bytes they were. Fails as the hub does, or as writing does.
async fn copy(hub: &mut Reached, file: &mut File) -> anyhow::Result<io::Result<i64>> {
    let mut pieces = hub.ask("Backup", hub.backups().backup(BackupRequest {})).await?;
    let (mut bytes, mut total, mut progress) = (0, 0, Progress::new());
    while let Some(piece) = hub.next("Backup", &mut pieces).await? {
        if let Err(error) = file.write_all(&piece.data) {
            return Ok(Err(error));
        }
        bytes += i64::try_from(piece.data.len()).unwrap_or(i64::MAX);
        total = total.max(piece.store_bytes);
        progress.tell(bytes, total);
    }
    progress.end();
    Ok(Ok(bytes))
}

/// Tells a person how far it is.
struct Progress {
    told: Option<Instant>,
    anybody: bool,
}

impl Progress {
    fn new() -> Self {
        Self { told: None, anybody: io::stderr().is_terminal() }
    }

    fn tell(&mut self, bytes: i64, of: i64) {
        if self.anybody && self.told.is_none_or(|told| told.elapsed() >= TELL_INTERVAL) {
            eprint!("\r\x1b[K{} of at most {}", show::bytes(bytes), show::bytes(of));
            self.told = Some(Instant::now());
        }
    }

    fn end(&self) {
        if self.told.is_some() {
            eprint!("\r\x1b[K");
        }
    }
}
