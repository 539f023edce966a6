//! A connection between clients and a hub that can be cut, and can swallow what comes either way.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

/// What happens to what is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Pass,
    /// What the client sends does not arrive,
    SwallowUp,
    /// or what the hub sends.
    SwallowDown,
}

pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    cuts: watch::Sender<u64>,
    how: How,
    swallowed: Swallowed,
    task: JoinHandle<()>,
}

/// What happens, and after how many bytes of clients nothing that the hub sends arrives any more.
#[derive(Clone)]
struct How {
    mode: Arc<watch::Sender<Mode>>,
    deaf_after: Arc<AtomicUsize>,
}

/// What did not arrive.
type Swallowed = Arc<Mutex<Vec<u8>>>;

impl Relay {
    pub(crate) async fn to(hub: SocketAddr) -> Self {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0)), hub).await
    }

    /// At the address of one that is gone.
    pub(crate) async fn at(address: SocketAddr, hub: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let cuts = watch::Sender::new(0);
        let deaf_after = Arc::new(AtomicUsize::new(usize::MAX));
        let all = How { mode: Arc::new(watch::Sender::new(Mode::Pass)), deaf_after };
        let (cut, how) = (cuts.subscribe(), all.clone());
        let swallowed = Swallowed::default();
        let into = Arc::clone(&swallowed);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (mut cut, how, into) = (cut.clone(), how.clone(), Arc::clone(&into));
                cut.borrow_and_update();
                let until = cut.clone();
                tokio::spawn(async move {
                    tokio::select! {
                        () = relay(client, hub, how, until, into) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Self { address, cuts, how: all, swallowed, task }
    }

    /// Ends all connections.
    pub(crate) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.how.mode.send_replace(mode);
    }

    /// Swallows what the hub sends once clients have sent this much, whoever looks when.
    pub(crate) fn deaf_after(&self, bytes: usize) {
        self.how.deaf_after.store(bytes, Relaxed);
    }

    /// The same for connections to come, which work; what was swallowed is lost.
    pub(crate) fn cut_and_pass(&self) {
        self.cut();
        self.set(Mode::Pass);
    }

    /// True once something was swallowed that has this in it.
    pub(crate) fn has_swallowed(&self, text: &str) -> bool {
        let swallowed = self.swallowed.lock().expect("nobody has failed");
        swallowed.windows(text.len()).any(|window| window == text.as_bytes())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.cut();
        self.task.abort();
    }
}

impl How {
    /// A client has sent more.
    fn sent(&self, bytes: usize) {
        let left = self.deaf_after.load(Relaxed);
        if left == usize::MAX {
            return;
        }
        self.deaf_after.store(left.saturating_sub(bytes), Relaxed);
        if left <= bytes {
            self.deaf_after.store(usize::MAX, Relaxed);
            self.mode.send_replace(Mode::SwallowDown);
        }
    }
}

async fn relay(client: TcpStream, hub: SocketAddr, how: How, cut: watch::Receiver<u64>, into: Swallowed) {
    let Ok(hub) = TcpStream::connect(hub).await else { return };
    let ((from_client, to_client), (from_hub, to_hub)) = (client.into_split(), hub.into_split());
    tokio::join!(
        pass(from_client, to_hub, (how.clone(), Mode::SwallowUp), &cut, &into),
        pass(from_hub, to_client, (how, Mode::SwallowDown), &cut, &into)
    );
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    (how, swallows): (How, Mode),
    cut: &watch::Receiver<u64>,
    into: &Swallowed,
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count) = from.read(&mut buffer).await {
        if count == 0 {
            to.shutdown().await.ok();
            return;
        }
        if swallows == Mode::SwallowUp {
            how.sent(count);
        }
        let mode = *how.mode.borrow();
        // What is for connections to come is not for this one.
        if cut.has_changed().unwrap_or(true) {
            return;
        }
        if mode == swallows {
            into.lock().expect("nobody has failed").extend_from_slice(&buffer[..count]);
        } else if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
