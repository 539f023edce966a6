//! Many scenarios, a few at a time: as they are, and with drivers that break a rule on purpose.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::{sync::Semaphore, task::JoinSet};

use crate::{
    rule::Rule,
    runner::{Played, play},
    scenario::Scenario,
    stage::Options,
};

/// A driver that breaks a rule is not waited for as long as one that should pass.
const PATIENCE_WITH_MUTANTS: Duration = Duration::from_secs(10);

/// A scenario to be played.
#[derive(Debug, Clone)]
pub struct Job {
    pub scenario: Scenario,
    /// What the driver does wrong, and the rule that this breaks.
    pub mutant: Option<(String, Rule)>,
}

/// What became of it.
#[derive(Debug)]
pub struct Result {
    pub job: Job,
    pub played: Played,
}

impl Result {
    /// Whether all is as it should be: a driver passes, and a mutant is caught by its rule.
    pub fn is_good(&self) -> bool {
        match &self.job.mutant {
            None => self.played.has_passed(),
            Some((_, rule)) => self.played.verdict.breaks(*rule),
        }
    }
}

/// Each scenario once.
pub fn scenarios(scenarios: &[Scenario]) -> Vec<Job> {
    scenarios.iter().map(|scenario| Job { scenario: scenario.clone(), mutant: None }).collect()
}

/// Each scenario with each of its mutants.
pub fn mutants(scenarios: &[Scenario]) -> Vec<Job> {
    let of = |scenario: &Scenario| {
        let jobs = scenario
            .mutants
            .iter()
            .map(|(name, rule)| Job { scenario: scenario.clone(), mutant: Some((name.clone(), *rule)) });
        jobs.collect::<Vec<_>>()
    };
    scenarios.iter().flat_map(of).collect()
}

/// Plays all of them, so many at a time, and says of each when it is over. If this is dropped, no hub and no driver is left.
pub async fn run(
    jobs: Vec<Job>,
    options: &Options,
    below: PathBuf,
    at_once: usize,
    mut over: impl FnMut(&Result),
) -> Vec<Result> {
    let room = Arc::new(Semaphore::new(at_once));
    let mut playing = JoinSet::new();
    for job in jobs {
        let (room, below, mut options) = (Arc::clone(&room), below.clone(), options.clone());
        if let Some((mutant, _)) = &job.mutant {
            options.driver.extend(["--mutant".to_owned(), mutant.clone()]);
            options.patience = PATIENCE_WITH_MUTANTS;
        }
        playing.spawn(async move {
            let _turn = room.acquire_owned().await;
            let played = play(&job.scenario, &options, &below).await;
            let result = Result { job, played };
            if result.is_good() {
                // What a mutant leaves is of no use to anybody.
                std::fs::remove_dir_all(&result.played.folder).ok();
            }
            result
        });
    }
    let mut results = Vec::new();
    while let Some(result) = playing.join_next().await {
        let Ok(result) = result else { continue };
        over(&result);
        results.push(result);
    }
    results
}
