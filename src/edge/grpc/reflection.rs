//! `grpc.reflection.v1.ServerReflection`: what the services look like, for tools without proto files.
//!
//! What is not known is answered in the stream, which goes on, as the specification has it. It reads a fixed set of
//! descriptors and nothing of the hub. `v1alpha`, which older tools ask for, has the same messages byte for byte and is
//! the same service under its other name.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Uri};
use prost::Message as _;
use prost_reflect::{DescriptorPool, FileDescriptor};
use prost_types::{DescriptorProto, FileDescriptorSet};
use tokio_stream::{Stream, StreamExt};
use tonic::{Code, Response, Status, Streaming, body::Body, server::NamedService};
use tonic_reflection::{
    pb::{
        v1::{
            ErrorResponse, ExtensionNumberResponse, ExtensionRequest, FILE_DESCRIPTOR_SET, FileDescriptorResponse,
            ListServiceResponse, ServerReflectionRequest, ServerReflectionResponse, ServiceResponse,
            server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
        },
        v1alpha,
    },
    server::v1::{ServerReflection, ServerReflectionServer},
};
use tower::Service;

use crate::edge::wire::{forms::DESCRIPTORS, status::shown};

/// The path of the one call.
const CALL: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

/// The descriptors of everything that the main port serves, and of the details of errors. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Descriptors(Arc<Known>);

#[derive(Debug)]
struct Known {
    pool: DescriptorPool,
    /// The file of every name there is: types, fields, values, services, methods.
    symbols: HashMap<String, FileDescriptor>,
    services: Vec<String>,
}

impl Descriptors {
    /// Reads the descriptors that were compiled in.
    pub(super) fn new() -> anyhow::Result<Self> {
        let mut pool = DescriptorPool::decode(DESCRIPTORS)?;
        pool.decode_file_descriptor_set(FILE_DESCRIPTOR_SET)?;
        pool.decode_file_descriptor_set(v1alpha::FILE_DESCRIPTOR_SET)?;
        // So that tools can show what is inside the details of an error. Some of these files are there already, under
        // other names.
        for file in FileDescriptorSet::decode(tonic_types::pb::FILE_DESCRIPTOR_SET)?.file {
            let is_known = |message: &DescriptorProto| {
                pool.get_message_by_name(&format!("{}.{}", file.package(), message.name())).is_some()
            };
            if !file.message_type.iter().any(is_known) {
                pool.add_file_descriptor_proto(file)?;
            }
        }
        let mut services: Vec<_> = pool.services().map(|service| service.full_name().to_owned()).collect();
        services.sort();
        let symbols = symbols(&pool);
        Ok(Self(Arc::new(Known { pool, symbols, services })))
    }

    /// The service, and the same under its older name.
    pub(super) fn services(
        &self,
        max_request_bytes: usize,
    ) -> (ServerReflectionServer<Self>, Alpha<ServerReflectionServer<Self>>) {
        let service = ServerReflectionServer::new(self.clone()).max_decoding_message_size(max_request_bytes);
        (service.clone(), Alpha(service))
    }
}

/// The file of every name in the descriptors.
fn symbols(pool: &DescriptorPool) -> HashMap<String, FileDescriptor> {
    let mut symbols = HashMap::new();
    let mut add = |name: &str, file: FileDescriptor| {
        symbols.insert(name.to_owned(), file);
    };
    for message in pool.all_messages() {
        add(message.full_name(), message.parent_file());
        message.fields().for_each(|field| add(field.full_name(), field.parent_file()));
        message.oneofs().for_each(|oneof| add(oneof.full_name(), oneof.parent_file()));
    }
    for kind in pool.all_enums() {
        add(kind.full_name(), kind.parent_file());
        kind.values().for_each(|value| add(value.full_name(), value.parent_file()));
    }
    for extension in pool.all_extensions() {
        add(extension.full_name(), extension.parent_file());
    }
    for service in pool.services() {
        add(service.full_name(), service.parent_file());
        service.methods().for_each(|method| add(method.full_name(), method.parent_file()));
    }
    symbols
}

impl Known {
    fn answer(&self, request: ServerReflectionRequest) -> ServerReflectionResponse {
        let answer = match &request.message_request {
            Some(wanted) => self.find(wanted),
            None => Err(unanswerable(Code::InvalidArgument, "the request asks for nothing".to_owned())),
        };
        ServerReflectionResponse {
            valid_host: request.host.clone(),
            original_request: Some(request),
            message_response: Some(answer.unwrap_or_else(MessageResponse::ErrorResponse)),
        }
    }

    fn find(&self, wanted: &MessageRequest) -> Result<MessageResponse, ErrorResponse> {
        match wanted {
            MessageRequest::FileByFilename(name) => {
                file(self.pool.get_file_by_name(name).as_ref(), || format!("unknown file {}", shown(name)))
            }
            MessageRequest::FileContainingSymbol(name) => {
                file(self.symbols.get(name), || format!("unknown symbol {}", shown(name)))
            }
            MessageRequest::FileContainingExtension(ExtensionRequest { containing_type, extension_number }) => {
                let of = self.pool.get_message_by_name(containing_type);
                let number = u32::try_from(*extension_number).ok();
                let extension = of.zip(number).and_then(|(of, number)| of.get_extension(number));
                file(extension.map(|extension| extension.parent_file()).as_ref(), || {
                    format!("unknown extension {extension_number} of {}", shown(containing_type))
                })
            }
            MessageRequest::AllExtensionNumbersOfType(name) => {
                let of = self
                    .pool
                    .get_message_by_name(name)
                    .ok_or_else(|| unanswerable(Code::NotFound, format!("unknown message {}", shown(name))))?;
                Ok(MessageResponse::AllExtensionNumbersResponse(ExtensionNumberResponse {
                    base_type_name: name.clone(),
                    extension_number: of.extensions().map(|extension| extension.number().cast_signed()).collect(),
                }))
            }
            MessageRequest::ListServices(_) => {
                let service = self.services.iter().map(|name| ServiceResponse { name: name.clone() }).collect();
                Ok(MessageResponse::ListServicesResponse(ListServiceResponse { service }))
            }
        }
    }
}

/// A file as it is handed out: alone, since tools ask for what it imports.
fn file(found: Option<&FileDescriptor>, problem: impl FnOnce() -> String) -> Result<MessageResponse, ErrorResponse> {
    let file = found.ok_or_else(|| unanswerable(Code::NotFound, problem()))?;
    let file_descriptor_proto = vec![file.encode_to_vec()];
    Ok(MessageResponse::FileDescriptorResponse(FileDescriptorResponse { file_descriptor_proto }))
}

fn unanswerable(code: Code, error_message: String) -> ErrorResponse {
    ErrorResponse { error_code: code.into(), error_message }
}

#[tonic::async_trait]
impl ServerReflection for Descriptors {
    type ServerReflectionInfoStream =
        Pin<Box<dyn Stream<Item = Result<ServerReflectionResponse, Status>> + Send + 'static>>;

    /// Takes the next question when the answer to the last one was taken.
    async fn server_reflection_info(
        &self,
        request: tonic::Request<Streaming<ServerReflectionRequest>>,
    ) -> Result<Response<Self::ServerReflectionInfoStream>, Status> {
        let known = Arc::clone(&self.0);
        let answers = request.into_inner().map(move |request| Ok(known.answer(request?)));
        Ok(Response::new(Box::pin(answers)))
    }
}

/// The service under the name it had before it was finished.
#[derive(Debug, Clone)]
pub(super) struct Alpha<S>(S);

impl<S> NamedService for Alpha<S> {
    const NAME: &'static str = "grpc.reflection.v1alpha.ServerReflection";
}

impl<S: Service<Request<Body>>> Service<Request<Body>> for Alpha<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> S::Future {
        *request.uri_mut() = Uri::from_static(CALL);
        self.0.call(request)
    }
}

#[cfg(test)]
mod tests {
    use prost_types::FileDescriptorProto;

    use super::*;

    fn ask(wanted: MessageRequest) -> MessageResponse {
        let request = ServerReflectionRequest { host: "hub".into(), message_request: Some(wanted) };
        let answer = Descriptors::new().expect("descriptors").0.answer(request.clone());
        assert_eq!((answer.valid_host.as_str(), answer.original_request), ("hub", Some(request)));
        answer.message_response.expect("an answer")
    }

    #[test]
    fn every_kind_of_name_is_found_in_its_file() {
        for name in [
            "switchyard.v1.Event",
            "switchyard.v1.Event.topic",
            "switchyard.v1.Event.payload",
            "switchyard.v1.AckMode",
            "switchyard.v1.ACK_MODE_EXPLICIT",
            "switchyard.v1.HubService",
            "switchyard.v1.HubService.Publish",
            "grpc.health.v1.HealthCheckResponse.ServingStatus",
            "grpc.health.v1.HealthCheckResponse.SERVING",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
            "google.rpc.ErrorInfo",
        ] {
            let answer = ask(MessageRequest::FileContainingSymbol(name.into()));
            let MessageResponse::FileDescriptorResponse(files) = answer else { panic!("{name}: {answer:?}") };
            let file = FileDescriptorProto::decode(&*files.file_descriptor_proto[0]).expect("a descriptor");
            assert!(name.starts_with(file.package()), "{name} in {}", file.name());
            let by_name = ask(MessageRequest::FileByFilename(file.name().into()));
            assert_eq!(by_name, MessageResponse::FileDescriptorResponse(files), "{name}");
        }
    }

    #[test]
    fn what_is_unknown_is_told_and_named() {
        let extension = ExtensionRequest { containing_type: "switchyard.v1.Event".into(), extension_number: -1 };
        for (wanted, named) in [
            (MessageRequest::FileContainingSymbol("a.Nothing".into()), "symbol a.Nothing"),
            (MessageRequest::FileContainingSymbol(".switchyard.v1.Event".into()), "symbol .switchyard"),
            (MessageRequest::FileByFilename("nothing.proto".into()), "file nothing.proto"),
            (MessageRequest::FileContainingExtension(extension), "extension -1 of switchyard.v1.Event"),
            (
                MessageRequest::AllExtensionNumbersOfType("switchyard.v1.AckMode".into()),
                "message switchyard.v1.AckMode",
            ),
            (MessageRequest::FileContainingSymbol("x".repeat(60_000)), "symbol xxx"),
        ] {
            let answer = ask(wanted);
            let MessageResponse::ErrorResponse(error) = answer else { panic!("{named}: {answer:?}") };
            assert_eq!(error.error_code, 5, "{named}");
            assert!(error.error_message.contains(named) && error.error_message.len() < 200, "{error:?}");
        }
        let none = ask(MessageRequest::AllExtensionNumbersOfType("switchyard.v1.Event".into()));
        let MessageResponse::AllExtensionNumbersResponse(none) = none else { panic!("{none:?}") };
        assert!(none.extension_number.is_empty());
    }
}
