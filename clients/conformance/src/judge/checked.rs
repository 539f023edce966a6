//! What a rule has found in a history. Pure.

/// What one rule found.
#[derive(Debug, Default)]
pub(super) struct Checked {
    /// How often there was something to judge.
    pub(super) evidence: usize,
    pub(super) problems: Vec<String>,
}

impl Checked {
    /// There was something to judge, and it is so or not.
    pub(super) fn that(&mut self, holds: bool, problem: impl FnOnce() -> String) {
        self.evidence += 1;
        if !holds {
            self.problems.push(problem());
        }
    }
}
