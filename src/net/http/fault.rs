//! What the HTTP/2 library ends a connection for, as it is counted.

use h2::Reason;

use crate::telemetry::ConnectionEnd;

/// What the library ended a connection for, if it did. It tells the kind of a flood in words only.
pub(super) fn fault(error: &h2::Error) -> Option<ConnectionEnd> {
    if !error.is_library() || !error.is_go_away() {
        return None;
    }
    let kinds = [
        ("too_many_resets", ConnectionEnd::EarlyResets),
        ("too_many_internal_resets", ConnectionEnd::InternalResets),
        ("too_many_data_frames", ConnectionEnd::SmallFrames),
        ("too_many_continuations", ConnectionEnd::Headers),
        ("header_list_way_too_large", ConnectionEnd::Headers),
    ];
    let text = error.to_string();
    let known = kinds.into_iter().find(|(kind, _)| text.contains(kind)).map(|(_, end)| end);
    let other = match error.reason() {
        Some(Reason::ENHANCE_YOUR_CALM) => ConnectionEnd::Flood,
        _ => ConnectionEnd::Protocol,
    };
    Some(known.unwrap_or(other))
}
