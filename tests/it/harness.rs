//! A hub in this process, a client that reads frames, and the real program as a child.

#![allow(dead_code)]

use std::{
    collections::HashMap,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use switchyard::{
    config::Config,
    edge::web,
    proto::v1::{
        Credit, Ended, Event, Events, PublishRequest, PublishResponse, SessionRequest, SessionResponse, Subscribe,
        SubscriptionSpec, event::Payload, hub_service_client::HubServiceClient, session_request::Command as Wire,
        session_response::Frame,
    },
    server::{self, Server},
};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Streaming, transport::Channel};

/// Nothing a test waits for takes this long; reaching it is a failure.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Options for a hub on ports of the system's choice.
pub fn config() -> Config {
    Config {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)).into(),
        ops_listen: SocketAddr::from(([127, 0, 0, 1], 0)).into(),
        web: web::Options { listen: web::WebListen::OFF, ..web::Options::default() },
        data_dir: PathBuf::new(),
        ..Config::default()
    }
}

/// A hub in this process.
pub async fn hub() -> Server {
    hub_with(|_| {}).await
}

/// The same with other options.
pub async fn hub_with(change: impl FnOnce(&mut Config)) -> Server {
    let mut config = config();
    change(&mut config);
    server::start(config).await.expect("a hub starts")
}

/// A client of its own connection.
pub async fn client(address: SocketAddr) -> HubServiceClient<Channel> {
    let channel = Channel::from_shared(format!("http://{address}")).expect("a URL").connect().await;
    HubServiceClient::new(channel.expect("a hub answers")).max_decoding_message_size(8 * 1024 * 1024)
}

/// Waits for something that must come.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not come within {PATIENCE:?}"),
    }
}

/// A time in which something else goes on, as part of what is tested; never a way to wait for it.
pub async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}

/// An event with a text.
pub fn event(topic: &str, text: impl Into<String>) -> Event {
    Event { topic: topic.into(), payload: Some(Payload::Text(text.into())), ..Event::default() }
}

/// A publish of events.
pub fn publish(events: Vec<Event>) -> PublishRequest {
    PublishRequest { events, precondition: None }
}

/// A wish for live events.
pub fn spec(filters: &[&str]) -> SubscriptionSpec {
    SubscriptionSpec { filters: filters.iter().map(|f| (*f).to_owned()).collect(), ..SubscriptionSpec::default() }
}

/// Explicit credit.
pub fn credit(events: i64, bytes: i64) -> Option<Credit> {
    Some(Credit { events, bytes })
}

/// The texts of events.
pub fn texts(events: &Events) -> Vec<String> {
    events
        .events
        .iter()
        .map(|received| match received.event.as_ref().and_then(|e| e.payload.as_ref()) {
            Some(Payload::Text(text)) => text.clone(),
            other => panic!("not a text: {other:?}"),
        })
        .collect()
}

/// The reason inside a status.
pub fn reason(status: &tonic_types::pb::Status) -> String {
    let details = prost::Message::encode_to_vec(status);
    let status = tonic::Status::with_details(tonic::Code::from_i32(status.code), "", details.into());
    reason_of_call(&status)
}

/// The reason of a failed call.
pub fn reason_of_call(status: &tonic::Status) -> String {
    use tonic_types::StatusExt;
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

/// The field inside a status.
pub fn field(status: &tonic_types::pb::Status) -> String {
    use tonic_types::StatusExt;
    let details = prost::Message::encode_to_vec(status);
    let status = tonic::Status::with_details(tonic::Code::from_i32(status.code), "", details.into());
    status
        .get_details_bad_request()
        .and_then(|bad| bad.field_violations.into_iter().next())
        .map(|violation| violation.field)
        .unwrap_or_default()
}

/// One session, as a client sees it.
pub struct Session {
    pub commands: Option<mpsc::Sender<SessionRequest>>,
    pub frames: Streaming<SessionResponse>,
    /// From its `welcome`, if that was read.
    pub id: String,
}

impl Session {
    /// Opens a session on a connection of its own and reads `welcome`.
    pub async fn open(address: SocketAddr) -> Self {
        Self::open_on(&mut client(address).await).await
    }

    /// Opens a session on a connection and reads `welcome`.
    pub async fn open_on(client: &mut HubServiceClient<Channel>) -> Self {
        let mut session = Self::open_raw(client).await;
        match session.frame().await.frame {
            Some(Frame::Welcome(welcome)) => {
                session.id = welcome.session_id;
                session
            }
            other => panic!("not a welcome: {other:?}"),
        }
    }

    /// Opens a session and reads nothing.
    pub async fn open_raw(client: &mut HubServiceClient<Channel>) -> Self {
        let (commands, receiver) = mpsc::channel(64);
        let response = soon("headers", client.session(ReceiverStream::new(receiver))).await.expect("a session");
        Self { commands: Some(commands), frames: response.into_inner(), id: String::new() }
    }

    /// Sends a command.
    pub async fn send(&self, request_id: i64, command: Wire) {
        let request = SessionRequest { request_id, command: Some(command) };
        let commands = self.commands.as_ref().expect("not half-closed");
        soon("room for a command", commands.send(request)).await.expect("the session lives");
    }

    /// Sends no more commands.
    pub fn half_close(&mut self) {
        self.commands = None;
    }

    /// The next frame, heartbeats included.
    pub async fn frame(&mut self) -> SessionResponse {
        match soon("a frame", self.frames.next()).await {
            Some(Ok(frame)) => frame,
            other => panic!("no frame: {other:?}"),
        }
    }

    /// The next frame that tells something: a heartbeat may come between any two.
    async fn told(&mut self) -> SessionResponse {
        let told = async {
            loop {
                let frame = self.frame().await;
                if !matches!(frame.frame, Some(Frame::Heartbeat(_))) {
                    return frame;
                }
            }
        };
        soon("a frame but heartbeats", told).await
    }

    /// The next frame, or how the call ends.
    pub async fn next(&mut self) -> Result<SessionResponse, Option<tonic::Status>> {
        match soon("a frame or the end", self.frames.next()).await {
            Some(Ok(frame)) => Ok(frame),
            end => Err(end.and_then(Result::err)),
        }
    }

    /// How the call ends, which must be next.
    pub async fn end(&mut self) -> Result<(), tonic::Status> {
        match soon("the end of the call", self.frames.next()).await {
            None => Ok(()),
            Some(Err(status)) => Err(status),
            Some(Ok(frame)) => panic!("not the end: {frame:?}"),
        }
    }

    /// Subscribes and waits until it is confirmed.
    pub async fn subscribe(&mut self, subscription_id: i64, spec: SubscriptionSpec) {
        self.send(1, Wire::Subscribe(Subscribe { subscription_id, spec: Some(spec) })).await;
        match self.told().await.frame {
            Some(Frame::Subscribed(subscribed)) => assert_eq!(subscribed.subscription_id, subscription_id),
            other => panic!("not subscribed: {other:?}"),
        }
    }

    /// The next frame, which must be events.
    pub async fn events(&mut self) -> Events {
        match self.told().await.frame {
            Some(Frame::Events(events)) => events,
            other => panic!("not events: {other:?}"),
        }
    }

    /// The next frame, which must be an end.
    pub async fn ended(&mut self) -> Ended {
        match self.told().await.frame {
            Some(Frame::Ended(ended)) => ended,
            other => panic!("not ended: {other:?}"),
        }
    }

    /// The next frame, which must be an error.
    pub async fn error(&mut self) -> (i64, tonic_types::pb::Status) {
        let frame = self.told().await;
        match frame.frame {
            Some(Frame::Error(status)) => (frame.request_id, status),
            other => panic!("not an error: {other:?}"),
        }
    }

    /// Publishes over the session and waits for the results.
    pub async fn publish(&mut self, events: Vec<Event>) -> PublishResponse {
        self.send(77, Wire::Publish(publish(events))).await;
        let frame = self.told().await;
        match frame.frame {
            Some(Frame::Published(response)) => {
                assert_eq!(frame.request_id, 77);
                response
            }
            other => panic!("not published: {other:?}"),
        }
    }

    /// Reads until `count` events of every subscription of `wanted` have come, and gives their texts. Gaps and ends are
    /// failures.
    pub async fn collect(&mut self, wanted: &HashMap<i64, usize>) -> HashMap<i64, Vec<String>> {
        let mut got: HashMap<i64, Vec<String>> = wanted.keys().map(|id| (*id, Vec::new())).collect();
        while wanted.iter().any(|(id, count)| got[id].len() < *count) {
            match self.frame().await.frame {
                Some(Frame::Events(events)) => {
                    got.entry(events.subscription_id).or_default().extend(texts(&events));
                }
                Some(Frame::Heartbeat(_)) => {}
                other => panic!("unexpected: {other:?}"),
            }
        }
        got
    }
}

/// The value of a metric, summed over its labels.
pub async fn metric(server: &Server, name: &str) -> u64 {
    let text = http_get(server.ops_address, "/metrics").await;
    text.lines()
        .filter(|line| line.split([' ', '{']).next() == Some(name))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

/// The body and status line of a plain HTTP/1 request.
pub async fn http_get(address: SocketAddr, path: &str) -> String {
    http(address, "GET", path, "").await
}

/// The same of a request with another method and a body.
pub async fn http(address: SocketAddr, method: &str, path: &str, body: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("a port");
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut response = String::new();
    soon("a response", stream.read_to_string(&mut response)).await.expect("read");
    response
}

/// Asks again until it is so: for facts the hub tells only when asked.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < PATIENCE, "{what} is not so after {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The real program.
pub fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_switchyard"))
}

/// The folder of the project.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The real hub as a process. Killed when the test is done with it.
pub struct Process {
    pub child: Child,
    pub address: SocketAddr,
    pub ops_address: SocketAddr,
    pub web_address: SocketAddr,
}

impl Process {
    /// Starts `switchyard serve` with these flags and waits until it serves.
    pub fn start(flags: &[&str]) -> Self {
        Self::start_as(program(), flags)
    }

    /// The same where only so many files may be open.
    pub fn start_with_files(files: usize, flags: &[&str]) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -n {files}; exec \"$0\" \"$@\"")]).arg(program().get_program());
        Self::start_as(shell, flags)
    }

    /// The same where files may be no larger.
    pub fn start_with_largest_file(bytes: u64, flags: &[&str]) -> Self {
        let mut shell = Command::new("sh");
        // In blocks of 512 bytes.
        shell.args(["-c", &format!("ulimit -f {}; exec \"$0\" \"$@\"", bytes / 512)]).arg(program().get_program());
        Self::start_as(shell, flags)
    }

    fn start_as(mut program: Command, flags: &[&str]) -> Self {
        let mut child = program
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--ops-listen",
                "127.0.0.1:0",
                "--web-listen",
                "127.0.0.1:0",
                "--log-format",
                "json",
            ])
            .env("SWITCHYARD_DATA_DIR", "")
            .args(flags)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut log = BufReader::new(child.stderr.take().expect("piped"));
        let mut told = String::new();
        let serving: serde_json::Value = loop {
            let before = told.len();
            assert!(log.read_line(&mut told).expect("a log") > 0, "the hub ended before it served: {told}");
            let parsed: serde_json::Value = serde_json::from_str(&told[before..]).unwrap_or_default();
            if parsed["message"] == "serving" {
                break parsed;
            }
        };
        // Whoever reads no log must not stop the hub from writing one.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        let address = |key: &str| serving[key].as_str().and_then(|text| text.parse().ok()).expect("an address");
        let [address, ops_address, web_address] = ["address", "ops_address", "web_address"].map(address);
        Self { child, address, ops_address, web_address }
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// The exit status, which must come within `limit`.
    pub fn exit(&mut self, limit: Duration) -> ExitStatus {
        exit(&mut self.child, limit)
    }

    /// Resident memory, in bytes.
    pub fn resident_bytes(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("a process");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<usize>().ok()).expect("a number") * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Sends a signal to one process.
pub fn signal(process: u32, name: &str) {
    let status = Command::new("kill").arg(format!("-{name}")).arg(process.to_string()).status();
    assert!(status.expect("kill runs").success());
}

/// The exit status of a child, which must come within `limit`.
pub fn exit(child: &mut Child, limit: Duration) -> ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("a child") {
            return status;
        }
        assert!(start.elapsed() < limit, "the process is still there after {limit:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A folder for one test, gone when it is done.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("data-{}-{number}", std::process::id());
        let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    pub fn path(&self) -> &std::path::Path {
        &self.0
    }

    /// As the value of a flag.
    pub fn text(&self) -> &str {
        self.0.to_str().expect("text")
    }

    /// A hub that keeps its streams here.
    pub async fn hub(&self) -> Server {
        hub_with(|config| config.data_dir.clone_from(&self.0)).await
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// A connection of its own.
pub async fn channel(address: SocketAddr) -> Channel {
    Channel::from_shared(format!("http://{address}")).expect("a URL").connect().await.expect("a hub answers")
}
