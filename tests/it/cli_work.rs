//! `switchyard sub` on streams as a person uses it: reading from a place, going on after a kill, sharing work, the worker mode
//! and what it gives up.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};

use crate::{
    cli::{against, subscriber, text},
    harness::{Folder, PATIENCE, Process, exit, program, signal, until},
};

/// A hub that keeps a stream `jobs` of `jobs.>`.
fn hub_with_jobs(folder: &Folder) -> Process {
    // Progress of what is filtered out comes with heartbeats.
    let hub = Process::start(&["--data-dir", folder.text(), "--set", "sessions.heartbeat_interval_ms=1000"]);
    done(&hub, &["stream", "create", "jobs", "jobs.>"]);
    hub
}

/// Runs a command, which must succeed, and gives what it prints.
fn done(hub: &Process, arguments: &[&str]) -> String {
    let output = against(hub, arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    text(&output.stdout)
}

/// Publishes events `FIRST` to `LAST`.
fn publish(hub: &Process, topic: &str, numbers: std::ops::RangeInclusive<usize>) {
    for n in numbers {
        done(hub, &["pub", topic, &n.to_string()]);
    }
}

fn group(hub: &Process, stream: &str, name: &str) -> Value {
    serde_json::from_str(&done(hub, &["group", "get", stream, name, "--json"])).expect("JSON")
}

/// A command that runs against a hub until it is stopped.
fn begin(hub: &Process, arguments: &[&str]) -> Child {
    let mut command: Command = program();
    command.args(arguments).args(["--server", &hub.address.to_string()]).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts")
}

#[test]
fn a_subscription_begins_where_it_is_told_to() {
    let folder = Folder::new();
    let hub = hub_with_jobs(&folder);
    publish(&hub, "jobs.a", 1..=2);
    publish(&hub, "jobs.b", 3..=4);
    let event: Value = serde_json::from_str(&done(&hub, &["stream", "event", "jobs", "3", "--json"])).expect("JSON");
    let time = event["append_time"].as_str().expect("a time");
    let sub = |arguments: &[&str]| done(&hub, &[&["sub", "--stream", "jobs"], arguments].concat());
    assert_eq!(sub(&["--from", "earliest", "-n", "4"]), "jobs.a 1\njobs.a 2\njobs.b 3\njobs.b 4\n");
    assert_eq!(sub(&["--from", "4", "-n", "1"]), "jobs.b 4\n");
    assert_eq!(sub(&["--from", time, "-n", "2"]), "jobs.b 3\njobs.b 4\n");
    assert_eq!(sub(&["--from", "last-per-topic", "-n", "2"]), "jobs.a 2\njobs.b 4\n");
    assert_eq!(sub(&["jobs.b", "--from", "earliest", "-n", "1"]), "jobs.b 3\n");
    let shown: Value = serde_json::from_str(&sub(&["--from", "3", "-n", "1", "--json"])).expect("JSON");
    let named = ["stream", "sequence", "topic", "text", "append_time"].map(|name| &shown[name]);
    assert_eq!(named, [&json!("jobs"), &json!(3), &json!("jobs.b"), &json!("3"), &json!(time)]);

    let (mut child, mut lines) = subscriber(&hub, &["--stream", "jobs", "-n", "1"]);
    publish(&hub, "jobs.a", 5..=5);
    assert_eq!(lines.next().as_deref(), Some("jobs.a 5"), "new, unless it is told otherwise");
    assert!(exit(&mut child, PATIENCE).success());
}

#[test]
fn what_is_gone_from_a_stream_is_a_failure_or_a_gap_as_it_was_asked_for() {
    let folder = Folder::new();
    let hub = hub_with_jobs(&folder);
    publish(&hub, "jobs.a", 1..=3);
    done(&hub, &["stream", "purge", "jobs", "--up-to", "2"]);
    let from_one = ["sub", "--stream", "jobs", "--from", "1", "-n", "1"];
    let refused = against(&hub, &from_one);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("RESUME_POINT_LOST"), "{refused:?}");
    let output = against(&hub, &[&from_one[..], &["--on-gap", "earliest"]].concat());
    assert!(output.status.success() && text(&output.stderr).contains("gap: 2 events lost"), "{output:?}");
    assert_eq!(text(&output.stdout), "jobs.a 3\n");
}

/// Reads `count` lines of a subscriber, kills it without a chance to say goodbye, and reads what it has printed by then.
fn read_and_kill(hub: &Process, arguments: &[&str], count: usize) -> Vec<String> {
    let (mut child, mut lines) = subscriber(hub, arguments);
    let mut read: Vec<String> = lines.by_ref().take(count).collect();
    assert_eq!(read.len(), count, "{read:?}");
    child.kill().and_then(|()| child.wait()).expect("killed");
    read.extend(lines);
    read
}

#[test]
fn a_resume_file_survives_kills_of_its_subscriber_and_of_the_hub() {
    let folder = Folder::new();
    let file = folder.path().join("token");
    let hub = hub_with_jobs(&folder);
    let stream = ["--stream", "jobs", "--from", "earliest", "--resume-file", file.to_str().expect("text")];
    publish(&hub, "jobs.a", 1..=6);
    let mut read = read_and_kill(&hub, &stream, 6);
    publish(&hub, "jobs.a", 7..=9);
    // The token behind what was printed last may not have been kept: then that comes again, and nothing is left out.
    let mut then = read_and_kill(&hub, &stream, 3);
    drop(hub);
    let hub = Process::start(&["--data-dir", folder.text()]);
    publish(&hub, "jobs.a", 10..=12);
    while then.last().map(String::as_str) != Some("jobs.a 12") {
        read.append(&mut then);
        then = read_and_kill(&hub, &stream, 1);
    }
    read.append(&mut then);
    let numbers: Vec<usize> = read.iter().map(|line| line[7..].parse().expect("a number")).collect();
    let mut seen = 0;
    for number in numbers {
        assert!(number <= seen + 1, "{number} came behind {seen}");
        seen = seen.max(number);
    }
    assert_eq!(seen, 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resume_file_that_is_written_to_the_end_repeats_nothing() {
    let folder = Folder::new();
    let file = folder.path().join("token");
    let hub = hub_with_jobs(&folder);
    let name = file.to_str().expect("text");
    let sub = ["sub", "--stream", "jobs", "--from", "earliest", "--resume-file", name];
    publish(&hub, "jobs.a", 1..=3);
    assert_eq!(done(&hub, &[&sub[..], &["-n", "2"]].concat()), "jobs.a 1\njobs.a 2\n");
    assert_eq!(done(&hub, &[&sub[..], &["-n", "1"]].concat()), "jobs.a 3\n");
    // Asked to stop it has kept where it was, also behind what its filters left out.
    let mut child = begin(&hub, &[&sub[..], &["jobs.b"]].concat());
    let before = fs::read_to_string(&file).expect("a token");
    publish(&hub, "jobs.a", 4..=4);
    until("a token behind the last event", async || fs::read_to_string(&file).expect("a token") != before).await;
    signal(child.id(), "TERM");
    assert!(exit(&mut child, PATIENCE).success());
    publish(&hub, "jobs.b", 5..=5);
    assert_eq!(done(&hub, &[&sub[..], &["-n", "1"]].concat()), "jobs.b 5\n");

    fs::write(&file, "made-up").expect("written");
    let refused = against(&hub, &sub);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("MALFORMED_TOKEN"), "{refused:?}");
    fs::write(&file, "").expect("written");
    assert!(text(&against(&hub, &sub).stderr).contains("is empty; remove it"), "and an empty one");
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_a_group_share_what_they_acknowledge_as_they_print_it() {
    let folder = Folder::new();
    let hub = hub_with_jobs(&folder);
    publish(&hub, "jobs.a", 1..=6);
    let team = ["sub", "--stream", "jobs", "--group", "team", "--from", "earliest", "-n", "2"];
    for (mode, printed) in [("explicit", [1, 2]), ("cumulative", [3, 4]), ("none", [5, 6])] {
        let text = done(&hub, &[&team[..], &["--ack-mode", mode]].concat());
        assert_eq!(text, printed.map(|n| format!("jobs.a {n}\n")).concat(), "{mode}");
    }
    let state = &group(&hub, "jobs", "team")["state"];
    assert_eq!([&state["cursor"], &state["pending"], &state["unacked"]], [6, 0, 0], "{state}");
    let (mut member, _lines) = subscriber(&hub, &["--stream", "jobs", "--group", "team"]);
    let other = against(&hub, &["sub", "jobs.b", "--stream", "jobs", "--group", "team"]);
    assert!(other.status.code() == Some(1) && text(&other.stderr).contains("CONFIG_MISMATCH"), "{other:?}");
    signal(member.id(), "INT");
    assert!(exit(&mut member, PATIENCE).success());
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_status_0_acknowledges_and_any_other_has_the_event_come_again() {
    let folder = Folder::new();
    let hub = hub_with_jobs(&folder);
    done(&hub, &["group", "create", "jobs", "team", "--from", "earliest", "--backoff", "10ms"]);
    let note = folder.path().join("note");
    // The first attempt fails. What is needed to know of the event is there, and the way to the same hub.
    let command = format!(
        "read -r payload; echo \"$payload $SWITCHYARD_TOPIC $SWITCHYARD_KEY $SWITCHYARD_SEQUENCE $SWITCHYARD_ATTEMPT \
         [$SWITCHYARD_LAST_FAILURE]\" >> {}; test $SWITCHYARD_ATTEMPT = 2 || exit 3; \
         {} pub results.a \"done $payload\"",
        note.display(),
        program().get_program().display(),
    );
    let (mut results, mut lines) = subscriber(&hub, &["results.>", "-n", "2"]);
    done(&hub, &["pub", "jobs.a", "paint", "--key", "k"]);
    done(&hub, &["pub", "jobs.a", "dry", "--key", "k"]);
    let mut worker = begin(&hub, &["sub", "--stream", "jobs", "--group", "team", "--exec", &command]);
    assert_eq!(
        [lines.next(), lines.next()],
        ["results.a done paint", "results.a done dry"].map(|l| Some(l.to_owned()))
    );
    assert!(exit(&mut results, PATIENCE).success());
    until("both are done", async || group(&hub, "jobs", "team")["state"]["cursor"] == 2).await;
    assert_eq!(
        fs::read_to_string(&note).expect("a note"),
        "paint jobs.a k 1 1 []\npaint jobs.a k 1 2 [exit status 3]\n\
         dry jobs.a k 2 1 []\ndry jobs.a k 2 2 [exit status 3]\n"
    );
    signal(worker.id(), "INT");
    assert!(exit(&mut worker, PATIENCE).success());
    let told = std::io::read_to_string(worker.stderr.take().expect("piped")).expect("text");
    assert!(told.contains("sequence 1 (jobs.a, attempt 1): exit status 3"), "{told}");
    assert!(told.ends_with("2 events done, 2 failed\n"), "{told}");
    // One that had not said goodbye would be waited for.
    until("it is gone", async || group(&hub, "jobs", "team")["state"]["members"] == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_loses_nothing_and_one_that_is_stopped_finishes_first() {
    let folder = Folder::new();
    let hub = hub_with_jobs(&folder);
    done(&hub, &["group", "create", "jobs", "team", "--from", "earliest", "--backoff", "10ms"]);
    publish(&hub, "jobs.a", 1..=1);
    let (begun, go) = (folder.path().join("begun"), folder.path().join("go"));
    let made = std::process::Command::new("mkfifo").arg(&go).status().expect("mkfifo");
    assert!(made.success());
    // It waits until somebody lets it go on.
    let command = format!(
        "echo $SWITCHYARD_ATTEMPT $SWITCHYARD_REDELIVERED >> {}; read -r line < {}",
        begun.display(),
        go.display()
    );
    let work = ["sub", "--stream", "jobs", "--group", "team", "--exec", &command];
    let attempts = async |wanted: &str| {
        until("the command has begun", async || fs::read_to_string(&begun).unwrap_or_default() == wanted).await;
    };
    let mut killed = begin(&hub, &work);
    attempts("1 false\n").await;
    killed.kill().and_then(|()| killed.wait()).expect("killed");
    let mut stopped = begin(&hub, &work);
    // That it was killed is no failure of the event.
    attempts("1 false\n1 true\n").await;
    signal(stopped.id(), "TERM");
    let mut told = BufReader::new(stopped.stderr.take().expect("piped")).lines().map_while(Result::ok);
    assert!(told.any(|line| line == "stopping; waiting for commands to finish: 1"));
    // One line for the command that was left behind, one for this. Open at both ends, so that neither is lost to the other.
    let mut gate = fs::File::options().read(true).write(true).open(&go).expect("a pipe");
    gate.write_all(b"on\non\n").expect("told");
    assert!(exit(&mut stopped, PATIENCE).success());
    assert!(told.any(|line| line == "1 events done, 0 failed"));
    assert_eq!(group(&hub, "jobs", "team")["state"]["cursor"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_too_often_is_a_dead_letter_that_can_be_listed_redriven_and_purged() {
    let folder = Folder::new();
    let hub = hub_with_jobs(&folder);
    done(&hub, &["stream", "create", "lost", "lost.>"]);
    let settings = ["--from", "earliest", "--backoff", "10ms", "--max-attempts", "2", "--dead-letter-stream", "lost"];
    done(&hub, &[&["group", "create", "jobs", "team"], &settings[..]].concat());
    let letters = |arguments: &[&str]| done(&hub, &[&["group", "dead-letters"], arguments].concat());
    assert_eq!(letters(&["list", "jobs", "team"]).lines().count(), 1, "only the head");
    publish(&hub, "jobs.a", 1..=3);
    let team = ["sub", "--stream", "jobs", "--group", "team"];
    // Two attempts each.
    let output = against(&hub, &[&team[..], &["-n", "6", "--exec", "exit 9"]].concat());
    assert!(output.status.success(), "{output:?}");

    let groups = crate::cli_streams::table(&done(&hub, &["group", "list"]));
    assert_eq!((groups[0]["GROUP"].as_str(), groups[0]["DEAD"].as_str()), ("team", "3"), "{groups:?}");
    let shown = letters(&["list", "jobs", "team"]);
    let rows: Vec<Vec<&str>> = shown.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows.len(), 3, "{shown}");
    for (at, row) in rows.iter().enumerate() {
        let number = (at + 1).to_string();
        assert_eq!([row[0], row[2], row[4]], [&*number, "2", "jobs.a"], "{shown}");
        assert_eq!(row[5..].join(" "), "exit status 9", "{shown}");
    }
    let first: Value =
        serde_json::from_str(letters(&["list", "jobs", "team", "--json"]).lines().next().expect("one")).expect("JSON");
    let named = ["sequence", "origin_sequence", "attempts", "reason"].map(|name| &first[name]);
    let origin: i64 = rows[0][1].parse().expect("a number");
    assert_eq!(named, [&json!(1), &json!(origin), &json!(2), &json!("exit status 9")]);
    assert_eq!(first["event"]["topic"], "jobs.a");

    assert_eq!(letters(&["redrive", "jobs", "team", "1"]), "redriven 1\n");
    let again: Value = serde_json::from_str(&done(&hub, &[&team[..], &["-n", "1", "--json"]].concat())).expect("JSON");
    assert_eq!((&again["sequence"], &again["attempt"]), (&json!(origin), &json!(1)));
    assert_eq!(letters(&["purge", "jobs", "team", "2"]), "purged 1\n");
    let all: Value = serde_json::from_str(&letters(&["redrive", "jobs", "team", "--all", "--json"])).expect("JSON");
    assert_eq!(all, json!({ "redriven": 1, "lost": 0, "unmatched": 0 }));
    let none: Value = serde_json::from_str(&letters(&["purge", "jobs", "team", "--all", "--json"])).expect("JSON");
    assert_eq!(none, json!({ "purged": 0 }));
    assert_eq!(letters(&["list", "jobs", "team", "--json"]), "");
    // One whose event is gone from its stream stays, and that is said.
    against(&hub, &[&team[..], &["-n", "2", "--exec", "exit 9"]].concat());
    done(&hub, &["stream", "purge", "jobs", "--all"]);
    let told = letters(&["redrive", "jobs", "team", "--all"]);
    assert_eq!(told, "redriven 0; 1 stay, because the stream no longer has their events\n");
}
