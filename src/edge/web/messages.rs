//! The messages of the contract that the doors of the web listener read and write as JSON.

use bytes::Bytes;

use crate::{
    edge::wire::{
        frames,
        status::{self, Fault},
    },
    hub::TokenKey,
    json::{self, Message},
    model::End,
    outbox::{Frame, Reply},
    tasks::Turn,
};

/// One message of the contract.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known(Option<Message>);

/// Those there are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Messages {
    /// Any frame of a session.
    pub(super) frame: Known,
    /// Any command of a session.
    pub(super) request: Known,
    pub(super) publish: Known,
    /// What became of one event.
    pub(super) result: Known,
    pub(super) subscribe: Known,
}

impl Messages {
    pub(super) fn find() -> Self {
        let known = |name: &str| Known(json::message(&format!("switchyard.v1.{name}")));
        Self {
            frame: known("SessionResponse"),
            request: known("SessionRequest"),
            publish: known("PublishRequest"),
            result: known("PublishResult"),
            subscribe: known("SubscribeRequest"),
        }
    }
}

impl Messages {
    /// The name of a frame that is not events, and its JSON.
    pub(super) fn named(&self, frame: Frame, tokens: &TokenKey) -> Result<(String, String), Fault> {
        let mut json = Vec::new();
        self.frame.encode(&frames::encode_reply(Reply { request_id: 0, frame }, tokens), &mut json)?;
        let text = String::from_utf8(json).map_err(|_| internal())?;
        let (name, json) = only_field(&text).ok_or_else(internal)?;
        Ok((name.to_owned(), json.to_owned()))
    }
}

/// The name and the JSON of the one field of an object that is written without spaces.
fn only_field(json: &str) -> Option<(&str, &str)> {
    json.strip_prefix("{\"")?.strip_suffix('}')?.split_once("\":")
}

impl Known {
    /// Begins to read the JSON of a client.
    pub(super) fn decoding(self, json: Bytes) -> Option<json::Decoding> {
        self.0.map(|message| message.decoding(json))
    }

    /// Reads the JSON of a client, in parts between which others work.
    pub(super) async fn decode(self, json: Bytes) -> Result<Bytes, Fault> {
        let mut decoding = self.decoding(json).ok_or_else(internal)?;
        let mut turn = Turn::default();
        while !decoding.is_whole() {
            let steps = decoding.some().map_err(|error| status::malformed(&error.path, error.to_string()))?;
            turn.spend(steps).await;
        }
        Ok(decoding.into_bytes().into())
    }

    /// Writes what the hub has encoded.
    pub(super) fn encode(self, protobuf: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        self.0.ok_or_else(internal)?.encode(protobuf, out).map_err(|_| internal())
    }
}

/// Nothing that a client did.
fn internal() -> Fault {
    status::of_end(&End::Internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_its_name() {
        let named = Messages::find().named(Frame::Pong("a\":{}".into()), &TokenKey::new([0; 32])).expect("a frame");
        assert_eq!(named, ("pong".to_owned(), "{\"nonce\":\"a\\\":{}\"}".to_owned()));
    }

    #[test]
    fn they_are_all_in_the_contract() {
        let Messages { frame, publish, result, subscribe, request } = Messages::find();
        assert!([frame, publish, result, subscribe, request].iter().all(|known| known.0.is_some()));
    }
}
