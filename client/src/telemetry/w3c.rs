//! The W3C context of a trace, as the attributes of an event have it. Pure.

use std::{collections::HashMap, str::FromStr};

use opentelemetry::{
    SpanId, TraceFlags, TraceId,
    trace::{SpanContext, TraceState},
};

/// The attribute that names the span an event comes from,
pub(crate) const PARENT: &str = "traceparent";
/// and the one with what the systems on its way add.
pub(crate) const STATE: &str = "tracestate";

/// The context in these attributes (version 00, and as far as they begin alike, later ones); `None` for what is none.
pub(crate) fn read(parent: &str, state: &str) -> Option<SpanContext> {
    let mut parts = parent.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let are_as_long = [version.len(), trace.len(), span.len(), flags.len()] == [2, 32, 16, 2];
    let are_digits = [version, trace, span, flags].iter().all(|part| is_hex(part));
    if !are_as_long || !are_digits || version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    let state = TraceState::from_str(state).unwrap_or_default();
    Some(SpanContext::new(trace, span, flags, true, state)).filter(SpanContext::is_valid)
}

/// Puts a context into attributes, unless there is none.
pub(crate) fn write(context: &SpanContext, attributes: &mut HashMap<String, String>) {
    if !context.is_valid() {
        return;
    }
    let flags = (context.trace_flags() & TraceFlags::SAMPLED).to_u8();
    let parent = format!("00-{}-{}-{flags:02x}", context.trace_id(), context.span_id());
    attributes.insert(PARENT.to_owned(), parent);
    let state = context.trace_state().header();
    if !state.is_empty() {
        attributes.insert(STATE.to_owned(), state);
    }
}

fn is_hex(part: &str) -> bool {
    part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_context_that_is_written_is_read_again() {
        let context = read(GOOD, "a=1,b=2").expect("a context");
        assert!(context.is_sampled() && context.is_remote());
        let mut attributes = HashMap::new();
        write(&context, &mut attributes);
        assert_eq!((attributes[PARENT].as_str(), attributes[STATE].as_str()), (GOOD, "a=1,b=2"));
    }

    #[test]
    fn a_later_version_is_read_and_what_is_no_context_is_not() {
        assert!(read("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00-later", "").is_some());
        assert!(read(GOOD, "no state").expect("a context").trace_state().header().is_empty());
        for bad in [
            "",
            "nonsense",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-\u{e9}af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-+1",
        ] {
            assert!(read(bad, "").is_none(), "{bad}");
        }
    }

    #[test]
    fn no_context_is_written_where_there_is_none() {
        let mut attributes = HashMap::new();
        write(&SpanContext::empty_context(), &mut attributes);
        assert!(attributes.is_empty());
    }
}
