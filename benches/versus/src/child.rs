//! A server under test: a process of its own, pinned to its core, measured from outside, and gone when this is dropped.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};

/// A server that does not listen after this time has failed.
const START_PATIENCE: Duration = Duration::from_secs(10);
/// One that was told to end and has not after this time has failed, too.
const STOP_PATIENCE: Duration = Duration::from_secs(30);
/// How often to look whether it listens, or is gone.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// Linux counts processor time in these for every program, whatever the kernel itself uses.
const CLOCK_TICK: Duration = Duration::from_millis(10);

/// How to start a server.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    pub(crate) program: &'a Path,
    pub(crate) arguments: &'a [&'a str],
    /// Which core, if any.
    pub(crate) core: Option<usize>,
    /// Where its output goes.
    pub(crate) log: PathBuf,
    /// The address it listens on stands behind this in its output.
    pub(crate) says: &'a str,
    /// And that of its listener for the web behind this, if it is to have one.
    pub(crate) says_web: Option<&'a str>,
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    web_address: Option<SocketAddr>,
    process: Process,
}

/// Kills its process when dropped, also before the server listens and while a panic unwinds.
#[derive(Debug)]
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing to be done about either.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Launch<'_> {
    /// Starts the server and waits until it listens.
    pub(crate) async fn start(self) -> anyhow::Result<Server> {
        let output = File::create(&self.log).with_context(|| format!("cannot write {}", self.log.display()))?;
        let mut command = match self.core {
            None => Command::new(self.program),
            Some(core) => {
                let mut command = Command::new("taskset");
                command.args(["-c", &core.to_string()]).arg(self.program);
                command
            }
        };
        command.args(self.arguments).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().with_context(|| format!("cannot start {}", self.program.display()))?;
        let mut process = Process(child);

        let begin = Instant::now();
        loop {
            let told = fs::read_to_string(&self.log)?;
            let web_address = self.says_web.and_then(|says| address_after(&told, says));
            if let Some(address) = address_after(&told, self.says)
                && web_address.is_some() == self.says_web.is_some()
            {
                return Ok(Server { address, web_address, process });
            }
            if let Some(status) = process.0.try_wait()? {
                bail!("{} ended with {status}: {}", self.program.display(), told.trim_end());
            }
            if begin.elapsed() > START_PATIENCE {
                bail!("{} does not listen: {}", self.program.display(), told.trim_end());
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }
}

fn address_after(text: &str, says: &str) -> Option<SocketAddr> {
    let (_, behind) = text.split_once(says)?;
    let end = behind.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':'))?;
    behind[..end].parse().ok()
}

impl Server {
    /// Where it listens for the web.
    pub(crate) fn web_address(&self) -> anyhow::Result<SocketAddr> {
        self.web_address.context("the server has no listener for the web")
    }

    /// The memory it holds, in bytes.
    pub(crate) fn resident_bytes(&self) -> anyhow::Result<u64> {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.process.0.id())).context("the server is gone")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().context("VmRSS")?;
        Ok(kibibytes * 1024)
    }

    /// How much it has had read from disks, in bytes; what the system had in memory is not counted.
    pub(crate) fn disk_read_bytes(&self) -> anyhow::Result<u64> {
        let io = fs::read_to_string(format!("/proc/{}/io", self.process.0.id())).context("the server is gone")?;
        let line = io.lines().find_map(|line| line.strip_prefix("read_bytes: ")).context("read_bytes")?;
        line.parse().context("read_bytes")
    }

    /// Ends it as an operator would, so that it can put away what it holds, and waits until it is gone.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        let id = self.process.0.id().to_string();
        ensure!(Command::new("kill").args(["-TERM", &id]).status()?.success(), "cannot end process {id}");
        let begin = Instant::now();
        while self.process.0.try_wait()?.is_none() {
            ensure!(begin.elapsed() < STOP_PATIENCE, "process {id} does not end");
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        Ok(())
    }

    /// The processor time it has used.
    pub(crate) fn processor_time(&self) -> anyhow::Result<Duration> {
        processor_time(&self.process.0.id().to_string())
    }
}

/// The processor time this program has used.
pub(crate) fn own_processor_time() -> anyhow::Result<Duration> {
    processor_time("self")
}

/// The processor time that everything on this machine has used, and what its host has taken away.
pub(crate) fn machine_processor_time() -> anyhow::Result<Duration> {
    let stat = fs::read_to_string("/proc/stat")?;
    let fields: Vec<&str> = stat.lines().next().context("/proc/stat")?.split_whitespace().collect();
    // User, nice, system and steal. Time in interrupts is counted for the program that was running, or for none.
    let ticks = [1, 2, 3, 8].into_iter().filter_map(|at| fields.get(at)?.parse::<u32>().ok()).sum();
    Ok(CLOCK_TICK.saturating_mul(ticks))
}

fn processor_time(process: &str) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).context("the server is gone")?;
    // The name of the program stands in brackets and may hold anything; fields are counted from behind it.
    let (_, fields) = stat.rsplit_once(") ").context("/proc/PID/stat")?;
    let ticks: u32 = fields.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u32>().ok()).sum();
    Ok(CLOCK_TICK * ticks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_once_their_line_is_whole() {
        let says = "listening on ";
        let address = SocketAddr::from(([127, 0, 0, 1], 80));
        assert_eq!(address_after("x\nlistening on 127.0.0.1:80\n", says), Some(address));
        assert_eq!(address_after("x\nlistening on 127.0.0.1:80", says), None);
        assert_eq!(address_after("x\n", says), None);
    }

    #[test]
    fn a_process_knows_the_time_it_used() {
        let before = own_processor_time().unwrap();
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(100) {}
        let used = own_processor_time().unwrap().checked_sub(before).unwrap();
        assert!(used >= CLOCK_TICK && used < Duration::from_secs(1), "{used:?}");
    }
}
