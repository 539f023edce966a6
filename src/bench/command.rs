//! `switchyard bench`.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::json;

use super::{
    client::ClientSide,
    hub::HubSide,
    load::{self, Outcome, Pace, Plan},
    side::Side,
    workload::{self, Times},
};
use crate::client::Target;

/// Put load on a hub and check every event.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  switchyard bench fan-out --subscribers 10
  switchyard bench fan-in --publishers 10 --payload 1024
  switchyard bench topics --topics 10000 --subscribers 40
  switchyard bench latency --rate 10000 --json
  switchyard bench subscriptions --count 100000 --hub-process 4711
  switchyard bench idle --sessions 1000 --hub-process 4711
  switchyard bench stalled --subscribers 9
  switchyard bench fan-out --subscribers 10 --stubs")]
pub struct Bench {
    /// Which workload
    #[command(subcommand)]
    workload: Workload,
    /// The size of each payload in bytes, at least 16
    #[arg(long, global = true, default_value_t = 128)]
    payload: usize,
    /// For how many seconds to measure
    #[arg(long, global = true, default_value_t = 5.0)]
    seconds: f64,
    /// For how many seconds to warm up before that
    #[arg(long, global = true, default_value_t = 1.0)]
    warm_up: f64,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    /// Load the hub over generated code, instead of through the client that applications use: shows what that client
    /// costs. `subscriptions` and `idle`, which measure the hub's memory, always do
    #[arg(long, global = true)]
    stubs: bool,
    /// The process id of a hub on this machine, to report its memory
    #[arg(long, global = true, value_name = "PID")]
    hub_process: Option<u32>,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, clap::Subcommand)]
enum Workload {
    /// One publisher, every event to every subscriber
    #[command(after_help = "Examples:\n  switchyard bench fan-out --subscribers 10 --seconds 10")]
    FanOut {
        /// Number of subscribers
        #[arg(long, default_value_t = 1)]
        subscribers: usize,
    },
    /// Many publishers, one subscriber
    #[command(after_help = "Examples:\n  switchyard bench fan-in --publishers 10 --payload 1024")]
    FanIn {
        /// Number of publishers
        #[arg(long, default_value_t = 10)]
        publishers: usize,
    },
    /// Many topics, chosen by Zipf's law, and filters with and without wildcards
    #[command(after_help = "Examples:\n  switchyard bench topics --topics 10000 --subscribers 40")]
    Topics {
        /// Number of topics
        #[arg(long, default_value_t = 10_000)]
        topics: usize,
        /// Number of subscribers
        #[arg(long, default_value_t = 40)]
        subscribers: usize,
    },
    /// A fixed rate, whatever the hub manages, and the latency of each event from when it was due
    #[command(after_help = "Examples:\n  switchyard bench latency --rate 10000 --json")]
    Latency {
        /// Events a second
        #[arg(long, default_value_t = 10_000)]
        rate: u64,
    },
    /// Many subscriptions on one session: how fast they open, and what they cost a publisher
    #[command(after_help = "Examples:\n  switchyard bench subscriptions --count 100000 --hub-process 4711")]
    Subscriptions {
        /// Number of subscriptions
        #[arg(long, default_value_t = 100_000)]
        count: usize,
    },
    /// Sessions that do nothing, each on a connection of its own
    #[command(after_help = "Examples:\n  switchyard bench idle --sessions 1000 --hub-process 4711")]
    Idle {
        /// Number of sessions
        #[arg(long, default_value_t = 1_000)]
        sessions: usize,
    },
    /// Fan-out to subscribers that read, next to one that does not
    #[command(after_help = "Examples:\n  switchyard bench stalled --subscribers 9")]
    Stalled {
        /// Number of subscribers that read
        #[arg(long, default_value_t = 9)]
        subscribers: usize,
    },
}

impl Bench {
    /// Runs the load to its end. Any loss, repetition, disorder or damage is an error.
    pub async fn run(self) -> anyhow::Result<()> {
        let per_filter = matches!(self.workload, Workload::Subscriptions { .. });
        let stubs = HubSide { target: self.target.clone(), subscription_per_filter: per_filter };
        if let Workload::Idle { sessions } = self.workload {
            return self.idle(&stubs, sessions).await;
        }
        let plan = self.plan();
        if per_filter {
            self.subscribe(&stubs, &plan).await?;
        }
        // Held, and never read, while the load runs. A client would read what it has room for.
        let _stalled = match self.workload {
            Workload::Stalled { .. } => Some(stubs.subscriber(&plan.subscribers[0]).await?),
            _ => None,
        };
        if self.stubs || per_filter {
            self.load(&stubs, &plan).await
        } else {
            self.load(&ClientSide { target: self.target.clone() }, &plan).await
        }
    }

    async fn load(&self, side: &impl Side, plan: &Plan) -> anyhow::Result<()> {
        let progress = |published, delivered| eprintln!("{published} published, {delivered} delivered");
        let outcome = load::run(side, plan, progress).await?;
        self.tell(&outcome)?;
        ensure!(outcome.faults.is_none(), "the load found faults: {:?}", outcome.faults);
        Ok(())
    }

    fn plan(&self) -> Plan {
        let times = Times {
            warm_up: Duration::from_secs_f64(self.warm_up.max(0.0)),
            measure: Duration::from_secs_f64(self.seconds.max(0.1)),
        };
        let window = |publishers| workload::window(self.payload, publishers);
        match self.workload {
            Workload::FanOut { subscribers } | Workload::Stalled { subscribers } => {
                workload::fan(1, subscribers, self.payload, window(1), times)
            }
            Workload::FanIn { publishers } => workload::fan(publishers, 1, self.payload, window(publishers), times),
            Workload::Topics { topics, subscribers } => workload::topics(topics, subscribers, self.payload, times),
            Workload::Latency { rate } => workload::fan(1, 1, self.payload, Pace::Rate(rate), times),
            Workload::Subscriptions { count } => workload::many(count, self.payload, times),
            // Has no plan: nothing is published.
            Workload::Idle { .. } => workload::fan(0, 0, self.payload, window(1), times),
        }
    }

    /// Opens the subscriptions of a plan once, to time it.
    async fn subscribe(&self, side: &HubSide, plan: &Plan) -> anyhow::Result<()> {
        let count = plan.topics.len();
        let (begin, before) = (Instant::now(), self.resident_bytes()?);
        let subscriber = side.subscriber(&plan.subscribers[0]).await?;
        let rate = count as f64 / begin.elapsed().as_secs_f64();
        let each =
            self.resident_bytes()?.zip(before).map(|(after, before)| after.saturating_sub(before) / count as u64);
        drop(subscriber);
        self.tell_scale("subscriptions", count, rate, each);
        Ok(())
    }

    async fn idle(&self, side: &HubSide, count: usize) -> anyhow::Result<()> {
        let (begin, before) = (Instant::now(), self.resident_bytes()?);
        let mut open = Vec::with_capacity(count);
        for _ in 0..count {
            open.push(side.session().await?);
        }
        let rate = count as f64 / begin.elapsed().as_secs_f64();
        tokio::time::sleep(Duration::from_secs_f64(self.warm_up.max(0.0))).await;
        let each = self
            .resident_bytes()?
            .zip(before)
            .map(|(after, before)| after.saturating_sub(before) / count.max(1) as u64);
        self.tell_scale("idle sessions", count, rate, each);
        Ok(())
    }

    fn tell_scale(&self, what: &str, count: usize, per_second: f64, bytes_each: Option<u64>) {
        if self.json {
            println!("{}", json!({ "what": what, "count": count, "per_second": per_second, "bytes_each": bytes_each }));
        } else {
            let each = bytes_each.map(|bytes| format!(", {bytes} bytes each")).unwrap_or_default();
            println!("opened     {count} {what}, {per_second:.0} a second{each}");
        }
    }

    /// Resident memory of the hub, where its process is known.
    fn resident_bytes(&self) -> anyhow::Result<Option<u64>> {
        let Some(process) = self.hub_process else { return Ok(None) };
        let status = std::fs::read_to_string(format!("/proc/{process}/status"))
            .with_context(|| format!("--hub-process {process}: no such process on this machine"))?;
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        Ok(Some(kib.context("the system does not report the memory of a process")? * 1024))
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
