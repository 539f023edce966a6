//! A connection between clients and a hub that can be cut, and can swallow what comes either way.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
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
pub(super) enum Mode {
    Pass,
    /// What the client sends does not arrive,
    SwallowUp,
    /// or what the hub sends.
    SwallowDown,
}

pub(super) struct Relay {
    pub(super) address: SocketAddr,
    cuts: watch::Sender<u64>,
    mode: watch::Sender<Mode>,
    swallowed: Swallowed,
    task: JoinHandle<()>,
}

/// What did not arrive.
type Swallowed = Arc<Mutex<Vec<u8>>>;

impl Relay {
    pub(super) async fn to(hub: SocketAddr) -> Self {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0)), hub).await
    }

    /// At the address of one that is gone.
    pub(super) async fn at(address: SocketAddr, hub: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (cuts, mode) = (watch::Sender::new(0), watch::Sender::new(Mode::Pass));
        let (cut, how) = (cuts.subscribe(), mode.subscribe());
        let swallowed = Swallowed::default();
        let into = Arc::clone(&swallowed);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (mut cut, how, into) = (cut.clone(), how.clone(), Arc::clone(&into));
                cut.borrow_and_update();
                tokio::spawn(async move {
                    tokio::select! {
                        () = relay(client, hub, how, into) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Self { address, cuts, mode, swallowed, task }
    }

    /// Ends all connections.
    pub(super) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    pub(super) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// The same for connections to come, which work; what was swallowed is lost.
    pub(super) fn cut_and_pass(&self) {
        self.set(Mode::Pass);
        self.cut();
    }

    /// True once something was swallowed that has this in it.
    pub(super) fn has_swallowed(&self, text: &str) -> bool {
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

async fn relay(client: TcpStream, hub: SocketAddr, how: watch::Receiver<Mode>, into: Swallowed) {
    let Ok(hub) = TcpStream::connect(hub).await else { return };
    let ((from_client, to_client), (from_hub, to_hub)) = (client.into_split(), hub.into_split());
    tokio::join!(
        pass(from_client, to_hub, (how.clone(), Mode::SwallowUp), &into),
        pass(from_hub, to_client, (how, Mode::SwallowDown), &into)
    );
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    (how, swallows): (watch::Receiver<Mode>, Mode),
    into: &Swallowed,
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count) = from.read(&mut buffer).await {
        if count == 0 {
            to.shutdown().await.ok();
            return;
        }
        if is(&how, swallows) {
            into.lock().expect("nobody has failed").extend_from_slice(&buffer[..count]);
        } else if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

fn is(how: &watch::Receiver<Mode>, mode: Mode) -> bool {
    *how.borrow() == mode
}
