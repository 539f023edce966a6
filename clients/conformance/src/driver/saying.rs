//! What the driver says: one report a line, whole, from whichever task.

use std::io::{Write, stdout};

use switchyard_client::{Error, State, Status};
use switchyard_conformance::protocol::{self, Failure, Phase, Report};

use crate::mutant::Mutant;

/// Where reports go.
#[derive(Debug, Clone)]
pub(crate) struct Out;

impl Out {
    pub(crate) fn new() -> Self {
        Self
    }

    /// Says one thing. Without anybody who listens there is nothing to say.
    pub(crate) fn say(&self, report: &Report) {
        let Ok(mut line) = serde_json::to_vec(report) else { return };
        line.push(b'\n');
        let mut out = stdout().lock();
        out.write_all(&line).and_then(|()| out.flush()).ok();
    }
}

pub(crate) fn failure(error: &Error) -> Failure {
    Failure { reason: error.reason().to_owned(), text: error.to_string() }
}

/// Says in which state the client is.
pub(crate) fn state(out: &Out, mutant: Option<Mutant>, status: &Status) {
    let state = match status.state {
        State::Connecting => Phase::Connecting,
        State::Up => Phase::Up,
        State::Draining => Phase::Draining,
        State::Waiting => Phase::Waiting,
        State::Closing => Phase::Closing,
        State::Closed => Phase::Closed,
        State::Failed => Phase::Failed,
        _ => Phase::Idle,
    };
    if mutant == Some(Mutant::SkipConnecting) && state == Phase::Connecting {
        return;
    }
    if mutant == Some(Mutant::Leak) && state == Phase::Up {
        for _ in 0..3 {
            std::mem::forget(std::fs::File::open("/dev/null"));
        }
    }
    let reason = status.reason.as_ref().map(|error| error.reason().to_owned()).unwrap_or_default();
    let (address, session) = (status.address.clone(), status.session_id.clone());
    out.say(&Report::State(protocol::State { state, reason, address, session }));
}
