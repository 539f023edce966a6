//! What the application says of an event, and the command that it becomes. Pure.

use std::time::Duration;

use crate::proto::v1::{AckOutcome, Acknowledge};

/// The longest reason that a hub takes, in bytes.
const MAX_REASON_BYTES: usize = 1024;

/// What the application says of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Ack,
    Nack { delay: Option<Duration>, reason: String },
    Reject { reason: String },
}

impl Verdict {
    /// The event is not to come again.
    pub(crate) fn is_final(&self) -> bool {
        !matches!(self, Self::Nack { .. })
    }

    pub(crate) fn command(&self) -> Acknowledge {
        let (outcome, delay, reason) = match self {
            Self::Ack => (AckOutcome::Ack, None, ""),
            Self::Nack { delay, reason } => (AckOutcome::Nack, *delay, reason.as_str()),
            Self::Reject { reason } => (AckOutcome::Reject, None, reason.as_str()),
        };
        let mut end = reason.len().min(MAX_REASON_BYTES);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        Acknowledge {
            outcome: outcome.into(),
            delay: delay.and_then(|delay| delay.try_into().ok()),
            reason: reason[..end].to_owned(),
            ..Acknowledge::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_cut_to_what_a_hub_takes_and_between_characters() {
        for (reason, expected) in [
            ("x".repeat(1024), 1024),
            ("x".repeat(1025), 1024),
            ("ä".repeat(600), 1024),
            ("x".repeat(1023) + "ä", 1023),
        ] {
            let command = Verdict::Reject { reason: reason.clone() }.command();
            assert_eq!(command.reason.len(), expected);
            assert!(reason.starts_with(&command.reason));
        }
    }
}
