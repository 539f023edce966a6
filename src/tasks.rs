//! The one place that spawns tasks.
//!
//! Every task has a name, is known until it ends, and has a rule for failure: a panic is logged, or, for a task the
//! hub cannot live without, stops the process. Every task ends by itself once what it serves is gone.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use atomic_waker::AtomicWaker;
use pin_project_lite::pin_project;
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
    /// Runs `work` to its end.
    pub fn spawn(&self, name: &'static str, on_panic: OnPanic, work: impl Future<Output = ()> + Send + 'static) {
        let guard = PanicGuard { name, on_panic, failed: self.failed.clone() };
        self.tracker.spawn(Guarded { work, _guard: guard });
    }

    /// Runs `work` to its end in a thread of its own, for what waits for a disk all the time.
    pub fn thread(
        &self,
        name: &'static str,
        on_panic: OnPanic,
        work: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<()> {
        let guard = PanicGuard { name, on_panic, failed: self.failed.clone() };
        let token = self.tracker.token();
        let run = move || {
            let (_token, _guard) = (token, guard);
            work();
        };
        std::thread::Builder::new().name(name.to_owned()).spawn(run).map(drop)
    }

    /// Runs `work`, which waits for a disk now and then, where it holds nobody up. `None` when it panicked.
    pub async fn block<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        self.tracker.spawn_blocking(work).await.ok()
    }

    /// Ends when a task failed that the hub cannot live without.
    pub async fn failed(&self) {
        self.failed.cancelled().await;
    }
}

pin_project! {
    /// A task with its guard. Not an async block: that would keep the work twice, as what it captured and as what it
    /// awaits, and an idle session is little more than its tasks.
    struct Guarded<F> {
        #[pin]
        work: F,
        _guard: PanicGuard,
    }
}

impl<F: Future<Output = ()>> Future for Guarded<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.project().work.poll(context)
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

/// Ends one HTTP/2 stream from outside: the only way to be rid of one whose client takes nothing, since its response is
/// not polled any more.
#[derive(Debug, Default)]
pub struct Cut {
    done: AtomicBool,
    task: AtomicWaker,
}

impl Cut {
    /// Ends the stream: everything that serves it is dropped, and its client is told by a reset.
    pub fn cut(&self) {
        self.done.store(true, Ordering::Release);
        self.task.wake();
    }

    /// The cut of the stream whose task this is; `None` in other tasks.
    pub fn of_this_stream() -> Option<Arc<Cut>> {
        STREAM.try_with(Arc::clone).ok()
    }
}

tokio::task_local! {
    static STREAM: Arc<Cut>;
}

/// Lets hyper run its HTTP/2 streams as tasks of ours.
impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, work: F) {
        let cut = Arc::new(Cut::default());
        let work = STREAM.scope(Arc::clone(&cut), work);
        self.spawn("stream", OnPanic::Log, Cuttable { work, cut });
    }
}

pin_project! {
    /// The task of a stream, until it is done or cut.
    struct Cuttable<F> {
        #[pin]
        work: F,
        cut: Arc<Cut>,
    }
}

impl<F: Future<Output = ()>> Future for Cuttable<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        this.cut.task.register(context.waker());
        if this.cut.done.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        this.work.poll(context)
    }
}
