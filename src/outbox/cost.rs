//! What a subscription costs in memory: its record, its filters, and all that is kept for them elsewhere.
//!
//! Everything that a client can make larger has a price here, so that what is counted bounds what is used. Filters that
//! share their beginnings share memory, too; each still counts as if it were alone. The prices are measured: see
//! `tests/counts.rs`. Pure.

use crate::model::{Filter, Token};

/// The record of a subscription, where it is found, and what its session knows of its rights.
const SUBSCRIPTION_BYTES: usize = 192;
/// What one from a stream has besides: its position, its feed, and its place in lists.
const STORED_BYTES: usize = 448;
/// What a member of a group has besides: its seat, and its name.
const GROUP_BYTES: usize = 384;
/// A filter besides its text: where it ends in the trie, and the handles on its text.
const FILTER_BYTES: usize = 48;
/// So often a text is kept as a whole: by the feed of a stream, and by what its session knows of its rights.
const TEXTS: usize = 2;
/// A token: a node of the trie, and the edge to it.
const TOKEN_BYTES: usize = 88;
/// A token up to this length stands in its node.
const SHORT_TOKEN_BYTES: usize = 14;
/// A longer one needs so much besides its text.
const LONG_TOKEN_BYTES: usize = 48;

/// Costs are kept in steps of so many bytes: in two bytes, since there may be a million.
const STEP_BYTES: usize = 16;

/// What one subscription costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cost(u16);

impl Cost {
    /// Of a subscription with such filters: from a stream, in a group, or neither.
    pub(super) fn of(filters: &[Filter], stored: bool, in_group: bool) -> Self {
        let stored = if stored { STORED_BYTES } else { 0 };
        let group = if in_group { GROUP_BYTES } else { 0 };
        let of_filters: usize = filters.iter().map(filter_bytes).sum();
        // All of a stream is one token.
        let of_filters = of_filters.max(FILTER_BYTES + TOKEN_BYTES);
        let steps = (SUBSCRIPTION_BYTES + stored + group + of_filters).div_ceil(STEP_BYTES);
        // The limits on filters keep it below a megabyte.
        Self(u16::try_from(steps).unwrap_or(u16::MAX))
    }

    /// In bytes.
    pub fn bytes(self) -> usize {
        usize::from(self.0) * STEP_BYTES
    }
}

fn filter_bytes(filter: &Filter) -> usize {
    let tokens: usize = filter.tokens().map(token_bytes).sum();
    FILTER_BYTES + TEXTS * filter.as_str().len() + tokens
}

fn token_bytes(token: Token<'_>) -> usize {
    match token {
        Token::Literal(text) if text.len() > SHORT_TOKEN_BYTES => TOKEN_BYTES + LONG_TOKEN_BYTES + text.len(),
        _ => TOKEN_BYTES,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::limits::{MAX_FILTERS, MAX_NAME_BYTES};

    fn filter(text: &str) -> Filter {
        Filter::parse(text.as_bytes()).expect("a filter")
    }

    #[test]
    fn a_long_token_costs_its_bytes() {
        let cost = |text: &str| Cost::of(&[filter(text)], false, false).bytes();
        assert!(cost(&"x".repeat(MAX_NAME_BYTES)) >= cost("x") + 2 * (MAX_NAME_BYTES - 1));
        assert!(cost("a.b") > cost("a"));
    }

    #[test]
    fn one_connection_has_room_for_as_many_subscriptions_as_a_session_may_have() {
        let cost = Cost::of(&[filter("orders.eu.*.created")], false, false).bytes();
        assert!(100_000 * cost <= crate::memory::Options::default().filters_bytes / 2, "{cost} bytes each");
    }

    #[test]
    fn the_most_filters_fit_a_cost() {
        let longest = vec!["tttttttt"; 28].join(".");
        let filters = vec![filter(&longest); MAX_FILTERS as usize];
        let cost = Cost::of(&filters, true, true);
        assert!(cost < Cost(u16::MAX));
        assert!(cost.bytes() > MAX_FILTERS as usize * longest.len());
    }
}
