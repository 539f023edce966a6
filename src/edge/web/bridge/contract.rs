//! The calls of the hub's own contract, whose messages `json` knows. Pure.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use serde_json::Value;

use super::calls::{Calls, Form, Read, Reading};
use crate::{
    edge::wire::forms::DESCRIPTORS,
    json::{self, Message},
};

impl Form for Message {
    fn read(&self, json: Bytes) -> Reading {
        let mut decoding = Some(self.decoding(json));
        Box::new(move || match &mut decoding {
            Some(reading) if !reading.is_whole() => reading.some().map(Read::Some),
            _ => Ok(Read::Whole(decoding.take().map(json::Decoding::into_bytes).unwrap_or_default())),
        })
    }

    fn write(&self, protobuf: &[u8], out: &mut Vec<u8>) -> bool {
        self.encode(protobuf, out).is_ok()
    }
}

impl Calls {
    /// All calls of the contract.
    pub fn of_contract() -> Result<Self, prost::DecodeError> {
        let form = |name: &str| json::message(name).map(|message| Arc::new(message) as Arc<dyn Form>);
        Ok(Self::of(&FileDescriptorSet::decode(DESCRIPTORS)?, form))
    }
}

/// A detail of an error for people to read.
pub(super) fn shown(name: &str, protobuf: &[u8]) -> Option<Value> {
    let mut out = Vec::new();
    json::message(name)?.encode(protobuf, &mut out).ok()?;
    serde_json::from_slice(&out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_has_messages_in_json_and_reading_has_no_side_effects() {
        let set = FileDescriptorSet::decode(DESCRIPTORS).expect("descriptors");
        let calls = Calls::of_contract().expect("calls");
        let methods = set.file.iter().flat_map(|file| &file.service).flat_map(|service| &service.method);
        assert_eq!(methods.count(), calls.paths().count());
        for path in calls.paths().filter(|path| path.starts_with("/switchyard.")) {
            let name = path.rsplit('/').next().expect("a name");
            let reads = ["Get", "List", "WhoAmI", "Check"].iter().any(|word| name.starts_with(word));
            assert_eq!(calls.get(path).expect("a call").safe, reads, "{path}");
        }
    }
}
