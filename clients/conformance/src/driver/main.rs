//! The driver of the crate `switchyard-client`: JSON lines in, JSON lines out. README.md describes the language.
//!
//! It can also break a rule on purpose (`mutant.rs`), to show that the judge would see that.

mod mutant;
mod out;
mod publisher;
mod reader;
mod saying;

use std::{
    collections::HashMap,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use anyhow::{Context, anyhow};
use clap::Parser;
use switchyard_client::{Client, Drain, Error, Token, TokenError};
use switchyard_conformance::protocol::{Command, Connect, Mode, Report, Stats, Subscribe, VERSION};
use tokio::{
    io::{AsyncBufReadExt, BufReader, stdin},
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::timeout,
};

use mutant::Mutant;
use out::Out;

/// Commands that wait for one subscription, and calls to publish.
const ORDERS: usize = 256;
/// How long the client may take to end.
const LAST: Duration = Duration::from_secs(3);

/// Drives the Rust client as the judge says, on standard input and output.
#[derive(Debug, Parser)]
struct Arguments {
    /// Break a rule on purpose
    #[arg(long, value_name = "NAME")]
    mutant: Option<Mutant>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(Driver::new(arguments.mutant).run());
    // A read of standard input cannot be cancelled.
    runtime.shutdown_background();
    ExitCode::SUCCESS
}

/// What the source of tokens gives: a token and how long it is good.
type Given = Arc<Mutex<Option<(String, Option<Duration>)>>>;

struct Driver {
    out: Out,
    mutant: Option<Mutant>,
    client: Option<Client>,
    running: JoinSet<Result<(), Error>>,
    token: Given,
    readers: HashMap<String, mpsc::Sender<Command>>,
    publisher: Option<mpsc::Sender<Command>>,
    work: JoinSet<()>,
}

impl Driver {
    fn new(mutant: Option<Mutant>) -> Self {
        Self {
            out: Out::new(),
            mutant,
            client: None,
            running: JoinSet::new(),
            token: Given::default(),
            readers: HashMap::new(),
            publisher: None,
            work: JoinSet::new(),
        }
    }

    async fn run(mut self) {
        self.out.say(&Report::Ready { driver: "rust".to_owned(), protocol: VERSION });
        let mut lines = BufReader::new(stdin()).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let done = match serde_json::from_str(&line) {
                Ok(Command::Close) => break,
                Ok(command) => self.obey(command).await,
                Err(error) => Err(anyhow!("{line}: {error}")),
            };
            if let Err(error) = done {
                self.out.say(&Report::Failed { text: format!("{error:#}") });
            }
        }
        self.close().await;
    }

    async fn obey(&mut self, command: Command) -> anyhow::Result<()> {
        match command {
            Command::Connect(connect) => self.connect(&connect).await,
            Command::Token { value, life_ms } => {
                let is_stale = self.mutant == Some(Mutant::StaleToken) && self.given().is_some();
                if !is_stale {
                    *self.given() = Some((value, life_ms.map(Duration::from_millis)));
                }
                Ok(())
            }
            Command::TokenFails => {
                *self.given() = None;
                Ok(())
            }
            Command::Subscribe(spec) => self.subscribe(spec),
            Command::Publish(_) => {
                let publisher = self.publisher.as_ref().context("no client")?;
                publisher.send(command).await.context("nobody publishes")
            }
            Command::Stats => {
                let stats = self.client()?.stats();
                self.out.say(&Report::Stats(Stats {
                    queued: stats.queued_publishes as u64,
                    in_hand: stats.events_in_hand,
                    sessions: stats.sessions,
                }));
                Ok(())
            }
            Command::Drain { timeout_ms, mode } => self.drain(Duration::from_millis(timeout_ms), mode).await,
            Command::Take(ref take) => self.order(&take.sub.clone(), command).await,
            Command::Done { ref sub }
            | Command::Ack { ref sub, .. }
            | Command::Nack { ref sub, .. }
            | Command::Reject { ref sub, .. }
            | Command::Extend { ref sub, .. }
            | Command::Unsubscribe { ref sub } => self.order(&sub.clone(), command).await,
            Command::Close => Ok(()),
        }
    }

    fn given(&self) -> std::sync::MutexGuard<'_, Option<(String, Option<Duration>)>> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn client(&self) -> anyhow::Result<&Client> {
        self.client.as_ref().context("no client")
    }

    async fn order(&mut self, sub: &str, command: Command) -> anyhow::Result<()> {
        let reader = self.readers.get(sub).with_context(|| format!("no subscription {sub}"))?;
        // One that is over needs no orders.
        reader.send(command).await.ok();
        Ok(())
    }

    async fn connect(&mut self, connect: &Connect) -> anyhow::Result<()> {
        anyhow::ensure!(self.client.is_none(), "there is a client");
        let is = |mutant| self.mutant == Some(mutant);
        if let Some(mutant) = self.mutant {
            mutant::before_connect(mutant, &connect.addresses, &self.out, &mut self.work).await;
        }
        let heartbeat = Duration::from_millis(connect.heartbeat_ms) * if is(Mutant::SlowHeartbeat) { 4 } else { 1 };
        let queue = connect.queue_events * if is(Mutant::BigQueue) { 3 } else { 1 };
        let mut builder =
            Client::builder(connect.addresses.iter().cloned()).name("driver").heartbeat(heartbeat).queue_events(queue);
        if is(Mutant::GivesUp) {
            builder = builder.for_one_session();
        }
        if connect.token_source {
            let given = Arc::clone(&self.token);
            builder = builder.token_source(move || std::future::ready(fetch(&given)));
        }
        let (out, mutant) = (self.out.clone(), self.mutant);
        let client = builder.on_state(move |status| saying::state(&out, mutant, status)).connect_lazy()?;
        self.running.spawn(client.clone().run());
        let (sender, orders) = mpsc::channel(ORDERS);
        self.work.spawn(publisher::serve(client.clone(), orders, self.out.clone(), self.mutant));
        (self.client, self.publisher) = (Some(client), Some(sender));
        Ok(())
    }

    fn subscribe(&mut self, spec: Subscribe) -> anyhow::Result<()> {
        let client = self.client()?.clone();
        let (sender, orders) = mpsc::channel(ORDERS);
        anyhow::ensure!(self.readers.insert(spec.sub.clone(), sender).is_none(), "{} is there", spec.sub);
        self.work.spawn(reader::serve(client, spec, orders, self.out.clone(), self.mutant));
        Ok(())
    }

    async fn drain(&mut self, timeout: Duration, mode: Mode) -> anyhow::Result<()> {
        let (client, out) = (self.client()?.clone(), self.out.clone());
        let how = match mode {
            Mode::Finish => Drain::Finish,
            Mode::Release => Drain::Release,
        };
        if self.mutant == Some(Mutant::ReleaseNacks) && mode == Mode::Release {
            for (sub, reader) in &self.readers {
                reader.send(Command::Nack { sub: sub.clone(), sequences: Vec::new(), delay_ms: 0 }).await.ok();
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        // Nothing after this call is before the drain.
        let (begun, begins) = oneshot::channel();
        self.work.spawn(async move {
            begun.send(()).ok();
            match client.drain(timeout, how).await {
                Ok(left) => out.say(&Report::Drained { clean: left.is_nothing() }),
                Err(error) => out.say(&Report::Failed { text: format!("drain: {error}") }),
            }
        });
        begins.await.ok();
        Ok(())
    }

    /// Everything is dropped; the client ends by that.
    async fn close(mut self) {
        if self.mutant == Some(Mutant::Lingers) {
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        drop((self.readers, self.publisher));
        if let Some(client) = self.client.take() {
            // What the hub does not answer is not waited for.
            timeout(LAST, client.drain(Duration::from_secs(1), Drain::Release)).await.ok();
        }
        self.work.abort_all();
        timeout(LAST, self.running.join_next()).await.ok();
    }
}

fn fetch(given: &Given) -> Result<Token, TokenError> {
    let given = given.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let (value, life) = given.ok_or("no token")?;
    let token = Token::new(value);
    Ok(match life {
        Some(life) => token.expires(SystemTime::now() + life),
        None => token,
    })
}
