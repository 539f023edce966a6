//! The protocol as its clients see it: an echo, over the same reader and sender as a session.
//!
//! As a server of its own the echo is for the Autobahn test suite (scripts/autobahn.sh); docs/adr/0033-websocket.md has what
//! that found.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::SinkExt;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream},
    net::TcpListener,
    sync::mpsc,
    task::JoinSet,
    time::Instant,
};
use tokio_stream::StreamExt;

use super::{
    alive::Alive,
    frame::{Breach, Kind, Opcode, close, head, unmask},
    handshake,
    line::Line,
    messages::{Messages, Said},
    sender::{Closing, Next, Sender},
    source::Socket,
    transport,
};
use crate::{
    edge::wire::buffer::Lender,
    memory::{Held, Memory, NEVER_REFUSED_BYTES, Options, Use},
    model::{CommandError, limits::MAX_FRAME_BYTES},
    net::ServeError,
};

/// Times of a connection.
#[derive(Clone, Copy)]
struct Times {
    message: Duration,
    interval: Duration,
    answer: Duration,
    write: Duration,
}

const TIMES: Times = Times {
    message: Duration::from_secs(30),
    interval: Duration::from_secs(30),
    answer: Duration::from_secs(10),
    write: Duration::from_secs(31),
};

/// Says what it hears.
async fn echo(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    takes: Option<Kind>,
    memory: &Arc<Memory>,
    times: Times,
) -> Result<(), ServeError> {
    let (read, write) = tokio::io::split(io);
    let line = Arc::<Line>::default();
    let lender = Lender { client: memory.client(), publishes: None };
    let mut messages = Messages::new(Socket(read), takes, Arc::clone(&line), lender, times.message);
    let (heard, mut said) = mpsc::channel::<Result<Said, CommandError>>(4);
    let hear = async move {
        while let Some(next) = messages.next().await {
            if heard.send(next).await.is_err() {
                break;
            }
        }
    };
    let breaches = Arc::clone(&line);
    let next = move |context: &mut Context<'_>| match said.poll_recv(context) {
        Poll::Ready(Some(Ok(Said { kind, message }))) => {
            let head = head(Opcode::Message(kind), message.bytes.len());
            Poll::Ready(Next::Frames([&head[..], &message.bytes].concat().into()))
        }
        Poll::Ready(Some(Err(_))) => {
            let code = breaches.breached().map_or(close::REASONS, Breach::code);
            Poll::Ready(Next::Close(Closing { last: Vec::new(), code, reason: "" }))
        }
        // The client has closed, or is gone.
        Poll::Ready(None) | Poll::Pending => Poll::Pending,
    };
    let send = transport::send(Sender::new(next, line, Alive::new(times.interval, times.answer), times.write), write);
    tokio::pin!(send);
    // In this order, so that a ping is answered before the message behind it.
    tokio::select! {
        biased;
        () = hear => send.await,
        end = &mut send => end,
    }
}

/// Whoever speaks with the echo, byte by byte.
struct Client {
    io: DuplexStream,
    echo: JoinSet<Result<(), ServeError>>,
}

impl Client {
    fn new(takes: Option<Kind>, memory: &Arc<Memory>, times: Times) -> Self {
        let (io, hub) = tokio::io::duplex(64 * 1024);
        let (memory, mut tasks) = (Arc::clone(memory), JoinSet::new());
        tasks.spawn(async move { echo(hub, takes, &memory, times).await });
        Self { io, echo: tasks }
    }

    /// How the echo ends.
    async fn over(&mut self) -> Result<(), ServeError> {
        over(&mut self.echo).await
    }

    fn usual() -> Self {
        Self::new(None, &Arc::default(), TIMES)
    }

    /// A frame with a mask.
    async fn send(&mut self, first: u8, payload: &[u8]) {
        self.begin(first, payload.len(), payload).await;
    }

    /// The head of a frame, and some of its payload.
    async fn begin(&mut self, first: u8, len: usize, payload: &[u8]) {
        const MASK: [u8; 4] = [7, 77, 177, 77];
        let mut head = head(Opcode::Ping, len).to_vec();
        (head[0], head[1]) = (first, head[1] | 0x80);
        let mut payload = payload.to_vec();
        unmask(&mut payload, MASK, 0);
        self.io.write_all(&[&head[..], &MASK, &payload].concat()).await.expect("sent");
    }

    /// The next frame: its first byte, and its payload.
    async fn next(&mut self) -> (u8, Vec<u8>) {
        let [first, short] = self.read().await;
        let len = match short {
            126 => usize::from(u16::from_be_bytes(self.read().await)),
            127 => u64::from_be_bytes(self.read().await) as usize,
            short => usize::from(short),
        };
        let mut payload = vec![0; len];
        self.io.read_exact(&mut payload).await.expect("a payload");
        (first, payload)
    }

    async fn read<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.io.read_exact(&mut bytes).await.expect("a frame");
        bytes
    }

    /// The code of the close that comes next, behind which nothing comes.
    async fn closed(&mut self) -> u16 {
        let (first, payload) = self.next().await;
        assert_eq!(first, 0x88, "{payload:x?}");
        assert_eq!(self.io.read(&mut [0; 1]).await.expect("an end"), 0);
        u16::from_be_bytes(*payload.first_chunk().expect("a code"))
    }
}

async fn over(echo: &mut JoinSet<Result<(), ServeError>>) -> Result<(), ServeError> {
    echo.join_next().await.expect("it has not ended before").expect("no panic")
}

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const PING: u8 = 0x89;
const PONG: u8 = 0x8A;
const CLOSE: u8 = 0x88;

#[tokio::test]
async fn a_client_that_others_wrote_speaks_with_it() {
    use tokio_websockets::{ClientBuilder, Message};
    let (io, hub) = tokio::io::duplex(64 * 1024);
    let mut server = JoinSet::new();
    server.spawn(async move { echo(hub, None, &Arc::default(), TIMES).await });
    let mut client = ClientBuilder::new().take_over(io);
    for size in [0, 1, 125, 126, 65_535, 65_536, 1 << 20] {
        let text = Message::text("x".repeat(size));
        send(&mut client, text.clone()).await;
        assert_eq!(client.next().await.expect("a message").expect("good").as_text(), text.as_text());
        let bytes = Message::binary(vec![0xFF; size]);
        send(&mut client, bytes.clone()).await;
        assert_eq!(client.next().await.expect("a message").expect("good").into_payload()[..], bytes.into_payload()[..]);
    }
    send(&mut client, Message::ping("there?")).await;
    assert!(client.next().await.expect("a message").expect("good").is_pong());
    send(&mut client, Message::close(None, "")).await;
    assert!(client.next().await.expect("a message").expect("good").is_close());
    assert!(client.next().await.is_none());
    over(&mut server).await.expect("in order");
}

/// Sends a message.
async fn send<I: AsyncRead + AsyncWrite + Unpin>(
    client: &mut tokio_websockets::WebSocketStream<I>,
    message: tokio_websockets::Message,
) {
    SinkExt::send(client, message).await.expect("sent");
}

#[tokio::test]
async fn a_message_comes_back_however_it_is_cut() {
    let mut client = Client::usual();
    client.send(0x01, b"a ").await;
    client.send(PING, b"amid").await;
    client.send(0x00, b"").await;
    client.begin(0x80, 4, b"te").await;
    assert_eq!(client.next().await, (PONG, b"amid".to_vec()));
    let mut rest = b"xt".to_vec();
    unmask(&mut rest, [7, 77, 177, 77], 2);
    client.io.write_all(&rest).await.expect("sent");
    assert_eq!(client.next().await, (TEXT, b"a text".to_vec()));
}

#[tokio::test]
async fn the_largest_message_is_taken_and_no_larger_one() {
    let mut client = Client::usual();
    let largest = vec![b'x'; MAX_FRAME_BYTES];
    let (mut read, mut write) = tokio::io::split(client.io);
    let mut one = head(Opcode::Message(Kind::Binary), largest.len()).to_vec();
    one[1] |= 0x80;
    let all = [&one[..], &[0; 4], &largest].concat();
    let (sent, came) = tokio::join!(write.write_all(&all), async {
        let mut came = vec![0; one.len() + largest.len()];
        read.read_exact(&mut came).await.map(|_| came)
    });
    sent.expect("sent");
    assert_eq!(came.expect("it came back")[one.len()..], largest);
    client.io = read.unsplit(write);
    client.begin(BINARY, MAX_FRAME_BYTES + 1, b"").await;
    assert_eq!(client.closed().await, close::TOO_LARGE);
}

#[tokio::test]
async fn whoever_breaks_the_rules_hears_which_kind_of_rule_it_was() {
    for (takes, first, payload, code) in [
        (None, 0x83, &b""[..], close::PROTOCOL),
        (None, 0x80, b"", close::PROTOCOL),
        (None, TEXT, b"\xFF", close::NOT_UTF8),
        (Some(Kind::Binary), TEXT, b"a", close::UNSUPPORTED),
        (Some(Kind::Text), BINARY, b"a", close::UNSUPPORTED),
    ] {
        let mut client = Client::new(takes, &Arc::default(), TIMES);
        client.send(first, payload).await;
        assert_eq!(client.closed().await, code, "{first:x}");
        client.over().await.expect("in order");
    }
}

#[tokio::test]
async fn a_close_is_answered_with_the_same_code_and_an_end_without_one_with_nothing() {
    let mut client = Client::usual();
    client.send(BINARY, b"before").await;
    client.send(CLOSE, &[0x0B, 0xB8, b'!']).await;
    client.send(BINARY, b"never read").await;
    // What it is answered with at once may come before the close, and need not.
    let mut next = client.next().await;
    if next.0 == BINARY {
        next = client.next().await;
    }
    assert_eq!(next, (CLOSE, vec![0x0B, 0xB8]));
    client.over().await.expect("in order");
    let mut client = Client::usual();
    client.io.shutdown().await.expect("ended");
    assert_eq!(client.io.read(&mut [0; 9]).await.expect("an end"), 0);
    client.over().await.expect("in order");
}

#[tokio::test(start_paused = true)]
async fn twenty_pings_at_once_are_answered_then_five_a_second_and_not_one_more() {
    let mut client = Client::usual();
    for _ in 0..3 {
        for n in 0..20 {
            client.send(PING, &[n]).await;
            assert_eq!(client.next().await, (PONG, vec![n]));
        }
        tokio::time::sleep(Duration::from_secs(4)).await;
    }
    for n in 0..21 {
        client.send(PING, &[n]).await;
    }
    while client.next().await.0 == PONG {}
    client.over().await.expect("in order");
}

#[tokio::test(start_paused = true)]
async fn pings_that_nobody_read_for_a_minute_are_no_flood() {
    let memory = scarce();
    let mut client = Client::new(None, &memory, TIMES);
    let others = all_of(&memory);
    client.send(0x02, &vec![b'x'; NEVER_REFUSED_BYTES + 50_000]).await;
    for n in 0..60 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        client.send(PING, &[n]).await;
    }
    drop(others);
    client.send(0x80, b"").await;
    while client.next().await.0 != BINARY {}
    // Those of that minute are not saved for later.
    for n in 0..21 {
        client.send(PING, &[n]).await;
    }
    while client.next().await.0 == PONG {}
    client.over().await.expect("in order");
}

#[tokio::test(start_paused = true)]
async fn a_message_is_complete_in_time_or_the_last() {
    let mut client = Client::new(None, &Arc::default(), Times { message: Duration::from_secs(25), ..TIMES });
    for first in [0x02, 0x00, 0x80] {
        client.send(first, b"in ten seconds ").await;
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    assert_eq!(client.next().await, (BINARY, b"in ten seconds ".repeat(3)));
    // Between messages it takes its time, if it answers.
    for _ in 0..3 {
        assert_eq!(client.next().await, (PING, vec![]));
        client.send(PONG, b"").await;
    }
    let begun = Instant::now();
    client.begin(BINARY, 10, b"half").await;
    assert_eq!(client.closed().await, close::REASONS, "no breach, but an end");
    assert_eq!(begun.elapsed().as_secs(), 25);
}

#[tokio::test(start_paused = true)]
async fn an_answer_in_pieces_is_no_message_that_must_be_complete_in_time() {
    let mut client = Client::new(None, &Arc::default(), Times { message: Duration::from_secs(5), ..TIMES });
    for cut in 1..6 {
        assert_eq!(client.next().await, (PING, vec![]));
        client.io.write_all(&[PONG, 0x80, 1, 2, 3, 4][..cut]).await.expect("sent");
        tokio::time::sleep(Duration::from_secs(1)).await;
        client.io.write_all(&[PONG, 0x80, 1, 2, 3, 4][cut..]).await.expect("sent");
    }
    // But it must be complete in time.
    client.io.write_all(&[PONG]).await.expect("sent");
    assert_eq!(client.closed().await, close::REASONS);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_answer_is_gone_and_one_that_sends_anything_is_not() {
    let mut client = Client::usual();
    for _ in 0..3 {
        assert_eq!(client.next().await, (PING, vec![]));
        client.send(BINARY, b"a message is as good as an answer").await;
        assert_eq!(client.next().await.0, BINARY);
    }
    assert_eq!(client.next().await, (PING, vec![]));
    assert_eq!(client.closed().await, close::AWAY);
    let end = client.over().await.expect_err("an end");
    assert!(end.to_string().contains("ping"), "{end}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_gone_and_one_that_takes_little_is_not() {
    let Client { io, mut echo } = Client::usual();
    let large = vec![7; 200 * 1024];
    let (mut read, mut write) = tokio::io::split(io);
    let mut one = head(Opcode::Message(Kind::Binary), large.len()).to_vec();
    one[1] |= 0x80;
    write.write_all(&[&one[..], &[0; 4], &large].concat()).await.expect("sent");
    // A little within the time for an answer, for as long as it is asked five times.
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_secs(8)).await;
        read.read_exact(&mut [0; 1024]).await.expect("some of it");
    }
    let silent = Instant::now();
    over(&mut echo).await.expect_err("an end");
    // It is asked at the next ping, and then has the time for an answer.
    let most = TIMES.interval + TIMES.answer + Duration::from_millis(10);
    assert!((TIMES.answer..most).contains(&silent.elapsed()), "{:?}", silent.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_for_the_write_timeout_is_cut() {
    let times = Times { write: Duration::from_secs(5), ..TIMES };
    let mut client = Client::new(None, &Arc::default(), times);
    let start = Instant::now();
    client.send(BINARY, &vec![7; 100 * 1024]).await;
    let end = client.over().await.expect_err("an end");
    assert!(end.to_string().contains("took nothing"), "{end}");
    assert!(start.elapsed().abs_diff(times.write) < Duration::from_millis(10), "{:?}", start.elapsed());
}

/// Of which there is little.
fn scarce() -> Arc<Memory> {
    Arc::new(Memory::new(&Options { frames_bytes: 16 << 20, ..Options::default() }))
}

/// So much that nobody else gets more than is never refused: the last one overdraws, so that no other may.
fn all_of(memory: &Arc<Memory>) -> [Held; 3] {
    let hold = |bytes| memory.client().hold(Use::Frames, bytes).expect("room");
    let mut all = [hold(8 << 20), hold(8 << 20), hold(NEVER_REFUSED_BYTES)];
    all[2].overdraw(1).expect("the first");
    all
}

#[tokio::test(start_paused = true)]
async fn a_message_waits_for_memory_and_nobody_takes_its_client_for_gone() {
    let memory = scarce();
    let mut client = Client::new(None, &memory, TIMES);
    let others = all_of(&memory);
    // More than is never refused.
    let (payload, some) = (vec![b'x'; 2 * NEVER_REFUSED_BYTES], NEVER_REFUSED_BYTES + 50_000);
    client.begin(BINARY, payload.len(), &payload[..some]).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(client.echo.try_join_next().is_none());
    drop(others);
    let mut rest = payload[some..].to_vec();
    unmask(&mut rest, [7, 77, 177, 77], some as u64);
    client.io.write_all(&rest).await.expect("sent");
    loop {
        let (first, came) = client.next().await;
        if first == BINARY {
            assert!(came == payload);
            break;
        }
    }
    assert_eq!(memory.held_bytes(Use::Frames), 0, "nothing is held between messages");
}

/// `make autobahn` starts it and reads where it is.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a server for the Autobahn test suite, until it is killed"]
async fn serves_an_echo() {
    let address = std::env::var("ECHO_LISTEN").expect("where to listen");
    let listener = TcpListener::bind(address).await.expect("a port");
    println!("echo on {}", listener.local_addr().expect("an address"));
    let (memory, mut clients) = (Arc::<Memory>::default(), JoinSet::new());
    loop {
        let (mut stream, _) = listener.accept().await.expect("a client");
        stream.set_nodelay(true).expect("an option");
        let memory = Arc::clone(&memory);
        clients.spawn(async move {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await?);
            }
            let request = String::from_utf8_lossy(&request);
            let is_key = |line: &&str| line.to_ascii_lowercase().starts_with("sec-websocket-key:");
            let key = request.lines().find(is_key).and_then(|line| line.split(": ").nth(1)).unwrap_or_default();
            let head = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: ";
            let answer = handshake::answer(key.as_bytes());
            stream.write_all(&[head.as_bytes(), answer.as_bytes(), b"\r\n\r\n"].concat()).await?;
            std::io::Result::Ok(echo(stream, None, &memory, TIMES).await.ok())
        });
        while clients.try_join_next().is_some() {}
    }
}
