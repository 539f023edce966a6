//! The clients in `examples/`, made from nothing but the contract, against the real hub with real data.

use std::{
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use switchyard::proto::v1::{
    CreateStreamRequest, GetStreamRequest, Stream, stream_service_client::StreamServiceClient,
};

use crate::{
    harness::{Folder, PATIENCE, Process, channel, event, pause, program, publish, root},
    verifying::free_address,
};

const LANGUAGES: [&str; 5] = ["python", "go", "node", "rust", "java"];
/// Those whose `publish` sends again what is not answered, and whose `subscribe` outlives its hub.
const REPEATING: [&str; 3] = ["python", "go", "node"];
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

/// The client of a language: `publish` or `subscribe`; in Python, Go and Node also `worker` and `resume`, in Java `resume`.
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
    let free = free_address().to_string();
    for language in LANGUAGES {
        // The others try again until then.
        let patience: &[&str] = if REPEATING.contains(&language) { &["--timeout", "1"] } else { &[] };
        for (server, told) in [(&here, "INVALID_TOPIC"), (&free, free.as_str())] {
            let mut publish = client(language, "publish");
            let output = publish.args(["--server", server]).args(patience).args(["a..b", "x"]).output();
            let output = output.expect(language);
            let error = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{language}: {error}");
            assert!(error.contains(told) && error.trim().lines().count() == 1, "{language}: {error}");
        }
    }
}

/// Longer than the clients wait for one answer.
const FROZEN: Duration = Duration::from_secs(7);

#[tokio::test]
async fn what_a_frozen_hub_does_not_answer_is_published_again_and_stored_once() {
    let folder = Folder::new();
    let hub = Process::start(&["--data-dir", folder.text()]);
    let mut streams = StreamServiceClient::new(channel(hub.address).await);
    let stream = Stream { name: "greetings".into(), filters: vec!["greetings.>".into()], ..Stream::default() };
    streams.create_stream(CreateStreamRequest { stream: Some(stream) }).await.expect("created");
    hub.signal("STOP");
    let publishers = REPEATING.map(|language| {
        let mut publish = client(language, "publish");
        publish.args(["--server", &hub.address.to_string(), &format!("greetings.{language}"), "hello", "grüezi"]);
        let publish = publish.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        (language, publish.unwrap_or_else(|error| panic!("{language}: {error}")))
    });
    pause(FROZEN).await;
    hub.signal("CONT");
    for (language, publisher) in publishers {
        let output = publisher.wait_with_output().expect(language);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(String::from_utf8_lossy(&output.stdout), "published 2, matched 0\n", "{language}: {error}");
    }
    let told = streams.get_stream(GetStreamRequest { name: "greetings".into() }).await.expect("a stream").into_inner();
    let state = told.stream.and_then(|stream| stream.state).expect("a state");
    assert_eq!(state.latest_sequence, 2 * REPEATING.len() as i64, "each event is stored once");
}

#[tokio::test]
async fn live_subscribers_are_back_when_the_hub_is_and_say_what_that_means() {
    let address = free_address().to_string();
    let listen = format!("listen={address}");
    let mut hub = Process::start(&["--set", "drain.spread_ms=100", "--set", &listen]);
    let subscribers = REPEATING.map(|language| {
        let subscribe = client(language, "subscribe")
            .args(["--server", &address, "greetings.*#1"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = subscribe.unwrap_or_else(|error| panic!("{language}: {error}"));
        let mut errors = BufReader::new(child.stderr.take().expect("piped")).lines();
        assert_eq!(errors.next().expect("a line").expect("text"), "ready", "{language}");
        (language, child, errors)
    });
    hub.signal("TERM");
    assert!(hub.exit(PATIENCE).success());
    let hub = Process::start(&["--set", &listen]);
    let waiting = subscribers.map(|(language, child, mut errors)| {
        let back = errors.find(|line| line.as_ref().expect("text").starts_with("subscribed again"));
        assert!(back.is_some(), "{language}: it ended");
        (language, child, errors)
    });
    let mut publisher = crate::harness::client(hub.address).await;
    publisher.publish(publish(vec![event("greetings.en", "hello")])).await.expect("published");
    // It stays until the child has ended: one whose errors nobody can read might not.
    for (language, child, _errors) in waiting {
        let output = child.wait_with_output().expect(language);
        assert!(output.status.success(), "{language}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "greetings.en hello\n", "{language}");
    }
}
