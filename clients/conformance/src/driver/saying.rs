//! What the driver says of what the client has: states and errors, in the words of the judge.

use switchyard_client::{Error, State, Status};
use switchyard_conformance::protocol::{self, Failure, Phase, Report};

use crate::{mutant::Mutant, out::Out};

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
