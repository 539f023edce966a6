//! `switchyard sub`.

use std::io::{self, Write};

use anyhow::{Context, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;
use tokio_stream::StreamExt;

use crate::client::{Target, explain, explain_message};
use crate::proto::v1::{
    Event, OverflowPolicy, SessionRequest, SessionResponse, Subscribe as SubscribeCommand, SubscriptionSpec,
    event::Payload, session_request::Command, session_response::Frame,
};

/// Subscribe and print what comes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  switchyard sub 'orders.>'
  switchyard sub 'stocks.*' 'rates.eur' --json
  switchyard sub jobs --group workers --max-events 10")]
pub struct Subscribe {
    /// Patterns over topics: * is one token, a final > one or more; an event that several match comes once
    #[arg(required = true, value_name = "FILTER")]
    filters: Vec<String>,
    /// Share the events with the other members of this group
    #[arg(long, value_name = "NAME", default_value = "")]
    group: String,
    /// End after this many events
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 0, hide_default_value = true)]
    max_events: i64,
    /// What to do when this program cannot keep up
    #[arg(long, value_enum, default_value_t = Overflow::DropOldest)]
    overflow: Overflow,
    /// Print one JSON object an event
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Overflow {
    /// Lose the oldest that wait, and say how many
    DropOldest,
    /// Keep only the latest of each topic
    Conflate,
    /// End
    End,
}

impl Subscribe {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let mut stop = super::interrupts()?;
        let subscribe = SessionRequest {
            request_id: 1,
            command: Some(Command::Subscribe(SubscribeCommand { subscription_id: 1, spec: Some(self.spec()) })),
        };
        let mut client = self.target.hub().await?;
        // Half-closed at once: no more commands will come, and deliveries go on.
        let frames = client.session(tokio_stream::once(subscribe)).await.map_err(|status| explain(&status))?;
        let mut frames = frames.into_inner();
        let mut printer = Printer { json: self.json, events: 0 };
        loop {
            let frame = tokio::select! {
                _ = stop.recv() => break,
                frame = frames.next() => frame,
            };
            match frame {
                None => break,
                Some(Err(status)) => return Err(explain(&status)),
                Some(Ok(frame)) => {
                    if printer.frame(frame)? == Next::Leave {
                        break;
                    }
                }
            }
        }
        eprintln!("{} events", printer.events);
        Ok(())
    }

    fn spec(&self) -> SubscriptionSpec {
        SubscriptionSpec {
            filters: self.filters.clone(),
            group: self.group.clone(),
            max_events: self.max_events,
            overflow: match self.overflow {
                Overflow::DropOldest => OverflowPolicy::DropOldest,
                Overflow::Conflate => OverflowPolicy::Conflate,
                Overflow::End => OverflowPolicy::End,
            }
            .into(),
            ..Default::default()
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Next {
    GoOn,
    Leave,
}

struct Printer {
    json: bool,
    events: u64,
}

impl Printer {
    fn frame(&mut self, frame: SessionResponse) -> anyhow::Result<Next> {
        match frame.frame {
            Some(Frame::Subscribed(_)) => eprintln!("subscribed"),
            Some(Frame::Events(events)) => {
                let mut out = io::stdout().lock();
                for event in events.events.into_iter().filter_map(|received| received.event) {
                    self.events += 1;
                    let line = if self.json { as_json(&event).to_string() } else { as_text(&event) };
                    if let Err(error) = writeln!(out, "{line}") {
                        // The reader of a pipe has had enough.
                        return if error.kind() == io::ErrorKind::BrokenPipe {
                            Ok(Next::Leave)
                        } else {
                            Err(error).context("cannot write")
                        };
                    }
                }
                out.flush().ok();
            }
            Some(Frame::Gap(gap)) => eprintln!("gap: {} events lost ({})", gap.count, gap.reason().as_str_name()),
            Some(Frame::Draining(_)) => eprintln!("the hub is shutting down"),
            Some(Frame::Error(status)) => return Err(explain_message(&status)),
            Some(Frame::Ended(ended)) => match ended.status {
                Some(status) if status.code != 0 => return Err(explain_message(&status)),
                _ => return Ok(Next::Leave),
            },
            Some(_) => {}
            None => bail!("the hub sent a frame this program does not know"),
        }
        Ok(Next::GoOn)
    }
}

fn as_text(event: &Event) -> String {
    match &event.payload {
        Some(Payload::Text(text)) => format!("{} {text}", event.topic),
        Some(Payload::Data(data)) => format!("{} {}", event.topic, String::from_utf8_lossy(data)),
        None => event.topic.clone(),
    }
}

/// The event with the names of the contract; empty fields are left out.
fn as_json(event: &Event) -> serde_json::Value {
    let mut object = serde_json::Map::new();
    let texts = [
        ("id", &event.id),
        ("topic", &event.topic),
        ("type", &event.r#type),
        ("source", &event.source),
        ("key", &event.key),
        ("content_type", &event.content_type),
    ];
    for (name, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
        object.insert(name.into(), json!(text));
    }
    if let Some(time) = &event.time {
        object.insert("time".into(), json!(time.to_string()));
    }
    if !event.attributes.is_empty() {
        object.insert("attributes".into(), json!(event.attributes));
    }
    if let Some(ttl) = &event.ttl {
        object.insert("ttl".into(), json!(ttl.to_string()));
    }
    match &event.payload {
        Some(Payload::Text(text)) => object.insert("text".into(), json!(text)),
        Some(Payload::Data(data)) => object.insert("data".into(), json!(STANDARD.encode(data))),
        None => None,
    };
    object.into()
}
