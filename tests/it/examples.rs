//! The clients in `examples/`, made from nothing but the contract, against the real hub with real data.

use std::{
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::OnceLock,
};

use crate::harness::{Process, program, root};

const LANGUAGES: [&str; 5] = ["python", "go", "node", "rust", "java"];
/// What the Java clients are made with: their stubs, and the libraries of examples/java/pom.xml.
const JAVA_LIBRARIES: &str = "examples/gen/classes:.tools/java/lib/*";

/// What `make tools` installed.
fn tool(path: &str) -> Command {
    let mut command = Command::new(root().join(".tools").join(path));
    command.current_dir(root());
    command
}

/// Where cargo puts the examples: two floors above this test.
fn rust_example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a path");
    test.ancestors().nth(2).expect("the target folder").join("examples").join(name)
}

/// The Go clients, built once.
fn go_client(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let folder = BUILT.get_or_init(|| {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("go");
        std::fs::create_dir_all(&folder).expect("a folder");
        let built = Command::new("go")
            .args(["build", "-C", "examples/go", "-o"])
            .arg(format!("{}/", folder.display()))
            .arg("./...")
            .current_dir(root())
            .status();
        assert!(built.expect("go").success());
        folder
    });
    folder.join(name)
}

/// The Java clients, compiled once.
fn java_clients() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let folder = BUILT.get_or_init(|| {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("java");
        let sources = std::fs::read_dir(root().join("examples/java")).expect("the clients");
        let sources = sources
            .map(|entry| entry.expect("a client").path())
            .filter(|path| path.extension() == Some("java".as_ref()));
        let built = Command::new("javac")
            .args(["-Xlint:all", "-Werror", "-XDignore.symbol.file", "-cp", JAVA_LIBRARIES, "-d"])
            .arg(&folder)
            .args(sources)
            .current_dir(root())
            .status();
        assert!(built.expect("javac").success());
        folder
    });
    folder.clone()
}

/// The client of a language: `publish` or `subscribe`; in Python and Go also `worker` and `resume`, in Java `resume`.
pub fn client(language: &str, verb: &str) -> Command {
    match language {
        "python" => {
            let mut command = tool("venv/bin/python");
            command.arg(format!("examples/python/{verb}.py"));
            command
        }
        "node" => {
            let mut command = Command::new("node");
            command.arg(format!("examples/node/{verb}.mjs")).current_dir(root());
            command
        }
        "go" => Command::new(go_client(verb)),
        "java" => {
            let mut command = Command::new("java");
            command.arg("-cp").arg(format!("{}:{JAVA_LIBRARIES}", java_clients().display()));
            command.arg(verb[..1].to_uppercase() + &verb[1..]);
            // Java reads its arguments in the charset of the locale.
            command.env("LC_ALL", "C.UTF-8").current_dir(root());
            command
        }
        "rust" => Command::new(rust_example(&format!("rust_{verb}"))),
        other => panic!("no clients in {other}"),
    }
}

/// A subscriber that prints a digest for each filter, once it is ready.
fn digests(language: &str, hub: &Process, filters: &[String]) -> Child {
    let mut child = client(language, "subscribe")
        .args(["--server", &hub.address.to_string(), "--digest"])
        .args(filters)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{language}: {error}"));
    let mut errors = BufReader::new(child.stderr.take().expect("piped"));
    let mut line = String::new();
    errors.read_line(&mut line).expect("a line");
    assert_eq!(line.trim(), "ready", "{language}");
    child
}

fn parsed(lines: &str) -> Vec<serde_json::Value> {
    lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn real_prices_reach_every_language_whole_and_in_order() {
    const REPEAT: usize = 10;
    let hub = Process::start(&[]);
    // The file has 560 prices, 123 of them of AAPL.
    let filters =
        [("stocks.*", 560), ("stocks.AAPL", 123), (">", 560)].map(|(name, rows)| format!("{name}#{}", rows * REPEAT));
    let subscribers = LANGUAGES.map(|language| (language, digests(language, &hub, &filters)));
    let ticker = tool("venv/bin/python")
        .args(["examples/ticker/ticker.py", "--server", &hub.address.to_string(), "--repeat", &REPEAT.to_string()])
        .stderr(Stdio::inherit())
        .output()
        .expect("the ticker: run `make tools`");
    assert!(ticker.status.success());
    let sent = parsed(&String::from_utf8(ticker.stdout).expect("text"));
    assert_eq!(sent.len(), 3);
    assert_eq!(sent[0]["events"], 560 * REPEAT);
    for (language, mut child) in subscribers {
        let mut output = String::new();
        child.stdout.take().expect("piped").read_to_string(&mut output).expect("text");
        assert!(child.wait().expect("ended").success(), "{language}");
        assert_eq!(parsed(&output), sent, "{language}: count and checksum of every filter");
    }
}

#[test]
fn every_language_publishes() {
    let hub = Process::start(&[]);
    let subscriber = program()
        .args(["sub", "greetings.*", "--max-events", "10", "--server", &hub.address.to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut subscriber = subscriber.expect("a subscriber");
    let mut line = String::new();
    let mut errors = BufReader::new(subscriber.stderr.take().expect("piped"));
    errors.read_line(&mut line).expect("a line");
    assert_eq!(line, "subscribed\n");
    for language in LANGUAGES {
        let output = client(language, "publish")
            .args(["--server", &hub.address.to_string(), &format!("greetings.{language}"), "hello", "grüezi"])
            .output()
            .unwrap_or_else(|error| panic!("{language}: {error}"));
        assert_eq!(String::from_utf8_lossy(&output.stdout), "published 2, matched 2\n", "{language}");
    }
    let mut got = String::new();
    subscriber.stdout.take().expect("piped").read_to_string(&mut got).expect("text");
    let expected: String = LANGUAGES.iter().map(|l| format!("greetings.{l} hello\ngreetings.{l} grüezi\n")).collect();
    assert_eq!(got, expected);
    subscriber.wait().expect("ended");
}

#[test]
fn every_language_says_why_it_was_refused_and_that_no_hub_answers() {
    let hub = Process::start(&[]);
    let here = hub.address.to_string();
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").to_string();
    for language in LANGUAGES {
        for (server, told) in [(&here, "INVALID_TOPIC"), (&free, free.as_str())] {
            let output = client(language, "publish").args(["--server", server, "a..b", "x"]).output().expect(language);
            let error = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{language}: {error}");
            assert!(error.contains(told) && error.trim().lines().count() == 1, "{language}: {error}");
        }
    }
}
