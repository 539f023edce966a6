//! The one place that spawns tasks.
//!
//! Every task has a name, is known until it ends, and has a rule for failure: a panic is logged, or, for a task the
//! hub cannot live without, stops the process. Every task ends by itself once what it serves is gone.
//!
//! How long a task may work before others do is counted here too: see [`Turn`].

use std::{
    fmt,
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use atomic_waker::AtomicWaker;
use pin_project_lite::pin_project;
use tokio::{runtime::Handle, task::coop, time::Instant};
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
    single: bool,
}

impl Tasks {
    /// All work is done by the thread of the runtime, also what waits for a disk: for a simulation, which has no other
    /// thread, so that all things happen in an order that can be had again.
    pub fn on_one_thread() -> Self {
        Self { single: true, ..Self::default() }
    }

    /// True when there is no other thread: [`Self::thread`] must not be used.
    pub fn has_one_thread(&self) -> bool {
        self.single
    }

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
    ) -> io::Result<()> {
        let guard = PanicGuard { name, on_panic, failed: self.failed.clone() };
        let token = self.tracker.token();
        let run = move || {
            let (_token, _guard) = (token, guard);
            work();
        };
        std::thread::Builder::new().name(name.to_owned()).spawn(run).map(drop)
    }

    /// Runs `work`, and all tasks that it spawns, in a thread of its own: it goes on when every worker is busy. Without other
    /// threads it is a task like any.
    pub fn apart(
        &self,
        name: &'static str,
        on_panic: OnPanic,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        if self.single {
            self.spawn(name, on_panic, work);
            return Ok(());
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        self.thread(name, on_panic, move || runtime.block_on(work))
    }

    /// Runs `work`, which waits for a disk now and then, where it holds nobody up. `None` when it panicked.
    pub async fn block<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        if self.single {
            return Some(work());
        }
        self.tracker.spawn_blocking(work).await.ok()
    }

    /// Does `work` here, and sees to it that it is done: if whoever waits for it gives up, it goes on as a task.
    pub fn see_through<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> SeenThrough<T> {
        SeenThrough { tasks: self.clone(), name, work: Some(Box::pin(work)) }
    }

    /// Ends when a task failed that the hub cannot live without.
    pub async fn failed(&self) {
        self.failed.cancelled().await;
    }
}

/// See [`Tasks::see_through`].
pub struct SeenThrough<T: Send + 'static> {
    tasks: Tasks,
    name: &'static str,
    /// `None` once it is done.
    work: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
}

impl<T: Send + 'static> fmt::Debug for SeenThrough<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SeenThrough").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<T: Send + 'static> Future for SeenThrough<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let Some(work) = &mut self.work else { return Poll::Pending };
        let done = work.as_mut().poll(context);
        if done.is_ready() {
            self.work = None;
        }
        done
    }
}

impl<T: Send + 'static> Drop for SeenThrough<T> {
    fn drop(&mut self) {
        // Work that panicked cannot go on, and without a runtime the process is at its end.
        if let Some(work) = self.work.take()
            && !std::thread::panicking()
            && Handle::try_current().is_ok()
        {
            self.tasks.spawn(self.name, OnPanic::Log, async move { drop(work.await) });
        }
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

/// A task has so many units of budget each time it is polled; this many steps use up one. So a turn is about 8,000 steps,
/// or half a millisecond.
const STEPS_A_UNIT: usize = 64;

/// Counts the work of a loop whose length clients choose, in steps of some 50 ns: a node visited, a token inserted. Others
/// work whenever the turn of this task is used up, whatever it was used for.
#[derive(Debug, Default)]
pub struct Turn {
    owed: usize,
}

impl Turn {
    /// Counts steps that were done. Waits while others work, if the turn is used up.
    pub async fn spend(&mut self, steps: usize) {
        self.note(steps);
        poll_fn(|context| self.poll_settle(context)).await;
    }

    /// Counts steps that were done, to be settled later.
    pub fn note(&mut self, steps: usize) {
        self.owed += steps;
    }

    /// Settles what was counted. Pending while others are to work first; the task is woken after them.
    pub fn poll_settle(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.owed >= STEPS_A_UNIT {
            ready!(coop::poll_proceed(context)).made_progress();
            self.owed -= STEPS_A_UNIT;
        }
        Poll::Ready(())
    }
}

/// Ends one HTTP/2 stream from outside: the only way to be rid of one whose client takes nothing, since its response is
/// not polled any more.
#[derive(Debug, Default)]
pub struct Cut {
    done: AtomicBool,
    task: AtomicWaker,
    farewell: Option<Arc<Farewell>>,
}

/// Tells the streams of one connection by when they are to end, once that is known.
#[derive(Debug, Default)]
pub struct Farewell(OnceLock<Instant>);

impl Farewell {
    /// They are to end by then. The first time counts.
    pub fn say(&self, by: Instant) {
        self.0.get_or_init(|| by);
    }
}

impl Cut {
    /// Of one stream of the connection with this farewell.
    pub fn new(farewell: &Arc<Farewell>) -> Arc<Self> {
        Arc::new(Self { farewell: Some(Arc::clone(farewell)), ..Self::default() })
    }

    /// Ends the stream: everything that serves it is dropped, and its client is told by a reset. False if it was cut
    /// before.
    pub fn cut(&self) -> bool {
        let first = !self.done.swap(true, Ordering::AcqRel);
        self.task.wake();
        first
    }

    /// Ready once the stream is to be cut. Only the task of the stream asks.
    pub fn poll_done(&self, context: &Context<'_>) -> Poll<()> {
        self.task.register(context.waker());
        if self.done.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// By when the stream is to end, because its connection does.
    pub fn ends_by(&self) -> Option<Instant> {
        self.farewell.as_ref().and_then(|farewell| farewell.0.get().copied())
    }

    /// The cut of the stream whose task this is; `None` in other tasks.
    pub fn of_this_stream() -> Option<Arc<Cut>> {
        STREAM.try_with(Arc::clone).ok()
    }
}

tokio::task_local! {
    static STREAM: Arc<Cut>;
}

impl Tasks {
    /// Runs one HTTP/2 stream of a connection, which sees to it that it ends when it is cut.
    pub fn stream(&self, cut: Arc<Cut>, work: impl Future<Output = ()> + Send + 'static) {
        self.spawn("stream", OnPanic::Log, STREAM.scope(cut, work));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_turn_ends_after_its_steps_however_they_are_counted() {
        for at_a_time in [1, 63, 64, 1_000] {
            tokio::task::yield_now().await;
            let (mut turn, mut done) = (Turn::default(), 0);
            let in_one_turn = poll_fn(|context| {
                while turn.poll_settle(context).is_ready() {
                    turn.note(at_a_time);
                    done += at_a_time;
                }
                Poll::Ready(done)
            });
            let steps = in_one_turn.await;
            assert!((8_000..=8_192 + 64 + at_a_time).contains(&steps), "{steps}, {at_a_time} at a time");
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_is_apart_goes_on_while_the_workers_are_busy() {
        let (asked, question) = std::sync::mpsc::channel::<std::sync::mpsc::Sender<()>>();
        let (begin, begun) = tokio::sync::oneshot::channel::<()>();
        let work = async move {
            begun.await.expect("it begins");
            let answer = question.recv().expect("a question");
            answer.send(()).expect("somebody waits");
        };
        Tasks::default().apart("apart", OnPanic::Log, work).expect("a thread");
        begin.send(()).expect("it waits");
        // The only worker of this test is busy with it from here on.
        let (answer, answered) = std::sync::mpsc::channel();
        asked.send(answer).expect("it listens");
        answered.recv().expect("an answer");
    }
}
