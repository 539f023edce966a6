//! What a person, or a program, hears of a subscription besides its events. Pure.

use serde_json::{Value, json};

use crate::client::{Gap, GapReason, Opened};

/// It is open.
pub(super) fn opened(opened: &Opened) -> String {
    if opened.epoch == 0 {
        return "subscribed".to_owned();
    }
    format!(
        "subscribed from sequence {} (the stream has {} to {})",
        opened.start_sequence, opened.earliest_sequence, opened.latest_sequence
    )
}

/// Events do not come.
pub(super) fn gap(gap: &Gap) -> String {
    match gap.count {
        Some(count) => format!("gap: {count} events lost ({})", reason(gap.reason)),
        None if gap.reason == GapReason::Away => {
            format!("gap: events published while there was no session are lost ({})", reason(gap.reason))
        }
        None => format!("gap: events lost ({})", reason(gap.reason)),
    }
}

/// The same for a program: what is not known is left out.
pub(super) fn gap_json(gap: &Gap) -> Value {
    let mut object = json!({ "reason": reason(gap.reason) });
    if let Some(count) = gap.count {
        object["count"] = json!(count);
    }
    for (name, sequence) in [("from_sequence", gap.from), ("to_sequence", gap.to)] {
        if let Some(sequence) = sequence {
            object[name] = json!(sequence);
        }
    }
    json!({ "gap": object })
}

/// As the contract names it, where it does.
fn reason(reason: GapReason) -> &'static str {
    match reason {
        GapReason::Overflow => "GAP_REASON_OVERFLOW",
        GapReason::Conflated => "GAP_REASON_CONFLATED",
        GapReason::Retention => "GAP_REASON_RETENTION",
        GapReason::Epoch => "GAP_REASON_EPOCH",
        GapReason::Away => "AWAY",
        _ => "GAP_REASON_UNSPECIFIED",
    }
}
