//! Ending a hub and starting it again where it was.

use std::{fmt, time::Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::hub::{Hub, spawn};

/// How a hub ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    InOrder,
    Killed,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InOrder => "ended in order",
            Self::Killed => "killed",
        })
    }
}

impl Hub {
    /// The same hub in a new process, when the old one was gone, and when the new one served.
    pub(crate) fn restarted(mut self, end: End) -> anyhow::Result<(Self, Instant, Instant)> {
        let signal = match end {
            End::InOrder => Signal::TERM,
            End::Killed => Signal::KILL,
        };
        kill_process(Pid::from_child(&self.child), signal)?;
        self.child.wait()?;
        let gone = Instant::now();
        let [address, ops_address] = [self.address, self.ops_address].map(|address| address.to_string());
        (self.child, _) = spawn(&self.folder, [&address, &ops_address])?;
        Ok((self, gone, Instant::now()))
    }
}
