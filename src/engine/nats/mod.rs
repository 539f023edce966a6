//! An engine over NATS JetStream, as far as it is pure: what becomes of appends (`unit`, with the one unit that is on its way in
//! `flight` and the words of both in `request`). It knows neither a connection nor a clock.

mod flight;
mod request;
mod unit;
