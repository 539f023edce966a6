//! What a load is put on: the hub, or what it is compared with.

use std::future::Future;

use bytes::Bytes;

/// A system that carries events from publishers to subscribers. Implemented by the hub here, twice, and by NATS and bare tonic
/// in `benches/versus`.
pub trait Side: Send + Sync + 'static {
    /// One publisher, with a connection of its own.
    type Publisher: Publish;
    /// One subscriber, with a connection of its own.
    type Subscriber: Receive;

    /// Connects a publisher.
    fn publisher(&self) -> impl Future<Output = anyhow::Result<Self::Publisher>> + Send;

    /// Connects a subscriber; what is published after this returns reaches it.
    fn subscriber(&self, filters: &[String]) -> impl Future<Output = anyhow::Result<Self::Subscriber>> + Send;
}

/// Sends events.
pub trait Publish: Send + 'static {
    /// Sends a batch, in order, as the system's client best does it. The batch is emptied.
    fn publish(&mut self, batch: &mut Vec<Outgoing>) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// Receives events.
pub trait Receive: Send + 'static {
    /// Waits for at least one event and shows the payloads of all that are there, in order.
    fn receive(&mut self, check: &mut impl Check) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// Sees payloads as they arrive.
pub trait Check: Send {
    /// The next one.
    fn check(&mut self, payload: &[u8]);
}

/// One event to send.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// Its topic.
    pub topic: std::sync::Arc<str>,
    /// Its payload.
    pub payload: Bytes,
}
