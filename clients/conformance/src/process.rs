//! The driver as a process: commands on its standard input, reports on its standard output, and what it takes of the
//! machine.

use std::{
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command as Program},
    task::JoinSet,
    time::timeout,
};

use crate::{history::Fact, protocol::Command, recorder::Recorder};

/// How long it may take to read a command, or to end.
const PATIENCE: Duration = Duration::from_secs(10);
/// No report is longer, in bytes.
const MAX_LINE_BYTES: u64 = 64 * 1024;

/// A driver, which is killed with this value.
#[derive(Debug)]
pub(crate) struct Driver {
    child: Child,
    commands: ChildStdin,
    reports: JoinSet<()>,
    recorder: Recorder,
}

impl Driver {
    /// Starts the program with its arguments; what it writes to its standard error goes to a file.
    pub(crate) fn start(program: &[String], folder: &Path, recorder: Recorder) -> anyhow::Result<Self> {
        let (name, arguments) = program.split_first().context("no driver")?;
        let log = std::fs::File::options().create(true).append(true).open(folder.join("driver.log"))?;
        let mut command = Program::new(name);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
        recorder.add(Fact::DriverBegan);
        let mut child = command.spawn().with_context(|| format!("the driver {name}"))?;
        let commands = child.stdin.take().context("no standard input")?;
        let output = child.stdout.take().context("no standard output")?;
        let mut reports = JoinSet::new();
        reports.spawn(read(output, recorder.clone()));
        Ok(Self { child, commands, reports, recorder })
    }

    /// Gives a command to the driver.
    pub(crate) async fn tell(&mut self, command: Command) -> anyhow::Result<()> {
        let line = format!("{}\n", serde_json::to_string(&command)?);
        self.recorder.add(Fact::Told(command));
        let writing = async {
            self.commands.write_all(line.as_bytes()).await?;
            self.commands.flush().await
        };
        Ok(timeout(PATIENCE, writing).await.context("the driver reads no commands")??)
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn ended(&mut self) -> String {
        match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        }
    }

    /// Tells the driver to end, and waits until it has; otherwise it is killed.
    pub(crate) async fn end(mut self) -> anyhow::Result<()> {
        let asked = Instant::now();
        // It may have ended before.
        self.tell(Command::Close).await.ok();
        let by_itself = timeout(PATIENCE, self.child.wait()).await.is_ok();
        let after_ms = u64::try_from(asked.elapsed().as_millis())?;
        if !by_itself {
            self.child.kill().await?;
        }
        // All that it has said comes before its end.
        timeout(PATIENCE, self.reports.join_next()).await.context("its output does not end")?;
        self.recorder.add(Fact::DriverEnded { by_itself, after_ms });
        Ok(())
    }

    /// Ends it as a crash does.
    pub(crate) async fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill().await?;
        timeout(PATIENCE, self.reports.join_next()).await.context("its output does not end")?;
        Ok(())
    }

    /// What the process has now.
    pub(crate) fn measure(&self) -> anyhow::Result<Fact> {
        let id = self.child.id().context("the driver has ended")?;
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let value = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
        };
        let (Some(resident_kib), Some(threads)) = (value("VmRSS:"), value("Threads:")) else {
            bail!("nothing is known of process {id}");
        };
        let descriptors = std::fs::read_dir(format!("/proc/{id}/fd"))?.count() as u64;
        Ok(Fact::Measured { resident_kib, descriptors, threads })
    }
}

async fn read(output: ChildStdout, recorder: Recorder) {
    let mut output = BufReader::new(output);
    let mut line = String::new();
    loop {
        line.clear();
        match (&mut output).take(MAX_LINE_BYTES).read_line(&mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        match line.ends_with('\n') {
            true => {}
            // It was killed.
            false if (line.len() as u64) < MAX_LINE_BYTES => return,
            false => return recorder.add(Fact::Nonsense(format!("a line without an end: {line:.100}"))),
        }
        let fact = match serde_json::from_str(&line) {
            Ok(report) => Fact::Heard(report),
            Err(error) => Fact::Nonsense(format!("{}: {error}", line.trim_end())),
        };
        recorder.add(fact);
    }
}
