//! Canonical proto3 JSON of the whole contract, in both directions, for edges whose clients do not speak protobuf.
//!
//! One table of the contract ([`schema`], made of its descriptors) serves both. A [`Message`] reads JSON straight into
//! protobuf, some at a time and without building anything in between, and writes protobuf as JSON; so no message has another
//! generated form (docs/adr/0032-json.md). The JSON of an event that several clients get is made once and kept for a while
//! ([`Forms`]).
//!
//! Requests are read strictly: unknown and duplicate fields are refused with their path. The room knows no commands, rights or
//! sockets, and never decides what a message means.

mod decode;
mod encode;
mod error;
mod escape;
mod event;
mod forms;
mod frame;
mod levels;
mod protobuf;
mod scalars;
mod scan;
mod schema;
#[cfg(test)]
mod tests;
mod well_known;

use bytes::Bytes;

pub use error::{EncodeError, JsonError};
pub use event::put_event;
pub use forms::Forms;
pub use frame::put_events;

use self::schema::{Shape, Type};

/// A message of the contract.
#[derive(Debug, Clone, Copy)]
pub struct Message(&'static Type);

/// The message with a full name, such as `switchyard.v1.SessionRequest`.
pub fn message(full_name: &str) -> Option<Message> {
    schema::schema().find(full_name).filter(|of| of.shape == Shape::Object).map(Message)
}

impl Message {
    /// Its full name.
    pub fn name(self) -> &'static str {
        &self.0.name
    }

    /// Reads a message, all of it at once: for small ones. See [`Self::decoding`].
    pub fn decode(self, json: &[u8]) -> Result<Vec<u8>, JsonError> {
        let mut machine = decode::Machine::new(self.0, json.len(), decode::TOGETHER);
        while !machine.is_whole(json) {
            machine.some(json)?;
        }
        Ok(machine.into_bytes())
    }

    /// Begins to read a message. Names are those of JSON or those of the contract, numbers of 64 bits are strings or numbers,
    /// enums are names or numbers, and `null` is the same as no field.
    pub fn decoding(self, json: Bytes) -> Decoding {
        Decoding { machine: decode::Machine::new(self.0, json.len(), decode::TOGETHER), json }
    }

    /// Puts a message as JSON on one line, without the fields that have default values.
    pub fn encode(self, protobuf: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let at = out.len();
        encode::put_message(self.0, protobuf, out).inspect_err(|_| out.truncate(at))
    }
}

/// A message that is being read, in parts between which others can work.
#[derive(Debug)]
pub struct Decoding {
    machine: decode::Machine,
    json: Bytes,
}

impl Decoding {
    /// Whether all of it was read.
    pub fn is_whole(&self) -> bool {
        self.machine.is_whole(&self.json)
    }

    /// Reads some more: some 50 µs. Says how many steps of `tasks::Turn` that took.
    pub fn some(&mut self) -> Result<usize, JsonError> {
        self.machine.some(&self.json)
    }

    /// The memory of what is made of the JSON, in bytes: at first as much as the JSON has.
    pub fn made_bytes(&self) -> usize {
        self.machine.made_bytes()
    }

    /// The message in protobuf, once all of it was read. It is at most four times as long as the JSON.
    pub fn into_bytes(self) -> Vec<u8> {
        self.machine.into_bytes()
    }
}
