//! A connection between clients and a hub that can be cut, and can swallow what comes either way.

use std::net::SocketAddr;

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
    task: JoinHandle<()>,
}

impl Relay {
    pub(super) async fn to(hub: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (cuts, mode) = (watch::Sender::new(0), watch::Sender::new(Mode::Pass));
        let (cut, how) = (cuts.subscribe(), mode.subscribe());
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (mut cut, how) = (cut.clone(), how.clone());
                cut.borrow_and_update();
                tokio::spawn(async move {
                    tokio::select! {
                        () = relay(client, hub, how) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Self { address, cuts, mode, task }
    }

    /// Ends all connections.
    pub(super) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    pub(super) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.cut();
        self.task.abort();
    }
}

async fn relay(client: TcpStream, hub: SocketAddr, how: watch::Receiver<Mode>) {
    let Ok(hub) = TcpStream::connect(hub).await else { return };
    let ((from_client, to_client), (from_hub, to_hub)) = (client.into_split(), hub.into_split());
    tokio::join!(
        pass(from_client, to_hub, how.clone(), Mode::SwallowUp),
        pass(from_hub, to_client, how, Mode::SwallowDown)
    );
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, how: watch::Receiver<Mode>, swallows: Mode) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count) = from.read(&mut buffer).await {
        if count == 0 {
            to.shutdown().await.ok();
            return;
        }
        if *how.borrow() != swallows && to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
