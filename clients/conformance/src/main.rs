//! `switchyard-conformance`: plays the scenarios with a driver, and prints what became of each.

use std::{
    env,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use clap::Parser;
use switchyard_conformance::{
    Listener, Options,
    campaign::{self, Job, Result},
    history::{Entry, Fact},
    scenario::{self, Scenario},
};
use tokio::signal::unix::{SignalKind, signal};

/// What a scenario waits for comes within this.
const PATIENCE: Duration = Duration::from_secs(30);
/// As a shell says that it was interrupted.
const INTERRUPTED: u8 = 130;

/// Judge a client of Switchyard by its driver.
#[derive(Debug, Parser)]
#[command(after_help = "\
A driver is a program around a client that reads commands and writes reports, one JSON object a line:
clients/conformance/README.md. Without --driver the Rust client is judged.

Examples:
  switchyard-conformance
  switchyard-conformance --list
  switchyard-conformance --scenario live-gap --scenario windows
  switchyard-conformance --driver 'python3 driver.py'
  switchyard-conformance --driver 'node driver.js' --listener web
  switchyard-conformance --scenario churn --long
  switchyard-conformance --mutants")]
struct Arguments {
    /// The command that starts the driver, for `sh`
    #[arg(long, value_name = "COMMAND")]
    driver: Option<String>,
    /// Where the client finds the hub
    #[arg(long, value_enum, default_value_t)]
    listener: Listener,
    /// The program of the hub; by default `switchyard` beside this one
    #[arg(long, value_name = "FILE")]
    hub: Option<PathBuf>,
    /// Play this scenario; may be repeated
    #[arg(long, value_name = "NAME")]
    scenario: Vec<String>,
    /// List the scenarios and play none
    #[arg(long)]
    list: bool,
    /// Play what repeats for as long as it says, up to 30 minutes
    #[arg(long)]
    long: bool,
    /// Play the mutants of the Rust driver instead, each of which must be caught
    #[arg(long, conflicts_with = "driver")]
    mutants: bool,
    /// How many scenarios are played at a time
    #[arg(long, value_name = "COUNT", default_value_t = 6)]
    jobs: usize,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    match runtime.block_on(run(&arguments)) {
        Ok(code) => code,
        Err(error) => failed(&error),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("switchyard-conformance: {error:#}");
    ExitCode::FAILURE
}

async fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut scenarios = scenario::all().map_err(anyhow::Error::msg)?;
    for name in &arguments.scenario {
        let is_known = scenarios.iter().any(|scenario| scenario.name == *name);
        anyhow::ensure!(is_known, "there is no scenario {name}: --list shows all");
    }
    if !arguments.scenario.is_empty() {
        scenarios.retain(|scenario| arguments.scenario.contains(&scenario.name));
    }
    if arguments.list {
        scenarios.iter().for_each(list);
        return Ok(ExitCode::SUCCESS);
    }
    let options = Options {
        hub: match &arguments.hub {
            Some(hub) => hub.clone(),
            None => beside("switchyard").context("build the hub first, or say where it is with --hub")?,
        },
        driver: match &arguments.driver {
            Some(command) => vec!["sh".to_owned(), "-c".to_owned(), format!("exec {command}")],
            None => vec![beside("switchyard-conformance-driver")?.to_string_lossy().into_owned()],
        },
        listener: arguments.listener,
        is_long: arguments.long,
        patience: PATIENCE,
    };
    let jobs = if arguments.mutants { campaign::mutants(&scenarios) } else { campaign::scenarios(&scenarios) };
    let below = env::temp_dir().join(format!("switchyard-conformance-{}", std::process::id()));
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let count = jobs.len();
    let results = tokio::select! {
        results = campaign::run(jobs, &options, below.clone(), arguments.jobs.max(1), print) => results,
        // Hubs and drivers end with what is dropped.
        _ = interrupt.recv() => return Ok(ExitCode::from(INTERRUPTED)),
        _ = terminate.recv() => return Ok(ExitCode::from(INTERRUPTED)),
    };
    // Only what is of use to somebody is left.
    std::fs::remove_dir(&below).ok();
    let good = results.iter().filter(|result| result.is_good()).count();
    println!("{good} of {count} {}", if arguments.mutants { "mutants were caught" } else { "scenarios passed" });
    Ok(if good == count { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A program in the folder of this one.
fn beside(name: &str) -> anyhow::Result<PathBuf> {
    let this = env::current_exe()?;
    let path = this.parent().unwrap_or(Path::new(".")).join(name);
    anyhow::ensure!(path.exists(), "there is no {}", path.display());
    Ok(path)
}

fn list(scenario: &Scenario) {
    println!("{}: {}", scenario.name, scenario.about);
    let rules: Vec<String> =
        scenario.rules.iter().map(|rule| format!("{rule} ({})", rule.of_spec().join(", "))).collect();
    println!("    {}", rules.join(", "));
}

/// What the process of the driver had first and last, where that was measured.
fn growth(history: &[Entry]) -> Option<String> {
    let mut measured = history.iter().filter_map(|entry| match entry.fact {
        Fact::Measured { resident_kib, descriptors, threads } => Some((entry.at, resident_kib, descriptors, threads)),
        _ => None,
    });
    let (from, kib, descriptors, threads) = measured.next()?;
    let (to, kib_now, descriptors_now, threads_now) = measured.next_back()?;
    let seconds = (to - from) / 1000;
    Some(format!(
        "in {seconds} s from {kib} to {kib_now} KiB, from {descriptors} to {descriptors_now} descriptors, from {threads} \
         to {threads_now} threads"
    ))
}

/// One row of the table, and what is wrong.
fn print(result: &Result) {
    let Result { job: Job { scenario, mutant }, played } = result;
    let took = played.took.as_secs_f64();
    let (name, word) = match mutant {
        None => (scenario.name.clone(), if result.is_good() { "passed" } else { "FAILED" }),
        Some((mutant, rule)) => {
            (format!("{mutant} ({rule}) in {}", scenario.name), if result.is_good() { "caught" } else { "MISSED" })
        }
    };
    let about = scenario.rules.iter().map(|rule| {
        let count = played.verdict.evidence.get(rule).copied().unwrap_or(0);
        format!("{rule} {count}")
    });
    println!("{word} {took:6.1} s  {name:<24} {}", about.collect::<Vec<_>>().join(", "));
    if let Some(growth) = growth(&played.history) {
        println!("    {growth}");
    }
    if !result.is_good() {
        for finding in &played.verdict.findings {
            println!("    {}: {}", finding.rule, finding.text);
        }
        println!("    what happened: {}", played.folder.display());
    }
}
