//! The network between client and hub: a TCP proxy that refuses, resets, cuts, swallows, delays and throttles, half-closes,
//! and puts a GOAWAY between two frames. It knows nothing of events.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpSocket, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    task::JoinSet,
    time::sleep,
};

use crate::{
    frames::Frames,
    history::Fact,
    hub::Listener,
    recorder::Recorder,
    scenario::{Blow, Network},
};

/// No client of a scenario has more at a time.
const MOST_CONNECTIONS: usize = 2000;
const BUFFER_BYTES: usize = 16 * 1024;
/// Ports that the system gives to nobody by itself.
const PORTS: std::ops::Range<u16> = 12_000..30_000;

/// A proxy, which ends with this value.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    network: watch::Sender<Network>,
    blows: watch::Sender<Option<Blow>>,
    /// Where the hub is, if there is one.
    pub(crate) hub: watch::Sender<Option<SocketAddr>>,
    _tasks: JoinSet<()>,
}

/// What a connection obeys.
#[derive(Debug, Clone)]
struct Orders {
    /// What is spoken there.
    listener: Listener,
    network: watch::Receiver<Network>,
    blows: watch::Receiver<Option<Blow>>,
    hub: watch::Receiver<Option<SocketAddr>>,
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

/// A connection is to end with a reset.
#[derive(Debug)]
struct Broken;

impl From<io::Error> for Broken {
    fn from(_: io::Error) -> Self {
        Self
    }
}

impl Proxy {
    /// A proxy that works, to a hub that is told later.
    pub(crate) fn start(listener: Listener, recorder: Recorder) -> io::Result<Self> {
        let (address, socket) = free_port()?;
        let accepting = socket.listen(1024)?;
        let (network, blows, hub) =
            (watch::Sender::new(Network::default()), watch::Sender::new(None), watch::Sender::new(None));
        let orders = Orders { listener, network: network.subscribe(), blows: blows.subscribe(), hub: hub.subscribe() };
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(address, accepting, orders, recorder));
        Ok(Self { address, network, blows, hub, _tasks: tasks })
    }

    pub(crate) fn set(&self, network: Network) {
        self.network.send_replace(network);
    }

    pub(crate) fn strike(&self, blow: Blow) {
        self.blows.send_replace(Some(blow));
    }
}

/// A port that nobody else has: nobody can connect to it as long as nobody listens.
pub(crate) fn free_port() -> io::Result<(SocketAddr, TcpSocket)> {
    let mut last = None;
    for _ in 0..100 {
        let address = SocketAddr::from(([127, 0, 0, 1], fastrand::u16(PORTS)));
        match bind(address) {
            Ok(socket) => return Ok((address, socket)),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| io::ErrorKind::AddrInUse.into()))
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(address)?;
    Ok(socket)
}

/// Listens at the same port again. Connections of before may still be ending there.
fn listen_again(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(1024)
}

async fn accept(address: SocketAddr, first: TcpListener, mut orders: Orders, recorder: Recorder) {
    let mut listener = Some(first);
    let mut connections = JoinSet::new();
    loop {
        if orders.network.borrow_and_update().refuse {
            listener = None;
        } else if listener.is_none() {
            listener = listen_again(address).ok();
            if listener.is_none() {
                sleep(Duration::from_millis(20)).await;
                continue;
            }
        }
        let next = async {
            match &listener {
                Some(listener) => listener.accept().await.ok(),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            accepted = next => {
                let Some((client, _)) = accepted else { continue };
                recorder.add(Fact::Accepted);
                if connections.len() < MOST_CONNECTIONS {
                    connections.spawn(relay(client, orders.clone()));
                }
            }
            changed = orders.network.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

/// Takes bytes both ways until one end has had enough, or the connection is to break.
async fn relay(mut client: TcpStream, mut orders: Orders) {
    let hub = *orders.hub.borrow();
    orders.blows.mark_unchanged();
    let resets = orders.network.borrow().reset;
    let connected = match hub {
        Some(hub) if !resets => TcpStream::connect(hub).await.ok(),
        _ => None,
    };
    let Some(mut hub) = connected else {
        client.set_zero_linger().ok();
        return;
    };
    client.set_nodelay(true).ok();
    hub.set_nodelay(true).ok();
    let result = {
        let ((from_client, to_client), (from_hub, to_hub)) = (client.split(), hub.split());
        let both = async {
            tokio::try_join!(
                pump(Way::Up, from_client, to_hub, orders.clone()),
                pump(Way::Down, from_hub, to_client, orders.clone())
            )
        };
        tokio::select! {
            result = both => result.map(|_| ()),
            () = cut(orders.blows.clone()) => Err(Broken),
        }
    };
    if result.is_err() {
        client.set_zero_linger().ok();
        hub.set_zero_linger().ok();
    }
}

/// Waits until all connections are to break.
async fn cut(mut blows: watch::Receiver<Option<Blow>>) {
    while blows.changed().await.is_ok() {
        if *blows.borrow_and_update() == Some(Blow::Cut) {
            return;
        }
    }
}

/// One way of one connection.
struct Pump {
    way: Way,
    frames: Frames,
    /// Bytes since the network is to cut after some.
    counted: u64,
    has_swallowed: bool,
    wants_goaway: bool,
}

async fn pump(way: Way, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, mut orders: Orders) -> Result<(), Broken> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let frames = Frames::of(orders.listener);
    let mut pump = Pump { way, frames, counted: 0, has_swallowed: false, wants_goaway: false };
    loop {
        let network = orders.network.borrow_and_update().clone();
        // What is missing is missing for ever.
        if pump.has_swallowed && !pump.swallows(&network) {
            return Err(Broken);
        }
        if pump.cut_after(&network) == 0 {
            pump.counted = 0;
        }
        let room = match network.bytes_per_second {
            0 => BUFFER_BYTES,
            rate => usize::try_from(rate / 20).unwrap_or(BUFFER_BYTES).clamp(1, BUFFER_BYTES),
        };
        tokio::select! {
            biased;
            changed = orders.network.changed() => {
                changed.map_err(|_| Broken)?;
            }
            changed = orders.blows.changed(), if way == Way::Down => {
                changed.map_err(|_| Broken)?;
                let blow = *orders.blows.borrow_and_update();
                match blow {
                    Some(Blow::HalfClose) => {
                        to.shutdown().await?;
                        return Ok(());
                    }
                    Some(Blow::Goaway) if pump.frames.is_between() => to.write_all(pump.frames.goaway()).await?,
                    Some(Blow::Goaway) => pump.wants_goaway = true,
                    _ => {}
                }
            }
            count = from.read(&mut buffer[..room]) => {
                let count = count?;
                if count == 0 {
                    to.shutdown().await?;
                    return Ok(());
                }
                if pump.swallows(&network) {
                    pump.has_swallowed = true;
                    continue;
                }
                pump.pass(&network, &buffer[..count], &mut to).await?;
            }
        }
    }
}

impl Pump {
    fn swallows(&self, network: &Network) -> bool {
        if self.way == Way::Up { network.swallow_up } else { network.swallow_down }
    }

    fn cut_after(&self, network: &Network) -> u64 {
        if self.way == Way::Up { network.cut_after_up } else { network.cut_after_down }
    }

    /// Passes bytes on, as the network does it.
    async fn pass(&mut self, network: &Network, mut bytes: &[u8], to: &mut WriteHalf<'_>) -> Result<(), Broken> {
        sleep(Duration::from_millis(network.delay_ms)).await;
        if self.wants_goaway {
            let before = self.frames.to_boundary(bytes);
            to.write_all(&bytes[..before]).await?;
            bytes = &bytes[before..];
            if self.frames.is_between() {
                to.write_all(self.frames.goaway()).await?;
                self.wants_goaway = false;
            }
        }
        let cut_after = self.cut_after(network);
        let left = usize::try_from(cut_after.saturating_sub(self.counted)).unwrap_or(usize::MAX);
        if cut_after > 0 && bytes.len() >= left {
            to.write_all(&bytes[..left]).await?;
            // What is written is to arrive before the reset.
            sleep(Duration::from_millis(20)).await;
            return Err(Broken);
        }
        to.write_all(bytes).await?;
        self.counted += bytes.len() as u64;
        if self.way == Way::Down {
            self.frames.advance(bytes);
        }
        let takes = (bytes.len() as u64 * 1000).checked_div(network.bytes_per_second);
        sleep(Duration::from_millis(takes.unwrap_or(0))).await;
        Ok(())
    }
}
