//! Where the place of a subscription is kept between two runs of a program: a resume token, which is a short text.

use std::{
    fs::{self, OpenOptions},
    future::Future,
    io::{self, Write},
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Mutex, PoisonError},
};

/// No token of a hub is longer, in bytes.
const MAX_TOKEN_BYTES: usize = 256;

/// What a store of positions does, when it is done.
pub type Keeping<'a, T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send + 'a>>;

/// Keeps the place of one subscription.
///
/// The client reads it once, when it subscribes, and writes it after a batch is done, never before. It writes one token
/// after the other and waits for each. A program that stores the results of its work in a database does best to store
/// [`Batch::token`](crate::Batch::token) there too, in the same transaction, and start from it with
/// [`Start::Token`](crate::Start::Token).
pub trait PositionStore: Send + Sync + 'static {
    /// The token that was kept last; `None` for a subscription that begins.
    fn load(&self) -> Keeping<'_, Option<String>>;

    /// Keeps a token in place of the one before.
    fn keep<'a>(&'a self, token: &'a str) -> Keeping<'a, ()>;
}

/// Keeps a place for as long as the program runs: for a subscription that is closed and opened again.
#[derive(Debug, Default)]
pub struct MemoryPosition(Mutex<Option<String>>);

impl MemoryPosition {
    /// A store that has no place yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The token that was kept last.
    pub fn token(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl PositionStore for MemoryPosition {
    fn load(&self) -> Keeping<'_, Option<String>> {
        Box::pin(std::future::ready(Ok(self.token())))
    }

    fn keep<'a>(&'a self, token: &'a str) -> Keeping<'a, ()> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(token.to_owned());
        Box::pin(std::future::ready(Ok(())))
    }
}

/// Keeps a place in a file, which has the token and nothing else. Whoever reads it finds one token or another, whole, and a
/// crash of the machine leaves the last or the one before.
///
/// The file is written in the task that says that a batch is done, which waits for the disk.
#[derive(Debug)]
pub struct FilePosition(PathBuf);

impl FilePosition {
    /// A store in this file, which need not be there.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.0
    }

    fn read(&self) -> io::Result<Option<String>> {
        let bad = |problem: &str| {
            let text = format!("{} {problem}; remove it to start over", self.0.display());
            io::Error::new(io::ErrorKind::InvalidData, text)
        };
        // It would be replaced by a file, and what it leads to would keep an old token.
        if fs::symlink_metadata(&self.0).is_ok_and(|found| found.is_symlink()) {
            return Err(bad("is a symbolic link"));
        }
        let text = match fs::read_to_string(&self.0) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.named(&error)),
        };
        let token = text.trim();
        if token.is_empty() {
            return Err(bad("is empty"));
        }
        if token.len() > MAX_TOKEN_BYTES || token.contains(char::is_whitespace) {
            return Err(bad("does not hold a resume token"));
        }
        Ok(Some(token.to_owned()))
    }

    /// Which file it was.
    fn named(&self, error: &io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("{}: {error}", self.0.display()))
    }

    fn replace(&self, token: &str) -> io::Result<()> {
        let mut name = self.0.clone().into_os_string();
        name.push(".new");
        let beside = PathBuf::from(name);
        // A new file, whatever there was: nothing is written through a link that somebody left there.
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = private(OpenOptions::new().write(true).create_new(true)).open(&beside)?;
        writeln!(file, "{token}")?;
        file.sync_all()?;
        fs::rename(&beside, &self.0)?;
        let folder = self.0.parent().filter(|folder| !folder.as_os_str().is_empty());
        sync_folder(folder.unwrap_or(Path::new(".")))
    }
}

impl PositionStore for FilePosition {
    fn load(&self) -> Keeping<'_, Option<String>> {
        Box::pin(std::future::ready(self.read()))
    }

    fn keep<'a>(&'a self, token: &'a str) -> Keeping<'a, ()> {
        Box::pin(std::future::ready(self.replace(token).map_err(|error| self.named(&error))))
    }
}

/// A token opens what its owner may read: the file is for the owner alone.
#[cfg(unix)]
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    options.mode(0o600)
}

#[cfg(not(unix))]
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    options
}

/// What a folder has is on the disk when the folder is.
#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that no other test uses.
    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("switchyard-position-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        folder
    }

    #[test]
    fn a_token_that_is_kept_is_there_next_time_and_nothing_is_left_beside_it() {
        let folder = folder("kept");
        let store = FilePosition::new(folder.join("token"));
        assert_eq!(store.read().expect("read"), None);
        for token in ["one", "two"] {
            store.replace(token).expect("kept");
            assert_eq!(FilePosition::new(store.path()).read().expect("read").as_deref(), Some(token));
        }
        assert_eq!(fs::read_dir(&folder).expect("a folder").count(), 1);
        fs::remove_dir_all(folder).expect("removed");
    }

    #[test]
    fn a_file_of_something_else_is_left_alone() {
        let folder = folder("other");
        let store = FilePosition::new(folder.join("token"));
        let longest = "x".repeat(MAX_TOKEN_BYTES);
        fs::write(store.path(), &longest).expect("written");
        assert_eq!(store.read().expect("read"), Some(longest.clone()));
        for content in ["", "\n", "two words", &format!("{longest}x")] {
            fs::write(store.path(), content).expect("written");
            assert!(store.read().is_err(), "{content}");
        }
        fs::remove_dir_all(folder).expect("removed");
    }

    #[cfg(unix)]
    #[test]
    fn nothing_is_written_through_a_link_and_no_link_is_read() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = folder("link");
        let victim = folder.join("victim");
        fs::write(&victim, "precious").expect("written");
        symlink(&victim, folder.join("token.new")).expect("a link");
        let store = FilePosition::new(folder.join("token"));
        store.replace("one").expect("kept");
        assert_eq!(fs::read_to_string(&victim).expect("read"), "precious");
        assert_eq!(fs::metadata(store.path()).expect("kept").permissions().mode() & 0o777, 0o600);
        let linked = FilePosition::new(folder.join("linked"));
        symlink(&victim, linked.path()).expect("a link");
        assert!(linked.read().is_err());
        fs::remove_dir_all(folder).expect("removed");
    }
}
