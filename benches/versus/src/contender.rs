//! What is compared: how each is started, and how a load is put on it.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use switchyard::{
    bench::{self, ClientSide, HubSide, Outcome, Plan, Side},
    client::Target,
};

use crate::{
    child::{Launch, Server, machine_processor_time, own_processor_time},
    nats::NatsSide,
    relay::RelaySide,
};

/// The arguments of a hub that stores nothing.
pub(crate) const WITHOUT_STREAMS: [&str; 2] = ["--data-dir", ""];

/// A system under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contender {
    /// `switchyard serve`.
    Hub,
    /// `nats-server`, core NATS.
    Nats,
    /// Bare tonic.
    Roofline,
}

impl Contender {
    pub(crate) const ALL: [Self; 3] = [Self::Hub, Self::Nats, Self::Roofline];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hub => "hub",
            Self::Nats => "nats",
            Self::Roofline => "roofline",
        }
    }
}

/// Where the servers and the load run.
#[derive(Debug, Clone)]
pub(crate) struct Ground {
    pub(crate) hub_program: PathBuf,
    pub(crate) nats_program: PathBuf,
    /// The core of every server, when they are pinned.
    pub(crate) server_core: Option<usize>,
    /// Where the servers' output goes.
    pub(crate) logs: PathBuf,
    /// Where they store events. Empty, or not there at all, between two runs.
    pub(crate) data: PathBuf,
}

/// What came of a load, and what it took.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) outcome: Outcome,
    pub(crate) cost: Cost,
}

/// The processor time of a load, from connecting to the last event. Unlike a rate it means something, too, on a machine
/// that has other things to do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    /// Over time passed.
    pub(crate) server_percent: f64,
    pub(crate) load_percent: f64,
    /// What all other programs took from both, on all cores together.
    pub(crate) others_percent: f64,
    /// For each delivery.
    pub(crate) server_ns: f64,
    pub(crate) load_ns: f64,
}

impl Ground {
    /// Starts a server. It ends when what is returned is dropped.
    pub(crate) async fn start(&self, contender: Contender) -> anyhow::Result<Server> {
        self.start_with(contender, if contender == Contender::Hub { &WITHOUT_STREAMS } else { &[] }).await
    }

    /// Starts a server with more arguments.
    pub(crate) async fn start_with(&self, contender: Contender, more: &[&str]) -> anyhow::Result<Server> {
        self.launch(contender, more, None).await
    }

    /// Starts a server with more arguments. The address of its listener for the web stands behind `says_web`.
    pub(crate) async fn launch(
        &self,
        contender: Contender,
        more: &[&str],
        says_web: Option<&str>,
    ) -> anyhow::Result<Server> {
        fs::create_dir_all(&self.logs).with_context(|| format!("cannot make {}", self.logs.display()))?;
        let own_program = std::env::current_exe()?;
        let (program, arguments, says): (_, &[&str], _) = match contender {
            Contender::Hub => (
                &self.hub_program,
                &[
                    "serve",
                    "--listen",
                    "127.0.0.1:0",
                    "--ops-listen",
                    "127.0.0.1:0",
                    "--set",
                    "web.listen=",
                    "--log-format",
                    "json",
                ],
                // It listens before it serves.
                "\"message\":\"serving\",\"address\":\"",
            ),
            Contender::Nats => {
                (&self.nats_program, &["--addr", "127.0.0.1", "--port", "-1"], "Listening for client connections on ")
            }
            Contender::Roofline => (&own_program, &["roofline", "--listen", "127.0.0.1:0"], "listening on "),
        };
        let launch = Launch {
            program,
            arguments: &[arguments, more].concat(),
            core: self.server_core,
            log: self.logs.join(format!("{}.log", contender.name())),
            says,
            says_web,
        };
        launch.start().await
    }

    /// Puts a load on a fresh server. Any fault is an error.
    pub(crate) async fn load(&self, contender: Contender, plan: &Plan) -> anyhow::Result<Run> {
        let server = self.start(contender).await?;
        match contender {
            Contender::Hub => load(&client(&server), &server, plan).await,
            Contender::Nats => load(&NatsSide { address: server.address }, &server, plan).await,
            Contender::Roofline => load(&RelaySide { address: server.address }, &server, plan).await,
        }
    }
}

/// The side of a hub that runs, through its client.
pub(crate) fn client(server: &Server) -> ClientSide {
    ClientSide { target: target(server) }
}

/// The same over generated code.
pub(crate) fn hub(server: &Server) -> HubSide {
    HubSide { target: target(server), subscription_per_filter: false }
}

fn target(server: &Server) -> Target {
    Target { server: server.address.to_string(), ..Target::default() }
}

/// Puts a load on a server that runs. Any fault is an error.
pub(crate) async fn load<S: Side>(side: &S, server: &Server, plan: &Plan) -> anyhow::Result<Run> {
    let meter = Meter::start(server)?;
    let outcome = bench::run(side, plan, |_, _| {}).await?;
    ensure!(outcome.faults.is_none(), "{:?} of {} events", outcome.faults, outcome.delivered);
    ensure!(outcome.delivered > 0, "nothing was delivered");
    let cost = meter.read(server, outcome.delivered)?;
    Ok(Run { outcome, cost })
}

/// What was used before a load.
pub(crate) struct Meter {
    begin: Instant,
    server: Duration,
    own: Duration,
    machine: Duration,
}

impl Meter {
    pub(crate) fn start(server: &Server) -> anyhow::Result<Self> {
        Ok(Self {
            begin: Instant::now(),
            server: server.processor_time()?,
            own: own_processor_time()?,
            machine: machine_processor_time()?,
        })
    }

    pub(crate) fn read(&self, server: &Server, deliveries: u64) -> anyhow::Result<Cost> {
        let passed = self.begin.elapsed();
        let percent = |time: Duration| time.as_secs_f64() * 100.0 / passed.as_secs_f64();
        let served = server.processor_time()?.saturating_sub(self.server);
        let own = own_processor_time()?.saturating_sub(self.own);
        let others = machine_processor_time()?.saturating_sub(self.machine).saturating_sub(served + own);
        let each_ns = |time: Duration| time.as_secs_f64() * 1e9 / deliveries as f64;
        Ok(Cost {
            server_percent: percent(served),
            load_percent: percent(own),
            others_percent: percent(others),
            server_ns: each_ns(served),
            load_ns: each_ns(own),
        })
    }
}
