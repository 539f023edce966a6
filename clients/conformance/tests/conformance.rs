//! The Rust client passes all scenarios, and each driver that breaks a rule is caught.

use std::{path::Path, time::Duration};

use switchyard_conformance::{
    Options,
    campaign::{self, Job, Result},
    scenario,
};

/// Most of the time of a scenario is waiting.
const AT_ONCE: usize = 6;

fn options() -> Options {
    // The hub is of another package, and is built before: cargo puts it into the folder above that of tests.
    let this = std::env::current_exe().expect("a program");
    let hub = this.parent().and_then(Path::parent).expect("a folder").join("switchyard");
    assert!(hub.exists(), "there is no {}: run `cargo build` first", hub.display());
    Options {
        hub,
        driver: vec![env!("CARGO_BIN_EXE_switchyard-conformance-driver").to_owned()],
        is_long: std::env::var("CONFORMANCE_LONG").is_ok(),
        patience: Duration::from_secs(30),
    }
}

async fn run(jobs: Vec<Job>) -> Vec<Result> {
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
