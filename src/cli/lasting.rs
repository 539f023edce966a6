//! The client of commands that live as long as their hub: what is set for it on the command line, what a person hears of
//! lost sessions, and its end.
//!
//! The client is the crate `switchyard-client`. It reconnects by itself, in a task of its own, so that a command that waits
//! for its standard output keeps nobody from hearing the hub. Nothing here decides when, nor what is written to a hub.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use anyhow::{anyhow, bail};
use tokio::{sync::watch, task::JoinSet};

use super::{show, value};
use crate::client::{Client, Drain, Error, ErrorKind, State, Status, Target};

/// How often a hub reports that it is there.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How long a hub may take to answer what was said last.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);
/// The same for somebody in a hurry.
const HURRIED_TIMEOUT: Duration = Duration::from_secs(1);
/// Of the name of this machine, so much is shown to hubs, in characters.
const MAX_HOST_CHARS: usize = 64;

/// How a command stays with its hub.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Lasting {
    /// End with an error when the session with the hub is lost, instead of reconnecting
    #[arg(long)]
    no_reconnect: bool,
    /// How often the hub reports that it is there, 1s to 5m; after twice this time and 5s of silence the session is lost
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = value::duration)]
    heartbeat: Duration,
    #[command(flatten)]
    pub(super) target: Target,
}

impl Lasting {
    /// As a command stays that nobody asks how.
    pub(super) fn new(target: Target) -> Self {
        Self { no_reconnect: false, heartbeat: HEARTBEAT, target }
    }

    /// Begins to connect, for this command.
    pub(super) fn connect(&self, command: &str) -> anyhow::Result<Hub> {
        let explain = |error| explain(&error, &self.target);
        let teller = Teller::default();
        let mut builder = Client::builder([""; 0]).target(&self.target).map_err(explain)?;
        builder = builder.name(name(command)).heartbeat(self.heartbeat).fails_fast().on_state(move |status| {
            let reason = status.reason.as_ref().map(ToString::to_string).unwrap_or_default();
            if let Some(line) = teller.line(status.state, &status.address, &reason) {
                eprintln!("{line}");
            }
        });
        if self.no_reconnect {
            builder = builder.for_one_session();
        }
        let client = builder.connect_lazy().map_err(explain)?;
        let mut driver = JoinSet::new();
        driver.spawn(client.clone().run());
        Ok(Hub { states: client.states(), client, target: self.target.clone(), _driver: driver })
    }
}

/// What hubs list this program as.
fn name(command: &str) -> String {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").ok().or_else(|| std::env::var("HOSTNAME").ok());
    let host: String = host.unwrap_or_default().trim().chars().take(MAX_HOST_CHARS).collect();
    format!("switchyard {command} {}:{}", if host.is_empty() { "localhost" } else { &host }, std::process::id())
}

/// Says when the session is lost, and when there is one again: once each time, however many attempts that takes.
#[derive(Debug, Default)]
struct Teller {
    was_up: AtomicBool,
    is_away: AtomicBool,
}

impl Teller {
    /// What to say now, if anything. States come one after the other.
    fn line(&self, state: State, address: &str, reason: &str) -> Option<String> {
        match state {
            State::Up if self.is_away.swap(false, Relaxed) => Some(format!("connected again, to {address}")),
            State::Up => {
                self.was_up.store(true, Relaxed);
                None
            }
            State::Waiting if self.was_up.load(Relaxed) && !self.is_away.swap(true, Relaxed) => {
                Some(format!("the session is lost; reconnecting: {}", show::one_line(reason)))
            }
            _ => None,
        }
    }
}

/// A client that runs. Without this it is over.
pub(super) struct Hub {
    pub(super) client: Client,
    states: watch::Receiver<Status>,
    target: Target,
    _driver: JoinSet<Result<(), Error>>,
}

impl Hub {
    /// Waits until there is a session. Fails if there never is one.
    pub(super) async fn up(&mut self) -> anyhow::Result<()> {
        // Its sender lives as long as the client.
        self.states.wait_for(|status| has_session(status.state) || status.state.is_over()).await.ok();
        self.failure().map_or(Ok(()), Err)
    }

    /// Whether there is one now.
    pub(super) fn has_session(&self) -> bool {
        has_session(self.states.borrow().state)
    }

    /// Waits until the state of the client is another.
    pub(super) async fn changed(&mut self) {
        self.states.changed().await.ok();
    }

    /// Why the client does not come back, if so.
    pub(super) fn failure(&self) -> Option<anyhow::Error> {
        let status = self.states.borrow();
        status.reason.as_ref().filter(|_| status.state == State::Failed).map(|error| self.explain(error))
    }

    /// An error in one line.
    pub(super) fn explain(&self, error: &Error) -> anyhow::Error {
        explain(error, &self.target)
    }

    /// How many sessions there were so far.
    pub(super) fn sessions(&self) -> u64 {
        self.client.stats().sessions
    }

    /// Gives back at once what was not settled, where that is possible.
    pub(super) async fn leave_in_a_hurry(&self) {
        // One that has failed has nothing to give back.
        self.client.drain(HURRIED_TIMEOUT, Drain::Release).await.ok();
    }

    /// Ends the client in order: what was said of events is flushed, and what was not is given back.
    pub(super) async fn leave(&self) -> anyhow::Result<()> {
        match self.client.drain(LEAVE_TIMEOUT, Drain::Release).await {
            Ok(left) if left.acknowledgements > 0 => {
                let count = left.acknowledgements;
                bail!(
                    "the hub did not answer {count} acknowledgements within {LEAVE_TIMEOUT:?}: their events may come again"
                )
            }
            Ok(_) => Ok(()),
            Err(error) => Err(self.explain(&error)),
        }
    }
}

fn has_session(state: State) -> bool {
    matches!(state, State::Up | State::Draining)
}

/// An error in one line, with what helps where that is known here.
fn explain(error: &Error, target: &Target) -> anyhow::Error {
    let text = error.text();
    if matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Source) || error.reason() == "TOKEN_SOURCE" {
        // Of the command line or of a file: no hub was asked.
        return match error.field() {
            Some("addresses") => anyhow!("--server{}", text.trim_start_matches("addresses")),
            Some("heartbeat") => anyhow!("--{text}"),
            Some("tls") => anyhow!("{}", text.trim_start_matches("tls ")),
            _ => anyhow!("{text}"),
        };
    }
    if error.reason() == "NOT_CONNECTED" {
        let url = target.url();
        if let Some(cause) = text.strip_prefix("no hub answers: ") {
            return anyhow!(
                "no hub answers at {url} ({cause}); start one with `switchyard serve`, or name one with --server"
            );
        }
        if let Some(cause) = text.strip_prefix("no TLS with the hub: ") {
            return anyhow!("no TLS with the hub at {url}: {cause}; set the authority to trust with --tls-ca");
        }
    }
    anyhow!("{error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_session_is_told_once_and_so_is_the_next_one() {
        let teller = Teller::default();
        let mut told = Vec::new();
        for (state, reason) in [
            (State::Connecting, ""),
            (State::Waiting, "never there"),
            (State::Connecting, ""),
            (State::Up, ""),
            (State::Draining, ""),
            (State::Waiting, "it drains"),
            (State::Connecting, "it drains"),
            (State::Waiting, "not there"),
            (State::Connecting, "not there"),
            (State::Up, ""),
            (State::Waiting, "killed\nagain"),
            (State::Up, ""),
        ] {
            told.extend(teller.line(state, "hub:1", reason));
        }
        let expected = [
            "the session is lost; reconnecting: it drains",
            "connected again, to hub:1",
            r"the session is lost; reconnecting: killed\nagain",
            "connected again, to hub:1",
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn hubs_hear_which_command_it_is_and_where() {
        let name = name("sub");
        let (command, process) = name.rsplit_once(':').expect("a process");
        assert!(command.starts_with("switchyard sub ") && command.len() > "switchyard sub ".len(), "{name}");
        assert_eq!(process, std::process::id().to_string());
    }
}
