//! A file that keeps a resume token, so that a subscription that is started again goes on where it was.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};

use super::new_file::NewFile;

/// No token of a hub is longer, in bytes.
const MAX_TOKEN_BYTES: usize = 256;

/// The file, and what is in it.
#[derive(Debug)]
pub(super) struct ResumeFile {
    path: PathBuf,
    token: String,
}

impl ResumeFile {
    /// Reads the token of an earlier run, if there was one.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        // It would be replaced by a file, and what it leads to would keep an old token.
        let is_link = fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
        ensure!(!is_link, "{shown} is a symbolic link; name the file itself");
        let token = match fs::read_to_string(path) {
            Ok(text) => text.trim().to_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).with_context(|| format!("cannot read {shown}")),
        };
        let holds_one = token.len() <= MAX_TOKEN_BYTES && !token.contains(char::is_whitespace);
        ensure!(holds_one, "{shown} does not hold a resume token; remove it to start over");
        ensure!(!token.is_empty() || !path.exists(), "{shown} is empty; remove it to start over");
        Ok(Self { path: path.to_owned(), token })
    }

    /// The token of an earlier run.
    pub(super) fn token(&self) -> Option<&str> {
        (!self.token.is_empty()).then_some(self.token.as_str())
    }

    /// Keeps a token in place of the one before: whoever reads the file finds one or the other, whole. An empty token
    /// says nothing and changes nothing.
    pub(super) fn keep(&mut self, token: &str) -> anyhow::Result<()> {
        if token.is_empty() || token == self.token {
            return Ok(());
        }
        self.replace(token).with_context(|| format!("cannot write {}", self.path.display()))?;
        token.clone_into(&mut self.token);
        Ok(())
    }

    fn replace(&self, token: &str) -> io::Result<()> {
        let mut new = NewFile::beside(&self.path, ".new")?;
        writeln!(new.file, "{token}")?;
        new.keep(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    /// A place for a file that no other test uses.
    fn place(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("switchyard-resume-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder.join("token")
    }

    #[test]
    fn a_token_that_is_kept_is_there_next_time() {
        let path = place("kept");
        let mut file = ResumeFile::open(&path).unwrap();
        assert_eq!(file.token(), None);
        file.keep("").unwrap();
        assert!(!path.exists(), "nothing to keep");
        file.keep("one").unwrap();
        file.keep("two").unwrap();
        assert_eq!(ResumeFile::open(&path).unwrap().token(), Some("two"));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }

    #[test]
    fn nothing_is_written_through_a_link() {
        let path = place("planted");
        let folder = path.parent().unwrap();
        let (victim, planted) = (folder.join("victim"), folder.join("token.new"));
        fs::write(&victim, "precious").unwrap();
        symlink(&victim, &planted).unwrap();
        let mut file = ResumeFile::open(&path).unwrap();
        file.keep("one").unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        let kept = fs::symlink_metadata(&path).unwrap();
        assert!(kept.is_file() && fs::symlink_metadata(&planted).is_err());
        assert_eq!(kept.permissions().mode() & 0o777, 0o600);
        fs::remove_file(&path).unwrap();
        symlink(&victim, &path).unwrap();
        assert!(ResumeFile::open(&path).unwrap_err().to_string().contains("symbolic link"));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_file_of_something_else_is_left_alone() {
        let path = place("other");
        for content in ["", "\n", "two words", &"x".repeat(300)] {
            fs::write(&path, content).unwrap();
            assert!(ResumeFile::open(&path).is_err(), "{content}");
        }
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }
}
