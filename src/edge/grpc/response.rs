//! The responses of unary calls: memory that the client makes the hub keep, from when they are made until they are
//! written.
//!
//! A client may ask for much and read nothing. What does not fit is refused in a few bytes instead.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Extensions, Response};
use http_body::{Body as _, Frame};
use tonic::{Status, body::Body};

use super::framing;
use crate::{
    edge::{self, wire::framer::prefix},
    hub::Hub,
    memory::{Client, Held, MemoryFull},
    net::Connection,
};

/// A response that has been made, and the memory that is held until it is written or dropped.
struct Kept {
    made: VecDeque<Frame<Bytes>>,
    /// What is still to be made, of a response that goes on.
    rest: Option<Body>,
    _held: Held,
}

impl http_body::Body for Kept {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match (self.made.pop_front(), &mut self.rest) {
            (Some(frame), _) => Poll::Ready(Some(Ok(frame))),
            (None, Some(rest)) => Pin::new(rest).poll_frame(context),
            (None, None) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.made.is_empty() && self.rest.as_ref().is_none_or(http_body::Body::is_end_stream)
    }
}

/// Who accounts for what the client of a request makes the hub keep.
pub(super) fn client_of(hub: &Hub, extensions: &Extensions) -> Arc<Client> {
    edge::client_of(hub, extensions.get::<Arc<Connection>>())
}

/// A response of one encoded message, for which enough is held.
pub(super) fn unary(message: &[u8], mut held: Held) -> Response<Body> {
    held.shrink(held.bytes().saturating_sub(message.len()));
    let out = [&prefix(message.len()), message].concat();
    let made = [Frame::data(Bytes::from(out)), Frame::trailers(framing::trailers(&Status::ok("")))].into();
    framing::response(Body::new(Kept { made, rest: None, _held: held }))
}

/// A response with all of it that can be made at once, if that fits, and how many bytes that are; what is held already is for
/// its first bytes.
pub(super) async fn kept(response: Response<Body>, mut held: Held) -> Result<(Response<Body>, usize), MemoryFull> {
    let (parts, mut body) = response.into_parts();
    let (mut made, mut bytes, mut ends) = (VecDeque::new(), 0, body.is_end_stream());
    while !ends {
        let next = poll_fn(|context| Poll::Ready(Pin::new(&mut body).poll_frame(context))).await;
        match next {
            Poll::Pending => break,
            Poll::Ready(Some(Ok(frame))) => {
                bytes += frame.data_ref().map_or(0, Bytes::len);
                made.push_back(frame);
                held.grow(bytes.saturating_sub(held.bytes()))?;
                ends = body.is_end_stream();
            }
            Poll::Ready(Some(Err(status))) => {
                made.push_back(Frame::trailers(framing::trailers(&status)));
                ends = true;
            }
            Poll::Ready(None) => ends = true,
        }
    }
    if ends {
        held.shrink(held.bytes().saturating_sub(bytes));
    }
    let rest = (!ends).then_some(body);
    Ok((Response::from_parts(parts, Body::new(Kept { made, rest, _held: held })), bytes))
}
