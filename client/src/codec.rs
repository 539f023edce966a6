//! The frames of a session on the wire: commands are bytes already, and what comes is decoded and measured.

use bytes::{Buf, BufMut, Bytes};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use crate::{machine::wire, proto::v1::SessionResponse};

/// A frame, and what each of its events cost of the credit.
pub(crate) type Measured = (SessionResponse, Vec<u32>);

/// The codec of the `Session` call.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Frames;

impl Codec for Frames {
    type Encode = Bytes;
    type Decode = Measured;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Frames {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, frame: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(frame.len());
        buffer.put(frame);
        Ok(())
    }
}

impl Decoder for Frames {
    type Item = Measured;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Measured>, Status> {
        // The frame as it lies in the buffer, which is in one piece: payloads are copied out of it, so that whoever keeps an
        // event does not keep all that came with it.
        let frame = buffer.chunk();
        let decoded = if frame.len() == buffer.remaining() {
            wire::decode(frame)
        } else {
            wire::decode(&buffer.copy_to_bytes(buffer.remaining()))
        };
        buffer.advance(buffer.remaining());
        decoded.map(Some).map_err(|error| Status::internal(format!("a frame does not decode: {error}")))
    }
}
