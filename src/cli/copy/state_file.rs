//! The file in which a copy keeps what its target cannot say: which event of the source is which there, and how far that
//! was verified.
//!
//! Lines are only added. A run is on the disk before the first event of it is sent, so after a crash the last sequence of
//! the target says how much of what was planned came true. A last line without its end is not there.

use std::{
    fmt::Write as _,
    fs::{File, OpenOptions, TryLockError},
    io::{self, BufRead, BufReader, Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};

use super::map::{Map, Run};

/// The first line.
const HEAD: &str = "switchyard stream copy 1";
/// No line is longer, in bytes: a word, a name and a number.
const MAX_LINE_BYTES: u64 = 256;

/// A stream as it was when the copy began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Side {
    pub(super) name: String,
    pub(super) epoch: i64,
}

/// Which stream becomes which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sides {
    pub(super) source: Side,
    pub(super) target: Side,
}

/// What the file says.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Nothing in a new file.
    pub(super) sides: Option<Sides>,
    pub(super) map: Map,
    /// Up to which sequence of the target it was verified.
    pub(super) verified: i64,
}

/// The file, which no other copy writes at the same time.
#[derive(Debug)]
pub(super) struct StateFile {
    path: PathBuf,
    file: File,
}

impl StateFile {
    /// What a file says; nothing when there is none.
    pub(super) fn read(path: &Path) -> anyhow::Result<Kept> {
        match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Kept::default()),
            opened => {
                let file = opened.with_context(|| cannot("read", path))?;
                parsed(&file, path).map(|(kept, _)| kept)
            }
        }
    }

    /// Opens a file, or makes it, for this copy alone.
    pub(super) fn open(path: &Path) -> anyhow::Result<(Self, Kept)> {
        let mut options = OpenOptions::new();
        let opened = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let file = opened.with_context(|| cannot("open", path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!("another copy uses {}", path.display()),
            Err(TryLockError::Error(error)) => return Err(error).with_context(|| cannot("lock", path)),
        }
        let (kept, whole_bytes) = parsed(&file, path)?;
        let mut kept_file = Self { path: path.to_owned(), file };
        kept_file.cut(whole_bytes).with_context(|| cannot("write", path))?;
        Ok((kept_file, kept))
    }

    /// Begins again, with what is known.
    pub(super) fn begin(&mut self, sides: &Sides, map: &Map, verified: i64) -> anyhow::Result<()> {
        let Sides { source, target } = sides;
        let runs = lines_of(map.runs());
        let text = format!(
            "{HEAD}\nsource {} {}\ntarget {} {}\n{runs}verified {verified}\n",
            source.name, source.epoch, target.name, target.epoch
        );
        self.cut(0).and_then(|()| self.add(&text)).with_context(|| cannot("write", &self.path))
    }

    /// Adds runs that are about to begin. They are on the disk when this returns.
    pub(super) fn plan(&mut self, runs: &[Run]) -> anyhow::Result<()> {
        if runs.is_empty() {
            return Ok(());
        }
        self.add(&lines_of(runs)).with_context(|| cannot("write", &self.path))
    }

    /// Notes how far the target was verified.
    pub(super) fn verified(&mut self, target: i64) -> anyhow::Result<()> {
        self.file.write_all(format!("verified {target}\n").as_bytes()).with_context(|| cannot("write", &self.path))
    }

    fn add(&mut self, text: &str) -> io::Result<()> {
        self.file.write_all(text.as_bytes())?;
        self.file.sync_data()
    }

    /// What is written next comes behind so many bytes.
    fn cut(&mut self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)?;
        self.file.seek(io::SeekFrom::Start(bytes)).map(drop)
    }
}

fn lines_of(runs: &[Run]) -> String {
    let mut text = String::new();
    for run in runs {
        // A text takes whatever is written to it.
        writeln!(text, "run {} {}", run.source, run.target).ok();
    }
    text
}

fn cannot(what: &str, path: &Path) -> String {
    format!("cannot {what} the state file {}", path.display())
}

/// What a file says, and how many bytes its whole lines have.
fn parsed(file: &File, path: &Path) -> anyhow::Result<(Kept, u64)> {
    let mut lines = Lines { input: BufReader::new(file), line: String::new(), bytes: 0 };
    let context = || cannot("read", path);
    let foreign = || format!("{} is not the state file of a copy", path.display());
    let mut kept = Kept::default();
    match lines.next().with_context(context)? {
        None => {
            ensure!(lines.line.is_empty() || HEAD.starts_with(&lines.line), foreign());
            return Ok((kept, 0));
        }
        Some(first) => ensure!(first == HEAD, foreign()),
    }
    let (mut source, mut target) = (None, None);
    while let Some(line) = lines.next().with_context(context)? {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |text: &str| text.parse::<i64>().with_context(|| format!("{}: line {line:?}", foreign()));
        match words[..] {
            ["source", name, epoch] => source = Some(Side { name: name.to_owned(), epoch: number(epoch)? }),
            ["target", name, epoch] => target = Some(Side { name: name.to_owned(), epoch: number(epoch)? }),
            ["run", source, target] => {
                let run = Run { source: number(source)?, target: number(target)? };
                ensure!(kept.map.note(run), "{}: line {line:?}", foreign());
            }
            ["verified", target] => kept.verified = number(target)?,
            _ => bail!("{}: line {line:?}", foreign()),
        }
    }
    kept.sides = source.zip(target).map(|(source, target)| Sides { source, target });
    Ok((kept, lines.bytes))
}

/// The whole lines of a file.
struct Lines<'a> {
    input: BufReader<&'a File>,
    line: String,
    /// Of the lines that came.
    bytes: u64,
}

impl Lines<'_> {
    /// `None` at the end, or at a line that has none: that one was cut short.
    fn next(&mut self) -> io::Result<Option<&str>> {
        self.line.clear();
        let read = (&mut self.input).take(MAX_LINE_BYTES).read_line(&mut self.line)?;
        let Some(line) = self.line.strip_suffix('\n') else {
            if read as u64 == MAX_LINE_BYTES {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is too long"));
            }
            return Ok(None);
        };
        self.bytes += read as u64;
        Ok(Some(line))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn file(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("switchyard-copy-{}-{name}", std::process::id()));
        fs::remove_file(&path).ok();
        path
    }

    fn sides() -> Sides {
        let side = |name: &str, epoch| Side { name: name.to_owned(), epoch };
        Sides { source: side("orders", 7), target: side("bills", -3) }
    }

    #[test]
    fn what_is_written_is_read_and_a_line_that_was_cut_short_is_not_there() {
        let path = file("kept");
        assert_eq!(StateFile::read(&path).unwrap().sides, None);
        let (mut state, kept) = StateFile::open(&path).unwrap();
        assert!(kept.sides.is_none() && kept.map.is_empty());
        state.begin(&sides(), &Map::default(), 0).unwrap();
        let runs = [Run { source: 3, target: 1 }, Run { source: 9, target: 4 }];
        state.plan(&runs).unwrap();
        state.verified(3).unwrap();
        state.file.write_all(b"run 12 5").unwrap();
        drop(state);
        let (mut state, kept) = StateFile::open(&path).unwrap();
        assert_eq!((kept.sides, kept.map.runs(), kept.verified), (Some(sides()), &runs[..], 3));
        state.plan(&[Run { source: 20, target: 6 }]).unwrap();
        let kept = StateFile::read(&path).unwrap();
        assert_eq!(kept.map.runs().last(), Some(&Run { source: 20, target: 6 }), "behind what was cut off");
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn two_copies_do_not_share_a_file() {
        let path = file("shared");
        let (_state, _) = StateFile::open(&path).unwrap();
        let error = StateFile::open(&path).unwrap_err().to_string();
        assert!(error.starts_with("another copy uses "), "{error}");
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_file_of_something_else_is_left_alone() {
        let path = file("other");
        for text in [
            "precious",
            "precious\n",
            &format!("{HEAD}\nrun 1\n"),
            &format!("{HEAD}\nrun 2 2\nrun 1 3\n"),
            &"x".repeat(300),
        ] {
            fs::write(&path, text).unwrap();
            assert!(StateFile::open(&path).is_err() && StateFile::read(&path).is_err(), "{text}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        fs::write(&path, &HEAD[..5]).unwrap();
        assert!(StateFile::open(&path).is_ok(), "a crash while it was made");
        fs::remove_file(path).unwrap();
    }
}
