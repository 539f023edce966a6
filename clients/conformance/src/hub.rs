//! The real hub as a process, over its lives on one folder: started, drained, killed, frozen.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::ValueEnum;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{Child, ChildStderr, Command},
    task::JoinSet,
    time::timeout,
};

/// A hub is up, or down, within this.
const PATIENCE: Duration = Duration::from_secs(30);
/// What tokens are signed with.
const KEY: &str = "the-key-of-the-judge-for-nobody-else";

/// Which of its listeners the clients of a hub use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Listener {
    /// That of gRPC.
    #[default]
    Grpc,
    /// That of browsers, which speaks WebSocket.
    Web,
}

/// Where a hub listens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Addresses {
    pub(crate) grpc: SocketAddr,
    web: SocketAddr,
}

impl Addresses {
    pub(crate) fn of(&self, listener: Listener) -> SocketAddr {
        match listener {
            Listener::Grpc => self.grpc,
            Listener::Web => self.web,
        }
    }
}

/// A hub, or the place for one. It is killed with this value.
#[derive(Debug)]
pub(crate) struct Hub {
    program: PathBuf,
    folder: PathBuf,
    settings: BTreeMap<String, String>,
    child: Option<Child>,
    logs: JoinSet<()>,
}

impl Hub {
    /// No hub yet. With a policy it asks for tokens.
    pub(crate) fn new(
        program: &Path,
        folder: &Path,
        settings: &BTreeMap<String, String>,
        policy: Option<&str>,
    ) -> anyhow::Result<Self> {
        let mut settings = settings.clone();
        // Nobody here needs to be spared.
        settings.entry("drain.spread_ms".to_owned()).or_insert_with(|| "200".to_owned());
        let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
        if let Some(policy) = policy {
            std::fs::write(folder.join("key"), KEY)?;
            for (key, value) in [
                ("auth.enabled", "true".to_owned()),
                ("auth.policy_file", path("policy.toml")),
                ("auth.jwt_key_file", path("key")),
            ] {
                settings.insert(key.to_owned(), value);
            }
            std::fs::write(folder.join("policy.toml"), policy)?;
        }
        let (program, folder) = (program.to_owned(), folder.to_owned());
        Ok(Self { program, folder, settings, child: None, logs: JoinSet::new() })
    }

    /// Starts the next hub: where it listens.
    pub(crate) async fn start(&mut self) -> anyhow::Result<Addresses> {
        anyhow::ensure!(self.child.is_none(), "there is a hub");
        let mut command = Command::new(&self.program);
        command.args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--ops-listen",
            "127.0.0.1:0",
            "--web-listen",
            "127.0.0.1:0",
            "--log-format",
            "json",
        ]);
        command.arg("--data-dir").arg(self.folder.join("data"));
        for (key, value) in &self.settings {
            command.args(["--set", &format!("{key}={value}")]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("{}", self.program.display()))?;
        let log = child.stderr.take().context("a log")?;
        let log_file = File::options().create(true).append(true).open(self.folder.join("hub.log"))?;
        let (addresses, log, log_file) =
            timeout(PATIENCE, serving(log, log_file)).await.context("the hub did not serve in time")??;
        // Nobody who reads no log may stop the hub from writing one.
        self.logs.spawn(copy(log, log_file));
        self.child = Some(child);
        Ok(addresses)
    }

    /// Whether there is one.
    pub(crate) fn is_there(&self) -> bool {
        self.child.is_some()
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let id = self.child.as_ref().and_then(Child::id).context("there is no hub")?;
        let pid = i32::try_from(id).ok().and_then(Pid::from_raw).context("no process")?;
        Ok(kill_process(pid, signal)?)
    }

    pub(crate) fn freeze(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    pub(crate) fn thaw(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    /// Asks it to end, and waits until it has.
    pub(crate) async fn drain(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)?;
        self.ended().await
    }

    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::KILL)?;
        self.ended().await
    }

    async fn ended(&mut self) -> anyhow::Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        timeout(PATIENCE, child.wait()).await.context("the hub did not end in time")??;
        Ok(())
    }

    /// Another policy, from now on or a little later.
    pub(crate) fn set_policy(&self, policy: &str) -> anyhow::Result<()> {
        let new = self.folder.join("policy.new");
        std::fs::write(&new, policy)?;
        Ok(std::fs::rename(new, self.folder.join("policy.toml"))?)
    }

    /// A token that the hub takes.
    pub(crate) async fn token(&self, name: &str, roles: &[String], life: Duration) -> anyhow::Result<String> {
        let mut command = Command::new(&self.program);
        command.args(["token", "--sub", name, "--ttl", &format!("{}s", life.as_secs()), "--key"]);
        command.arg(self.folder.join("key"));
        for role in roles {
            command.args(["--role", role]);
        }
        let output = command.output().await?;
        if !output.status.success() {
            bail!("no token: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }
}

/// Reads the log until it says that the hub serves, and where.
async fn serving(log: ChildStderr, mut file: File) -> anyhow::Result<(Addresses, BufReader<ChildStderr>, File)> {
    let mut log = BufReader::new(log);
    let mut line = String::new();
    loop {
        line.clear();
        if log.read_line(&mut line).await? == 0 {
            bail!("the hub ended before it served; see its log");
        }
        file.write_all(line.as_bytes())?;
        let said: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
        if said["message"] == "serving" {
            let of = |name: &str| anyhow::Ok(said[name].as_str().context("no address")?.parse()?);
            return Ok((Addresses { grpc: of("address")?, web: of("web_address")? }, log, file));
        }
    }
}

async fn copy(mut log: BufReader<ChildStderr>, mut file: File) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = log.read(&mut buffer).await {
        file.write_all(&buffer[..count]).ok();
    }
}
