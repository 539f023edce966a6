//! `switchyard-versus`: the hub, NATS and bare tonic on one machine, side by side, every event checked.
//!
//! The rooms: `contest` says what is run, `contender` on what; `child` holds the servers, `nats` and `relay` are the
//! sides beside the library's own; `subscriptions`, `idle`, `stalled` and `durable` are the runs that are no plain
//! loads, and `web` what comes to pages; `report`, `plot` and `machine` say what was found. What a load is and how it is
//! checked is in the library's `bench`.

mod child;
mod contender;
mod contest;
mod durable;
mod idle;
mod machine;
mod nats;
mod plot;
mod relay;
mod report;
mod stalled;
mod subscriptions;
mod web;

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use clap::Parser;
use switchyard::bench::workload::Times;
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
};

use crate::{contender::Ground, contest::Contest, machine::Machine, report::Report};

/// Where servers run when there are two cores or more, and where the load does.
const SERVER_CORE: usize = 0;
const LOAD_CORE: usize = 1;

/// Measure the hub, NATS and bare tonic side by side.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    server: Option<ServerCommand>,
    /// One short repetition, to try it out
    #[arg(long)]
    quick: bool,
    /// How often each run is repeated
    #[arg(long, default_value_t = 3)]
    repetitions: usize,
    /// For how many seconds each load is measured
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Only rows and series whose names begin like this; may be repeated
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// The hub [default: the `switchyard` beside this program]
    #[arg(long, value_name = "FILE")]
    hub: Option<PathBuf>,
    /// The NATS server
    #[arg(long, value_name = "FILE", default_value = ".tools/bin/nats-server")]
    nats_server: PathBuf,
    /// Where the report and the plots go
    #[arg(long, value_name = "FOLDER", default_value = "target/bench")]
    out: PathBuf,
}

#[derive(Debug, clap::Subcommand)]
enum ServerCommand {
    /// Be the server of bare tonic
    #[command(hide = true)]
    Roofline {
        #[arg(long)]
        listen: SocketAddr,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.server {
        Some(ServerCommand::Roofline { listen }) => {
            let runtime = runtime::Builder::new_multi_thread().enable_all().build();
            runtime.context("no runtime").and_then(|runtime| runtime.block_on(relay::serve(listen)))
        }
        None => compare(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("switchyard-versus: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn compare(arguments: &Arguments) -> anyhow::Result<()> {
    let hub_program = match &arguments.hub {
        Some(program) => program.clone(),
        None => std::env::current_exe()?.with_file_name("switchyard"),
    };
    for program in [&hub_program, &arguments.nats_server] {
        ensure!(program.exists(), "{} is missing: `make bench` makes it", program.display());
    }
    // Before there is any other thread, so that all are pinned.
    let pinned = machine::cores() >= 2 && pin();
    let machine = Machine::look(pinned, &hub_program, &arguments.nats_server);
    eprintln!("{}", machine.summary());

    let seconds = if arguments.quick { 1.0 } else { arguments.seconds.max(0.1) };
    let warm_up_seconds = if arguments.quick { 0.3 } else { 0.5 };
    let mut contest = Contest {
        ground: Ground {
            hub_program,
            nats_program: arguments.nats_server.clone(),
            server_core: pinned.then_some(SERVER_CORE),
            logs: arguments.out.join("logs"),
            data: arguments.out.join("data"),
        },
        times: Times { warm_up: Duration::from_secs_f64(warm_up_seconds), measure: Duration::from_secs_f64(seconds) },
        repetitions: if arguments.quick { 1 } else { arguments.repetitions.max(1) },
        only: arguments.only.clone(),
        begin: Instant::now(),
        report: Report::new(machine),
    };
    // One thread for the whole load, as it has one core.
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let interrupted = runtime.block_on(async {
        // Dropping the contest ends its servers, so a signal must not end this program before that.
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let interrupted = tokio::select! {
            () = contest.run() => false,
            _ = terminate.recv() => true,
            _ = interrupt.recv() => true,
        };
        anyhow::Ok(interrupted)
    })?;
    drop(runtime);
    if interrupted {
        bail!("interrupted");
    }
    conclude(&contest.report, &arguments.out)
}

/// Keeps this program, and what it starts, on its core. False when that cannot be.
fn pin() -> bool {
    let mut taskset = Command::new("taskset");
    let own_id = std::process::id().to_string();
    taskset.args(["-c", "-p", &LOAD_CORE.to_string(), &own_id]).stdout(Stdio::null()).stderr(Stdio::null());
    taskset.status().is_ok_and(|status| status.success())
}

/// Tells what was found, and fails if anything did.
fn conclude(report: &Report, out: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let path = out.join("report.json");
    fs::write(&path, serde_json::to_string_pretty(&report.to_json())?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    for series in &report.series {
        fs::write(out.join(format!("{}.svg", series.name)), plot::svg(series))?;
    }
    println!("{}\n\n{}\n{}", report.machine.summary(), report.to_table(), path.display());
    ensure!(report.failures.is_empty(), "failed:\n{}", report.failures.join("\n"));
    Ok(())
}
