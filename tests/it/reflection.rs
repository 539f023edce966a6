//! Reflection by its own protocol, under both of its names.

use std::net::SocketAddr;

use prost::Message;
use tokio_stream::StreamExt;
use tonic::Request;
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, ServerReflectionResponse, server_reflection_request::MessageRequest,
    server_reflection_response::MessageResponse,
};

use crate::harness::{channel, hub, soon};

/// Asks one question after the other in one stream, and gives the answers.
async fn ask(address: SocketAddr, path: &'static str, questions: Vec<MessageRequest>) -> Vec<MessageResponse> {
    let mut grpc = tonic::client::Grpc::new(channel(address).await);
    soon("a connection", grpc.ready()).await.expect("ready");
    let requests = questions
        .clone()
        .into_iter()
        .map(|question| ServerReflectionRequest { host: String::new(), message_request: Some(question) });
    let codec = tonic_prost::ProstCodec::<ServerReflectionRequest, ServerReflectionResponse>::default();
    let path = http::uri::PathAndQuery::from_static(path);
    let requests = Request::new(tokio_stream::iter(requests));
    let mut answers = soon("headers", grpc.streaming(requests, path, codec)).await.expect("a stream").into_inner();
    let mut got = Vec::new();
    while let Some(answer) = soon("an answer", answers.next()).await {
        let answer = answer.expect("the stream goes on");
        let asked = answer.original_request.and_then(|request| request.message_request);
        assert_eq!(asked.as_ref(), questions.get(got.len()));
        got.push(answer.message_response.expect("an answer"));
    }
    got
}

#[tokio::test]
async fn what_is_unknown_is_answered_in_the_stream_which_goes_on() {
    let hub = hub().await;
    let file_of = |symbol: &str| MessageRequest::FileContainingSymbol(symbol.into());
    for path in [
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ] {
        let questions = vec![
            file_of("nothing.Nothing"),
            MessageRequest::FileByFilename("nothing.proto".into()),
            file_of("switchyard.v1.ACK_MODE_EXPLICIT"),
            MessageRequest::ListServices(String::new()),
        ];
        let answers = ask(hub.address, path, questions).await;
        let [symbol, file, value, services] = &answers[..] else { panic!("{path}: {answers:?}") };
        for (answer, text) in [(symbol, "unknown symbol nothing.Nothing"), (file, "unknown file nothing.proto")] {
            let MessageResponse::ErrorResponse(error) = answer else { panic!("{path}: {answer:?}") };
            assert_eq!((error.error_code, error.error_message.as_str()), (5, text), "{path}");
        }
        let MessageResponse::FileDescriptorResponse(files) = value else { panic!("{path}: {value:?}") };
        let file = prost_types::FileDescriptorProto::decode(&*files.file_descriptor_proto[0]).expect("a descriptor");
        assert!(file.enum_type.iter().any(|kind| kind.name() == "AckMode"), "{path}: {}", file.name());
        let MessageResponse::ListServicesResponse(list) = services else { panic!("{path}: {services:?}") };
        let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "grpc.health.v1.Health",
                "grpc.reflection.v1.ServerReflection",
                "grpc.reflection.v1alpha.ServerReflection",
                "switchyard.v1.AccessService",
                "switchyard.v1.BackupService",
                "switchyard.v1.GroupService",
                "switchyard.v1.HubService",
                "switchyard.v1.SessionService",
                "switchyard.v1.StreamService",
            ],
            "{path}"
        );
    }
}
