//! The Rust client passes all scenarios, and each driver that breaks a rule is caught.

use std::{
    collections::BTreeSet,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use switchyard_conformance::{
    Listener, Options,
    campaign::{self, Job, Result},
    scenario,
};
use tokio::sync::Mutex;

/// Most of the time of a scenario is waiting.
const AT_ONCE: usize = 6;
/// What a scenario waits for, and everything else, comes within this.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked whether a process is there.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// One campaign at a time: what is bounded in time is measured beside five others, not eleven.
static TURN: Mutex<()> = Mutex::const_new(());

fn options() -> Options {
    // The hub is of another package, and is built before: cargo puts it into the folder above that of tests.
    let this = std::env::current_exe().expect("a program");
    let hub = this.parent().and_then(Path::parent).expect("a folder").join("switchyard");
    assert!(hub.exists(), "there is no {}: run `cargo build` first", hub.display());
    Options {
        hub,
        driver: vec![env!("CARGO_BIN_EXE_switchyard-conformance-driver").to_owned()],
        listener: Listener::Grpc,
        is_long: std::env::var("CONFORMANCE_LONG").is_ok(),
        patience: PATIENCE,
    }
}

async fn run(jobs: Vec<Job>) -> Vec<Result> {
    let _turn = TURN.lock().await;
    let below = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("conformance-{}", std::process::id()));
    campaign::run(jobs, &options(), below, AT_ONCE, |_| {}).await
}

/// What is not as it should be, in words.
fn complaints(results: &[Result]) -> Vec<String> {
    let bad = results.iter().filter(|result| !result.is_good());
    bad.map(|Result { job, played }| {
        let (mutant, folder) = (&job.mutant, played.folder.display());
        format!("{} {mutant:?} after {:?}, see {folder}: {:#?}", played.name, played.took, played.verdict.findings)
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rust_client_passes_every_scenario() {
    let scenarios = scenario::all().expect("scenarios.yaml");
    let results = run(campaign::scenarios(&scenarios)).await;
    assert_eq!(results.len(), scenario::COUNT);
    let complaints = complaints(&results);
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_driver_that_breaks_a_rule_is_caught_by_that_rule() {
    let scenarios = scenario::all().expect("scenarios.yaml");
    let results = run(campaign::mutants(&scenarios)).await;
    assert!(results.len() >= 20, "only {} mutants", results.len());
    let complaints = complaints(&results);
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// The processes that any thread of this one has started, and that are there.
fn children(process: u32) -> BTreeSet<u32> {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<_>>()).collect()
}

/// Whether a process is there, and has not ended without anybody who asks how.
fn is_alive(process: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"));
    stat.is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with('Z'))
}

#[test]
fn an_interrupt_leaves_no_hub_and_no_driver_behind() {
    let mut runner = Command::new(env!("CARGO_BIN_EXE_switchyard-conformance"))
        .args(["--scenario", "black-hole", "--hub"])
        .arg(options().hub)
        .spawn()
        .expect("the runner starts");
    let began = Instant::now();
    let started = loop {
        let started = children(runner.id());
        if started.len() == 2 {
            break started;
        }
        assert!(began.elapsed() < PATIENCE, "hub and driver do not start: {started:?}");
        std::thread::sleep(LOOK_AGAIN);
    };
    let pid = i32::try_from(runner.id()).ok().and_then(Pid::from_raw).expect("a process");
    kill_process(pid, Signal::INT).expect("interrupted");
    assert_eq!(runner.wait().expect("the end").code(), Some(130));
    let are_there = || started.iter().any(|id| is_alive(*id));
    let began = Instant::now();
    while are_there() {
        assert!(began.elapsed() < PATIENCE, "{started:?} are still there");
        std::thread::sleep(LOOK_AGAIN);
    }
}
