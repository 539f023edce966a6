//! The hub tried by hand with grpcurl: no proto files, no configuration.

use std::{
    io::Write,
    process::{Child, ChildStdout, Command, Stdio},
};

use serde_json::{Value, json};

use crate::{
    authority::Authority,
    harness::{Process, root},
    tls::secured_process,
};

const SERVICE: &str = "switchyard.v1.HubService";

fn grpcurl(hub: &Process, arguments: &[&str], verb: &[&str]) -> Command {
    let mut command = Command::new(root().join(".tools/bin/grpcurl"));
    command.arg("-plaintext").args(arguments).arg(hub.address.to_string()).args(verb);
    command
}

/// What grpcurl prints when it is done.
fn output(hub: &Process, arguments: &[&str], verb: &[&str]) -> String {
    let output = grpcurl(hub, arguments, verb).output().expect("grpcurl: run `make tools`");
    String::from_utf8(output.stdout).expect("text") + &String::from_utf8(output.stderr).expect("text")
}

/// A call that goes on, and the messages it prints as they come.
struct Call {
    child: Child,
    messages: serde_json::StreamDeserializer<'static, serde_json::de::IoRead<ChildStdout>, Value>,
}

impl Call {
    fn start(hub: &Process, data: &str, method: &str) -> Self {
        let mut child = grpcurl(hub, &["-d", data], &[&format!("{SERVICE}/{method}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("grpcurl: run `make tools`");
        let stdout = child.stdout.take().expect("piped");
        Self { child, messages: serde_json::Deserializer::from_reader(stdout).into_iter() }
    }

    fn next(&mut self) -> Value {
        self.messages.next().expect("grpcurl goes on").expect("JSON")
    }

    /// Types one line.
    fn send(&mut self, command: &Value) {
        let stdin = self.child.stdin.as_mut().expect("piped");
        writeln!(stdin, "{command}").and_then(|()| stdin.flush()).expect("typed");
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn publish(hub: &Process, event: Value) -> Value {
    let request = json!({ "events": [event] }).to_string();
    serde_json::from_str(&output(hub, &["-d", &request], &[&format!("{SERVICE}/Publish")])).expect("JSON")
}

fn text_of(frame: &Value) -> &Value {
    &frame["events"]["events"][0]["event"]["text"]
}

#[test]
fn list_and_describe_need_no_proto_files() {
    let hub = Process::start(&[]);
    let services = output(&hub, &[], &["list"]);
    for service in [SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"] {
        assert!(services.lines().any(|line| line == service), "{services}");
    }
    let methods = output(&hub, &[], &["list", SERVICE]);
    assert_eq!(methods.lines().count(), 4, "{methods}");
    let described = output(&hub, &[], &["describe", "switchyard.v1.Event"]);
    assert!(described.contains("string topic = 2;") && described.contains("1 to 32 tokens"), "{described}");
    let value = output(&hub, &[], &["describe", "switchyard.v1.ACK_MODE_EXPLICIT"]);
    assert!(value.contains("ACK_MODE_EXPLICIT = "), "{value}");
    let unknown = output(&hub, &[], &["describe", "switchyard.v1.Nothing"]);
    assert!(unknown.contains("not found: switchyard.v1.Nothing"), "{unknown}");
    let health = output(&hub, &[], &["grpc.health.v1.Health/Check"]);
    assert!(health.contains("SERVING"), "{health}");
}

#[test]
fn subscribe_prints_at_once_although_grpcurl_half_closes() {
    let hub = Process::start(&[]);
    let mut call = Call::start(&hub, r#"{"spec":{"filters":["orders.>"]}}"#, "Subscribe");
    assert!(call.next()["welcome"]["sessionId"].is_string());
    assert_eq!(call.next()["subscribed"]["subscriptionId"], "1");
    for text in ["one", "two"] {
        let published = publish(&hub, json!({ "topic": "orders.eu", "text": text }));
        assert_eq!(published["results"][0]["matched"], "1");
        assert_eq!(text_of(&call.next()), text);
    }
}

#[test]
fn a_session_of_one_command_goes_on_after_half_close() {
    let hub = Process::start(&[]);
    let command = r#"{"request_id":1,"subscribe":{"subscription_id":7,"spec":{"filters":["a"]}}}"#;
    let mut call = Call::start(&hub, command, "Session");
    assert!(call.next()["welcome"].is_object());
    assert_eq!(call.next()["subscribed"]["subscriptionId"], "7");
    publish(&hub, json!({ "topic": "a", "text": "x" }));
    assert_eq!(text_of(&call.next()), "x");
}

#[test]
fn a_session_takes_commands_line_by_line() {
    let hub = Process::start(&[]);
    let mut call = Call::start(&hub, "@", "Session");
    call.send(&json!({ "request_id": 1, "subscribe": { "subscription_id": 1, "spec": { "filters": ["a.*"] } } }));
    assert!(call.next()["welcome"].is_object());
    let subscribed = call.next();
    assert_eq!((&subscribed["requestId"], &subscribed["subscribed"]["subscriptionId"]), (&json!("1"), &json!("1")));
    call.send(&json!({ "request_id": 2, "publish": { "events": [{ "topic": "a.b", "text": "hello" }] } }));
    let (mut published, mut event) = (call.next(), call.next());
    if published["events"].is_object() {
        std::mem::swap(&mut published, &mut event);
    }
    assert_eq!(published["published"]["results"][0]["matched"], "1");
    assert_eq!(text_of(&event), "hello");
    call.send(&json!({ "request_id": 3, "subscribe": { "subscription_id": 2, "spec": { "filters": ["a..b"] } } }));
    let ended = call.next();
    assert_eq!(ended["ended"]["reason"], "END_REASON_INVALID_FILTER");
    assert_eq!(ended["ended"]["status"]["details"][0]["reason"], "INVALID_FILTER");
    call.send(&json!({ "request_id": 4, "unsubscribe": { "subscription_id": 1 } }));
    assert_eq!(call.next()["ended"]["reason"], "END_REASON_CLIENT_UNSUBSCRIBED");
    drop(call.child.stdin.take());
    assert!(call.child.wait().expect("ended").success(), "a session without subscriptions ends OK");
}

#[test]
fn an_error_shows_its_reason_and_field() {
    let hub = Process::start(&[]);
    let request = r#"{"events":[{"topic":"a..b"}]}"#;
    let told = output(&hub, &["-d", request], &[&format!("{SERVICE}/Publish")]);
    for part in ["InvalidArgument", "INVALID_TOPIC", "events[0].topic", "token 2 is empty"] {
        assert!(told.contains(part), "{told}");
    }
}

#[test]
fn tls_needs_only_the_authority_of_the_hub() {
    let authority = Authority::new("ours");
    let (hub, secret) = secured_process(&authority);
    let address = hub.address.to_string();
    let ca = secret.path("ca.crt").display().to_string();
    let call = |arguments: &[&str], verb: &[&str]| {
        let mut command = Command::new(root().join(".tools/bin/grpcurl"));
        let output = command.args(arguments).arg(&address).args(verb).output().expect("grpcurl: run `make tools`");
        (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let (done, services) = call(&["-cacert", &ca], &["list"]);
    assert!(done && services.lines().any(|line| line == SERVICE), "{services}");
    let request = r#"{"events":[{"topic":"a","text":"x"}]}"#;
    let (done, published) = call(&["-cacert", &ca, "-d", request], &[&format!("{SERVICE}/Publish")]);
    assert!(done && published.contains("results"), "{published}");
    let client = authority.client("spiffe://a/b");
    let (cert, key) = (secret.path("client.crt"), secret.path("client.key"));
    std::fs::write(&cert, &client.certificate).and_then(|()| std::fs::write(&key, &client.key)).expect("files");
    let (cert, key) = (cert.display().to_string(), key.display().to_string());
    let (done, services) = call(&["-cacert", &ca, "-cert", &cert, "-key", &key], &["list"]);
    assert!(done, "{services}");
    // Not trusted, and not even TLS.
    for arguments in [&[][..], &["-plaintext", "-max-time", "5"]] {
        let (done, told) = call(arguments, &["list"]);
        assert!(!done, "{told}");
    }
}
