//! The one place that spawns tasks.
//!
//! Every task has a name, is known until it ends, and has a rule for failure: a panic is logged, or, for a task the
//! hub cannot live without, stops the process.

use std::{future::Future, time::Duration};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// What a panic in a task means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnPanic {
    /// One client is affected: log it.
    Log,
    /// The hub is no longer whole: log it and shut down.
    Stop,
}

/// Spawns tasks and knows which are left. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    failed: CancellationToken,
}

impl Tasks {
    /// Runs `work` to its end. Every task ends by itself once what it serves is gone: its connection or its session.
    pub fn spawn(&self, name: &'static str, on_panic: OnPanic, work: impl Future<Output = ()> + Send + 'static) {
        let guard = PanicGuard { name, on_panic, failed: self.failed.clone() };
        self.tracker.spawn(async move {
            let _guard = guard;
            work.await;
        });
    }

    /// Ends when a task failed that the hub cannot live without.
    pub async fn failed(&self) {
        self.failed.cancelled().await;
    }

    /// Waits up to `patience` for every task to end. False when some are still there.
    pub async fn wait(&self, patience: Duration) -> bool {
        self.tracker.close();
        tokio::time::timeout(patience, self.tracker.wait()).await.is_ok()
    }

    /// How many tasks there are.
    pub fn count(&self) -> usize {
        self.tracker.len()
    }
}

/// Speaks only when the task it stands in unwinds.
struct PanicGuard {
    name: &'static str,
    on_panic: OnPanic,
    failed: CancellationToken,
}

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        tracing::error!(task = self.name, "task panicked");
        if self.on_panic == OnPanic::Stop {
            self.failed.cancel();
        }
    }
}

/// Lets hyper run its HTTP/2 streams as tasks of ours.
impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, work: F) {
        self.spawn("stream", OnPanic::Log, work);
    }
}
