//! How often sessions were lost, by reason. Pure.

use std::collections::BTreeMap;

use crate::error::Error;

/// Losses are counted by at most this many reasons; further ones are counted together.
const MOST_REASONS: usize = 64;

/// The counts.
#[derive(Debug, Default)]
pub(super) struct Losses(BTreeMap<String, u64>);

impl Losses {
    /// One more: by the reason that the hub has named, or by the code.
    pub(super) fn count(&mut self, error: &Error) {
        let reason = if error.reason().is_empty() { format!("{:?}", error.code()) } else { error.reason().to_owned() };
        let is_known = self.0.contains_key(&reason);
        let reason = if is_known || self.0.len() < MOST_REASONS { reason } else { "OTHER".to_owned() };
        *self.0.entry(reason).or_default() += 1;
    }

    pub(super) fn all(&self) -> &BTreeMap<String, u64> {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn no_more_reasons_are_counted_than_the_limit_and_none_is_forgotten() {
        let mut losses = Losses::default();
        for n in 0..=MOST_REASONS {
            losses.count(&Error::new(ErrorKind::Lost, tonic::Code::Unavailable, &format!("REASON_{n}"), "gone"));
        }
        losses.count(&Error::new(ErrorKind::Lost, tonic::Code::Unavailable, "REASON_0", "gone"));
        assert_eq!(losses.all().len(), MOST_REASONS + 1);
        assert_eq!((losses.all()["OTHER"], losses.all()["REASON_0"]), (1, 2));
    }
}
