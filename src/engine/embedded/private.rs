//! Who may look into the data directory: nobody but its owner. Events lie there as they are, and so does the key of resume
//! tokens.

use std::{
    fs::{DirBuilder, Metadata, OpenOptions, Permissions, set_permissions, symlink_metadata},
    io::Error,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

/// What the names of all files of a store begin with.
const OURS: &str = "streams.";
/// What file systems put into directories by themselves.
const OF_FILE_SYSTEMS: &str = "lost+found";
const DIRECTORY: u32 = 0o700;
const FILE: u32 = 0o600;
/// The group of a directory gives what is made in it to its group: volumes are shared so, as Kubernetes does by `fsGroup`.
const SET_GROUP: u32 = 0o2000;
const GROUP: u32 = 0o070;
const OTHERS: u32 = 0o007;

/// Makes a directory if there is none.
pub(super) fn make(directory: &Path) -> Result<(), Error> {
    DirBuilder::new().recursive(true).mode(DIRECTORY).create(directory)
}

/// For a file to be read and written, and made if it has to be.
pub(super) fn file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(FILE);
    options
}

/// Takes a directory, and the files of a store in it, from others, as they were made once. It goes on where it may not: the
/// mount of a volume is often somebody else's.
pub(super) fn tighten(directory: &Path) {
    // The operator may have put a link in its place.
    let Ok(directory) = directory.canonicalize() else { return };
    let mut foreign = false;
    for entry in directory.read_dir().into_iter().flatten().flatten() {
        match entry.file_name().to_string_lossy() {
            name if name.starts_with(OURS) => take(&entry.path(), Metadata::is_file, |_| GROUP | OTHERS),
            name => foreign |= name != OF_FILE_SYSTEMS,
        }
    }
    if foreign {
        // Who may look into it is not for a hub alone to say. Its own files are closed.
        tracing::debug!(path = %directory.display(), "the directory has other things in it: its permissions stay as they are");
        return;
    }
    let too_much = |mode: u32| if mode & SET_GROUP == 0 { GROUP | OTHERS } else { OTHERS };
    take(&directory, Metadata::is_dir, too_much);
}

/// Takes away what is too much of a mode, from what is of the right kind: links lead elsewhere.
fn take(path: &Path, is_right: fn(&Metadata) -> bool, too_much: fn(u32) -> u32) {
    let Some(found) = symlink_metadata(path).ok().filter(is_right) else { return };
    let mode = found.permissions().mode() & 0o7777;
    let tight = mode & !too_much(mode);
    if tight == mode {
        return;
    }
    let (shown, from, to) = (path.display(), format!("{mode:o}"), format!("{tight:o}"));
    match set_permissions(path, Permissions::from_mode(tight)) {
        Ok(()) => tracing::info!(path = %shown, from, to, "closed to others"),
        Err(error) => tracing::warn!(path = %shown, mode = from, %error, "open to others, and cannot be closed"),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, path::PathBuf};

    use super::*;

    struct Place(PathBuf);

    impl Place {
        fn new() -> Self {
            let place = Self(std::env::temp_dir().join(format!("switchyard-private-{:x}", fastrand::u64(..))));
            fs::create_dir(&place.0).expect("made");
            place
        }

        fn file(&self, name: &str, mode: u32) -> PathBuf {
            let path = self.0.join(name);
            fs::write(&path, "x").expect("written");
            set(&path, mode);
            path
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    fn set(path: &Path, mode: u32) {
        set_permissions(path, Permissions::from_mode(mode)).expect("set");
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("there").permissions().mode() & 0o7777
    }

    #[test]
    fn what_is_made_is_for_its_owner_alone() {
        let place = Place::new();
        let directory = place.0.join("deep/data");
        make(&directory).expect("made");
        make(&directory).expect("there");
        assert_eq!((mode(&directory), mode(&place.0.join("deep"))), (0o700, 0o700));
        file().create(true).truncate(true).open(directory.join("streams.redb")).expect("made");
        assert_eq!(mode(&directory.join("streams.redb")), 0o600);
    }

    #[test]
    fn what_was_made_once_is_closed_to_others() {
        let place = Place::new();
        let (store, lock) = (place.file("streams.redb", 0o644), place.file("streams.lock", 0o666));
        fs::create_dir(place.0.join(OF_FILE_SYSTEMS)).expect("made");
        set(&place.0, 0o755);
        tighten(&place.0);
        assert_eq!([&store, &lock, &place.0].map(|path| mode(path)), [0o600, 0o600, 0o700]);
        // A volume that is its group's: who mounts it looks for that.
        set(&place.0, 0o2775);
        set(&store, 0o660);
        tighten(&place.0);
        assert_eq!((mode(&store), mode(&place.0)), (0o600, 0o2770));
    }

    #[test]
    fn what_is_not_of_the_hub_is_left_as_it_is() {
        let place = Place::new();
        let (store, other) = (place.file("streams.redb", 0o644), place.file("photo.jpg", 0o644));
        symlink(&other, place.0.join("streams.lock")).expect("a link");
        set(&place.0, 0o755);
        tighten(&place.0);
        assert_eq!([&store, &other, &place.0].map(|path| mode(path)), [0o600, 0o644, 0o755]);
    }
}
