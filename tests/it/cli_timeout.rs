//! Commands and hubs that do not answer: each command ends within `--timeout`, and says which address it asked and for what.

use std::{
    net::SocketAddr,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Response};
use switchyard::proto::v1::BackupResponse;
use tokio::{net::TcpListener, sync::mpsc};

use crate::{
    authority::Authority,
    cli::{run, text},
    harness::{Folder, PATIENCE, Process, exit, program, soon},
    verifying::free_address,
};

/// A command that runs.
fn begin(server: &str, arguments: &str, options: &[&str]) -> Child {
    let mut command = program();
    command.args(arguments.split(' ')).args(["--server", server]).args(options).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts")
}

/// It ends by itself, and says this and nothing else.
fn check_ends(mut command: Child, arguments: &str, told: &str) {
    let status = exit(&mut command, PATIENCE);
    let output = command.wait_with_output().expect("ended");
    let error = text(&output.stderr);
    assert_eq!(error, format!("switchyard: {told}\n"), "{arguments}");
    assert!(status.code() == Some(1) && output.stdout.is_empty(), "{arguments}: {output:?}");
}

/// Every command that asks a hub for something once, what it asks for, and whether that changes anything.
const COMMANDS: [(&str, &str, bool); 31] = [
    ("health", "Health.Check", false),
    ("hub", "GetHub", false),
    ("whoami", "WhoAmI", false),
    ("check backup", "Check", false),
    ("stream list", "ListStreams", false),
    ("stream get s", "GetStream", false),
    ("stream info s", "GetStream", false),
    ("stream event s 1", "GetEvent", false),
    ("stream events s", "ListEvents", false),
    ("stream topics s", "ListTopics", false),
    ("stream create s s.>", "CreateStream", true),
    ("stream update s --max-events 1", "UpdateStream", true),
    ("stream purge s --all", "PurgeStream", true),
    ("stream delete s", "DeleteStream", true),
    ("group list", "ListGroups", false),
    ("group get s g", "GetGroup", false),
    ("group members s g", "ListMembers", false),
    ("group unacked s g", "ListUnacked", false),
    ("group create s g", "CreateGroup", true),
    ("group update s g --ack-deadline 5s", "UpdateGroup", true),
    ("group seek s g --to earliest", "SeekGroup", true),
    ("group delete s g", "DeleteGroup", true),
    ("group dead-letters list s g", "ListDeadLetters", false),
    ("group dead-letters redrive s g --all", "RedriveDeadLetters", true),
    ("group dead-letters purge s g --all", "PurgeDeadLetters", true),
    ("session list", "ListSessions", false),
    ("session get x", "GetSession", false),
    ("session terminate x", "TerminateSession", true),
    ("backup FILE", "Backup", false),
    ("group list s --json", "ListGroups", false),
    ("pub s.1 text", "Publish", true),
];

#[test]
fn no_command_waits_longer_for_a_frozen_hub_than_it_was_told_to() {
    let hub = Process::start(&[]);
    hub.signal("STOP");
    let server = format!("http://{}", hub.address);
    let folder = Folder::new();
    let since = Instant::now();
    let usual = begin(&server, "health", &[]);
    // At the same time, as many as a machine has room for.
    for some in COMMANDS.chunks(10) {
        let begun: Vec<_> = some
            .iter()
            .map(|(arguments, asked, changes)| {
                let arguments = arguments.replace("FILE", &format!("{}/hub.backup", folder.text()));
                (begin(&server, &arguments, &["--timeout", "2s"]), arguments, asked, changes)
            })
            .collect();
        for (command, arguments, asked, changes) in begun {
            let but = if *changes { ": it may be done all the same" } else { "" };
            check_ends(command, &arguments, &format!("no answer from {server} within 2s to {asked}{but}"));
        }
    }
    check_ends(usual, "health", &format!("no answer from {server} within 5s to Health.Check"));
    assert!(since.elapsed() >= Duration::from_secs(5), "{:?}", since.elapsed());
    let left: Vec<_> = std::fs::read_dir(folder.path()).expect("a folder").collect();
    assert!(left.is_empty(), "nothing is left of a backup: {left:?}");
}

#[test]
fn a_hub_that_goes_on_in_time_is_waited_for() {
    let hub = Process::start(&[]);
    hub.signal("STOP");
    let mut asking = begin(&format!("http://{}", hub.address), "health", &["--timeout", "1m"]);
    hub.signal("CONT");
    assert!(exit(&mut asking, PATIENCE).success());
}

/// An address where connections are accepted, and nothing else happens.
fn black_hole() -> (std::net::TcpListener, SocketAddr) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

#[test]
fn an_address_that_accepts_and_says_nothing_is_named_with_and_without_tls() {
    let (_listener, address) = black_hole();
    let folder = Folder::new();
    let file = folder.path().join("ca.crt");
    std::fs::write(&file, Authority::new("ours").pem()).expect("written");
    let ca = file.to_str().expect("text");
    let plain = format!("http://{address}");
    for (arguments, asked) in
        [("health", "Health.Check"), ("stream list", "ListStreams"), ("group get s g", "GetGroup")]
    {
        let command = begin(&plain, arguments, &["--timeout", "1s"]);
        check_ends(command, arguments, &format!("no answer from {plain} within 1s to {asked}"));
    }
    let secure = format!("https://{address}");
    let command = begin(&secure, "stream list", &["--timeout", "1s", "--tls-ca", ca]);
    check_ends(command, "stream list", &format!("no answer from {secure} within 1s, while connecting"));
}

#[test]
fn an_address_that_says_nothing_leaves_time_for_the_next() {
    let hub = Process::start(&[]);
    let (_listener, address) = black_hole();
    let folder = Folder::new();
    let file = folder.path().join("ca.crt");
    std::fs::write(&file, Authority::new("ours").pem()).expect("written");
    let server = format!("https://{address},http://{}", hub.address);
    let output = run(&["health", "--server", &server, "--timeout", "4s", "--tls-ca", file.to_str().expect("text")]);
    assert_eq!(text(&output.stdout), "SERVING\n", "{output:?}");
}

#[test]
fn a_timeout_is_from_a_millisecond_to_a_day() {
    let server = free_address().to_string();
    let with = |timeout: &str| run(&["health", "--server", &server, "--timeout", timeout]);
    for timeout in ["1ms", "24h"] {
        assert_eq!(with(timeout).status.code(), Some(1), "{timeout}");
    }
    for timeout in ["999us", "24h 1ms", "0s", "none", "5"] {
        let output = with(timeout);
        let expected = output.status.code() == Some(2) && text(&output.stderr).contains("--timeout");
        assert!(expected, "{timeout}: {output:?}");
    }
}

/// A hub that answers every call with `first` and nothing more, and tells of the headers of each.
async fn beginner(first: Bytes) -> (SocketAddr, mpsc::Receiver<HeaderMap>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (calls, received) = mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (first, calls) = (first.clone(), calls.clone());
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
                let mut answers = Vec::new();
                // As long as this goes on, the connection does.
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let head = Response::builder().header("content-type", "application/grpc").body(()).expect("a head");
                    let mut answer = respond.send_response(head, false).expect("a connection");
                    answer.send_data(first.clone(), false).expect("a connection");
                    answers.push(answer);
                    calls.send(request.headers().clone()).await.ok();
                }
            });
        }
    });
    (address, received)
}

/// A message as it is sent.
fn framed(message: &impl prost::Message) -> Bytes {
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(message.encoded_len() as u32);
    message.encode(&mut framed).expect("room");
    framed.freeze()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_learns_until_when_it_has_to_answer() {
    let (address, mut calls) = beginner(Bytes::new()).await;
    let server = format!("http://{address}");
    let command = begin(&server, "stream list", &["--timeout", "1s"]);
    let headers = soon("a call", calls.recv()).await.expect("headers");
    assert_eq!(headers["grpc-timeout"], "1000000u");
    // Its answer has begun, and does not end.
    check_ends(command, "stream list", &format!("no answer from {server} within 1s to ListStreams"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_ends_when_nothing_comes_any_more_however_long_it_may_take() {
    let piece = BackupResponse { data: Bytes::from_static(b"SWYB"), store_bytes: 1 << 20 };
    let (address, mut calls) = beginner(framed(&piece)).await;
    let server = format!("http://{address}");
    let folder = Folder::new();
    let arguments = format!("backup {}/hub.backup", folder.text());
    let command = begin(&server, &arguments, &["--timeout", "1s"]);
    let headers = soon("a call", calls.recv()).await.expect("headers");
    assert!(!headers.contains_key("grpc-timeout"), "{headers:?}");
    check_ends(command, &arguments, &format!("no answer from {server} within 1s to Backup"));
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0);
}
