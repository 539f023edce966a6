//! Subscribes to topics over one Session and prints their events, or with --digest a digest of them at the end.
//!
//!     cargo run --example rust_subscribe -- 'greetings.*' 'stocks.>#10'

mod session;
mod subscription;

use std::process::ExitCode;

use clap::Parser;
use subscription::Subscription;

/// Subscribe to topics.
#[derive(Parser)]
struct Args {
    /// HOST:PORT of the hub.
    #[arg(long, default_value = "127.0.0.1:50051")]
    server: String,
    /// End after so many events of every FILTER.
    #[arg(long, default_value_t = 0)]
    count: i64,
    /// Print only a digest per FILTER, at the end.
    #[arg(long)]
    digest: bool,
    /// What to subscribe to; FILTER#N ends after N events.
    #[arg(required = true, value_name = "FILTER[#N]", value_parser = Subscription::parse)]
    filters: Vec<Subscription>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let mut subscriptions = args.filters.clone();
    let outcome = tokio::select! {
        outcome = session::follow(&args, &mut subscriptions) => outcome,
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    if let Err(error) = outcome {
        eprintln!("{error:#}");
        return ExitCode::FAILURE;
    }
    if args.digest {
        for subscription in subscriptions {
            println!("{}", subscription.summary());
        }
    }
    ExitCode::SUCCESS
}
