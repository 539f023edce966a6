//! `switchyard group dead-letters`.

use serde_json::json;

use super::{named::Named, show, value};
use crate::client::{Target, explain};
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
    pub(super) async fn run(&self, target: &Target, json: bool) -> anyhow::Result<()> {
        match &self.action {
            Action::List(named) => list(target, named, json).await,
            Action::Redrive(chosen) => redrive(target, chosen, json).await,
            Action::Purge(chosen) => purge(target, chosen, json).await,
        }
    }
}

/// Page by page: there may be any number.
async fn list(target: &Target, named: &Named, json: bool) -> anyhow::Result<()> {
    let mut client = target.groups().await?;
    let (mut page_token, mut is_first) = (String::new(), true);
    loop {
        let request = ListDeadLettersRequest {
            stream: named.stream.clone(),
            group: named.group.clone(),
            page_size: 0,
            page_token,
        };
        let page = client.list_dead_letters(request).await.map_err(|status| explain(&status))?.into_inner();
        if json {
            show::json_lines(page.dead_letters.iter().map(as_json))?;
        } else if (is_first || !page.dead_letters.is_empty()) && !show::print(&table(&page.dead_letters))? {
            return Ok(());
        }
        is_first = false;
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(());
        }
    }
}

async fn redrive(target: &Target, chosen: &Chosen, json: bool) -> anyhow::Result<()> {
    let request = RedriveDeadLettersRequest {
        stream: chosen.named.stream.clone(),
        group: chosen.named.group.clone(),
        sequences: chosen.which.sequences.clone(),
    };
    let response = target.groups().await?.redrive_dead_letters(request).await.map_err(|status| explain(&status))?;
    let response = response.into_inner();
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

async fn purge(target: &Target, chosen: &Chosen, json: bool) -> anyhow::Result<()> {
    let request = PurgeDeadLettersRequest {
        stream: chosen.named.stream.clone(),
        group: chosen.named.group.clone(),
        sequences: chosen.which.sequences.clone(),
    };
    let response = target.groups().await?.purge_dead_letters(request).await.map_err(|status| explain(&status))?;
    let purged = response.into_inner().purged;
    let told = if json { json!({ "purged": purged }).to_string() } else { format!("purged {purged}") };
    show::print(&told).map(drop)
}

fn table(letters: &[DeadLetter]) -> String {
    let head = ["SEQUENCE", "ORIGIN", "ATTEMPTS", "TIME", "TOPIC", "REASON"].map(str::to_owned);
    let mut rows = vec![head.to_vec()];
    rows.extend(letters.iter().map(|letter| {
        let event = letter.event.as_ref().and_then(|ReceivedEvent { event, .. }| event.as_ref());
        vec![
            letter.sequence.to_string(),
            letter.origin_sequence.to_string(),
            letter.attempts.to_string(),
            letter.time.as_ref().map(show::time).unwrap_or_default(),
            event.map(|event| event.topic.clone()).unwrap_or_default(),
            // A reason is a member's text, of any shape.
            letter.reason.split_whitespace().collect::<Vec<_>>().join(" "),
        ]
    }));
    show::table(&rows)
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
