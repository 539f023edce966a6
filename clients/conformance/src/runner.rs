//! Plays a scenario, one step after the other, and has it judged.

use std::{
    path::{Path, PathBuf},
    pin::Pin,
    time::{Duration, Instant},
};

use tokio::time::sleep;

use crate::{
    history::{Entry, Fact},
    judge::{Verdict, judge},
    protocol::Command,
    recorder::Recorder,
    scenario::{Many, Repeat, Scenario, Step},
    stage::{Options, Stage},
};

/// What became of a scenario.
#[derive(Debug)]
pub struct Played {
    pub name: String,
    pub verdict: Verdict,
    pub took: Duration,
    pub history: Vec<Entry>,
    /// The logs of hub and driver, of a scenario that did not pass.
    pub folder: PathBuf,
}

impl Played {
    pub fn has_passed(&self) -> bool {
        self.verdict.findings.is_empty()
    }
}

/// Plays a scenario in a folder of its own below this one, which is left there if the client does not pass.
pub async fn play(scenario: &Scenario, options: &Options, below: &Path) -> Played {
    let began = Instant::now();
    let recorder = Recorder::new();
    let folder = below.join(format!("{}-{:08x}", scenario.name, fastrand::u32(..)));
    if let Err(error) = on_stage(scenario, options, &folder, &recorder).await {
        recorder.add(Fact::Missed(format!("{error:#}")));
    }
    let history = recorder.history();
    let verdict = judge(scenario, &history);
    if verdict.findings.is_empty() {
        std::fs::remove_dir_all(&folder).ok();
    } else {
        let lines: Vec<String> = history.iter().map(|Entry { at, fact }| format!("{at:>8} {fact:?}\n")).collect();
        std::fs::write(folder.join("history.txt"), lines.concat()).ok();
    }
    Played { name: scenario.name.clone(), verdict, took: began.elapsed(), history, folder }
}

async fn on_stage(scenario: &Scenario, options: &Options, folder: &Path, recorder: &Recorder) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut stage = Stage::new(scenario, options, folder, recorder.clone()).await?;
    for (number, step) in scenario.steps.iter().enumerate() {
        if let Err(error) = take(&mut stage, step, options.is_long).await {
            recorder.add(Fact::Missed(format!("step {}: {error:#}", number + 1)));
            break;
        }
    }
    stage.end().await
}

async fn take(stage: &mut Stage, step: &Step, is_long: bool) -> anyhow::Result<()> {
    match step {
        Step::Tell(command) => stage.tell(command.clone()).await,
        Step::TellMany(many) => tell_many(stage, many).await,
        Step::Token(token) => stage.give_token(token).await,
        Step::Network(network) => {
            stage.set_network(network.clone());
            Ok(())
        }
        Step::Connections(blow) => {
            stage.strike(*blow);
            Ok(())
        }
        Step::Hub(step) => stage.do_to_hub(*step).await,
        Step::Driver(step) => stage.do_to_driver(*step).await,
        Step::CreateStream(stream) => stage.create_stream(&stream.name).await,
        Step::DeleteStream(name) => {
            stage.read_stream(name).await?;
            stage.truth()?.delete_stream(name).await
        }
        Step::Purge(purge) => {
            stage.recorder.add(Fact::Purged { stream: purge.stream.clone(), up_to: purge.up_to });
            stage.truth()?.purge(&purge.stream, purge.up_to).await
        }
        Step::Policy(policy) => stage.hub.set_policy(policy),
        Step::Seed(seed) => {
            for fact in stage.truth()?.seed(seed).await? {
                stage.recorder.add(fact);
            }
            Ok(())
        }
        Step::Until(counts) => stage.until(counts).await,
        Step::Check(counts) => stage.check(counts),
        Step::Group(wait) => stage.until_group(wait).await,
        Step::Up => stage.until_up(true).await,
        Step::Down => stage.until_up(false).await,
        Step::Pass(ms) => {
            sleep(Duration::from_millis(*ms)).await;
            Ok(())
        }
        Step::Measure => stage.measure(),
        Step::Repeat(repeat) => again(stage, repeat, is_long).await,
    }
}

async fn tell_many(stage: &mut Stage, many: &Many) -> anyhow::Result<()> {
    for number in 0..many.count {
        for command in &many.commands {
            let number = number.to_string();
            // A text that is nothing else is a number.
            let command = serde_json::to_string(command)?.replace("\"{n}\"", &number).replace("{n}", &number);
            stage.tell(serde_json::from_str::<Command>(&command)?).await?;
        }
    }
    Ok(())
}

/// In a box, because steps may be in steps.
fn again<'a>(
    stage: &'a mut Stage,
    repeat: &'a Repeat,
    is_long: bool,
) -> Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send + 'a>> {
    Box::pin(async move {
        let (began, long) = (Instant::now(), Duration::from_secs(repeat.long_s));
        let mut times = 0;
        while if is_long { began.elapsed() < long } else { times < repeat.times } {
            for step in &repeat.steps {
                take(stage, step, is_long).await?;
            }
            times += 1;
        }
        Ok(())
    })
}
