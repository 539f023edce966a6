//! Cuts a request body into messages that have a length before each, as gRPC and Connect send them, and leaves them as
//! they are.
//!
//! A message that lies whole in one piece of the transport is handed on without a copy; one that does not is put
//! together in a buffer of its own, which goes with it. So an idle stream holds nothing, unlike with tonic's codec, which
//! keeps the largest buffer it ever needed. What has come of an incomplete message is memory that the client makes the hub
//! keep; where that does not fit, the request is not read on until it does, and flow control stops the client. A message
//! must be complete in time, which is counted only while it is read. Messages that are compressed are unpacked here.

use std::{
    io::{Cursor, Read},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use flate2::bufread::MultiGzDecoder;
use http::{HeaderMap, HeaderValue};
use http_body::{Body as _, Frame};
use http_body_util::StreamBody;
use smallvec::SmallVec;
use tokio_stream::{Stream, StreamExt};
use tonic::{Status, body::Body};

use super::{
    buffer::{Buffer, Lender, Message},
    head::Frames,
    lateness::Lateness,
    status,
    waiting::Waiting,
};
use crate::{
    hub::Hub,
    memory::{Client, Held, MemoryFull},
    model::{CommandError, limits::MAX_FRAME_BYTES},
};

/// What is before every message, in bytes: whether it is compressed, and its length in four.
pub(in crate::edge) const PREFIX_BYTES: usize = 5;

/// The prefix of a message of `len` bytes.
pub(in crate::edge) fn prefix(len: usize) -> [u8; PREFIX_BYTES] {
    // A message is a batch of bounded size or holds one event: far below 4 GiB.
    let [a, b, c, d] = (len as u32).to_be_bytes();
    [0, a, b, c, d]
}

/// So much is unpacked at a time, in bytes,
const UNPACK_BYTES: usize = 16 * 1024;
/// and so often before others may work.
const UNPACK_STEPS: usize = 16;
/// What unpacking needs besides its bytes, in bytes.
const UNPACK_STATE_BYTES: usize = 48 * 1024;

/// How the messages of a request are compressed that say that they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::edge) enum Encoding {
    /// None may say so.
    Identity,
    /// By gzip.
    Gzip,
}

impl Encoding {
    /// How the messages of a request are compressed. Responses never are: every subscriber would need a copy of its own.
    pub(in crate::edge) fn of(headers: &HeaderMap) -> Result<Self, Status> {
        match headers.get("grpc-encoding").map(HeaderValue::as_bytes) {
            None | Some(b"identity") => Ok(Self::Identity),
            Some(b"gzip") => Ok(Self::Gzip),
            Some(_) => {
                let mut status = status::unimplemented("requests are taken without compression, or with gzip");
                status
                    .metadata_mut()
                    .insert("grpc-accept-encoding", tonic::metadata::MetadataValue::from_static("identity,gzip"));
                Err(status)
            }
        }
    }
}

/// The messages of one request.
#[derive(Debug)]
pub(in crate::edge) struct Framer {
    body: Body,
    encoding: Encoding,
    /// What has come and was not looked at.
    piece: Bytes,
    /// A message that is not complete.
    part: Option<Box<Part>>,
    /// One that is complete and compressed.
    packed: Option<Box<Packed>>,
    lender: Lender,
    late: Lateness,
    /// It waits for memory as long as it takes.
    patient: bool,
    /// There is no memory to go on.
    waiting: Option<Box<Waiting>>,
    /// It may not wait for ever between messages either.
    expected: bool,
}

/// What has come of a message.
#[derive(Debug, Default)]
struct Part {
    prefix: SmallVec<[u8; PREFIX_BYTES]>,
    buffer: Buffer,
}

/// A message that is being unpacked.
#[derive(Debug)]
struct Packed {
    /// Until unpacking begins.
    from: Bytes,
    _held: Option<Held>,
    unpacking: Option<MultiGzDecoder<Cursor<Bytes>>>,
    to: Buffer,
}

/// What stands before a message.
#[derive(Debug, Clone, Copy)]
struct Prefix {
    compressed: bool,
    len: usize,
}

/// How far cutting came.
#[derive(Debug)]
enum Step {
    Message(Message),
    /// More has to come.
    More,
    /// Others may work now.
    Pause,
    /// There is no memory to go on.
    Full(MemoryFull),
}

impl Framer {
    /// The messages of a request, within the limits of the hub; `frames` for one that publishes.
    pub(in crate::edge) fn within(
        hub: &Arc<Hub>,
        client: &Arc<Client>,
        body: Body,
        encoding: Encoding,
        frames: Option<Frames>,
    ) -> Self {
        let publishes = frames.filter(|_| hub.keeps_streams()).map(|frames| (Arc::clone(hub), frames));
        Self::new(body, encoding, Lender { client: Arc::clone(client), publishes }, hub.options().frame_timeout())
    }

    /// The messages of a body, each of which takes no longer than `timeout` from its first byte to its last.
    pub(in crate::edge) fn new(body: Body, encoding: Encoding, lender: Lender, timeout: Duration) -> Self {
        Self {
            body,
            encoding,
            piece: Bytes::new(),
            part: None,
            packed: None,
            lender,
            late: Lateness::new(timeout),
            patient: false,
            waiting: None,
            expected: false,
        }
    }

    /// The first message is expected at once, and after it the end.
    pub(in crate::edge) fn expected(mut self) -> Self {
        self.expected = true;
        self.late.begin();
        self
    }

    /// Waits for memory as long as it takes, instead of the timeout of a message.
    pub(in crate::edge) fn patient(mut self) -> Self {
        self.patient = true;
        self
    }

    /// The same messages as a body again, for services that cut it themselves: none of them is incomplete or compressed, and
    /// none has more than `limit` bytes.
    pub(in crate::edge) fn into_body(self, limit: usize) -> Body {
        Body::new(StreamBody::new(self.map(move |message| match message {
            Ok(Message { bytes, .. }) if bytes.len() > limit => {
                Err(status::of_command(&CommandError::FrameTooLarge { limit }, "").status())
            }
            Ok(Message { bytes, .. }) => Ok(Frame::data([&prefix(bytes.len())[..], &bytes].concat().into())),
            Err(error) => Err(status::of_command(&error, "").status()),
        })))
    }

    /// The next message of what has come so far.
    fn next_message(&mut self) -> Result<Step, CommandError> {
        let step = if self.packed.is_some() { self.unpack() } else { self.cut() };
        if let Ok(Step::Message(_)) = &step {
            self.late.end();
            if self.expected {
                self.late.begin();
            }
        }
        step
    }

    fn cut(&mut self) -> Result<Step, CommandError> {
        if self.part.is_none() {
            match prefix_of(&self.piece, self.encoding)? {
                Some(Prefix { compressed, len }) if self.piece.len() >= PREFIX_BYTES + len => {
                    self.piece.advance(PREFIX_BYTES);
                    let bytes = self.piece.split_to(len);
                    return self.complete(compressed, bytes, None);
                }
                _ if self.piece.is_empty() => return Ok(Step::More),
                _ => {}
            }
        }
        let part = self.part.get_or_insert_default();
        let missing = PREFIX_BYTES - part.prefix.len();
        part.prefix.extend_from_slice(&self.piece.split_to(missing.min(self.piece.len())));
        let Some(Prefix { compressed, len }) = prefix_of(&part.prefix, self.encoding)? else { return Ok(Step::More) };
        let some = (len - part.buffer.bytes.len()).min(self.piece.len());
        let head = (!compressed).then_some(&self.piece[..some]);
        if let Err(full) = part.buffer.grow((some, len), head, &self.lender, self.waiting.is_some()) {
            return Ok(Step::Full(full));
        }
        part.buffer.bytes.extend_from_slice(&self.piece.split_to(some));
        if part.buffer.bytes.len() < len {
            return Ok(Step::More);
        }
        let (bytes, held) = std::mem::take(&mut part.buffer).finish();
        self.part = None;
        self.complete(compressed, bytes, held)
    }

    /// A message has come as a whole.
    fn complete(&mut self, compressed: bool, bytes: Bytes, held: Option<Held>) -> Result<Step, CommandError> {
        if !compressed {
            return Ok(Step::Message(Message { bytes, held }));
        }
        let to = Buffer::with_besides(UNPACK_STATE_BYTES);
        self.packed = Some(Box::new(Packed { from: bytes, _held: held, unpacking: None, to }));
        self.unpack()
    }

    /// Unpacks some of a message.
    fn unpack(&mut self) -> Result<Step, CommandError> {
        let Some(packed) = &mut self.packed else { return Ok(Step::More) };
        let Packed { from, unpacking, to, .. } = &mut **packed;
        for _ in 0..UNPACK_STEPS {
            let before = to.bytes.len();
            // One byte more than there may be, to find out about it.
            let (some, most) = (UNPACK_BYTES.min(MAX_FRAME_BYTES + 1 - before), MAX_FRAME_BYTES + 1);
            if let Err(full) = to.grow((some, most), Some(&[]), &self.lender, self.waiting.is_some()) {
                return Ok(Step::Full(full));
            }
            let unpacking = unpacking.get_or_insert_with(|| MultiGzDecoder::new(Cursor::new(std::mem::take(from))));
            to.bytes.resize(before + some, 0);
            let read = unpacking.read(&mut to.bytes[before..]);
            let read = read.map_err(|_| CommandError::Compression { problem: "a frame is not gzip, or is damaged" })?;
            to.bytes.truncate(before + read);
            if to.bytes.len() > MAX_FRAME_BYTES {
                return Err(CommandError::FrameTooLarge { limit: MAX_FRAME_BYTES });
            }
            if read == 0 {
                let (bytes, held) = std::mem::take(to).finish();
                self.packed = None;
                return Ok(Step::Message(Message { bytes, held }));
            }
        }
        Ok(Step::Pause)
    }

    /// Ready when memory is to be asked for again; with an error when that was done for too long.
    fn poll_memory(&mut self, context: &mut Context<'_>, full: MemoryFull) -> Poll<Result<(), CommandError>> {
        let waiting = self.waiting.get_or_insert_with(|| Box::new(Waiting::new()));
        if !self.patient && waiting.time() >= self.late.timeout() {
            return Poll::Ready(Err(CommandError::NoMemory { of: full.of.name() }));
        }
        waiting.poll(context).map(Ok)
    }

    /// The message goes on: the time in which it was not read does not count.
    fn go_on(&mut self) {
        if self.waiting.take().is_some() {
            self.late.restart();
        }
    }
}

impl Stream for Framer {
    type Item = Result<Message, CommandError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut came = false;
        if let Some(waiting) = &mut self.waiting {
            ready!(waiting.poll(context));
        }
        loop {
            match self.next_message() {
                Ok(Step::Message(message)) => {
                    self.go_on();
                    return Poll::Ready(Some(Ok(message)));
                }
                Err(error) => return Poll::Ready(Some(Err(error))),
                Ok(Step::More) => self.go_on(),
                Ok(Step::Pause) => {
                    self.go_on();
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Ok(Step::Full(full)) => {
                    if let Err(error) = ready!(self.poll_memory(context, full)) {
                        return Poll::Ready(Some(Err(error)));
                    }
                    continue;
                }
            }
            match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.piece = frame.into_data().unwrap_or_default();
                    came = true;
                }
                // A cancelled call looks like one whose client has said all; whoever must know asks the response body.
                Poll::Ready(None | Some(Err(_))) if self.part.is_none() => return Poll::Ready(None),
                Poll::Ready(None | Some(Err(_))) => {
                    return Poll::Ready(Some(Err(broken("the last frame is not complete"))));
                }
                Poll::Pending => {
                    if self.part.is_some() {
                        self.late.begin();
                    }
                    if self.late.poll(context, came) {
                        return Poll::Ready(Some(Err(CommandError::SlowFrame { timeout: self.late.timeout() })));
                    }
                    return Poll::Pending;
                }
            }
        }
    }
}

/// What stands before the first message, once all of it is there.
fn prefix_of(bytes: &[u8], encoding: Encoding) -> Result<Option<Prefix>, CommandError> {
    let Some(&[flag, a, b, c, d]) = bytes.first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
    let compressed = match flag {
        0 => false,
        1 if encoding == Encoding::Gzip => true,
        1 => {
            let problem = "a frame is marked as compressed, and the call does not say how (grpc-encoding)";
            return Err(CommandError::Compression { problem });
        }
        _ => return Err(broken("the data is not a frame")),
    };
    let len = u32::from_be_bytes([a, b, c, d]) as usize;
    if len > MAX_FRAME_BYTES {
        return Err(CommandError::FrameTooLarge { limit: MAX_FRAME_BYTES });
    }
    Ok(Some(Prefix { compressed, len }))
}

fn broken(problem: &str) -> CommandError {
    CommandError::Undecodable { problem: problem.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, sync::Arc};

    use proptest::prelude::*;

    use super::*;
    use crate::memory::{Memory, Use};

    fn body(pieces: Vec<Bytes>) -> Body {
        let frames = pieces.into_iter().map(|piece| Ok::<_, Infallible>(Frame::data(piece)));
        Body::new(StreamBody::new(tokio_stream::iter(frames)))
    }

    fn framer(pieces: Vec<Bytes>) -> (Framer, Arc<Memory>) {
        let memory = Arc::<Memory>::default();
        let lender = Lender { client: memory.client(), publishes: None };
        (Framer::new(body(pieces), Encoding::Gzip, lender, Duration::from_secs(1)), memory)
    }

    fn framed(messages: &[Vec<u8>]) -> Vec<u8> {
        let prefixed = |message: &Vec<u8>| [&prefix(message.len())[..], message].concat();
        messages.iter().flat_map(prefixed).collect()
    }

    async fn all(mut framer: Framer) -> Vec<Result<Message, CommandError>> {
        let mut got = Vec::new();
        while let Some(next) = framer.next().await {
            let broken = next.is_err();
            got.push(next);
            if broken {
                break;
            }
        }
        got
    }

    proptest! {
        #[test]
        fn messages_come_out_whole_however_the_bytes_come(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20),
            sizes in prop::collection::vec(1..30_usize, 1..20),
        ) {
            let bytes = Bytes::from(framed(&messages));
            let mut pieces = Vec::new();
            let mut rest = bytes;
            for size in sizes.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                pieces.push(rest.split_to((*size).min(rest.len())));
            }
            let (framer, memory) = framer(pieces);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
            let got: Vec<Vec<u8>> =
                runtime.block_on(all(framer)).into_iter().map(|message| message.expect("whole").bytes.to_vec()).collect();
            prop_assert_eq!(got, messages);
            prop_assert_eq!(memory.held_bytes(Use::Frames), 0);
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
            let (framer, memory) = framer(vec![bytes.into()]);
            runtime.block_on(all(framer));
            prop_assert_eq!(memory.held_bytes(Use::Frames), 0);
        }
    }

    #[tokio::test]
    async fn a_frame_may_be_as_large_as_the_limit_and_no_larger() {
        let message = vec![0; MAX_FRAME_BYTES];
        assert_eq!(all(framer(vec![framed(&[message]).into()]).0).await.len(), 1);
        let prefix = prefix(MAX_FRAME_BYTES + 1);
        let got = all(framer(vec![Bytes::copy_from_slice(&prefix)]).0).await;
        assert_eq!(got[0].as_ref().err(), Some(&CommandError::FrameTooLarge { limit: MAX_FRAME_BYTES }));
    }

    fn packed(message: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut encoder, message).expect("memory");
        let packed = encoder.finish().expect("memory");
        let mut prefix = prefix(packed.len());
        prefix[0] = 1;
        [&prefix[..], &packed].concat()
    }

    fn pieces(bytes: &[u8]) -> Vec<Bytes> {
        bytes.chunks(16 * 1024).map(Bytes::copy_from_slice).collect()
    }

    #[tokio::test]
    async fn what_is_packed_is_unpacked_and_not_past_the_limit() {
        let noise: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(200_000).collect();
        for message in [vec![], vec![7; 3], noise, vec![7; MAX_FRAME_BYTES]] {
            let (framer, memory) = framer(pieces(&[packed(&message), framed(&[vec![1, 2]])].concat()));
            let got = all(framer).await;
            let bytes: Vec<_> = got.iter().map(|message| &message.as_ref().expect("whole").bytes[..]).collect();
            assert!(bytes == [&message[..], &[1, 2]], "{} bytes", message.len());
            drop(got);
            assert_eq!(memory.held_bytes(Use::Frames), 0);
        }
        let (framer, memory) = framer(pieces(&packed(&vec![7; MAX_FRAME_BYTES + 1])));
        let got = all(framer).await;
        assert_eq!(got[0].as_ref().err(), Some(&CommandError::FrameTooLarge { limit: MAX_FRAME_BYTES }));
        assert_eq!(memory.held_bytes(Use::Frames), 0);
    }

    #[tokio::test]
    async fn what_does_not_unpack_is_told() {
        let mut damaged = packed(&[7; 1000]);
        let last = damaged.len() - 6;
        damaged[last] ^= 1;
        let torn = packed(&[7; 1000]);
        let torn = [&[1, 0, 0, 0, 9][..], &torn[5..14]].concat();
        for bytes in [damaged, torn, vec![1, 0, 0, 0, 2, 7, 7]] {
            let got = all(framer(pieces(&bytes)).0).await;
            assert!(matches!(got[..], [Err(CommandError::Compression { .. })]), "{got:?}");
        }
        let (mut plain, _) = framer(pieces(&packed(&[7])));
        plain.encoding = Encoding::Identity;
        assert!(matches!(all(plain).await[..], [Err(CommandError::Compression { .. })]));
    }

    /// A frame that does not fit what is left for it, of a client of its own.
    fn large(memory: &Arc<Memory>, timeout: Duration) -> Framer {
        let lender = Lender { client: memory.client(), publishes: None };
        Framer::new(body(pieces(&framed(&[vec![7; 3_000_000]]))), Encoding::Identity, lender, timeout)
    }

    fn least() -> Arc<Memory> {
        let options = crate::memory::Options { frames_bytes: 4_000_000, ..Default::default() };
        Arc::new(Memory::new(&options))
    }

    #[tokio::test]
    async fn frames_that_hold_what_others_wait_for_come_through() {
        let memory = least();
        let mut tasks = tokio::task::JoinSet::new();
        for frame in (0..8).map(|_| large(&memory, Duration::from_secs(30))) {
            // What has come through is done with before the next may have its memory.
            tasks.spawn(async { matches!(&all(frame).await[..], [Ok(message)] if message.bytes.len() == 3_000_000) });
        }
        assert!(tasks.join_all().await.into_iter().all(|came_through| came_through));
        assert_eq!(memory.held_bytes(Use::Frames), 0);
    }

    #[tokio::test]
    async fn a_frame_waits_for_memory_as_long_as_it_may() {
        let memory = least();
        let mut others = memory.hold(Use::Frames, 4_000_000).expect("all of it");
        others.overdraw(1).expect("and more");
        let timeout = Duration::from_millis(50);
        let got = all(large(&memory, timeout)).await;
        assert!(matches!(got[..], [Err(CommandError::NoMemory { of: "frames" })]), "{got:?}");
        let mut patient = large(&memory, timeout).patient();
        assert!(tokio::time::timeout(4 * timeout, patient.next()).await.is_err(), "it does not end");
        drop(others);
        assert_eq!(patient.next().await.expect("more").expect("whole").bytes.len(), 3_000_000);
        drop(patient);
        assert_eq!(memory.held_bytes(Use::Frames), 0);
    }
}
