//! The labels that a client gives its session, for those who list sessions. Pure.

use super::limits::{MAX_LABEL_BYTES, MAX_LABELS};

/// What a label takes in memory besides its text, in bytes.
const OVERHEAD_BYTES: usize = 64;

/// Names and values, in the order of the names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Labels(Box<[(Box<str>, Box<str>)]>);

/// Why these are no labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LabelsError {
    /// There are more than [`MAX_LABELS`].
    #[error("has more than {MAX_LABELS} pairs")]
    TooMany,
    /// Together they are longer than [`MAX_LABEL_BYTES`].
    #[error("has {bytes} bytes; the limit is {MAX_LABEL_BYTES}")]
    TooLong {
        /// How long they are.
        bytes: usize,
    },
}

impl Labels {
    /// Checks names, of which none comes twice, and their values.
    pub fn check(pairs: impl IntoIterator<Item = (String, String)>) -> Result<Self, LabelsError> {
        let pairs = pairs.into_iter().map(|(name, value)| (name.into_boxed_str(), value.into_boxed_str()));
        let mut all: Vec<(Box<str>, Box<str>)> = pairs.collect();
        if all.len() > MAX_LABELS {
            return Err(LabelsError::TooMany);
        }
        let bytes = text_bytes(&all);
        if bytes > MAX_LABEL_BYTES {
            return Err(LabelsError::TooLong { bytes });
        }
        all.sort_unstable();
        Ok(Self(all.into()))
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// About how much memory they take, in bytes.
    pub fn cost(&self) -> usize {
        text_bytes(&self.0) + self.0.len() * OVERHEAD_BYTES
    }

    /// Names and values, in the order of the names.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }
}

fn text_bytes(pairs: &[(Box<str>, Box<str>)]) -> usize {
    pairs.iter().map(|(name, value)| name.len() + value.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_few_and_short_and_in_order() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let labels = Labels::check([pair("zone", "b"), pair("app", "billing")]).expect("labels");
        assert_eq!(labels.pairs().collect::<Vec<_>>(), [("app", "billing"), ("zone", "b")]);
        assert_eq!((labels.is_empty(), labels.cost()), (false, 15 + 2 * OVERHEAD_BYTES));
        let many = |count: usize| Labels::check((0..count).map(|n| (n.to_string(), String::new())));
        assert!(many(MAX_LABELS).is_ok());
        assert_eq!(many(MAX_LABELS + 1), Err(LabelsError::TooMany));
        let long = |bytes: usize| Labels::check([pair("n", &"v".repeat(bytes - 1))]);
        assert!(long(MAX_LABEL_BYTES).is_ok());
        let bytes = MAX_LABEL_BYTES + 1;
        assert_eq!(long(bytes), Err(LabelsError::TooLong { bytes }));
    }
}
