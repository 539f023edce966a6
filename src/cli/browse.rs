//! `switchyard stream events` and `switchyard stream topics`: what a stream has, page by page.

use serde_json::{Value, json};

use super::{pages::List, reach::Reached, show, value};
use crate::proto::v1::{
    ListEventsRequest, ListTopicsRequest, ListedEvent, TopicState, event::Payload, list_events_request::Begin,
};

/// As text, payloads are cut here unless something else is asked for: an event is a line.
const SHOWN_PAYLOAD_BYTES: i64 = 200;

/// Show the events of a stream, oldest or newest first
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Shows what the stream has now. To follow it, subscribe: switchyard sub --stream orders

Examples:
  switchyard stream events orders
  switchyard stream events orders --reverse --limit 10
  switchyard stream events orders --filter 'orders.eu.*' --from 2026-01-31T12:00:00Z
  switchyard stream events orders --from 42 --json")]
pub(super) struct Events {
    /// Which stream
    stream: String,
    /// Begin with this sequence, or at this RFC 3339 time [default: the first event; with --reverse the last]
    #[arg(long, value_name = "PLACE", value_parser = value::begin)]
    from: Option<Begin>,
    /// From the newest event to the oldest
    #[arg(long)]
    reverse: bool,
    /// Only events whose topic matches this filter
    #[arg(long, value_name = "FILTER", default_value = "", hide_default_value = true)]
    filter: String,
    /// Show at most this many events [default: all]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Cut payloads after this many bytes, or none for whole payloads [default: 200; with --json none]
    #[arg(long, value_name = "SIZE", value_parser = value::shown_size)]
    max_payload: Option<i64>,
}

/// Show the topics that a stream has events of, by name
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  switchyard stream topics orders
  switchyard stream topics orders --filter 'orders.eu.*'
  switchyard stream topics orders --prefix orders.e --limit 100 --json")]
pub(super) struct Topics {
    /// Which stream
    stream: String,
    /// Only topics that match this filter
    #[arg(long, value_name = "FILTER", default_value = "", hide_default_value = true)]
    filter: String,
    /// Only topics that begin with this text, which may end inside a token
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    prefix: String,
    /// Show at most this many topics [default: all]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
}

impl Events {
    pub(super) async fn run(&self, hub: &mut Reached, json: bool) -> anyhow::Result<()> {
        let max_payload = self.max_payload.unwrap_or(if json { i64::MAX } else { SHOWN_PAYLOAD_BYTES });
        let list = List { json, head: &["SEQUENCE", "STORED", "TOPIC", "PAYLOAD"], row: event_row, object: event_json };
        list.show(self.limit.unwrap_or(u64::MAX), async |(page_size, page_token)| {
            let request = ListEventsRequest {
                stream: self.stream.clone(),
                begin: self.from,
                newest_first: self.reverse,
                filter: self.filter.clone(),
                max_payload_bytes: Some(max_payload),
                page_size,
                page_token,
            };
            let page = hub.ask("ListEvents", hub.streams().list_events(request)).await?;
            Ok((page.events, page.next_page_token))
        })
        .await
    }
}

impl Topics {
    pub(super) async fn run(&self, hub: &mut Reached, json: bool) -> anyhow::Result<()> {
        let list = List { json, head: &["TOPIC", "EVENTS", "LAST", "STORED"], row: topic_row, object: topic_json };
        list.show(self.limit.unwrap_or(u64::MAX), async |(page_size, page_token)| {
            let request = ListTopicsRequest {
                stream: self.stream.clone(),
                filter: self.filter.clone(),
                prefix: self.prefix.clone(),
                page_size,
                page_token,
            };
            let page = hub.ask("ListTopics", hub.streams().list_topics(request)).await?;
            Ok((page.topics, page.next_page_token))
        })
        .await
    }
}

fn event_row(listed: &ListedEvent) -> Vec<String> {
    let received = listed.event.clone().unwrap_or_default();
    let event = received.event.unwrap_or_default();
    let shown_bytes = match &event.payload {
        Some(Payload::Text(text)) => text.len(),
        Some(Payload::Data(data)) => data.len(),
        None => 0,
    };
    let payload = show::payload_text(&event).unwrap_or_default();
    let is_cut = i64::try_from(shown_bytes).is_ok_and(|shown| shown < listed.payload_bytes);
    vec![
        received.sequence.to_string(),
        received.append_time.as_ref().map(show::time).unwrap_or_default(),
        event.topic,
        if is_cut { format!("{payload}... ({})", show::bytes(listed.payload_bytes)) } else { payload },
    ]
}

/// The event as everywhere, and the size of the payload as it was published: that which is shown may be cut.
fn event_json(listed: &ListedEvent) -> Value {
    let mut object = listed.event.as_ref().map_or_else(|| json!({}), show::event_json);
    object["payload_bytes"] = json!(listed.payload_bytes);
    object
}

fn topic_row(topic: &TopicState) -> Vec<String> {
    let last = Some(topic.last_sequence).filter(|last| *last != 0).map(|last| last.to_string());
    vec![
        topic.topic.clone(),
        topic.events.to_string(),
        last.unwrap_or_else(|| "-".to_owned()),
        topic.last_time.as_ref().map_or_else(|| "-".to_owned(), show::time),
    ]
}

/// The topic with the names of the contract.
fn topic_json(topic: &TopicState) -> Value {
    json!({
        "topic": topic.topic,
        "events": topic.events,
        "last_sequence": topic.last_sequence,
        "last_time": topic.last_time.as_ref().map(ToString::to_string),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1::{Event, ReceivedEvent};

    fn listed(payload: Option<Payload>, payload_bytes: i64) -> ListedEvent {
        let event = Event { topic: "a".into(), payload, ..Event::default() };
        let received =
            ReceivedEvent { event: Some(event), sequence: 7, stream: "s".into(), ..ReceivedEvent::default() };
        ListedEvent { event: Some(received), payload_bytes }
    }

    #[test]
    fn a_payload_that_is_cut_says_how_large_it_is() {
        let payload = |listed: &ListedEvent| event_row(listed).pop().unwrap();
        assert_eq!(payload(&listed(Some(Payload::Text("hello".into())), 5)), "hello");
        assert_eq!(payload(&listed(Some(Payload::Text("hello".into())), 6)), "hello... (6 B)");
        assert_eq!(payload(&listed(Some(Payload::Data(vec![255].into())), 2048)), "\u{fffd}... (2.0 KiB)");
        assert_eq!((payload(&listed(None, 0)), payload(&listed(None, 3))), (String::new(), "... (3 B)".to_owned()));
        let cut = event_json(&listed(Some(Payload::Text("hello".into())), 6));
        assert_eq!((&cut["text"], &cut["payload_bytes"], &cut["sequence"]), (&json!("hello"), &json!(6), &json!(7)));
    }

    #[test]
    fn a_topic_whose_last_event_is_being_removed_has_none() {
        let topic = TopicState { topic: "a".into(), events: 1, ..TopicState::default() };
        assert_eq!(topic_row(&topic), ["a", "1", "-", "-"]);
    }
}
