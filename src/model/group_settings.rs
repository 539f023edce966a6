//! What a group on a stream is told to do with events that are not acknowledged.

use std::time::Duration;

use super::{
    StreamName,
    limits::{MAX_BACKOFF_STEPS, MAX_TIME_MS, MAX_UNACKED, MIN_ACK_DEADLINE_MS},
};

/// The settings of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSettings {
    /// How long a member has to acknowledge an event, from when it was written to the transport.
    pub ack_deadline: Duration,
    /// After this many failed attempts an event is given up; 0 = never.
    pub max_attempts: u32,
    /// How long an event waits after its first, second, third failure, and so on; the last counts for all that follow.
    /// With none it waits for nothing.
    pub backoff: Vec<Duration>,
    /// The most events that are handed out and not acknowledged at a time.
    pub max_unacked: u32,
    /// Where events go that are given up; without it they are dropped.
    pub dead_letter_stream: Option<StreamName>,
}

impl Default for GroupSettings {
    fn default() -> Self {
        Self {
            ack_deadline: Duration::from_secs(30),
            max_attempts: 5,
            backoff: [1, 5, 30].map(Duration::from_secs).to_vec(),
            max_unacked: 1000,
            dead_letter_stream: None,
        }
    }
}

/// Which setting of a group is outside its limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GroupSettingsError {
    /// The time to acknowledge is too short or too long.
    #[error("`ack_deadline` is {MIN_ACK_DEADLINE_MS} ms to a day")]
    AckDeadline,
    /// Too many waits, or one that is too long.
    #[error("`backoff` has at most {MAX_BACKOFF_STEPS} waits, none longer than a day")]
    Backoff,
    /// None, or too many.
    #[error("`max_unacked` is 1 to {MAX_UNACKED}")]
    MaxUnacked,
}

impl GroupSettings {
    /// Refuses settings outside their limits.
    pub fn check(&self) -> Result<(), GroupSettingsError> {
        let longest = Duration::from_millis(MAX_TIME_MS);
        if !(Duration::from_millis(MIN_ACK_DEADLINE_MS)..=longest).contains(&self.ack_deadline) {
            return Err(GroupSettingsError::AckDeadline);
        }
        if self.backoff.len() > MAX_BACKOFF_STEPS || self.backoff.iter().any(|wait| *wait > longest) {
            return Err(GroupSettingsError::Backoff);
        }
        if !(1..=MAX_UNACKED).contains(&self.max_unacked) {
            return Err(GroupSettingsError::MaxUnacked);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_within_the_limits() {
        assert_eq!(GroupSettings::default().check(), Ok(()));
    }

    #[test]
    fn settings_are_taken_at_their_limits_and_refused_past_them() {
        let with = |change: fn(&mut GroupSettings, u64), to: u64| {
            let mut settings = GroupSettings::default();
            change(&mut settings, to);
            settings.check()
        };
        let deadline = |settings: &mut GroupSettings, ms| settings.ack_deadline = Duration::from_millis(ms);
        assert_eq!(with(deadline, MIN_ACK_DEADLINE_MS), Ok(()));
        assert_eq!(with(deadline, MIN_ACK_DEADLINE_MS - 1), Err(GroupSettingsError::AckDeadline));
        assert_eq!(with(deadline, MAX_TIME_MS), Ok(()));
        assert_eq!(with(deadline, MAX_TIME_MS + 1), Err(GroupSettingsError::AckDeadline));
        let wait = |settings: &mut GroupSettings, ms| settings.backoff = vec![Duration::from_millis(ms)];
        assert_eq!(with(wait, MAX_TIME_MS), Ok(()));
        assert_eq!(with(wait, MAX_TIME_MS + 1), Err(GroupSettingsError::Backoff));
        let steps = |settings: &mut GroupSettings, n| settings.backoff = vec![Duration::ZERO; n as usize];
        assert_eq!(with(steps, MAX_BACKOFF_STEPS as u64), Ok(()));
        assert_eq!(with(steps, MAX_BACKOFF_STEPS as u64 + 1), Err(GroupSettingsError::Backoff));
        let unacked = |settings: &mut GroupSettings, n| settings.max_unacked = n as u32;
        assert_eq!(with(unacked, u64::from(MAX_UNACKED)), Ok(()));
        assert_eq!(with(unacked, u64::from(MAX_UNACKED) + 1), Err(GroupSettingsError::MaxUnacked));
        assert_eq!(with(unacked, 0), Err(GroupSettingsError::MaxUnacked));
    }
}
