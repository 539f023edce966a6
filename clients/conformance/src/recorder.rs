//! The history while it is made: everybody who sees something writes it down here, in one order and with one clock, and the
//! runner waits here for what is to come.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{sync::watch, time::timeout};

use crate::history::{Entry, Fact, MOST, Tally};

/// Writes down what happens. Clones write into the same history.
#[derive(Debug, Clone)]
pub(crate) struct Recorder(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    began: Instant,
    written: Mutex<Written>,
    changes: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Written {
    entries: Vec<Entry>,
    tally: Tally,
}

impl Recorder {
    pub(crate) fn new() -> Self {
        let inner = Inner { began: Instant::now(), written: Mutex::default(), changes: watch::Sender::new(()) };
        Self(Arc::new(inner))
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.0.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down what has happened just now. Of a history that is too long the rest is lost, and it says so.
    pub(crate) fn add(&self, fact: Fact) {
        let mut written = self.written();
        let at = u64::try_from(self.0.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let fact = match written.entries.len() {
            MOST => Fact::Missed(format!("there are more than {MOST} entries")),
            more if more > MOST => return,
            _ => fact,
        };
        written.tally.add(&fact);
        written.entries.push(Entry { at, fact });
        drop(written);
        self.0.changes.send_replace(());
    }

    /// What holds of the tally now.
    pub(crate) fn now<T>(&self, of: impl FnOnce(&Tally) -> T) -> T {
        of(&self.written().tally)
    }

    /// Waits until nothing is missing; what is missing when the time is over.
    pub(crate) async fn until(
        &self,
        patience: Duration,
        missing: impl Fn(&Tally) -> Vec<String>,
    ) -> Result<(), Vec<String>> {
        let mut changes = self.0.changes.subscribe();
        let waiting = async {
            while !self.now(&missing).is_empty() {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        match timeout(patience, waiting).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.now(&missing)),
        }
    }

    /// All that was written down.
    pub(crate) fn history(&self) -> Vec<Entry> {
        self.written().entries.clone()
    }
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}
