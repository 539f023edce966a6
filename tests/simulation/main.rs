//! A hub, its clients and the network between them, all simulated on one thread, over many seeds.
//!
//! The hub is the real one, with its engine on redb, on a disk that loses power and fills up; turmoil simulates network and
//! time. The hub crashes, its disk fails half-way or has no room for a while, the wall clock jumps, hosts are cut off in one
//! direction or both, and what they send is held back. What must hold in the end, whatever happened: every event that was
//! answered is in the stream once, where the answer said, in the order of its publisher, with times that do not go back;
//! readers that resumed by their tokens got exactly what matches them; a lock by ttl is free again, and pushes out nothing
//! that lives; the group brought every event to a member until it was done, and none after it was answered as done; a group
//! whose stream loses events gets on; each subscribe was answered once, and no frame came after an end. At last the disk is put
//! back from a copy: no token of what was lost leads into another history.
//!
//! A seed decides everything: a run of the same seed gives the same frames at the same times. For that each run is a process
//! of its own (the tests start this program again), with one thread, a simulated clock and a seeded source of random
//! numbers (docs/adr/0010-simulation.md).
//!
//! `SIMULATION_SEEDS` sets how many seeds are run (20 unless it is set), `SIMULATION_SEED` the first of them;
//! `SIMULATION_TRACE` names a file for the trace of a run of one seed.

#![allow(
    unreachable_pub,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::unnecessary_wraps,
    // Sequences are signed on the wire, counts are not; none comes near the end of its range.
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss
)]

mod judge;
mod locks;
mod members;
mod publishers;
mod put_back;
mod readers;
mod run;
mod session;
mod squeezed;
mod world;

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use rand::{SeedableRng, rngs::StdRng};

const SEEDS: u64 = 20;
/// So many runs at a time.
const AT_ONCE: usize = 2;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// A run of one seed in a process of its own; what it said, if it failed.
fn run_apart(seed: u64, trace: Option<&Path>) -> Result<(), String> {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", "one_seed", "--nocapture", "--test-threads", "1"]);
    command.env("SIMULATION_SEED", seed.to_string()).stdin(Stdio::null());
    match trace {
        Some(trace) => command.env("SIMULATION_TRACE", trace),
        None => command.env_remove("SIMULATION_TRACE"),
    };
    let output = command.output().expect("this program starts");
    let said = || String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("SIMULATION_SEED={seed} fails:\n{}", said())) }
}

#[test]
fn many_seeds() {
    let next = AtomicU64::new(setting("SIMULATION_SEED").unwrap_or(0));
    let end = next.load(Relaxed) + setting("SIMULATION_SEEDS").unwrap_or(SEEDS);
    let work = || {
        let mut failed = Vec::new();
        while let Some(seed) = Some(next.fetch_add(1, Relaxed)).filter(|seed| *seed < end) {
            failed.extend(run_apart(seed, None).err());
        }
        failed
    };
    let failed: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a worker")).collect()
    });
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn the_same_seed_twice_gives_the_same_trace() {
    let seed = setting("SIMULATION_SEED").unwrap_or(1);
    let traces = [1, 2].map(|run| {
        let name = format!("trace-{}-{run}", std::process::id());
        let path: PathBuf = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        run_apart(seed, Some(&path)).expect("the run");
        let trace = std::fs::read_to_string(&path).expect("a trace");
        std::fs::remove_file(&path).expect("removed");
        trace
    });
    assert!(traces[0].lines().count() > 1000, "there is something to compare");
    for (number, (one, two)) in (1..).zip(traces[0].lines().zip(traces[1].lines())) {
        assert_eq!(one, two, "line {number} of the trace of seed {seed}");
    }
    assert_eq!(traces[0].len(), traces[1].len());
}

#[test]
fn one_seed() {
    let seed = setting("SIMULATION_SEED").unwrap_or(0);
    let trace = std::env::var_os("SIMULATION_TRACE");
    if std::env::var_os("SIMULATION_LOG").is_some() {
        tracing_subscriber::fmt()
            .with_writer(std::io::stderr)
            .with_env_filter("switchyard=debug")
            .without_time()
            .init();
    }
    // A thread of its own: what it hashes by is then decided by the seed as well.
    let run = std::thread::spawn(move || {
        mad_turmoil::rand::set_rng(StdRng::seed_from_u64(seed));
        fastrand::seed(seed);
        let _clocks = mad_turmoil::time::SimClocksGuard::init();
        run::run(seed)
    });
    let lines = run.join().expect("the run");
    println!("{} lines of trace", lines.len());
    if let Some(path) = trace {
        std::fs::write(path, lines.join("\n")).expect("written");
    }
}
