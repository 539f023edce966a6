//! Where the driver says what it has to say: one report a line, whole, from whichever task.

use std::{
    io::{Stdout, Write, stdout},
    sync::Arc,
};

use switchyard_conformance::protocol::Report;

/// Where reports go.
#[derive(Debug, Clone)]
pub(crate) struct Out(Arc<Stdout>);

impl Out {
    pub(crate) fn new() -> Self {
        Self(Arc::new(stdout()))
    }

    /// Says one thing. Without anybody who listens there is nothing to say.
    pub(crate) fn say(&self, report: &Report) {
        let Ok(mut line) = serde_json::to_vec(report) else { return };
        line.push(b'\n');
        let mut out = self.0.lock();
        out.write_all(&line).and_then(|()| out.flush()).ok();
    }
}
