//! A file that is written beside the one whose place it takes once it is whole: whoever reads that finds the old or the new.
//!
//! Only its owner can read it. What lies in its way, left of a run that was cut short or put there by somebody, is never
//! written through.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// The file, until it has its place. Gone with this, unless it was kept.
#[derive(Debug)]
pub(super) struct NewFile {
    pub(super) path: PathBuf,
    pub(super) file: File,
    kept: bool,
}

impl NewFile {
    /// Beside `of`, with its name and `suffix`, so that renaming is one step.
    pub(super) fn beside(of: &Path, suffix: &str) -> io::Result<Self> {
        let mut path = of.as_os_str().to_owned();
        path.push(suffix);
        let path = PathBuf::from(path);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Self { path, file, kept: false })
    }

    /// What was written is on the disk, and has the name `as_file` from now on.
    pub(super) fn keep(mut self, as_file: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, as_file)?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.kept {
            fs::remove_file(&self.path).ok();
        }
    }
}
