//! The program as a person uses it.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Output, Stdio},
    time::Duration,
};

use switchyard::cli::Arguments;

use crate::{
    harness::{Process, exit, program, root, signal},
    verifying::free_address,
};

/// Runs a command to its end.
pub fn run(arguments: &[&str]) -> Output {
    program().args(arguments).stdin(Stdio::null()).output().expect("the program runs")
}

/// What was printed.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// Runs a command against a hub and gives what it prints.
pub fn against(hub: &Process, arguments: &[&str]) -> Output {
    let server = format!("http://{}", hub.address);
    run(&[arguments, &["--server", &server]].concat())
}

/// A subscriber that is subscribed, and the lines it prints.
pub fn subscriber(hub: &Process, arguments: &[&str]) -> (std::process::Child, impl Iterator<Item = String> + use<>) {
    let mut child = program()
        .arg("sub")
        .args(arguments)
        .args(["--server", &hub.address.to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a subscriber");
    let mut errors = BufReader::new(child.stderr.take().expect("piped"));
    let mut line = String::new();
    errors.read_line(&mut line).expect("a line");
    assert!(line.starts_with("subscribed"), "{line}");
    std::thread::spawn(move || std::io::copy(&mut errors, &mut std::io::sink()));
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
    (child, lines)
}

/// Every command, and every command of it, by its name.
fn all(command: &clap::Command, name: &str, found: &mut Vec<String>) {
    found.push(name.to_owned());
    for below in command.get_subcommands() {
        all(below, format!("{name} {}", below.get_name()).trim_start(), found);
    }
}

#[test]
fn every_help_text_shows_an_example() {
    let mut names = Vec::new();
    all(&<Arguments as clap::CommandFactory>::command(), "", &mut names);
    assert!(names.len() > 30, "{names:?}");
    for name in names {
        let output = run(&name.split_whitespace().chain(["--help"]).collect::<Vec<_>>());
        assert!(output.status.success());
        let help = text(&output.stdout);
        let example = help.split("Examples:").nth(1).unwrap_or_default();
        assert!(example.contains(&format!("switchyard {name}")), "{name}: {help}");
    }
}

/// The commands of the program in a text: from its name to a pipe, a comment or the end of the line.
fn commands(text: &str) -> impl Iterator<Item = Vec<String>> {
    text.lines().filter_map(|line| {
        let command = &line[line.find("switchyard ").filter(|_| !line.contains("grpcurl"))?..];
        let mut words = vec![String::new()];
        let mut quoted = false;
        for c in command.chars() {
            match c {
                '\'' => quoted = !quoted,
                '|' | '#' if !quoted => break,
                ' ' if !quoted => words.push(String::new()),
                other => words.last_mut()?.push(other),
            }
        }
        words.retain(|word| !word.is_empty());
        Some(words)
    })
}

#[test]
fn every_command_that_is_shown_is_one_the_program_takes() {
    fn helps(command: &clap::Command, texts: &mut String) {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        texts.extend(help.lines().filter(|line| line.starts_with("  ")).flat_map(|line| [line, "\n"]));
        command.get_subcommands().for_each(|command| helps(command, texts));
    }
    let mut texts = String::new();
    helps(&<Arguments as clap::CommandFactory>::command(), &mut texts);
    for file in ["README.md", "docs/streams.md"] {
        let text = std::fs::read_to_string(root().join(file)).expect("the file");
        texts.extend(text.split("```sh\n").skip(1).filter_map(|block| block.split("```").next()));
    }
    let shown: Vec<_> = commands(&texts).collect();
    assert!(shown.len() > 60, "only {} commands are found", shown.len());
    for words in shown {
        let parsed = <Arguments as clap::Parser>::try_parse_from(&words);
        assert!(parsed.is_ok(), "{words:?}: {}", parsed.err().map(|error| error.to_string()).unwrap_or_default());
    }
}

#[test]
fn without_a_hub_every_command_says_so_in_one_line() {
    let free = free_address().to_string();
    for arguments in [&["pub", "a", "x"][..], &["sub", "a"], &["health"], &["stream", "list"], &["group", "list"]] {
        let output = run(&[arguments, &["--server", &free]].concat());
        assert_eq!(output.status.code(), Some(1));
        let error = text(&output.stderr);
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(error.contains("no hub answers at") && error.contains("switchyard serve"), "{error}");
    }
}

#[test]
fn an_event_goes_from_pub_to_sub() {
    let hub = Process::start(&[]);
    let (mut child, mut lines) = subscriber(&hub, &["orders.>", "--max-events", "2"]);
    let output = against(&hub, &["pub", "orders.eu", "hello world"]);
    assert_eq!(text(&output.stdout), "published 1, matched 1\n");
    let output = against(&hub, &["pub", "orders.us", "again", "--json", "--key", "k", "--attribute", "a=b"]);
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(told, serde_json::json!({ "events": 1, "matched": 1 }));
    assert_eq!(lines.next().as_deref(), Some("orders.eu hello world"));
    assert_eq!(lines.next().as_deref(), Some("orders.us again"));
    assert!(exit(&mut child, Duration::from_secs(10)).success());
}

#[test]
fn json_shows_the_fields_of_the_contract() {
    let hub = Process::start(&[]);
    let (mut child, mut lines) = subscriber(&hub, &["a", "--json", "-n", "1"]);
    against(&hub, &["pub", "a", "x", "--id", "7", "--type", "t", "--key", "k", "--attribute", "n=v"]);
    let event: serde_json::Value = serde_json::from_str(&lines.next().expect("a line")).expect("JSON");
    let expected = serde_json::json!({
        "id": "7", "topic": "a", "type": "t", "key": "k", "attributes": { "n": "v" }, "text": "x",
    });
    assert_eq!(event, expected);
    assert!(exit(&mut child, Duration::from_secs(10)).success());
}

#[test]
fn every_line_of_standard_input_is_an_event() {
    const LINES: usize = 20_000;
    let hub = Process::start(&[]);
    let (mut child, lines) = subscriber(&hub, &["n", "--max-events", &LINES.to_string()]);
    let mut publisher = program()
        .args(["pub", "n", "--server", &hub.address.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a publisher");
    let mut input = publisher.stdin.take().expect("piped");
    for n in 0..LINES {
        writeln!(input, "{n}").expect("written");
    }
    drop(input);
    let output = publisher.wait_with_output().expect("ended");
    assert_eq!(text(&output.stdout), format!("published {LINES}, matched {LINES}\n"));
    assert!(lines.enumerate().all(|(n, line)| line == format!("n {n}")));
    assert!(exit(&mut child, Duration::from_secs(10)).success());
}

#[test]
fn a_line_that_is_no_text_is_published_byte_for_byte() {
    let hub = Process::start(&[]);
    let (mut child, mut lines) = subscriber(&hub, &["n", "--json", "-n", "2"]);
    let mut publisher = program()
        .args(["pub", "n", "--server", &hub.address.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("it runs");
    publisher.stdin.take().expect("piped").write_all(b"\xff\xfe\ntext").expect("written");
    assert!(exit(&mut publisher, Duration::from_secs(10)).success());
    let mut next = || -> serde_json::Value { serde_json::from_str(&lines.next().expect("a line")).expect("JSON") };
    let (bytes, text) = (next(), next());
    assert_eq!((&bytes["data"], bytes.get("text")), (&"//4=".into(), None));
    assert_eq!((&text["text"], text.get("data")), (&"text".into(), None));
    assert!(exit(&mut child, Duration::from_secs(10)).success());
}

#[test]
fn a_line_that_is_refused_is_counted_and_those_behind_it_are_published() {
    let hub = Process::start(&[]);
    let mut publisher = program()
        .args(["pub", "n", "--server", &hub.address.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    let large = "x".repeat(2 * 1024 * 1024);
    publisher.stdin.take().expect("piped").write_all(format!("1\n{large}\n3\n").as_bytes()).expect("written");
    let output = publisher.wait_with_output().expect("ended");
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(1), "published 2, matched 0\n"));
    let error = text(&output.stderr);
    let last = error.lines().last().expect("a line");
    assert!(last.contains("2 accepted, 1 refused, 0 unknown; the first refused is line 2: "), "{error}");
    assert!(last.contains("EVENT_TOO_LARGE"), "{error}");
}

#[test]
fn ctrl_c_ends_a_publisher_when_what_it_has_read_is_answered() {
    let hub = Process::start(&[]);
    let (mut child, mut lines) = subscriber(&hub, &["n", "-n", "1"]);
    let mut publisher = program()
        .args(["pub", "n", "--server", &hub.address.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut input = publisher.stdin.take().expect("piped");
    input.write_all(b"1\n").expect("written");
    assert_eq!(lines.next().as_deref(), Some("n 1"));
    signal(publisher.id(), "INT");
    let output = publisher.wait_with_output().expect("ended");
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), "published 1, matched 1\n"));
    assert!(text(&output.stderr).ends_with("1 accepted, 0 refused, 0 unknown\n"), "{output:?}");
    assert!(exit(&mut child, Duration::from_secs(10)).success());
}

/// What `pub` says to one line of so many bytes.
fn publish_line(hub: &Process, bytes: usize) -> String {
    let mut publisher = program()
        .args(["pub", "n", "--server", &hub.address.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    // It need not read all of it.
    publisher.stdin.take().expect("piped").write_all(&vec![b'x'; bytes]).ok();
    let output = publisher.wait_with_output().expect("ended");
    text(if output.status.success() { &output.stdout } else { &output.stderr })
}

#[test]
fn a_line_may_be_as_long_as_the_largest_event_of_any_hub_and_no_longer() {
    const MOST: usize = 3 * 1024 * 1024;
    let hub = Process::start(&["--set", "sessions.max_event_bytes=3145728"]);
    // Topic and framing count, too.
    assert_eq!(publish_line(&hub, MOST - 64), "published 1, matched 0\n");
    assert!(publish_line(&hub, MOST).contains("EVENT_TOO_LARGE"));
    let refused = publish_line(&hub, MOST + 1);
    assert!(refused.contains("a line has more than 3145728 bytes") && refused.lines().count() == 1, "{refused}");
}

#[test]
fn a_refusal_is_one_line_with_its_reason() {
    let hub = Process::start(&[]);
    for (arguments, reason) in [(&["pub", "a..b", "x"][..], "INVALID_TOPIC"), (&["sub", "a.>.b"], "INVALID_FILTER")] {
        let output = against(&hub, arguments);
        assert_eq!(output.status.code(), Some(1));
        let error = text(&output.stderr);
        assert!(error.lines().count() == 1 && error.contains(reason), "{error}");
    }
}

#[test]
fn ctrl_c_ends_a_subscriber_cleanly() {
    let hub = Process::start(&[]);
    let (mut child, _lines) = subscriber(&hub, &["a"]);
    signal(child.id(), "INT");
    assert_eq!(exit(&mut child, Duration::from_secs(10)).code(), Some(0));
}

#[test]
fn ctrl_c_ends_a_hub_cleanly() {
    let mut hub = Process::start(&["--set", "drain.propagation_delay_ms=60000"]);
    hub.signal("INT");
    assert_eq!(hub.exit(Duration::from_secs(10)).code(), Some(0), "and without the wait that SIGTERM has");
}

#[test]
fn health_follows_the_hub() {
    let hub = Process::start(&[]);
    let output = against(&hub, &["health", "readiness", "--json"]);
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(told, serde_json::json!({ "service": "readiness", "status": "SERVING" }));
    assert_eq!(text(&against(&hub, &["health"]).stdout), "SERVING\n");
    assert_eq!(against(&hub, &["health", "nonsense"]).status.code(), Some(1));
}

#[test]
fn a_port_in_use_and_a_bad_option_are_told_in_one_line() {
    let hub = Process::start(&[]);
    let taken = hub.address.to_string();
    for (arguments, told) in [
        (&["serve", "--listen", &taken][..], "cannot listen on"),
        (&["serve", "--set", "sessions.max=0"], "sessions.max is 0"),
        (&["serve", "--set", "nonsense=1"], "there is no option nonsense"),
        (&["serve", "--config", "/nonexistent.toml"], "/nonexistent.toml"),
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(1));
        let error = text(&output.stderr);
        assert!(error.lines().count() == 1 && error.contains(told), "{error}");
    }
}

#[test]
fn the_configuration_of_kubernetes_is_one_the_hub_reads() {
    let path = root().join("k8s/base/switchyard.toml");
    let text = std::fs::read_to_string(path).expect("the file of the ConfigMap");
    let config = switchyard::config::Config::from_toml("switchyard.toml", &text).expect("a configuration");
    assert_eq!(
        (config.listen.to_string(), config.ops_listen.to_string()),
        ("0.0.0.0:50051".into(), "0.0.0.0:8080".into())
    );
    assert!(config.drain.propagation_delay_ms > 0);
}

#[test]
fn the_sample_in_the_docs_is_one_the_hub_reads() {
    let docs = std::fs::read_to_string(root().join("docs/operations.md")).expect("docs/operations.md");
    let sample = docs.split("```toml").nth(1).and_then(|rest| rest.split("```").next()).expect("a sample");
    let config = switchyard::config::Config::from_toml("the sample", sample).expect("a configuration");
    assert_eq!(config.sessions.max_subscriptions, 1_000_000);
}

#[test]
fn every_option_is_documented_with_its_default() {
    let docs = std::fs::read_to_string(root().join("docs/operations.md")).expect("docs/operations.md");
    for (key, default) in switchyard::config::defaults() {
        assert!(docs.contains(&format!("| `{key}` | `{default}` |")), "docs/operations.md: | `{key}` | `{default}` |");
    }
}
