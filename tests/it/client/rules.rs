//! The rules of the house for the client crate, kept by looking at its sources.

use std::{collections::BTreeMap, fs, path::Path};

use crate::{
    harness::root,
    imports::{Crate, circles},
};

const MAX_FILE_LINES: usize = 600;
const MAX_IMPL_LINES: usize = 500;

/// Path below `client/src`, and text, of every source file that is written by hand.
pub(super) fn sources() -> BTreeMap<String, String> {
    fn walk(folder: &Path, below: &Path, into: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            let name = entry.strip_prefix(below).expect("below").to_string_lossy().into_owned();
            if entry.is_dir() && name != "gen" {
                walk(&entry, below, into);
            } else if entry.extension().is_some_and(|extension| extension == "rs") {
                into.insert(name, fs::read_to_string(entry).expect("text"));
            }
        }
    }
    let (src, mut all) = (root().join("client/src"), BTreeMap::new());
    walk(&src, &src, &mut all);
    assert!(all.len() > 30, "only {} files are found", all.len());
    all
}

fn production(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text)
}

/// Unit tests in files of their own.
fn is_test(file: &str) -> bool {
    file.contains("tests")
}

#[test]
fn no_files_of_the_client_use_each_other_in_circles() {
    // The generated code is included, and is no file of the module tree.
    assert_eq!(circles(&Crate::parse(&sources()).graph()), []);
}

#[test]
fn no_file_and_no_type_of_the_client_does_too_much() {
    for (file, text) in sources() {
        let lines = production(&text).lines().count();
        assert!(lines <= MAX_FILE_LINES, "client/src/{file} has {lines} lines");
        assert!(file == "lib.rs" || text.starts_with("//!"), "client/src/{file} does not open with what it owns");
    }
    let large: Vec<_> =
        Crate::parse(&sources()).impls().into_iter().filter(|(_, lines)| *lines > MAX_IMPL_LINES).collect();
    assert!(large.is_empty(), "more than {MAX_IMPL_LINES} lines of impl: {large:?}");
}

#[test]
fn the_client_spawns_nothing_and_nothing_in_it_is_without_a_limit() {
    for (file, text) in sources().into_iter().filter(|(file, _)| !is_test(file)) {
        let code = production(&text).lines().filter(|line| !line.trim_start().starts_with("//"));
        for line in code {
            for bad in ["spawn(", "spawn_blocking", "unbounded", "static ", "env::var"] {
                let is_lifetime = bad == "static " && line.contains("'static ");
                assert!(is_lifetime || !line.contains(bad), "client/src/{file}: {line}");
            }
        }
    }
}

#[test]
fn what_says_that_it_is_pure_is_pure_in_the_client_too() {
    let is_pure = |text: &str| {
        let mut head = text.lines().take_while(|line| line.starts_with("//!"));
        head.any(|line| line.ends_with("Pure.") || line.contains("Pure. "))
    };
    let sources = sources();
    let pure: Vec<_> = sources.iter().filter(|(_, text)| is_pure(text)).collect();
    assert!(pure.len() >= 20, "only {} files are pure", pure.len());
    assert!(
        sources
            .keys()
            .filter(|file| file.starts_with("machine/") && !is_test(file))
            .all(|file| { pure.iter().any(|(pure, _)| *pure == file) })
    );
    for (file, text) in pure {
        for line in production(text).lines().filter(|line| !line.trim_start().starts_with("//")) {
            for impure in ["tokio", "tracing", "Instant", "SystemTime::now", "Mutex", "RwLock", "async "] {
                assert!(!line.contains(impure), "client/src/{file}: {impure} in a file that says it is pure");
            }
        }
    }
}
