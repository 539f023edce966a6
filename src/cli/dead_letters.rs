//! `switchyard group dead-letters`.

use serde_json::json;

use super::{named::Named, pages::List, reach::Reached, show, value};
use crate::proto::v1::{
    DeadLetter, ListDeadLettersRequest, PurgeDeadLettersRequest, ReceivedEvent, RedriveDeadLettersRequest,
    RedriveDeadLettersResponse,
};

/// Show, redrive or purge the dead letters of a group.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Dead letters are events that a member rejected or that failed too often. They are identified by their sequence in the
dead-letter stream, the first column of the list.

Examples:
  switchyard group dead-letters list orders billing
  switchyard group dead-letters redrive orders billing --all
  switchyard group dead-letters purge orders billing 7 8")]
pub(super) struct DeadLetters {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Show the dead letters of a group, oldest first
    #[command(after_help = "Examples:\n  switchyard group dead-letters list orders billing --json")]
    List(Named),
    /// Return dead letters to the group, starting again with attempt 1
    #[command(after_help = "Examples:\n  switchyard group dead-letters redrive orders billing 7 8")]
    Redrive(Chosen),
    /// Remove dead letters for good
    #[command(after_help = "Examples:\n  switchyard group dead-letters purge orders billing --all")]
    Purge(Chosen),
}

#[derive(Debug, clap::Args)]
struct Chosen {
    #[command(flatten)]
    named: Named,
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// Their sequences in the dead-letter stream
    #[arg(value_name = "SEQUENCE", value_parser = value::sequence)]
    sequences: Vec<i64>,
    /// All dead letters of the group
    #[arg(long)]
    all: bool,
}

impl DeadLetters {
    pub(super) async fn run(&self, hub: &mut Reached, json: bool) -> anyhow::Result<()> {
        match &self.action {
            Action::List(named) => list(hub, named, json).await,
            Action::Redrive(chosen) => redrive(hub, chosen, json).await,
            Action::Purge(chosen) => purge(hub, chosen, json).await,
        }
    }
}

async fn list(hub: &mut Reached, named: &Named, json: bool) -> anyhow::Result<()> {
    let list =
        List { json, head: &["SEQUENCE", "ORIGIN", "ATTEMPTS", "TIME", "TOPIC", "REASON"], row, object: as_json };
    list.show(u64::MAX, async |(page_size, page_token)| {
        let (stream, group) = (named.stream.clone(), named.group.clone());
        let request = ListDeadLettersRequest { stream, group, page_size, page_token };
        let page = hub.ask("ListDeadLetters", hub.groups().list_dead_letters(request)).await?;
        Ok((page.dead_letters, page.next_page_token))
    })
    .await
}

async fn redrive(hub: &mut Reached, chosen: &Chosen, json: bool) -> anyhow::Result<()> {
    let request = RedriveDeadLettersRequest {
        stream: chosen.named.stream.clone(),
        group: chosen.named.group.clone(),
        sequences: chosen.which.sequences.clone(),
    };
    let response = hub.change("RedriveDeadLetters", hub.groups().redrive_dead_letters(request)).await?;
    let told = if json {
        let RedriveDeadLettersResponse { redriven, lost, unmatched } = response;
        json!({ "redriven": redriven, "lost": lost, "unmatched": unmatched }).to_string()
    } else {
        let lost = (response.lost, "because the stream no longer has their events");
        let unmatched = (response.unmatched, "because the filters of the members do not match them");
        let stay = [lost, unmatched].into_iter().filter(|(count, _)| *count > 0);
        let stay = stay.map(|(count, why)| format!("; {count} stay, {why}"));
        format!("redriven {}{}", response.redriven, stay.collect::<String>())
    };
    show::print(&told).map(drop)
}

async fn purge(hub: &mut Reached, chosen: &Chosen, json: bool) -> anyhow::Result<()> {
    let request = PurgeDeadLettersRequest {
        stream: chosen.named.stream.clone(),
        group: chosen.named.group.clone(),
        sequences: chosen.which.sequences.clone(),
    };
    let purged = hub.change("PurgeDeadLetters", hub.groups().purge_dead_letters(request)).await?.purged;
    let told = if json { json!({ "purged": purged }).to_string() } else { format!("purged {purged}") };
    show::print(&told).map(drop)
}

fn row(letter: &DeadLetter) -> Vec<String> {
    let event = letter.event.as_ref().and_then(|ReceivedEvent { event, .. }| event.as_ref());
    vec![
        letter.sequence.to_string(),
        letter.origin_sequence.to_string(),
        letter.attempts.to_string(),
        letter.time.as_ref().map(show::time).unwrap_or_default(),
        event.map(|event| event.topic.clone()).unwrap_or_default(),
        show::squeezed(&letter.reason),
    ]
}

/// The dead letter with the names of the contract.
fn as_json(letter: &DeadLetter) -> serde_json::Value {
    json!({
        "sequence": letter.sequence,
        "origin_sequence": letter.origin_sequence,
        "attempts": letter.attempts,
        "reason": letter.reason,
        "time": letter.time.as_ref().map(ToString::to_string),
        "event": letter.event.as_ref().map(show::event_json),
    })
}
