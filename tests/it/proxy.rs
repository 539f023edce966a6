//! nginx, HAProxy and Envoy as children, with the very files of `examples/proxies`, in front of two hubs.

use std::{
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
};

use switchyard::proto::v1::hub_service_client::HubServiceClient;
use tonic::{Code, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::{
    harness::{Folder, root, until},
    verifying::{Door, endpoint, free_address},
};

/// What a session may be idle for in the tests, in place of the times in the files.
pub const SHORT: &str = "4s";

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    Nginx,
    Haproxy,
    Envoy,
}

impl Kind {
    fn file(self) -> &'static str {
        match self {
            Self::Nginx => "nginx.conf",
            Self::Haproxy => "haproxy.cfg",
            Self::Envoy => "envoy.yaml",
        }
    }

    /// What stands in the file for the times after which an idle session is cut.
    fn idle_times(self) -> &'static [&'static str] {
        match self {
            Self::Nginx => &["grpc_read_timeout 60s", "grpc_send_timeout 60s"],
            Self::Haproxy => &["timeout client 60s", "timeout server 60s"],
            Self::Envoy => &["stream_idle_timeout: 300s"],
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
        let (folder, address) = (Folder::new(), free_address());
        let path = root().join("examples/proxies").join(kind.file());
        let mut text = std::fs::read_to_string(path).expect("a file of examples/proxies");
        let mut replace = |from: &str, to: &str| {
            assert!(text.contains(from), "{} has no {from:?}", kind.file());
            text = text.replace(from, to);
        };
        for (from, to) in changes {
            replace(from, to);
        }
        let clients = |address: SocketAddr| kind.place(&address.ip().to_string(), address.port());
        replace(&kind.place("0.0.0.0", 50050), &clients(address));
        for (number, (hub, ops)) in hubs.into_iter().enumerate() {
            let name = format!("hub-{number}");
            if kind == Kind::Haproxy {
                replace(&format!("{name}:50051 port 8080"), &format!("{hub} port {}", ops.port()));
            } else {
                replace(&kind.place(&name, 50051), &clients(hub));
            }
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
        let file = folder.path().join(kind.file());
        std::fs::write(&file, text).expect("written");
        let child = kind.command(&file, folder.path()).stdout(Stdio::null()).spawn();
        let child = child.unwrap_or_else(|error| panic!("{kind:?}: {error}: run `make tools`"));
        let proxy = Self { child, address, _folder: folder };
        for authority in AUTHORITIES {
            until("the proxy leads to its hubs", async || proxy.leads_to(authority).await).await;
        }
        proxy
    }

    /// The same, with short times for idle sessions.
    pub async fn start_short(kind: Kind, hubs: [Ports; 2], changes: &[(&str, &str)]) -> Self {
        let short = |time: &&'static str| time.replace("300s", SHORT).replace("60s", SHORT);
        let times: Vec<(&str, String)> = kind.idle_times().iter().map(|time| (*time, short(time))).collect();
        let all: Vec<(&str, &str)> =
            times.iter().map(|(from, to)| (*from, to.as_str())).chain(changes.iter().copied()).collect();
        Self::start(kind, hubs, &all).await
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
