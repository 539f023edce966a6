//! Publishes events to one topic: each TEXT is one event; without TEXT, each line of standard input is one.
//!
//!     cargo run --example rust_publish -- greetings.en hello "good morning"

use std::{io, process::ExitCode};

use anyhow::Context as _;
use clap::Parser;
use switchyard::proto::v1::{Event, PublishRequest, event::Payload, hub_service_client::HubServiceClient};
use tonic::Code;
use tonic_types::{ErrorDetails, RpcStatusExt as _, StatusExt as _};

const BATCH: usize = 100;

/// Publish events to a topic.
#[derive(Parser)]
struct Args {
    /// HOST:PORT of the hub.
    #[arg(long, default_value = "127.0.0.1:50051")]
    server: String,
    topic: String,
    /// Default: the lines of standard input.
    texts: Vec<String>,
}

/// The code, reason, field and text of a refusal.
fn describe(code: Code, details: &ErrorDetails, message: &str) -> String {
    let mut words = vec![format!("{code:?}")];
    words.extend(details.error_info().map(|info| info.reason.clone()));
    let violations = details.bad_request().map_or(&[][..], |bad| &bad.field_violations);
    words.extend(violations.iter().map(|violation| violation.field.clone()));
    format!("{}: {message}", words.join(" "))
}

/// Publishes in batches and tells how it went; false when an event was refused.
async fn publish(args: Args) -> anyhow::Result<bool> {
    let url = format!("http://{}", args.server);
    let mut hub = HubServiceClient::connect(url.clone()).await.context(url)?;
    let mut texts: Box<dyn Iterator<Item = io::Result<String>>> =
        if args.texts.is_empty() { Box::new(io::stdin().lines()) } else { Box::new(args.texts.into_iter().map(Ok)) };
    let (mut published, mut matched, mut refused) = (0, 0, 0);
    loop {
        let batch: Vec<String> = texts.by_ref().take(BATCH).collect::<Result<_, _>>()?;
        if batch.is_empty() {
            break;
        }
        let event = |text| Event { topic: args.topic.clone(), payload: Some(Payload::Text(text)), ..Event::default() };
        let request = PublishRequest { events: batch.into_iter().map(event).collect(), precondition: None };
        let response = hub.publish(request).await.map_err(|status| {
            anyhow::anyhow!(describe(status.code(), &status.get_error_details(), status.message()))
        })?;
        for result in response.into_inner().results {
            if let Some(status) = result.status {
                refused += 1;
                let details = status.get_error_details();
                eprintln!("refused: {}", describe(status.code.into(), &details, &status.message));
            } else {
                published += 1;
                matched += result.matched;
            }
        }
    }
    println!("published {published}, matched {matched}");
    Ok(refused == 0)
}

#[tokio::main]
async fn main() -> ExitCode {
    match publish(Args::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("publish failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}
