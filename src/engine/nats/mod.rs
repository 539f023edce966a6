//! An engine over NATS JetStream, as far as it is pure: what becomes of appends (`unit`, with the one unit that is on its way in
//! `flight` and the words of both in `request`), and who owns a group (`owner`). Neither knows a connection or a clock.

mod flight;
mod owner;
mod request;
mod unit;
