//! The rules of the house (docs/architecture.md), kept by looking at the sources.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use crate::{
    harness::root,
    imports::{Crate, circles},
};

/// Which rooms each room may use: the one table, from which those of `lib.rs` and docs/architecture.md are checked. A new
/// arrow is a line that somebody reviews.
const ARROWS: &[(&str, &[&str])] = &[
    ("model", &[]),
    // `proto` only in its tests: what the hub encodes must decode as clients see it. The same in `grpc`.
    ("event", &["model", "field_numbers", "proto"]),
    ("engine", &["event", "model", "memory", "tasks", "telemetry"]),
    // `proto` only in its tests.
    ("json", &["event", "proto"]),
    ("auth", &["event", "model", "tasks", "telemetry"]),
    ("outbox", &["event", "model", "memory", "cut"]),
    ("router", &["outbox", "event", "model", "tasks"]),
    ("groups", &["model"]),
    ("hub", &["router", "groups", "outbox", "engine", "auth", "event", "model", "memory", "cut", "tasks", "telemetry"]),
    (
        "session",
        &[
            "hub",
            "router",
            "groups",
            "outbox",
            "engine",
            "auth",
            "event",
            "model",
            "memory",
            "cut",
            "tasks",
            "telemetry",
        ],
    ),
    ("manage", &["hub", "outbox", "engine", "auth", "event", "model"]),
    ("net", &["model", "memory", "cut", "tasks", "telemetry"]),
    (
        "edge/grpc",
        &[
            "edge",
            "edge/wire",
            "session",
            "manage",
            "hub",
            "auth",
            "net",
            "outbox",
            "event",
            "model",
            "field_numbers",
            "memory",
            "cut",
            "readiness",
            "tasks",
            "telemetry",
            "proto",
        ],
    ),
    ("edge", &["session", "hub", "auth", "net", "model", "memory", "cut", "readiness"]),
    ("edge/http", &["edge", "net", "model", "readiness", "telemetry"]),
    (
        "edge/web",
        &[
            "edge",
            "edge/wire",
            "session",
            "manage",
            "hub",
            "auth",
            "net",
            "outbox",
            "json",
            "event",
            "model",
            "memory",
            "cut",
            "tasks",
            "telemetry",
        ],
    ),
    (
        "edge/wire",
        &[
            "session",
            "manage",
            "hub",
            "auth",
            "outbox",
            "event",
            "model",
            "field_numbers",
            "memory",
            "tasks",
            "telemetry",
            "proto",
        ],
    ),
    (
        "server",
        &[
            "edge",
            "edge/grpc",
            "edge/http",
            "edge/web",
            "hub",
            "auth",
            "engine",
            "event",
            "model",
            "net",
            "config",
            "memory",
            "readiness",
            "tasks",
            "telemetry",
        ],
    ),
    ("config", &["net", "edge/http", "edge/web", "hub", "auth", "engine", "model", "memory", "telemetry"]),
    // `model` only to judge which topics a filter matches.
    ("bench", &["proto", "model", "field_numbers"]),
    // `auth` only to make tokens for development, `engine` only to check and restore backups.
    ("cli", &["bench", "auth", "engine", "proto", "config"]),
    ("proto", &[]),
    ("field_numbers", &[]),
    ("memory", &[]),
    ("cut", &[]),
    ("tasks", &[]),
    ("telemetry", &[]),
    ("readiness", &[]),
];

const MAX_FILE_LINES: usize = 600;
const FORBIDDEN_NAMES: [&str; 6] = ["util", "utils", "common", "helpers", "misc", "shared"];
/// Words that the nine words of the house make needless (docs/architecture.md).
const SYNONYMS: [&str; 3] = ["subject", "consumer", "broker"];

fn rust_files(folder: &str) -> Vec<PathBuf> {
    fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            if entry.is_dir() {
                walk(&entry, files);
            } else if entry.extension().is_some_and(|extension| extension == "rs") {
                files.push(entry);
            }
        }
    }
    let mut files = Vec::new();
    walk(&root().join(folder), &mut files);
    files.sort();
    assert!(!files.is_empty());
    files
}

/// Where the crates of the workspace, and the programs beside them, have their sources.
const CRATES: [&str; 5] = ["src", "client/src", "clients/conformance/src", "benches/versus/src", "benches/siege"];

/// Path below `src`, and text, of every source file of the hub.
fn sources() -> BTreeMap<String, String> {
    sources_of("src")
}

/// Path below it, and text, of every source file of a folder.
fn sources_of(folder: &str) -> BTreeMap<String, String> {
    let src = root().join(folder);
    rust_files(folder)
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(&src).expect("below src").to_string_lossy().into_owned();
            (name, fs::read_to_string(path).expect("text"))
        })
        .collect()
}

/// Everything before the unit tests of a file.
fn production(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text)
}

fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(at, line)| (at + 1, line)).filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// Every edge is a room of its own, beside what they have in common.
fn room(file: &str) -> &str {
    match file.strip_prefix("edge/").and_then(|rest| rest.find('/')) {
        Some(end) => &file[..end + "edge/".len()],
        None => file.split(['/', '.']).next().unwrap_or(file),
    }
}

#[test]
fn arrows_point_one_way() {
    let arrows: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    for (file, uses) in Crate::parse(&sources()).graph_of_rooms() {
        let from = room(&file);
        if ["lib", "main"].contains(&from) {
            continue;
        }
        let allowed = arrows.get(from).unwrap_or_else(|| panic!("{file}: ARROWS has no row for room {from}"));
        for to in uses {
            assert!(room(&to) == from || allowed.contains(&room(&to)), "src/{file}: {from} may not use src/{to}");
        }
    }
}

#[test]
fn no_files_use_each_other_in_circles() {
    for folder in CRATES {
        assert_eq!(circles(&Crate::parse(&sources_of(folder)).graph()), [], "{folder}");
    }
}

/// No type has more lines of `impl` than this, over all its files: a room may be spread over files, but not one thing.
const MAX_IMPL_LINES: usize = 500;

#[test]
fn no_type_does_too_much() {
    let mut found = 0;
    for folder in CRATES {
        let impls = Crate::parse(&sources_of(folder)).impls();
        let large: Vec<_> = impls.iter().filter(|(_, lines)| **lines > MAX_IMPL_LINES).collect();
        assert!(large.is_empty(), "{folder}: more than {MAX_IMPL_LINES} lines of impl: {large:?}");
        found += impls.len();
    }
    assert!(found > 100, "only {found} types are found");
}

#[test]
fn every_module_says_what_it_is_for() {
    for (file, text) in sources() {
        assert!(text.starts_with("//!"), "src/{file} does not open with what it owns");
    }
}

#[test]
fn rooms_are_small_and_named_after_what_they_own() {
    for path in ["src", "tests"].into_iter().flat_map(rust_files) {
        let text = fs::read_to_string(&path).expect("text");
        let lines = production(&text).lines().count();
        assert!(lines <= MAX_FILE_LINES, "{} has {lines} lines", path.display());
        let stem = path.file_stem().expect("a name").to_string_lossy().into_owned();
        assert!(!FORBIDDEN_NAMES.contains(&stem.as_str()), "{}", path.display());
    }
}

#[test]
fn the_map_names_every_room() {
    let map = fs::read_to_string(root().join("docs/architecture.md")).expect("docs/architecture.md");
    let lib = fs::read_to_string(root().join("src/lib.rs")).expect("src/lib.rs");
    let rooms: BTreeSet<String> = sources().keys().map(|file| room(file).to_owned()).collect();
    for room in rooms.iter().filter(|room| !["lib", "main"].contains(&room.as_str())) {
        assert!(map.contains(&format!("`{room}`")), "docs/architecture.md does not name {room}");
        assert!(lib.contains(&format!("[`{}`]", room.replace('/', "::"))), "src/lib.rs does not name {room}");
    }
}

/// A circle among rooms, if these arrows have one.
fn circle<'a>(arrows: &[(&'a str, &'a [&'a str])]) -> Option<Vec<&'a str>> {
    let mut left: BTreeMap<&str, &[&str]> = arrows.iter().copied().collect();
    while let Some(last) = left.iter().find(|(_, uses)| uses.iter().all(|to| !left.contains_key(to))) {
        let last = *last.0;
        left.remove(last);
    }
    (!left.is_empty()).then(|| left.into_keys().collect())
}

#[test]
fn no_rooms_use_each_other_in_a_circle() {
    assert_eq!(circle(ARROWS), None);
    assert_eq!(circle(&[("a", &["b"]), ("b", &["c"]), ("c", &[])]), None);
    assert_eq!(circle(&[("a", &["b"]), ("b", &["c"]), ("c", &["a"]), ("d", &["a"])]), Some(vec!["a", "b", "c", "d"]));
}

/// By room: what the third column of a table of rooms says that it uses.
fn uses_in_table(text: &str, room: &str) -> Option<BTreeSet<String>> {
    let row = text
        .lines()
        .map(|line| line.trim_start_matches("//! ").replace("edge::", "edge/"))
        .find(|line| line.starts_with(&format!("| `{room}` |")) || line.starts_with(&format!("| [`{room}`] |")))?;
    let uses = row.rsplit('|').nth(1)?;
    let named = uses.split(|c: char| !(c.is_ascii_lowercase() || "_/".contains(c))).filter(|word| !word.is_empty());
    Some(named.filter(|word| *word != "nothing").map(str::to_owned).collect())
}

#[test]
fn the_tables_of_rooms_have_the_same_arrows() {
    for page in ["docs/architecture.md", "src/lib.rs"] {
        let text = fs::read_to_string(root().join(page)).expect(page);
        for (room, uses) in ARROWS {
            let Some(told) = uses_in_table(&text, room) else { continue };
            let expected: BTreeSet<String> = uses.iter().map(|room| (*room).to_owned()).collect();
            assert_eq!(told, expected, "{page}: what `{room}` uses");
        }
        assert!(uses_in_table(&text, "hub").is_some(), "{page} has no table of rooms");
    }
}

/// True for a file that says so in what it opens with. Then it knows neither a runtime, nor a clock, nor a log.
fn is_pure(text: &str) -> bool {
    text.lines()
        .take_while(|line| line.starts_with("//!"))
        .any(|line| line.ends_with("Pure.") || line.contains("Pure. ") || line.contains("Pure; "))
}

#[test]
fn what_says_that_it_is_pure_is_pure() {
    let sources = sources();
    let pure: Vec<_> = sources.iter().filter(|(_, text)| is_pure(text)).collect();
    assert!(pure.len() >= 45, "only {} files are pure", pure.len());
    for (file, text) in pure {
        for (line, code) in code_lines(production(text)) {
            for impure in ["tokio", "tracing", "Instant", "SystemTime::now", "Mutex", "RwLock", "async "] {
                assert!(!code.contains(impure), "src/{file}:{line}: {impure} in a file that says it is pure");
            }
        }
    }
}

#[test]
fn the_judge_of_clients_is_pure_and_its_files_are_small() {
    let folder = "clients/conformance/src";
    let sources = sources_of(folder);
    assert!(sources.iter().filter(|(file, _)| file.starts_with("judge/")).count() > 5, "where is the judge?");
    for (file, text) in sources {
        assert!(text.starts_with("//!"), "{folder}/{file} does not open with what it owns");
        assert!(production(&text).lines().count() <= MAX_FILE_LINES, "{folder}/{file} is too long");
        let must_be_pure = file.starts_with("judge/") && !file.ends_with("tests.rs");
        assert!(is_pure(&text) || !must_be_pure, "{folder}/{file} does not say that it is pure");
        for (line, code) in code_lines(production(&text)).filter(|_| is_pure(&text)) {
            for impure in ["tokio", "Instant", "SystemTime", "Mutex", "async ", "std::fs", "std::process"] {
                assert!(!code.contains(impure), "{folder}/{file}:{line}: {impure} in a file that says it is pure");
            }
        }
    }
}

#[test]
fn protobuf_and_statuses_stop_at_the_wall() {
    for (file, text) in sources() {
        let room = room(&file);
        for (line, code) in code_lines(production(&text)) {
            let outside =
                !["event", "json", "field_numbers", "edge/grpc", "edge/web", "edge/wire", "cli", "bench", "proto"]
                    .contains(&room);
            assert!(!(outside && code.contains("prost")), "src/{file}:{line}: protobuf outside the wall");
            let makes_status = [
                "Status::new(",
                "Status::invalid",
                "Status::unimplemented(",
                "Status::not_found(",
                "Status::with_error_details(",
            ]
            .iter()
            .any(|call| code.contains(call));
            assert!(
                !makes_status || file == "edge/wire/status.rs" || file.ends_with("/tests.rs"),
                "src/{file}:{line}: a status made outside edge/wire/status.rs"
            );
        }
    }
}

/// What `manage` asks the caller's rights for.
const MANAGED: [&str; 5] = [".engine()", ".groups()", ".list_sessions(", ".find_session(", ".terminate_session("];

#[test]
fn edges_manage_only_through_the_room_that_checks_rights() {
    for (file, text) in sources() {
        for (line, code) in code_lines(production(&text)) {
            let managed = MANAGED.iter().find(|call| file.starts_with("edge/") && code.contains(**call));
            assert_eq!(managed, None, "src/{file}:{line}: use `manage`, which checks what the caller may do");
        }
    }
}

#[test]
fn tasks_are_spawned_in_one_place() {
    for (file, text) in sources() {
        for (line, code) in code_lines(production(&text)) {
            let spawns =
                code.contains("tokio::spawn") || code.contains("spawn_blocking") || code.contains("thread::spawn");
            assert!(!spawns || file == "tasks.rs", "src/{file}:{line}: spawns outside tasks.rs");
            assert!(!code.contains("unbounded"), "src/{file}:{line}: something without a limit");
        }
    }
}

#[test]
fn one_word_for_one_thing() {
    for (file, text) in sources() {
        for (at, line) in text.lines().enumerate() {
            let line = line.to_lowercase();
            for word in SYNONYMS {
                // Names that others gave: a reason of the contract, where certificates keep what they are for, and what
                // CloudEvents and `google.rpc.QuotaFailure` call something.
                let given = [
                    "slowconsumer",
                    "slow_consumer",
                    "subject_alternative_name",
                    "subject_alt_names",
                    "\"subject\"",
                    "ce-subject",
                    "`subject`",
                    "it.subject",
                ];
                let found = line.contains(word) && !given.iter().any(|name| line.contains(name));
                assert!(!found, "src/{file}:{}: `{word}` is not a word of this house", at + 1);
            }
        }
    }
}

/// The phrases on the right of the word list in docs/architecture.md, and that page without the list.
fn word_list() -> (Vec<String>, String) {
    let page = fs::read_to_string(root().join("docs/architecture.md")).expect("docs/architecture.md");
    let (before, from) = page.split_once("## Plain words").expect("the word list");
    let (list, after) = from.split_once("\n## ").expect("more of the page");
    let rows = list.lines().filter(|line| line.starts_with('|'));
    let phrases = rows.filter_map(|row| row.split('|').nth(2)).flat_map(|cell| cell.split('`').skip(1).step_by(2));
    (phrases.map(str::to_owned).collect(), format!("{before}\n## {after}"))
}

/// Where a text has one of the phrases as words of their own, whatever the case and the line breaks; or a sentence that
/// begins with `Who` and is no question. Headings may.
fn stumbles(text: &str, phrases: &[String]) -> Vec<String> {
    let prose = text.lines().filter(|line| !line.starts_with('#')).flat_map(str::split_whitespace);
    let text = prose.collect::<Vec<_>>().join(" ");
    let lower = text.to_ascii_lowercase();
    let of_a_word = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    let alone = |at: usize, end: usize| !text[..at].ends_with(of_a_word) && !text[end..].starts_with(of_a_word);
    let found = phrases.iter().flat_map(|phrase| {
        lower.match_indices(phrase.as_str()).map(|(at, found)| (at, at + found.len())).collect::<Vec<_>>()
    });
    let is_question = |at: usize| text[at..].find(['.', '?', '|']).is_some_and(|end| text[at + end..].starts_with('?'));
    let who = text.match_indices("Who ").map(|(at, _)| (at, at + 3)).filter(|(at, _)| !is_question(*at));
    let all = found.chain(who).filter(|(at, end)| alone(*at, *end));
    all.map(|(at, _)| text[at..].chars().take(60).collect()).collect()
}

#[test]
fn docs_help_errors_and_contract_use_plain_words() {
    fn help(command: &mut clap::Command, into: &mut String) {
        into.push_str(&command.render_long_help().to_string());
        command.get_subcommands_mut().for_each(|command| help(command, into));
    }
    let (phrases, page) = word_list();
    assert!(phrases.len() > 10, "{phrases:?}");
    let mut texts = vec![("docs/architecture.md".to_owned(), page)];
    for (folder, kind) in [(".", "md"), ("docs", "md"), ("proto/switchyard/v1", "proto")] {
        for entry in fs::read_dir(root().join(folder)).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            if path.extension().is_none_or(|extension| extension != kind)
                || ["architecture.md", "CHANGELOG.md"].contains(&name.as_str())
            {
                continue;
            }
            let text = fs::read_to_string(&path).expect("text");
            let comments = text.lines().filter_map(|line| line.trim_start().strip_prefix("//"));
            let text = if kind == "proto" { comments.collect::<Vec<_>>().join("\n") } else { text };
            texts.push((format!("{folder}/{name}"), text));
        }
    }
    assert!(texts.len() > 15, "only {} texts are found", texts.len());
    let mut helps = String::new();
    help(&mut <switchyard::cli::Arguments as clap::CommandFactory>::command(), &mut helps);
    texts.push(("--help".to_owned(), helps));
    for (file, text) in sources() {
        let errors = production(&text).split("#[error(").skip(1).filter_map(|rest| rest.split(")]").next());
        texts.push((format!("src/{file}"), errors.collect::<Vec<_>>().join("\n")));
    }
    for (name, text) in texts {
        let found = stumbles(&text, &phrases);
        assert!(found.is_empty(), "{name}: not in the words of docs/architecture.md: {found:#?}");
    }
}

#[test]
fn a_sentence_that_stumbles_is_found() {
    let (phrases, _) = word_list();
    for bad in [
        "A second event is taken as a repetition.",
        "It waits for so\nlong.",
        "A hub asks nobody until it is told to.",
        "Told to its client.",
        "How the group stands.",
        "| key | how often the files are looked at |",
        "Who publishes more waits.",
        "The stream is full. Who is refused gets RetryInfo. Is it?",
    ] {
        assert_eq!(stumbles(bad, &phrases).len(), 1, "{bad}");
    }
    for good in [
        "A stand-in for the hub keeps its events for as long as there is room.",
        "## Who may do what",
        "Who reads for them, and how?",
        "The owner is whoever created the stream; `told_to` and `stands-in` are names.",
    ] {
        assert_eq!(stumbles(good, &phrases), [""; 0], "{good}");
    }
}

#[test]
fn tests_never_sleep_to_wait_for_something() {
    for path in rust_files("tests") {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        // In the world of the simulation time passes, and nobody waits for it; the suite of Connect wants a service that is slow.
        if ["harness.rs", "service.rs", "tidy.rs", "world.rs"].contains(&name.as_str()) {
            continue;
        }
        let text = fs::read_to_string(&path).expect("text");
        assert!(!text.contains("sleep("), "{} sleeps", path.display());
        assert!(!text.contains("#[ignore"), "{} skips a test", path.display());
    }
}

/// An example shows one thing, and is read in one sitting.
const MOST_EXAMPLE_LINES: usize = 59;

#[test]
fn examples_are_short() {
    fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            // What is generated and installed.
            if entry.is_dir() && !entry.ends_with("gen") && !entry.ends_with("node_modules") {
                walk(&entry, files);
            } else if ["py", "go", "mjs"].iter().any(|kind| entry.extension() == Some(kind.as_ref())) {
                files.push(entry);
            }
        }
    }
    let mut files = Vec::new();
    for language in ["python", "go", "node"] {
        walk(&root().join("examples").join(language), &mut files);
    }
    assert!(files.len() > 20, "only {} examples are found", files.len());
    for file in files {
        let lines = fs::read_to_string(&file).expect("text").lines().count();
        assert!(lines <= MOST_EXAMPLE_LINES, "{}: {lines} lines", file.display());
    }
}
