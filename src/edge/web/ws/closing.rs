//! With which code a connection is closed, and what is said before it.
//!
//! Pages learn nothing else of an end, so each has a code that a program can act on, and the last message before a close that
//! is not in order is an `error` frame of no request: the status that the same session has as its last word over gRPC.

use super::{
    encoding::Encoding,
    frame::{Breach, close},
    sender::Closing,
};
use crate::{
    edge::wire::{
        frames,
        status::{self, Fault},
    },
    model::{End, Reason},
};

/// How the connection of a session is closed that has ended so. `breach` is what its client did, if that ended it.
pub(super) fn of_end(end: &End, breach: Option<Breach>, encoding: &Encoding) -> Closing {
    let fault = status::of_end(end);
    let breach = breach.filter(|_| matches!(end, End::BrokenFraming(_)));
    let code = breach.map_or_else(|| code(&fault), Breach::code);
    closing(&fault, code, encoding)
}

/// How a connection is closed that is refused as soon as it is there.
pub(super) fn of_refusal(fault: &Fault, encoding: &Encoding) -> Closing {
    closing(fault, code(fault), encoding)
}

fn closing(fault: &Fault, code: u16, encoding: &Encoding) -> Closing {
    let last = if code == close::NORMAL { Vec::new() } else { encoding.error(fault) };
    Closing { last, code, reason: fault.reason.name() }
}

fn code(fault: &Fault) -> u16 {
    use tonic::Code;
    match (fault.reason, fault.code()) {
        (_, Code::Ok) => close::NORMAL,
        (Reason::Draining, _) => close::AWAY,
        (Reason::EventTooLarge, _) => close::TOO_LARGE,
        (_, Code::Unauthenticated | Code::PermissionDenied) => close::POLICY,
        (_, Code::Internal) => close::INTERNAL,
        (Reason::QuotaExceeded | Reason::TooManySessions, _) | (_, Code::Unavailable) => close::TRY_LATER,
        (reason, _) => u16::try_from(i32::from(frames::reason(reason))).map_or(close::INTERNAL, |n| close::REASONS + n),
    }
}
