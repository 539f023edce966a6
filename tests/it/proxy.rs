//! nginx, HAProxy and Envoy as children, with the very files of `examples/proxies`, in front of two hubs.

use std::{
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
};

use switchyard::proto::v1::hub_service_client::HubServiceClient;
use tokio::net::TcpStream;
use tonic::{Code, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::{
    harness::{Folder, root, until},
    verifying::{Door, endpoint, free_address},
    web::ask,
};

/// What a session may be idle for in the tests, in place of the times in the files.
pub const SHORT: &str = "4s";

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    Nginx,
    Haproxy,
    Envoy,
}

/// What of the hubs a proxy is in front of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Front {
    Grpc,
    Web,
}

impl Front {
    /// The ports in the files: the proxy's own, and that of a hub.
    fn ports(self) -> (u16, u16) {
        match self {
            Self::Grpc => (50050, 50051),
            Self::Web => (8000, 50080),
        }
    }
}

impl Kind {
    fn file(self, front: Front) -> &'static str {
        match (front, self) {
            (Front::Grpc, Self::Nginx) => "nginx.conf",
            (Front::Grpc, Self::Haproxy) => "haproxy.cfg",
            (Front::Grpc, Self::Envoy) => "envoy.yaml",
            (Front::Web, Self::Nginx) => "web-nginx.conf",
            (Front::Web, Self::Haproxy) => "web-haproxy.cfg",
            (Front::Web, Self::Envoy) => "web-envoy.yaml",
        }
    }

    /// What stands in the file for the times after which an idle session is cut.
    fn idle_times(self, front: Front) -> &'static [&'static str] {
        match (front, self) {
            (Front::Grpc, Self::Nginx) => &["grpc_read_timeout 60s", "grpc_send_timeout 60s"],
            (Front::Grpc, Self::Haproxy) => &["timeout client 60s", "timeout server 60s"],
            (Front::Grpc, Self::Envoy) => &["stream_idle_timeout: 300s"],
            (Front::Web, Self::Nginx) => &["proxy_read_timeout 75s"],
            (Front::Web, Self::Haproxy) => &["timeout client 75s", "timeout server 75s", "timeout tunnel 75s"],
            (Front::Web, Self::Envoy) => &["stream_idle_timeout: 75s"],
        }
    }

    /// A hub as it is written in the file, with the port of its operator where the proxy asks that.
    fn hub(self, front: Front, (host, port): (&str, u16), ops: u16) -> String {
        let place = self.place(host, port);
        match (front, self) {
            (_, Self::Haproxy) => format!("{place} port {ops}"),
            (Front::Web, Self::Envoy) => {
                let indent = " ".repeat(18);
                format!("{place} }} }}\n{indent}health_check_config: {{ port_value: {ops} }}")
            }
            _ => place,
        }
    }

    /// An address as it is written in the file.
    fn place(self, host: &str, port: u16) -> String {
        match self {
            Self::Envoy => format!("address: {host}, port_value: {port}"),
            _ => format!("{host}:{port}"),
        }
    }

    fn command(self, file: &Path, folder: &Path) -> Command {
        let (tools, at) = (root().join(".tools"), folder.display());
        let mut command;
        match self {
            Self::Nginx => {
                command = Command::new(tools.join("bin/nginx"));
                // One process, so that none is left behind when it is killed.
                let global = format!("daemon off; master_process off; pid {at}/pid;");
                command.args(["-e", "stderr", "-g", &global, "-p"]).arg(folder).arg("-c");
            }
            Self::Haproxy => {
                command = Command::new(tools.join("bin/haproxy"));
                command.args(["-db", "-f"]);
            }
            Self::Envoy => {
                command = Command::new(tools.join("venv/bin/envoy"));
                command.args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "error", "-c"]);
            }
        }
        command.arg(file);
        command
    }
}

/// Where one hub listens: for clients, and for operators.
pub type Ports = (SocketAddr, SocketAddr);

/// A proxy in front of two hubs. Killed when the test is done with it.
pub struct Proxy {
    child: Child,
    pub address: SocketAddr,
    _folder: Folder,
}

impl Proxy {
    /// Starts a proxy with the file of `examples/proxies`, in which the addresses, and what `changes` tells, are replaced;
    /// and waits until it leads to both hubs.
    pub async fn start(kind: Kind, hubs: [Ports; 2], changes: &[(&str, &str)]) -> Self {
        Self::begin(kind, Front::Grpc, hubs, changes).await
    }

    /// The same, with short times for idle sessions.
    pub async fn start_short(kind: Kind, hubs: [Ports; 2], changes: &[(&str, &str)]) -> Self {
        Self::begin_short(kind, Front::Grpc, hubs, changes).await
    }

    pub async fn begin_short(kind: Kind, front: Front, hubs: [Ports; 2], changes: &[(&str, &str)]) -> Self {
        let short = |time: &&'static str| time.replace("300s", SHORT).replace("75s", SHORT).replace("60s", SHORT);
        let times: Vec<(&str, String)> = kind.idle_times(front).iter().map(|time| (*time, short(time))).collect();
        let all: Vec<(&str, &str)> =
            times.iter().map(|(from, to)| (*from, to.as_str())).chain(changes.iter().copied()).collect();
        Self::begin(kind, front, hubs, &all).await
    }

    pub async fn begin(kind: Kind, front: Front, hubs: [Ports; 2], changes: &[(&str, &str)]) -> Self {
        let (folder, address) = (Folder::new(), free_address());
        let name = kind.file(front);
        let mut text = std::fs::read_to_string(root().join("examples/proxies").join(name)).expect("a file");
        let mut replace = |from: &str, to: &str| {
            assert!(text.contains(from), "{name} has no {from:?}");
            text = text.replace(from, to);
        };
        for (from, to) in changes {
            replace(from, to);
        }
        let (own, port) = front.ports();
        let host = |address: SocketAddr| address.ip().to_string();
        replace(&kind.place("0.0.0.0", own), &kind.place(&host(address), address.port()));
        for (number, (hub, ops)) in hubs.into_iter().enumerate() {
            let there = kind.hub(front, (&host(hub), hub.port()), ops.port());
            replace(&kind.hub(front, (&format!("hub-{number}"), port), 8080), &there);
        }
        if kind == Kind::Haproxy {
            // It refuses to start without so many open files, which a machine for tests may not have.
            replace("maxconn 20000", "maxconn 200");
        }
        if kind == Kind::Nginx {
            // Where it would buffer what it passes on; Debian's default is a folder of the system.
            let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                .map(|of| format!("{of}_temp_path {};", folder.path().display()))
                .concat();
            replace("http {", &format!("http {{ {temporary}"));
        }
        let file = folder.path().join(name);
        std::fs::write(&file, text).expect("written");
        let child = kind.command(&file, folder.path()).stdout(Stdio::null()).spawn();
        let child = child.unwrap_or_else(|error| panic!("{kind:?}: {error}: run `make tools`"));
        let proxy = Self { child, address, _folder: folder };
        for authority in AUTHORITIES {
            until("the proxy leads to its hubs", async || match front {
                Front::Grpc => proxy.leads_to(authority).await,
                Front::Web => proxy.leads_pages_to(authority).await,
            })
            .await;
        }
        proxy
    }

    /// Any hub, or that of an authority.
    pub fn door(&self, authority: &str) -> Door {
        Door::named(self.address, authority)
    }

    /// A connection that leads to the hub of an authority.
    pub async fn client(&self, authority: &str) -> HubServiceClient<Channel> {
        let channel = endpoint(self.address, authority).connect().await.expect("a proxy");
        HubServiceClient::new(channel).max_decoding_message_size(8 * 1024 * 1024)
    }

    async fn leads_pages_to(&self, authority: &str) -> bool {
        if TcpStream::connect(self.address).await.is_err() {
            return false;
        }
        let answer = ask(self.address, "GET", "/v1/nothing", &[("host", authority)], "").await;
        assert!([404, 502, 503].contains(&answer.status), "{answer:?}");
        answer.status == 404
    }

    async fn leads_to(&self, authority: &str) -> bool {
        let Ok(channel) = endpoint(self.address, authority).connect().await else { return false };
        let request = HealthCheckRequest { service: "readiness".into() };
        match HealthClient::new(channel).check(request).await {
            Ok(_) => true,
            Err(status) => {
                assert_eq!(status.code(), Code::Unavailable, "{status:?}");
                false
            }
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// By these names the files lead to any hub, to the first and to the second.
pub const AUTHORITIES: [&str; 3] = ["hubs.example", "hub-0.example", "hub-1.example"];
