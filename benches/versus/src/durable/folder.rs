//! The folder of one server: empty when it is made, gone when it is dropped, and forgotten by the system on request.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context;

/// A folder that is gone when this is dropped.
pub(super) struct Folder(pub(super) PathBuf);

impl Folder {
    pub(super) fn make(path: &Path) -> anyhow::Result<Self> {
        if path.exists() {
            fs::remove_dir_all(path).with_context(|| format!("cannot empty {}", path.display()))?;
        }
        fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path.canonicalize()?))
    }

    /// Has the system drop from memory what it has of every file, so that it is read from the disk again.
    ///
    /// All is read once in between: of a virtual machine, memory that is free may be with its host, and to get a page of it
    /// back takes longer than to read the page from the disk. What was free just now is there.
    pub(super) fn forget_in_memory(&self) -> anyhow::Result<()> {
        self.each_file(drop_from_memory)?;
        self.each_file(|file| io::copy(&mut &*file, &mut io::sink()).map(drop))?;
        self.each_file(drop_from_memory)
    }

    fn each_file(&self, what: impl Fn(&fs::File) -> io::Result<()>) -> anyhow::Result<()> {
        let mut folders = vec![self.0.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    folders.push(entry.path());
                } else {
                    what(&fs::File::open(entry.path())?)?;
                }
            }
        }
        Ok(())
    }
}

fn drop_from_memory(file: &fs::File) -> io::Result<()> {
    // What is not on the disk yet stays in memory.
    file.sync_all()?;
    Ok(rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed)?)
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Whatever is left is removed before the next run.
        fs::remove_dir_all(&self.0).ok();
    }
}
