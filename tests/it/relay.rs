//! A connection that breaks when a test says so: bytes pass until what the hub sends is swallowed, or both ways are cut.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
    sync::watch,
};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Open,
    /// Nothing comes from the hub.
    Deaf,
    Cut,
}

type Swallowed = Arc<Mutex<Vec<u8>>>;

/// Listens in front of a hub, for connections that all break together.
pub struct Relay {
    pub address: SocketAddr,
    way: watch::Sender<Way>,
    swallowed: Swallowed,
}

impl Relay {
    pub async fn start(hub: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (way, ways) = watch::channel(Way::Open);
        let swallowed = Swallowed::default();
        let into = Arc::clone(&swallowed);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let hub = TcpStream::connect(hub).await.expect("a hub");
                tokio::spawn(pass(client, hub, ways.clone(), Arc::clone(&into)));
            }
        });
        Self { address, way, swallowed }
    }

    /// From now on nothing arrives that the hub sends.
    pub fn swallow(&self) {
        self.way.send_replace(Way::Deaf);
    }

    /// True once the hub has written this, and it was swallowed.
    pub fn has_swallowed(&self, text: &str) -> bool {
        let swallowed = self.swallowed.lock().expect("nobody has failed");
        swallowed.windows(text.len()).any(|window| window == text.as_bytes())
    }

    /// Ends the connections; there will be no others.
    pub fn cut(&self) {
        self.way.send_replace(Way::Cut);
    }
}

async fn pass(client: TcpStream, hub: TcpStream, ways: watch::Receiver<Way>, swallowed: Swallowed) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_hub, mut to_hub) = hub.into_split();
    let mut cut = ways.clone();
    let down = async {
        let mut bytes = vec![0; 16 * 1024];
        while let Ok(count @ 1..) = from_hub.read(&mut bytes).await {
            let way = *ways.borrow();
            if way != Way::Open {
                swallowed.lock().expect("nobody has failed").extend_from_slice(&bytes[..count]);
            } else if to_client.write_all(&bytes[..count]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        _ = copy(&mut from_client, &mut to_hub) => {}
        () = down => {}
        _ = cut.wait_for(|way| *way == Way::Cut) => {}
    }
}
