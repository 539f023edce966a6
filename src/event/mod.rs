//! The event: the one encoded form in which the hub keeps and passes it on, and every way to make one or to read one. Pure.
//!
//! The form is an entry of an `events` frame, so that a gRPC subscriber gets the stored bytes as they are
//! (docs/adr/0002-opaque-events.md). Protobuf *messages* stop at the wall (`grpc`); this form is the hub's own, and
//! compatible with protobuf. An event comes from its publisher's bytes ([`Event::accept`]) or from fields ([`Draft`]), by
//! the same rules, and is read by where a few fields are ([`Spans`]) or as a whole ([`View`]).
//!
//! It never decides who may publish or read, and knows no clock, lock or socket.

mod accept;
mod draft;
mod fields;
mod ids;
mod keys;
#[cfg(test)]
mod poison;
mod record;
mod shortened;
mod stored;
pub mod times;
mod view;

pub use draft::Draft;
pub use ids::EventIds;
pub use record::{Allocation, Event, Place, Span, Spans};
pub use stored::{DEAD_LETTER_ATTRIBUTES, GivenUp, Stamp};
pub use view::{Payload, View};
