//! Files of keys and tokens that others may read or write: told to the log, since nothing else would show it.

use std::{os::unix::fs::PermissionsExt, path::Path};

/// Tells the log of the file of an option that everybody may write, or read although it is `secret`.
pub fn warn_if_open(option: &str, path: &Path, secret: bool) {
    let Ok(found) = std::fs::metadata(path) else { return };
    if let Some(may) = others_may(found.permissions().mode(), secret) {
        tracing::warn!(option, path = %path.display(), "others may {may} this file: chmod o-rw");
    }
}

/// What others may do with a file of that mode, and should not.
fn others_may(mode: u32, secret: bool) -> Option<&'static str> {
    match (mode & 0o004 != 0 && secret, mode & 0o002 != 0) {
        (false, false) => None,
        (true, false) => Some("read"),
        (false, true) => Some("write"),
        (true, true) => Some("read and write"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_others_may_do_is_told() {
        for mode in [0o600, 0o640, 0o660, 0o771] {
            assert_eq!(others_may(mode, true), None, "{mode:o}");
        }
        assert_eq!([others_may(0o644, true), others_may(0o644, false)], [Some("read"), None]);
        assert_eq!([others_may(0o666, true), others_may(0o666, false)], [Some("read and write"), Some("write")]);
    }
}
