//! The calls of a contract, as its descriptors have them: what goes in, what comes out, and what may be made by GET. Pure.

use std::{collections::HashMap, fmt::Debug, sync::Arc};

use bytes::Bytes;
use prost_types::{FileDescriptorSet, MethodDescriptorProto, method_options::IdempotencyLevel};

use crate::json::JsonError;

/// One type of message, in both its forms.
pub trait Form: Debug + Send + Sync {
    /// Begins to read a message in JSON.
    fn read(&self, json: Bytes) -> Reading;

    /// Writes a message that the hub made as JSON, behind what is there. False if it is none of this type.
    fn write(&self, protobuf: &[u8], out: &mut Vec<u8>) -> bool;
}

/// Reads on, some at a time so that others can work between.
pub type Reading = Box<dyn FnMut() -> Result<Read, JsonError> + Send>;

/// How far reading has come.
#[derive(Debug)]
pub enum Read {
    /// There is more. Some was read in this many steps of `tasks::Turn`.
    Some(usize),
    /// The message in protobuf. Nobody asks again.
    Whole(Vec<u8>),
}

/// What is known of a call.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) client_streams: bool,
    pub(super) server_streams: bool,
    /// Without side effects, as the contract says.
    pub(super) safe: bool,
    pub(super) request: Arc<dyn Form>,
    pub(super) response: Arc<dyn Form>,
}

impl Call {
    pub(super) fn is_unary(&self) -> bool {
        !self.client_streams && !self.server_streams
    }
}

/// All calls, by their paths.
#[derive(Debug, Default)]
pub struct Calls(HashMap<String, Call>);

impl Calls {
    /// The calls of all services in these descriptors. `form` gives the form of a message by its full name, such as
    /// `switchyard.v1.Event`; a call with a message that has none is left out.
    pub fn of(set: &FileDescriptorSet, form: impl Fn(&str) -> Option<Arc<dyn Form>>) -> Self {
        let form = |name: &str| form(name.trim_start_matches('.'));
        let call = |method: &MethodDescriptorProto| {
            let level = method.options.as_ref().map(prost_types::MethodOptions::idempotency_level);
            Some(Call {
                client_streams: method.client_streaming(),
                server_streams: method.server_streaming(),
                safe: level == Some(IdempotencyLevel::NoSideEffects),
                request: form(method.input_type())?,
                response: form(method.output_type())?,
            })
        };
        let mut calls = HashMap::new();
        for file in &set.file {
            for service in &file.service {
                let service_path = format!("/{}.{}/", file.package(), service.name());
                let named = |m: &MethodDescriptorProto| Some((format!("{service_path}{}", m.name()), call(m)?));
                calls.extend(service.method.iter().filter_map(named));
            }
        }
        Self(calls)
    }

    /// Their paths, such as `/switchyard.v1.HubService/Publish`, in no order.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub(super) fn get(&self, path: &str) -> Option<&Call> {
        self.0.get(path)
    }
}
