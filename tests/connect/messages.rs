//! The messages of the suite, by their descriptors: nothing is generated from its protos, which are not in this repository.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions, Value};
use prost_types::FileDescriptorSet;
use switchyard::{
    edge::web::{Calls, Form, Read, Reading},
    json::JsonError,
};
use tonic::{Code, Status};

const PACKAGE: &str = "connectrpc.conformance.v1";

/// The protos of the suite.
#[derive(Clone)]
pub struct Protos(DescriptorPool);

impl Protos {
    /// Compiles those below a folder.
    pub fn compile(folder: &Path) -> Self {
        let files = ["connectrpc/conformance/v1/service.proto", "connectrpc/conformance/v1/server_compat.proto"];
        let set = protox::compile(files, [folder]).expect("protos");
        Self(DescriptorPool::from_file_descriptor_set(set).expect("descriptors"))
    }

    /// The calls of the suite, for the bridges.
    pub fn calls(&self) -> Calls {
        let files = self.0.files().map(|file| file.file_descriptor_proto().clone()).collect();
        Calls::of(&FileDescriptorSet { file: files }, |name| {
            self.0.get_message_by_name(name).map(|message| Arc::new(ByDescriptor(message)) as Arc<dyn Form>)
        })
    }

    pub fn decode(&self, name: &str, bytes: &[u8]) -> Result<DynamicMessage, Status> {
        DynamicMessage::decode(self.descriptor(name), bytes)
            .map_err(|error| Status::invalid_argument(format!("not a {name}: {error}")))
    }

    pub fn make(&self, name: &str) -> DynamicMessage {
        DynamicMessage::new(self.descriptor(name))
    }

    fn descriptor(&self, name: &str) -> MessageDescriptor {
        let name = if name.starts_with("google.") { name.to_owned() } else { format!("{PACKAGE}.{name}") };
        self.0.get_message_by_name(&name).unwrap_or_else(|| panic!("no message {name}"))
    }

    /// As an `Any`.
    pub fn any(&self, name: &str, bytes: Vec<u8>) -> Value {
        let mut any = self.make("google.protobuf.Any");
        any.set_field_by_name("type_url", Value::String(format!("type.googleapis.com/{PACKAGE}.{name}")));
        any.set_field_by_name("value", Value::Bytes(bytes.into()));
        Value::Message(any)
    }
}

/// JSON by prost-reflect, which knows any message. For its contract the hub has tables of its own.
#[derive(Debug)]
struct ByDescriptor(MessageDescriptor);

impl Form for ByDescriptor {
    fn read(&self, json: Bytes) -> Reading {
        let kind = self.0.clone();
        Box::new(move || {
            let mut json = serde_json::Deserializer::from_slice(&json);
            let message = DynamicMessage::deserialize(kind.clone(), &mut json);
            match message.and_then(|message| json.end().map(|()| message)) {
                Ok(message) => Ok(Read::Whole(message.encode_to_vec())),
                Err(error) => Err(JsonError { path: String::new(), problem: error.to_string() }),
            }
        })
    }

    fn write(&self, protobuf: &[u8], out: &mut Vec<u8>) -> bool {
        let Ok(message) = DynamicMessage::decode(self.0.clone(), protobuf) else { return false };
        let mut json = serde_json::Serializer::new(out);
        message.serialize_with_options(&mut json, &SerializeOptions::new()).is_ok()
    }
}

/// Reading messages whose fields are known to be there.
pub trait Fields {
    fn message(&self, field: &str) -> Option<DynamicMessage>;
    fn messages(&self, field: &str) -> Vec<DynamicMessage>;
    fn list(&self, field: &str) -> Vec<Value>;
    fn number(&self, field: &str) -> u32;
    fn text(&self, field: &str) -> String;
    fn bytes(&self, field: &str) -> Vec<u8>;
}

impl Fields for DynamicMessage {
    fn message(&self, field: &str) -> Option<DynamicMessage> {
        self.has_field_by_name(field).then(|| self.get_field_by_name(field)?.as_message().cloned())?
    }

    fn messages(&self, field: &str) -> Vec<DynamicMessage> {
        self.list(field).iter().filter_map(|value| value.as_message().cloned()).collect()
    }

    fn list(&self, field: &str) -> Vec<Value> {
        let value = self.get_field_by_name(field).unwrap_or_else(|| panic!("no field {field}"));
        value.as_list().expect("a list").to_vec()
    }

    fn number(&self, field: &str) -> u32 {
        let value = self.get_field_by_name(field).unwrap_or_else(|| panic!("no field {field}"));
        value.as_u32().or_else(|| value.as_enum_number().map(i32::unsigned_abs)).expect("a number")
    }

    fn text(&self, field: &str) -> String {
        let value = self.get_field_by_name(field).unwrap_or_else(|| panic!("no field {field}"));
        value.as_str().expect("a text").to_owned()
    }

    fn bytes(&self, field: &str) -> Vec<u8> {
        let value = self.get_field_by_name(field).unwrap_or_else(|| panic!("no field {field}"));
        value.as_bytes().expect("bytes").to_vec()
    }
}

/// Headers that a definition asks for.
pub fn headers(definition: Option<&DynamicMessage>, field: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for header in definition.map(|definition| definition.messages(field)).unwrap_or_default() {
        for value in header.list("value") {
            let name = HeaderName::try_from(header.text("name")).expect("a name");
            headers.append(name, HeaderValue::from_str(value.as_str().expect("a text")).expect("a value"));
        }
    }
    headers
}

/// The error that a definition asks for, with one more detail.
pub fn status(error: &DynamicMessage, info: Option<Value>) -> Status {
    let code = error.number("code").cast_signed();
    let message = error.text("message");
    let any = |any: &DynamicMessage| prost_types::Any { type_url: any.text("type_url"), value: any.bytes("value") };
    let info = info.and_then(|info| info.as_message().cloned());
    let details: Vec<_> = error.messages("details").iter().chain(&info).map(any).collect();
    let whole = tonic_types::pb::Status { code, message: message.clone(), details };
    Status::with_details(Code::from_i32(code), message, whole.encode_to_vec().into())
}
