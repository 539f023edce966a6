//! A session over WebSocket as Python's own library speaks it.

use std::process::Command;

use super::{address, hub};
use crate::harness::root;

/// Offers compression, which the hub does not take, and sends one command in two frames.
const SCRIPT: &str = r#"
import json, sys
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

def frame(socket):
    while "heartbeat" in (message := json.loads(socket.recv(timeout=30))):
        pass
    return message

with connect(sys.argv[1], subprotocols=["other", "switchyard.v1.json"], compression="deflate") as socket:
    assert socket.subprotocol == "switchyard.v1.json", socket.subprotocol
    assert not socket.protocol.extensions, socket.protocol.extensions
    assert "welcome" in frame(socket)
    subscribe = json.dumps({"subscribe": {"subscriptionId": 1, "spec": {"filters": ["chat.>"]}}})
    socket.send(iter([subscribe[:20], subscribe[20:]]))
    assert frame(socket)["subscribed"]["subscriptionId"] == "1"
    assert socket.ping().wait(timeout=30)
    socket.send(json.dumps({"publish": {"events": [{"topic": "chat.room", "text": "Grüße ☃" * 20_000}]}}))
    assert frame(socket)["events"]["events"][0]["event"]["text"] == "Grüße ☃" * 20_000

with connect(sys.argv[1], subprotocols=["switchyard.v1.json"]) as socket:
    frame(socket)
    socket.send(b"not a text")
    assert frame(socket)["error"]["code"] == 3
    try:
        socket.recv(timeout=30)
        raise SystemExit("no close")
    except ConnectionClosed as closed:
        assert closed.rcvd.code == 1003 and closed.rcvd.reason == "MALFORMED_COMMAND", closed
"#;

#[tokio::test]
async fn a_session_of_a_python_client() {
    let hub = hub(|_| {}).await;
    let url = format!("ws://{}/v1/ws", address(&hub));
    let run = move || Command::new(root().join(".tools/venv/bin/python")).args(["-c", SCRIPT, &url]).output();
    let output = tokio::task::spawn_blocking(run).await.expect("joined").expect("python: run `make tools`");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
