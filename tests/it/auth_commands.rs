//! Who may use which command of the program: every one, against a hub that asks for credentials.

use std::{
    collections::BTreeSet,
    io::Write,
    process::{Output, Stdio},
};

use clap::CommandFactory;
use switchyard::{cli::Arguments, proto::v1::session_response::Frame};

use crate::{
    auth_harness::{Guarded, bad_credentials, token},
    harness::{Folder, program},
};

/// What a caller who has a credential and no right gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bare {
    /// The command talks to no hub.
    NoHub,
    /// The command talks to two hubs, and is tried in `copy.rs`.
    TwoHubs,
    /// The command needs no credential.
    Open,
    /// An answer, which tells nothing of what there is.
    Answer,
    Refused(&'static str),
    /// The answer that this is denied, for this reason.
    Denied(&'static str),
}

/// Every command, in an order in which somebody who may do everything gets through all of them, and what it means to have no
/// right. `SESSION` stands for the id of a session, `FILE` for a file.
const ROWS: &[(&str, &str, Bare)] = &[
    ("serve", "", Bare::NoHub),
    ("token", "", Bare::NoHub),
    ("restore", "", Bare::NoHub),
    ("health", "", Bare::Open),
    ("hub", "", Bare::Answer),
    ("whoami", "", Bare::Answer),
    ("stream create", "lost lost.>", Bare::Refused("ACTION_DENIED")),
    ("stream create", "vault vault.>", Bare::Refused("ACTION_DENIED")),
    ("stream update", "vault --max-age 7d", Bare::Refused("ACTION_DENIED")),
    ("stream list", "", Bare::Answer),
    ("stream get", "vault", Bare::Refused("TOPIC_DENIED")),
    ("stream info", "vault", Bare::Refused("TOPIC_DENIED")),
    ("group create", "vault team --from earliest", Bare::Refused("ACTION_DENIED")),
    ("group update", "vault team --dead-letter-stream lost --max-attempts 1", Bare::Refused("ACTION_DENIED")),
    ("group list", "", Bare::Answer),
    ("group list", "vault", Bare::Answer),
    ("group get", "vault team", Bare::Refused("TOPIC_DENIED")),
    ("group members", "vault team", Bare::Refused("TOPIC_DENIED")),
    ("group unacked", "vault team", Bare::Refused("TOPIC_DENIED")),
    ("check publish", "vault.secret", Bare::Denied("TOPIC_DENIED")),
    ("check subscribe", "vault.secret", Bare::Denied("TOPIC_DENIED")),
    ("check read", "vault", Bare::Denied("TOPIC_DENIED")),
    ("check see-stream", "vault", Bare::Denied("TOPIC_DENIED")),
    ("check see-group", "vault team", Bare::Denied("TOPIC_DENIED")),
    ("check manage-stream", "vault", Bare::Denied("ACTION_DENIED")),
    ("check add-topics", "vault.>", Bare::Denied("ACTION_DENIED")),
    ("check manage-group", "vault team", Bare::Denied("ACTION_DENIED")),
    ("check manage-dead-letters", "vault team", Bare::Denied("ACTION_DENIED")),
    ("check manage-sessions", "", Bare::Denied("ACTION_DENIED")),
    ("check backup", "", Bare::Denied("ACTION_DENIED")),
    ("pub", "vault.secret text", Bare::Refused("TOPIC_DENIED")),
    // A line of standard input.
    ("pub", "vault.secret", Bare::Refused("TOPIC_DENIED")),
    ("stream event", "vault 1", Bare::Refused("TOPIC_DENIED")),
    ("stream events", "vault", Bare::Refused("TOPIC_DENIED")),
    ("stream topics", "vault", Bare::Refused("TOPIC_DENIED")),
    ("sub", "--stream vault --from earliest -n 1", Bare::Refused("TOPIC_DENIED")),
    ("sub", "--stream vault --group team -n 1", Bare::Refused("TOPIC_DENIED")),
    ("sub", "--stream vault --group team -n 1 --exec false", Bare::Refused("TOPIC_DENIED")),
    ("group dead-letters list", "vault team", Bare::Refused("TOPIC_DENIED")),
    ("group dead-letters redrive", "vault team --all", Bare::Refused("ACTION_DENIED")),
    ("group dead-letters purge", "vault team --all", Bare::Refused("ACTION_DENIED")),
    ("group seek", "vault team --to earliest", Bare::Refused("ACTION_DENIED")),
    ("group delete", "vault team", Bare::Refused("ACTION_DENIED")),
    ("stream copy", "", Bare::TwoHubs),
    ("stream purge", "vault --all", Bare::Refused("ACTION_DENIED")),
    ("stream delete", "vault", Bare::Refused("ACTION_DENIED")),
    ("session list", "", Bare::Refused("ACTION_DENIED")),
    ("backup", "FILE", Bare::Refused("ACTION_DENIED")),
    ("session get", "SESSION", Bare::Refused("ACTION_DENIED")),
    ("session terminate", "SESSION", Bare::Refused("ACTION_DENIED")),
    ("bench fan-out", SHORT, Bare::Refused("TOPIC_DENIED")),
    ("bench fan-in", SHORT, Bare::Refused("TOPIC_DENIED")),
    ("bench topics", SHORT, Bare::Refused("TOPIC_DENIED")),
    ("bench latency", SHORT, Bare::Refused("TOPIC_DENIED")),
    ("bench subscriptions", "--count 100 --seconds 0.1 --warm-up 0", Bare::Refused("TOPIC_DENIED")),
    ("bench idle", "--sessions 1 --warm-up 0", Bare::Answer),
    ("bench stalled", SHORT, Bare::Refused("TOPIC_DENIED")),
];

const FILE: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/rights.backup");
const SHORT: &str = "--seconds 0.1 --warm-up 0";

/// The commands of the program that have no commands of their own.
fn leaves(command: &clap::Command, name: &str, found: &mut BTreeSet<String>) {
    if !command.has_subcommands() {
        found.insert(name.trim().to_owned());
    }
    for below in command.get_subcommands() {
        leaves(below, &format!("{name} {}", below.get_name()), found);
    }
}

/// Runs a command as the bearer of a token.
fn run(hub: &Guarded, command: &str, arguments: &str, token: Option<&str>) -> Output {
    let mut child = program()
        .args(command.split(' '))
        .args(arguments.replace("FILE", FILE).split_whitespace())
        .args(["--server", &hub.server.address.to_string()])
        .envs(token.map(|token| ("SWITCHYARD_TOKEN", token)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // Most commands read nothing.
    child.stdin.take().expect("piped").write_all(b"a line\n").ok();
    child.wait_with_output().expect("it ends")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// It fails with one line that tells the reason and not the credential, and says nothing else.
fn check_refused(what: &str, output: &Output, reason: &str, credential: &str) {
    check_failed(what, output, (reason, ""), credential);
}

fn check_failed(what: &str, output: &Output, (reason, says): (&str, &str), credential: &str) {
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{what}: {error}");
    assert!(error.lines().count() == 1 && error.contains(reason), "{what}: {reason} expected: {error}");
    assert_eq!(text(&output.stdout), says, "{what}");
    assert!(credential.is_empty() || !error.contains(credential), "{what} tells the credential: {error}");
}

#[test]
fn every_command_has_a_row() {
    let mut commands = BTreeSet::new();
    leaves(&Arguments::command(), "", &mut commands);
    let rows: BTreeSet<String> = ROWS.iter().map(|(command, ..)| (*command).to_owned()).collect();
    assert_eq!(rows, commands, "tests/it/auth_commands.rs");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_is_refused_without_a_good_credential_and_without_the_right() {
    let folder = Folder::new();
    let hub = crate::auth::vault(&folder).await;
    let bad: Vec<_> = bad_credentials("root", &["admin"])
        .into_iter()
        .filter(|(kind, ..)| ["none", "expired", "tampered"].contains(kind))
        .collect();
    assert_eq!(bad.len(), 3);
    let bare = token("bob", &[]);
    tokio::task::block_in_place(|| {
        for (command, arguments, lacking) in ROWS {
            if [Bare::NoHub, Bare::TwoHubs].contains(lacking) {
                continue;
            }
            for (kind, header, reason) in &bad {
                let credential = header.as_deref().and_then(|header| header.strip_prefix("Bearer "));
                let what = format!("{command} {arguments} with {kind}");
                let output = run(&hub, command, arguments, credential);
                match lacking {
                    Bare::Open => assert!(output.status.success(), "{what}: {output:?}"),
                    _ => check_refused(&what, &output, reason, credential.unwrap_or_default()),
                }
            }
            let (what, output) = (format!("{command} {arguments}"), run(&hub, command, arguments, Some(&bare)));
            match lacking {
                Bare::Refused(reason) => check_refused(&what, &output, reason, &bare),
                Bare::Denied(reason) => check_failed(&what, &output, (reason, "denied\n"), &bare),
                _ => {
                    assert!(output.status.success(), "{what}: {output:?}");
                    assert!(!text(&output.stdout).contains("vault"), "{what} tells of the stream: {output:?}");
                }
            }
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_the_right_gets_through_every_command() {
    let folder = Folder::new();
    let hub = Guarded::start(&folder, |_| {}).await;
    let admin = token("root", &["admin"]);
    let mut session = hub.open(&admin).await;
    let Some(Frame::Welcome(welcome)) = session.frame().await.frame else { panic!("not a welcome") };
    tokio::task::block_in_place(|| {
        for (command, arguments, lacking) in ROWS {
            if ![Bare::NoHub, Bare::TwoHubs].contains(lacking) {
                let output = run(&hub, command, &arguments.replace("SESSION", &welcome.session_id), Some(&admin));
                assert!(output.status.success(), "{command} {arguments}: {output:?}");
            }
        }
    });
}
