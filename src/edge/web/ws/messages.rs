//! The messages of a client, out of what comes from it in pieces.
//!
//! A message that lies whole in one piece is handed on as it is; one that does not is put together in a buffer of its own,
//! which goes with it, so that an idle connection holds nothing. The rules are those of frames of gRPC: what has come of
//! an incomplete message is memory that the client makes the hub keep; where that does not fit, the client is not read on
//! until it does. A message must be complete in time, which is counted only while it is read. Pings and closes are left to
//! the sender.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::BytesMut;
use tokio::time::Instant;
use tokio_stream::Stream;

use super::{
    decoder::{Decoder, Part},
    frame::{Breach, Kind},
    line::{Heard, Line},
    source::Source,
};
use crate::{
    edge::wire::{
        buffer::{Buffer, Lender, Message},
        lateness::Lateness,
        waiting::Waiting,
    },
    model::{CommandError, limits::MAX_FRAME_BYTES},
    tasks::Turn,
};

/// A client may send this many pings a second,
const PINGS_A_SECOND: f64 = 5.0;
/// and this many at once.
const PINGS_AT_ONCE: f64 = 20.0;
/// A frame costs this many steps,
const FRAME_STEPS: usize = 1;
/// and one for this many bytes of it, of which the mask is taken off.
const BYTES_A_STEP: usize = 512;

/// A message, and what its client says that it is.
#[derive(Debug)]
pub(super) struct Said {
    #[cfg_attr(not(test), expect(dead_code, reason = "a session takes one kind, an echo both"))]
    pub(super) kind: Kind,
    pub(super) message: Message,
}

/// The messages of one client.
#[derive(Debug)]
pub(super) struct Messages<S> {
    source: S,
    decoder: Decoder,
    line: Arc<Line>,
    lender: Lender,
    /// What has come and was not decoded.
    piece: BytesMut,
    /// A message that is not complete.
    unfinished: Option<Box<Unfinished>>,
    /// There is no memory to go on.
    waiting: Option<Box<Waiting>>,
    late: Lateness,
    pings: Pings,
    turn: Turn,
    over: bool,
}

/// What has come of a message.
#[derive(Debug)]
struct Unfinished {
    kind: Kind,
    buffer: Buffer,
    /// The next bytes, which are not in the buffer yet.
    next: BytesMut,
    /// So many more may come,
    ahead: usize,
    /// or there are none.
    last: bool,
}

impl Unfinished {
    fn of(kind: Kind) -> Self {
        Self { kind, buffer: Buffer::default(), next: BytesMut::new(), ahead: 0, last: false }
    }
}

/// How far taking a piece apart came.
enum Step {
    Message(Said),
    /// More has to come.
    More,
    /// Others may work now, if it is their turn.
    Pause,
    /// There is no memory to go on.
    Full,
    /// The client closes.
    Closed,
}

impl<S: Source> Messages<S> {
    /// Of a client that sends messages of one kind, or of both. Each takes no longer than `timeout` from its first byte to its
    /// last.
    pub(super) fn new(source: S, takes: Option<Kind>, line: Arc<Line>, lender: Lender, timeout: Duration) -> Self {
        Self {
            source,
            decoder: Decoder::new(takes, MAX_FRAME_BYTES),
            line,
            lender,
            piece: BytesMut::new(),
            unfinished: None,
            waiting: None,
            late: Lateness::new(timeout),
            pings: Pings::new(Instant::now()),
            turn: Turn::default(),
            over: false,
        }
    }

    /// The next part of what has come so far.
    fn step(&mut self) -> Result<Step, Breach> {
        if self.unfinished.as_ref().is_some_and(|unfinished| !unfinished.next.is_empty()) {
            return Ok(self.store());
        }
        let before = self.piece.len();
        let part = self.decoder.next(&mut self.piece)?;
        self.turn.note(FRAME_STEPS + (before - self.piece.len()) / BYTES_A_STEP);
        if !self.decoder.is_amid() {
            // A control frame that came in pieces is complete. One between the frames of a message counts as part of it.
            self.late.end();
        }
        match part {
            None => Ok(Step::More),
            Some(Part::Pong) => Ok(Step::Pause),
            Some(Part::Ping(payload)) => {
                self.pings.take(Instant::now())?;
                self.line.ping(&payload);
                Ok(Step::Pause)
            }
            Some(Part::Close(code)) => {
                self.line.end(Heard::Closes(code));
                Ok(Step::Closed)
            }
            Some(Part::Data { payload, kind, last: true, .. }) if self.unfinished.is_none() => {
                Ok(Step::Message(Said { kind, message: Message { bytes: payload.freeze(), held: None } }))
            }
            Some(Part::Data { payload, kind, ahead, last }) => {
                let unfinished = self.unfinished.get_or_insert_with(|| Box::new(Unfinished::of(kind)));
                (unfinished.next, unfinished.ahead, unfinished.last) = (payload, ahead, last);
                Ok(self.store())
            }
        }
    }

    /// Moves what came of a message to what came before.
    fn store(&mut self) -> Step {
        let Some(unfinished) = &mut self.unfinished else { return Step::More };
        let Unfinished { buffer, next, ahead, .. } = &mut **unfinished;
        let most = buffer.bytes.len() + next.len() + *ahead;
        if buffer.grow((next.len(), most), Some(next), &self.lender, self.waiting.is_some()).is_err() {
            return Step::Full;
        }
        buffer.bytes.extend_from_slice(next);
        *next = BytesMut::new();
        match self.unfinished.take_if(|unfinished| unfinished.last) {
            None => Step::Pause,
            Some(unfinished) => {
                let (bytes, held) = unfinished.buffer.finish();
                Step::Message(Said { kind: unfinished.kind, message: Message { bytes, held } })
            }
        }
    }

    /// The message goes on: the time in which it was not read does not count.
    fn go_on(&mut self) {
        if self.waiting.take().is_some() {
            self.late.restart();
        }
    }

    fn end(&mut self, error: Option<CommandError>) -> Option<Result<Said, CommandError>> {
        self.over = true;
        error.map(Err)
    }

    fn breach(&mut self, breach: Breach) -> Option<Result<Said, CommandError>> {
        self.line.breach(breach);
        self.end(Some(match breach {
            Breach::TooLarge(limit) => CommandError::FrameTooLarge { limit },
            _ => CommandError::Undecodable { problem: breach.to_string() },
        }))
    }
}

impl<S: Source> Stream for Messages<S> {
    type Item = Result<Said, CommandError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let mut came = false;
        this.line.listen(false);
        if this.over {
            return Poll::Ready(None);
        }
        if let Some(waiting) = &mut this.waiting {
            ready!(waiting.poll(context));
        }
        loop {
            ready!(this.turn.poll_settle(context));
            match this.step() {
                Err(breach) => return Poll::Ready(this.breach(breach)),
                Ok(Step::Message(said)) => {
                    this.go_on();
                    this.late.end();
                    return Poll::Ready(Some(Ok(said)));
                }
                Ok(Step::Closed) => return Poll::Ready(this.end(None)),
                Ok(Step::Full) => {
                    let waiting = this.waiting.get_or_insert_with(|| Box::new(Waiting::new()));
                    ready!(waiting.poll(context));
                    continue;
                }
                Ok(Step::Pause) => {
                    this.go_on();
                    continue;
                }
                Ok(Step::More) => this.go_on(),
            }
            // Even when it is empty it keeps the buffer that it was cut out of.
            this.piece = BytesMut::new();
            match this.source.poll_piece(context) {
                Poll::Ready(Some(piece)) => {
                    this.line.hear();
                    (this.piece, came) = (piece, true);
                }
                Poll::Ready(None) => {
                    this.line.end(Heard::Gone);
                    return Poll::Ready(this.end(None));
                }
                Poll::Pending => {
                    this.pings.settle(Instant::now());
                    if this.decoder.is_amid() {
                        this.late.begin();
                    }
                    if this.late.poll(context, came) {
                        let timeout = this.late.timeout();
                        return Poll::Ready(this.end(Some(CommandError::SlowFrame { timeout })));
                    }
                    this.line.listen(true);
                    return Poll::Pending;
                }
            }
        }
    }
}

/// Pings that a client may send now.
#[derive(Debug)]
struct Pings {
    left: f64,
    at: Instant,
}

impl Pings {
    fn new(now: Instant) -> Self {
        Self { left: PINGS_AT_ONCE, at: now }
    }

    /// All that has come was read, so that what comes next is sent from now on. Until then nobody knows when it was sent: a
    /// client that was not read for a minute may have sent those of a minute.
    fn settle(&mut self, now: Instant) {
        self.refill(now);
        self.left = self.left.min(PINGS_AT_ONCE);
    }

    /// Counts one, unless there are too many.
    fn take(&mut self, now: Instant) -> Result<(), Breach> {
        self.refill(now);
        self.left -= 1.0;
        if self.left < 0.0 { Err(Breach::Flood("more than 5 pings a second")) } else { Ok(()) }
    }

    fn refill(&mut self, now: Instant) {
        let since = now.saturating_duration_since(std::mem::replace(&mut self.at, now));
        self.left += PINGS_A_SECOND * since.as_secs_f64();
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, future::poll_fn};

    use super::*;
    use crate::memory::{Memory, Use};

    /// What comes, one piece at a time; then nothing more.
    struct Pieces(VecDeque<Vec<u8>>);

    impl Source for Pieces {
        fn poll_piece(&mut self, _: &mut Context<'_>) -> Poll<Option<BytesMut>> {
            self.0.pop_front().map_or(Poll::Pending, |piece| Poll::Ready(Some(BytesMut::from(&piece[..]))))
        }
    }

    fn messages(memory: &Arc<Memory>) -> Messages<Pieces> {
        let lender = Lender { client: memory.client(), publishes: None };
        Messages::new(Pieces(VecDeque::new()), None, Arc::default(), lender, Duration::from_secs(30))
    }

    /// A short frame whose mask is zero.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        [&[first, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat()
    }

    /// The next message of what has come.
    async fn next(messages: &mut Messages<Pieces>) -> Option<Said> {
        poll_fn(|context| match Pin::new(&mut *messages).poll_next(context) {
            Poll::Ready(next) => Poll::Ready(next.map(|next| next.expect("good"))),
            Poll::Pending if messages.source.0.is_empty() && messages.piece.is_empty() => Poll::Ready(None),
            // It is the turn of others.
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// The same, once this has come, too.
    async fn take(messages: &mut Messages<Pieces>, piece: Vec<u8>) -> Option<Said> {
        messages.source.0.push_back(piece);
        next(messages).await
    }

    #[tokio::test]
    async fn a_message_in_many_small_frames_grows_in_few_steps() {
        const FRAMES: usize = 100_000;
        let memory = Arc::<Memory>::default();
        let mut messages = messages(&memory);
        let (mut held, mut steps) = (0, 0);
        for n in 0..FRAMES {
            assert!(take(&mut messages, frame(if n == 0 { 0x02 } else { 0x00 }, b"x")).await.is_none());
            let now = memory.held_bytes(Use::Frames);
            steps += usize::from(now != held);
            held = now;
        }
        assert!(steps <= 6, "{steps}");
        let said = take(&mut messages, frame(0x80, b"")).await.expect("a message");
        assert_eq!(said.message.bytes.len(), FRAMES);
        drop(said);
        assert_eq!(memory.held_bytes(Use::Frames), 0);
    }

    #[tokio::test]
    async fn nothing_is_kept_of_a_piece_but_the_beginning_of_a_head() {
        let mut messages = messages(&Arc::default());
        for rest in [&[][..], &[0x8A], &[0x8A, 0x80]] {
            let piece = [frame(0x82, &[7; 125]).repeat(200), rest.to_vec()].concat();
            assert!(take(&mut messages, piece).await.is_some());
            for _ in 1..200 {
                assert!(next(&mut messages).await.is_some());
            }
            assert!(next(&mut messages).await.is_none());
            assert_eq!(messages.piece.capacity(), 0, "{rest:x?}");
            take(&mut messages, frame(0x8A, b"")[rest.len()..].to_vec()).await;
        }
    }
}
