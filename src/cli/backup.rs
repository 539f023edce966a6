//! `switchyard backup`.

use std::{
    fs::File,
    io::{self, BufReader, IsTerminal, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use serde_json::json;
use tonic::Streaming;

use super::{new_file::NewFile, show, stop::interrupts};
use crate::{
    client::{Target, explain},
    engine::check_backup,
    proto::v1::{BackupRequest, BackupResponse},
};

/// How often a person is told how far it is.
const TELL_INTERVAL: Duration = Duration::from_millis(500);

/// Back up everything that a hub stores, while it runs.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The file has all streams with their events and groups, as they were at one moment after the command began. It also
has the secret that signs resume tokens: protect it like the data itself. The file appears, and replaces one of the
same name, only when it is complete and was read back. `switchyard restore` restores it.

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
    target: Target,
}

impl Backup {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let shown = self.file.display().to_string();
        let cannot = || format!("cannot write {shown}");
        let mut interrupts = interrupts()?;
        let mut client = self.target.backups().await?;
        let mut partial = NewFile::beside(&self.file, ".partial").with_context(cannot)?;
        let copy = async {
            let pieces = client.backup(BackupRequest {}).await.map_err(|status| explain(&status))?.into_inner();
            write(pieces, &mut partial.file).await.with_context(cannot)?.map_err(|status| explain(&status))
        };
        let bytes = tokio::select! {
            copied = copy => copied?,
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

/// Writes all pieces, and gives how many bytes they were. Fails by itself, or as the hub does.
async fn write(mut pieces: Streaming<BackupResponse>, file: &mut File) -> io::Result<Result<i64, tonic::Status>> {
    let (mut bytes, mut total, mut progress) = (0, 0, Progress::new());
    loop {
        let piece = match pieces.message().await {
            Ok(Some(piece)) => piece,
            Ok(None) => break,
            Err(status) => return Ok(Err(status)),
        };
        file.write_all(&piece.data)?;
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
