//! How things are shown: events as lines and as JSON, tables, sizes and times for people. Serves the commands; it asks a
//! hub nothing.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    io::{self, IsTerminal, Write},
    sync::OnceLock,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use base64::{Engine, engine::general_purpose::STANDARD};
use prost_types::Timestamp;
use serde_json::json;

use crate::{
    auth::deceives,
    proto::v1::{Event, ReceivedEvent, event::Payload},
};

/// Whether a person reads standard output, on a terminal that obeys what is in it.
pub(super) fn to_terminal() -> bool {
    static IS_TERMINAL: OnceLock<bool> = OnceLock::new();
    *IS_TERMINAL.get_or_init(|| io::stdout().is_terminal())
}

/// A text with all that would move a terminal about, or hide what is there, as `\u` and its number: JSON stays JSON.
pub fn visible(text: &str) -> Cow<'_, str> {
    let hides = |c: char| deceives(c) && c != '\n' && c != '\t';
    if !text.contains(hides) {
        return text.into();
    }
    let shown = |c: char| if hides(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    text.chars().map(shown).collect::<String>().into()
}

/// The same in one line.
pub(super) fn one_line(text: &str) -> Cow<'_, str> {
    match visible(text) {
        shown if shown.contains('\n') => shown.replace('\n', "\\n").into(),
        shown => shown,
    }
}

/// Writes lines to standard output. False when its reader has had enough.
pub(super) fn print(text: &str) -> anyhow::Result<bool> {
    let text = if to_terminal() { visible(text) } else { text.into() };
    let mut out = io::stdout().lock();
    let written =
        if text.ends_with('\n') { write!(out, "{text}") } else { writeln!(out, "{text}") }.and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        written => written.map(|()| true).context("cannot write"),
    }
}

/// Topic and payload.
pub(super) fn event_line(event: &Event) -> String {
    match payload_text(event) {
        Some(text) => format!("{} {text}", event.topic),
        None => event.topic.clone(),
    }
}

/// Everything about an event: a line for each field, then the payload.
pub(super) fn event_page(received: &ReceivedEvent) -> String {
    let Some(event) = &received.event else { return String::new() };
    let mut rows = vec![("sequence", received.sequence.to_string())];
    rows.extend(received.append_time.as_ref().map(|stored| ("stored", stored.to_string())));
    rows.extend(event.time.as_ref().map(|happened| ("time", happened.to_string())));
    let texts = [
        ("topic", &event.topic),
        ("id", &event.id),
        ("type", &event.r#type),
        ("source", &event.source),
        ("key", &event.key),
        ("content type", &event.content_type),
    ];
    rows.extend(texts.into_iter().filter(|(_, text)| !text.is_empty()).map(|(name, text)| (name, text.clone())));
    rows.extend(event.ttl.as_ref().map(|ttl| ("ttl", wire_duration(ttl))));
    let attributes: BTreeMap<_, _> = event.attributes.iter().collect();
    rows.extend(attributes.into_iter().map(|(name, value)| ("attribute", format!("{name}={value}"))));
    let payload = payload_text(event).map(|payload| format!("\n{payload}\n")).unwrap_or_default();
    format!("{}{payload}", fields(&rows))
}

/// The payload as well as a terminal can show it.
pub(super) fn payload_text(event: &Event) -> Option<String> {
    match &event.payload {
        Some(Payload::Text(text)) => Some(text.clone()),
        Some(Payload::Data(data)) => Some(String::from_utf8_lossy(data).into_owned()),
        None => None,
    }
}

/// The event with the names of the contract; empty fields are left out. What only a stream can tell stands beside the
/// fields of the event.
pub(super) fn event_json(received: &ReceivedEvent) -> serde_json::Value {
    let mut object = serde_json::Map::new();
    if !received.stream.is_empty() {
        object.insert("stream".into(), json!(received.stream));
        object.insert("sequence".into(), json!(received.sequence));
        object.insert("attempt".into(), json!(received.attempt));
    }
    if let Some(time) = &received.append_time {
        object.insert("append_time".into(), json!(time.to_string()));
    }
    if !received.last_failure.is_empty() {
        object.insert("last_failure".into(), json!(received.last_failure));
    }
    if received.redelivered {
        object.insert("redelivered".into(), json!(true));
    }
    if let Some(event) = &received.event {
        put_event(&mut object, event);
    }
    object.into()
}

fn put_event(object: &mut serde_json::Map<String, serde_json::Value>, event: &Event) {
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
}

/// Rows in columns, the first row as their heads; columns of numbers are flush right.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<Cow<'_, str>>> = rows.iter().map(|row| row.iter().map(|cell| one_line(cell)).collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let numeric = |column: usize| {
        let mut cells = rows.iter().skip(1).filter_map(|row| row.get(column)).peekable();
        cells.peek().is_some() && cells.all(|cell| *cell == "-" || cell.starts_with(|c: char| c.is_ascii_digit()))
    };
    let shape: Vec<(usize, bool)> = (0..columns).map(|c| (width(c).unwrap_or(0), numeric(c))).collect();
    let mut out = String::new();
    for row in &rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&shape)
            .map(|(cell, (width, right))| if *right { format!("{cell:>width$}") } else { format!("{cell:<width$}") })
            .collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// Names and values, a line each.
pub(super) fn fields(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter().map(|(name, value)| format!("{name:<width$}  {}\n", one_line(value))).collect::<Vec<_>>().concat()
}

/// What a table has where there is nothing.
pub(super) fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

/// A text of any shape, such as the reason that a member gave, in one row.
pub(super) fn squeezed(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Bytes for people.
pub(super) fn bytes(count: i64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut size = count as f64 / 1024.0;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    format!("{size:.1} {}", UNITS[unit])
}

/// A duration in the units it is typed in, the two largest that count.
pub(super) fn duration(duration: Duration) -> String {
    if duration < Duration::from_secs(1) && duration > Duration::ZERO {
        return format!("{}ms", duration.as_millis());
    }
    let mut seconds = duration.as_secs();
    let mut parts = Vec::new();
    for (unit, length) in [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)] {
        if seconds >= length {
            parts.push(format!("{}{unit}", seconds / length));
            seconds %= length;
        }
    }
    parts.truncate(2);
    if parts.is_empty() { "0s".to_owned() } else { parts.concat() }
}

/// The same for a duration of the contract.
pub(super) fn wire_duration(wire: &prost_types::Duration) -> String {
    Duration::try_from(*wire).map_or_else(|_| wire.to_string(), duration)
}

/// A time, to the second.
pub(super) fn time(time: &Timestamp) -> String {
    Timestamp { nanos: 0, ..*time }.to_string()
}

/// How long ago a time was, by the clock of this machine.
pub(super) fn ago(time: &Timestamp) -> String {
    let past = SystemTime::try_from(*time).ok().and_then(|time| time.elapsed().ok()).unwrap_or_default();
    duration(Duration::from_secs(past.as_secs()))
}

/// How long it is until a time, by the same clock.
pub(super) fn left(time: &Timestamp) -> String {
    let now = SystemTime::now();
    let left = SystemTime::try_from(*time).ok().and_then(|time| time.duration_since(now).ok()).unwrap_or_default();
    duration(Duration::from_secs(left.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_must_be() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let shown = table(&[row(["NAME", "EVENTS", "FILTERS"]), row(["orders", "12", "a.>"]), row(["x", "3456", ""])]);
        assert_eq!(shown, "NAME    EVENTS  FILTERS\norders      12  a.>\nx         3456\n");
        assert_eq!(fields(&[("a", "1".to_owned()), ("long", "2".to_owned())]), "a     1\nlong  2\n");
    }

    #[test]
    fn nothing_in_a_text_moves_a_terminal_or_makes_a_line() {
        let evil = "a\u{1b}]0;owned\u{7}\u{1b}[2J\rb\u{9b}1mc\u{7f}\u{202e}d";
        let seen = r"a\u001b]0;owned\u0007\u001b[2J\u000db\u009b1mc\u007f\u202ed";
        assert_eq!((visible(evil), visible("é\tö\n👨‍👩‍👧 שלום")), (seen.into(), "é\tö\n👨‍👩‍👧 שלום".into()));
        let event =
            |text: &str| Event { topic: "a".into(), payload: Some(Payload::Text(text.into())), ..Event::default() };
        assert_eq!(one_line(&event_line(&event("x\nb forged"))), r"a x\nb forged");
        assert_eq!(table(&[vec!["N".to_owned()], vec!["x\ny\u{1b}".to_owned()]]), "N\nx\\ny\\u001b\n");
        let attributes = std::collections::HashMap::from([("n".to_owned(), "v\ntopic  b".to_owned())]);
        let event = Event { attributes, ..event("two\nlines") };
        let page = event_page(&ReceivedEvent { event: Some(event), sequence: 1, ..ReceivedEvent::default() });
        assert_eq!(page, "sequence   1\ntopic      a\nattribute  n=v\\ntopic  b\n\ntwo\nlines\n");
        let json: serde_json::Value =
            serde_json::from_str(&visible(&json!({ "text": evil }).to_string())).expect("JSON");
        assert_eq!(json["text"], evil);
    }

    #[test]
    fn sizes_and_durations_are_short() {
        for (count, shown) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (10 << 20, "10.0 MiB")] {
            assert_eq!(bytes(count), shown);
        }
        assert_eq!(bytes(i64::MAX), "8192.0 PiB");
        for (ms, shown) in [(0, "0s"), (250, "250ms"), (30_000, "30s"), (5_400_000, "1h30m"), (604_800_000, "7d")] {
            assert_eq!(duration(Duration::from_millis(ms)), shown);
        }
    }

    #[test]
    fn a_live_event_has_only_its_own_fields() {
        let event = Event { topic: "a".into(), payload: Some(Payload::Text("x".into())), ..Event::default() };
        let live = ReceivedEvent { event: Some(event), attempt: 1, ..ReceivedEvent::default() };
        assert_eq!(event_json(&live), json!({ "topic": "a", "text": "x" }));
        let stored = ReceivedEvent { stream: "s".into(), sequence: 7, ..live };
        assert_eq!(
            event_json(&stored),
            json!({ "stream": "s", "sequence": 7, "attempt": 1, "topic": "a", "text": "x" })
        );
        let again = ReceivedEvent { redelivered: true, ..stored };
        assert_eq!(event_json(&again)["redelivered"], true);
    }
}
