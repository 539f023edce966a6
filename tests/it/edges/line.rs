//! An edge in a page, to prove the seam: lines of text over any socket, with nothing of the router, of engines, or of what
//! is inside a session. The first is `HELLO` or `AUTH TOKEN`; then come `SUB FILTER`, `PUB TOPIC TEXT` and `QUIT`.

use std::{
    fmt::Write as _,
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use switchyard::{
    edge::{Door, Opening},
    event::{Draft, Event, EventIds, Payload},
    hub::Kind,
    memory::{Client, Use},
    model::{CommandError, Filter, SubscriptionSpec},
    net::{Connection, OpenStream, Serve, ServeError, SessionPermit, Transport},
    outbox::{Batch, Frame, Item, Taken},
    session::{Command, Outlet, Request, Requests, Session},
    tasks::{OnPanic, Tasks},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf},
    sync::oneshot,
};
use tokio_stream::{Stream, StreamExt};
use tokio_util::codec::{FramedRead, LinesCodec};

const MAX_LINE_BYTES: usize = 64 * 1024;

#[derive(Clone)]
pub struct Line {
    pub door: Door,
    pub tasks: Tasks,
}

impl<I: AsyncRead + AsyncWrite + Unpin + Send + 'static> Serve<I> for Line {
    async fn serve(self, transport: Transport<I>, connection: Arc<Connection>) -> Result<(), ServeError> {
        let (read, write) = tokio::io::split(transport);
        let mut lines = FramedRead::new(read, LinesCodec::new_with_max_length(MAX_LINE_BYTES));
        let Some(Ok(hello)) = lines.next().await else { return Ok(()) };
        connection.heard();
        let stream = connection.open_stream();
        let (session, _permit) = match self.open(&hello, &stream).await {
            Ok(opened) => opened,
            Err(refusal) => return say(write, format!("REFUSED {refusal}\n")).await.map_err(ServeError::of_client),
        };
        let (outlet, (quits, quit), ids) = (session.outlet(), oneshot::channel(), EventIds::new(session.id()));
        let commands = Commands { lines, ids, client: Arc::clone(connection.memory()), quits: Some(quits) };
        self.tasks.spawn_in(connection.lane(), "session", OnPanic::Log, session.run(commands));
        tokio::select! {
            () = poll_fn(|context| stream.cut().poll_done(context)) => Ok(()),
            Ok(()) = quit => Ok(()),
            done = send(outlet, write) => done.map_err(ServeError::of_client),
        }
    }
}

impl Line {
    async fn open(&self, hello: &str, on: &OpenStream) -> anyhow::Result<(Session, Option<SessionPermit>)> {
        let credential = hello.strip_prefix("AUTH ").map(|token| format!("Bearer {token}").into_bytes());
        let caller = self.door.admit("line", credential.as_deref(), Some(on.connection())).await?;
        Ok(Opening::new(self.door.hub()?, Some(on.connection()), Some(on.cut().clone()))?.open(Kind::Many, caller)?)
    }
}

/// What a client says, as commands.
struct Commands<I> {
    lines: FramedRead<ReadHalf<Transport<I>>, LinesCodec>,
    ids: EventIds,
    client: Arc<Client>,
    /// Hears that the client says no more.
    quits: Option<oneshot::Sender<()>>,
}

impl<I: AsyncRead + AsyncWrite + Unpin> Stream for Commands<I> {
    type Item = Result<Request, CommandError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let line =
            ready!(Pin::new(&mut self.lines).poll_next(context)).and_then(Result::ok).filter(|line| line != "QUIT");
        self.quits.take_if(|_| line.is_none()).map(|quits| quits.send(()));
        Poll::Ready(line.map(|line| Ok(Request { request_id: 0, field_path: "", command: self.command(&line) })))
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> Requests for Commands<I> {}

impl<I> Commands<I> {
    fn command(&mut self, line: &str) -> Result<Command, CommandError> {
        match line.splitn(3, ' ').collect::<Vec<_>>()[..] {
            ["SUB", filter] => Ok(Command::Subscribe { subscription_id: 0, spec: spec(filter) }),
            ["PUB", topic, text] => {
                let draft = Draft { topic, payload: Payload::Text(text), ..Draft::default() };
                let memory = self.client.hold(Use::Publishes, text.len());
                let memory = Some(memory.map_err(|_| CommandError::NoMemory { of: "publishes" })?);
                let events = vec![draft.build(MAX_LINE_BYTES, &mut self.ids)];
                Ok(Command::Publish { events, precondition: None, memory })
            }
            _ => Err(CommandError::Field { field: "", problem: "is none of SUB, PUB and QUIT".into() }),
        }
    }
}

fn spec(filter: &str) -> Result<SubscriptionSpec, CommandError> {
    let filter = Filter::parse(filter.as_bytes()).map_err(|error| CommandError::Filter { index: 0, error })?;
    Ok(SubscriptionSpec::live(vec![filter]))
}

async fn say(mut write: impl AsyncWrite + Unpin, text: String) -> io::Result<()> {
    write.write_all(text.as_bytes()).await?;
    write.shutdown().await
}

async fn send(mut outlet: Outlet, mut write: impl AsyncWrite + Unpin) -> io::Result<()> {
    let mut batch = Batch::default();
    loop {
        batch.clear();
        match poll_fn(|context| outlet.poll_take(context, &mut batch)).await {
            Taken::Batch => write.write_all(text(&batch).as_bytes()).await?,
            Taken::Finished(end) => return say(write, format!("BYE {end}\n")).await,
        }
    }
}

fn text(batch: &Batch) -> String {
    let (mut out, mut events) = (String::new(), batch.events.iter());
    for item in &batch.items {
        let _ = match item {
            Item::Events { count, .. } => events.by_ref().take(*count).map(Event::view).try_for_each(|event| {
                let Payload::Text(text) = event.payload else { return Ok(()) };
                writeln!(out, "EVENT {} {text}", event.topic)
            }),
            Item::Reply(reply) => match &reply.frame {
                Frame::Subscribed(_) => writeln!(out, "SUBSCRIBED"),
                Frame::Ended { end, .. } => writeln!(out, "ENDED {end}"),
                Frame::Error { error, .. } => writeln!(out, "ERROR {error}"),
                Frame::Published(results) => results
                    .iter()
                    .filter_map(|it| it.as_ref().err())
                    .try_for_each(|error| writeln!(out, "ERROR {error}")),
                _ => Ok(()),
            },
        };
    }
    out
}
