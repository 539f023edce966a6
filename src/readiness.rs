//! Whether this hub serves: one value, set by `server.rs` alone and read by health checks.

use tokio::sync::watch;

/// How far the process has come in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Not yet ready for clients.
    Starting,
    /// Ready.
    Serving,
    /// Shutting down: still serving those it has, wanting no new ones.
    Draining,
    /// Nothing is served any more.
    Stopped,
}

/// Sets the phase.
#[derive(Debug)]
pub struct Readiness(watch::Sender<Phase>);

/// Reads the phase.
#[derive(Debug, Clone)]
pub struct ReadinessView(watch::Receiver<Phase>);

impl Default for Readiness {
    fn default() -> Self {
        Self(watch::Sender::new(Phase::Starting))
    }
}

impl Readiness {
    /// Life goes on.
    pub fn enter(&self, phase: Phase) {
        self.0.send_replace(phase);
    }

    /// A reader of the phase.
    pub fn view(&self) -> ReadinessView {
        ReadinessView(self.0.subscribe())
    }
}

impl ReadinessView {
    /// The phase now.
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// The phase now and whenever it changes.
    pub fn phases(&self) -> tokio_stream::wrappers::WatchStream<Phase> {
        tokio_stream::wrappers::WatchStream::new(self.0.clone())
    }
}
