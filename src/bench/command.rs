//! `switchyard bench`.

use std::time::Duration;

use anyhow::ensure;

use super::{
    hub::HubSide,
    load::{self, Outcome, Pace, Plan},
    workload::{self, Times},
};
use crate::client::Target;

/// Put a load on a hub and check every event.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  switchyard bench fan-out --subscribers 10
  switchyard bench fan-in --publishers 10 --payload 1024
  switchyard bench topics --topics 10000 --subscribers 40
  switchyard bench latency --rate 10000 --json")]
pub struct Bench {
    /// Which load
    #[command(subcommand)]
    workload: Workload,
    /// The size of each payload in bytes, at least 16
    #[arg(long, global = true, default_value_t = 128)]
    payload: usize,
    /// For how many seconds to measure
    #[arg(long, global = true, default_value_t = 5.0)]
    seconds: f64,
    /// For how many seconds to run before that
    #[arg(long, global = true, default_value_t = 1.0)]
    warm_up: f64,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, clap::Subcommand)]
enum Workload {
    /// One publisher, every event to every subscriber
    FanOut {
        /// How many subscribe
        #[arg(long, default_value_t = 1)]
        subscribers: usize,
    },
    /// Many publishers, one subscriber
    FanIn {
        /// How many publish
        #[arg(long, default_value_t = 10)]
        publishers: usize,
    },
    /// Many topics, chosen by Zipf's law, and filters with and without wildcards
    Topics {
        /// How many topics
        #[arg(long, default_value_t = 10_000)]
        topics: usize,
        /// How many subscribe
        #[arg(long, default_value_t = 40)]
        subscribers: usize,
    },
    /// A fixed rate, whatever comes of it, and how long each event takes from when it was to be sent
    Latency {
        /// Events a second
        #[arg(long, default_value_t = 10_000)]
        rate: u64,
    },
}

impl Bench {
    /// Runs the load to its end. Any loss, repetition, disorder or damage is an error.
    pub async fn run(self) -> anyhow::Result<()> {
        let plan = self.plan();
        let side = HubSide { target: self.target.clone() };
        let progress = |published, delivered| eprintln!("{published} published, {delivered} delivered");
        let outcome = load::run(&side, &plan, progress).await?;
        self.tell(&outcome)?;
        ensure!(outcome.faults.is_none(), "the load found faults: {:?}", outcome.faults);
        Ok(())
    }

    fn plan(&self) -> Plan {
        let times = Times {
            warm_up: Duration::from_secs_f64(self.warm_up.max(0.0)),
            measure: Duration::from_secs_f64(self.seconds.max(0.1)),
        };
        let window = workload::window(self.payload);
        match self.workload {
            Workload::FanOut { subscribers } => workload::fan(1, subscribers, self.payload, window, times),
            Workload::FanIn { publishers } => workload::fan(publishers, 1, self.payload, window, times),
            Workload::Topics { topics, subscribers } => workload::topics(topics, subscribers, self.payload, times),
            Workload::Latency { rate } => workload::fan(1, 1, self.payload, Pace::Rate(rate), times),
        }
    }

    fn tell(&self, outcome: &Outcome) -> anyhow::Result<()> {
        if self.json {
            println!("{}", serde_json::to_string(outcome)?);
            return Ok(());
        }
        println!("published  {:>12.0} events/s", outcome.published_per_second);
        println!("delivered  {:>12.0} events/s", outcome.delivered_per_second);
        if let Some(latency) = &outcome.latency {
            println!(
                "latency    p50 {:.0} us, p90 {:.0} us, p99 {:.0} us, p99.9 {:.0} us, max {:.0} us",
                latency.p50_us, latency.p90_us, latency.p99_us, latency.p999_us, latency.max_us
            );
        }
        println!("checked    {} of {} events, faults: {:?}", outcome.delivered, outcome.published, outcome.faults);
        Ok(())
    }
}
