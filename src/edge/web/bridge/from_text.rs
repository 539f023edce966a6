//! The body of a request in gRPC-Web's text mode, as the bytes that it stands for.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::Frame;
use tonic::{Status, body::Body};

use super::{base64_text::Decoder, broken::Broken};
use crate::{edge::wire::status, model::CommandError};

/// The body of a request.
#[derive(Debug)]
pub(super) struct FromText {
    body: Body,
    decoder: Decoder,
    broken: Broken,
}

impl FromText {
    pub(super) fn new(body: Body, broken: Broken) -> Self {
        Self { body, decoder: Decoder::default(), broken }
    }
}

impl http_body::Body for FromText {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        loop {
            let decoded = match ready!(Pin::new(&mut this.body).poll_frame(context)) {
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(frame)) => this.decoder.decode(&frame.into_data().unwrap_or_default()),
                None => match this.decoder.finish() {
                    Ok(()) => return Poll::Ready(None),
                    Err(error) => Err(error),
                },
            };
            match decoded {
                Ok(bytes) if bytes.is_empty() => {}
                Ok(bytes) => return Poll::Ready(Some(Ok(Frame::data(bytes.into())))),
                Err(error) => {
                    let error = CommandError::Undecodable { problem: error.to_string() };
                    let status = this.broken.end(status::of_command(&error, "").status());
                    return Poll::Ready(Some(Err(status)));
                }
            }
        }
    }
}
