//! One connection: what is known of it, and the signals to end it.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use atomic_waker::AtomicWaker;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
};

use crate::telemetry::Metrics;

/// What a connection has been asked to do; only ever goes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Asked {
    Nothing,
    /// Take no new streams and close when the last is done.
    Leave,
    /// Close now.
    Close,
}

/// One connection. In the extensions of every request that came over it.
#[derive(Debug)]
pub struct Connection {
    peer: SocketAddr,
    asked: AtomicU8,
    task: AtomicWaker,
    spoke: AtomicBool,
    sessions: AtomicUsize,
}

impl Connection {
    /// Where the client is.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Counts one session more, unless the connection has `limit` already.
    pub fn open_session(self: &Arc<Self>, limit: usize) -> Option<SessionPermit> {
        let counted =
            self.sessions.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < limit).then_some(n + 1));
        counted.ok().map(|_| SessionPermit(Arc::clone(self)))
    }

    /// What it has been asked; the task that asks is woken when that changes.
    pub(super) fn asked(&self, context: &Context<'_>) -> Asked {
        self.task.register(context.waker());
        match self.asked.load(Ordering::Acquire) {
            0 => Asked::Nothing,
            1 => Asked::Leave,
            _ => Asked::Close,
        }
    }

    pub(super) fn spoke(&self) -> bool {
        self.spoke.load(Ordering::Relaxed)
    }

    fn ask(&self, asked: Asked) {
        self.asked.fetch_max(asked as u8, Ordering::AcqRel);
        self.task.wake();
    }
}

/// One session of a connection, counted while this lives.
#[derive(Debug)]
pub struct SessionPermit(Arc<Connection>);

impl Drop for SessionPermit {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug, Default)]
struct Open {
    connections: HashMap<u64, Arc<Connection>>,
    /// No more are admitted.
    leaving: bool,
}

/// The connections that are open.
#[derive(Debug)]
pub struct Connections {
    open: Mutex<Open>,
    next: AtomicU64,
    closed: Notify,
    metrics: Arc<Metrics>,
}

impl Connections {
    /// None yet.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { open: Mutex::default(), next: AtomicU64::new(0), closed: Notify::new(), metrics }
    }

    /// How many are open.
    pub fn count(&self) -> usize {
        self.open.lock().connections.len()
    }

    /// Counts a new connection, unless there are `limit` already.
    pub(super) fn admit(self: &Arc<Self>, peer: SocketAddr, limit: usize) -> Option<Admitted> {
        let connection = Arc::new(Connection {
            peer,
            asked: AtomicU8::new(0),
            task: AtomicWaker::new(),
            spoke: AtomicBool::new(false),
            sessions: AtomicUsize::new(0),
        });
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut open = self.open.lock();
        if open.leaving || open.connections.len() >= limit {
            drop(open);
            self.metrics.connection_refused();
            return None;
        }
        open.connections.insert(number, Arc::clone(&connection));
        drop(open);
        self.metrics.connection_opened();
        Some(Admitted { connections: Arc::clone(self), number, connection })
    }

    /// Admits no more, and asks all to take no new streams and to close when their last is done.
    pub fn leave(&self) {
        let mut open = self.open.lock();
        open.leaving = true;
        open.connections.values().for_each(|connection| connection.ask(Asked::Leave));
    }

    /// Admits no more, and closes all now.
    pub fn close(&self) {
        let mut open = self.open.lock();
        open.leaving = true;
        open.connections.values().for_each(|connection| connection.ask(Asked::Close));
    }

    /// Waits until none is open.
    pub async fn until_none(&self) {
        loop {
            let closed = self.closed.notified();
            tokio::pin!(closed);
            closed.as_mut().enable();
            if self.count() == 0 {
                return;
            }
            closed.await;
        }
    }
}

/// An open connection; dropping it makes room for another.
#[derive(Debug)]
pub(super) struct Admitted {
    connections: Arc<Connections>,
    number: u64,
    pub(super) connection: Arc<Connection>,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.connections.open.lock().connections.remove(&self.number);
        self.connections.metrics.connection_closed();
        self.connections.closed.notify_waiters();
    }
}

/// The first bytes of HTTP/2, and more than any HTTP/1 client sends before the hub can judge it.
const PREFACE_BYTES: usize = 24;

/// A transport that notes when its client has begun to speak.
pub(super) struct Listening<I> {
    inner: I,
    heard: usize,
    connection: Arc<Connection>,
}

impl<I> Listening<I> {
    pub(super) fn new(inner: I, connection: Arc<Connection>) -> Self {
        Self { inner, heard: 0, connection }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Listening<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.inner).poll_read(context, buffer);
        if self.heard < PREFACE_BYTES {
            self.heard += buffer.filled().len() - before;
            if self.heard >= PREFACE_BYTES {
                self.connection.spoke.store(true, Ordering::Relaxed);
            }
        }
        result
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Listening<I> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
