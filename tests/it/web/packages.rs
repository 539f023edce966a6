//! Clients for the web that others publish, unmodified: of event streams, of WebSocket, of Connect and gRPC-Web. The scripts are in
//! `tests/web`, where `make tools` puts the packages of Node.

use std::process::Command;

use super::{address, any_port, hub};
use crate::{
    harness::{Folder, program, root},
    stored::hub_on_with,
};

/// The contract, for clients that have no generated code.
const DESCRIPTORS: &str = concat!(env!("OUT_DIR"), "/descriptors.bin");

/// Runs a script of `tests/web`, which fails if what it sees is wrong.
async fn run(interpreter: &str, script: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(interpreter);
    command.current_dir(root().join("tests/web")).arg(script).args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("joined");
    let output = output.unwrap_or_else(|error| panic!("{interpreter}: {error}: run `make tools`"));
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    told
}

#[tokio::test]
async fn an_event_source_of_node_goes_on_after_the_hub_is_killed() {
    let folder = Folder::new();
    let hub = program();
    let program = hub.get_program().to_str().expect("text");
    run("node", "events.mjs", &[program, folder.text()]).await;
}

#[tokio::test]
async fn httpx_sse_reads_an_event_stream_in_parts() {
    let folder = Folder::new();
    let hub = hub_on_with(&folder, |config| config.web.listen = any_port()).await;
    let python = root().join(".tools/venv/bin/python");
    run(python.to_str().expect("text"), "events.py", &[&format!("http://{}", address(&hub))]).await;
}

#[tokio::test]
async fn ws_has_a_session_in_json_and_in_protobuf() {
    let hub = hub(|_| {}).await;
    run("node", "ws.mjs", &[&format!("ws://{}", address(&hub)), DESCRIPTORS]).await;
}

#[tokio::test]
async fn connect_web_and_grpc_web_call_and_subscribe() {
    let hub = hub(|_| {}).await;
    let told = run("node", "calls.mjs", &[&format!("http://{}", address(&hub)), DESCRIPTORS]).await;
    assert_eq!(told.lines().filter(|line| line.ends_with(": ok")).count(), 6, "{told}");
}
