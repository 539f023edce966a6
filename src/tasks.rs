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
    ops::ControlFlow,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use parking_lot::Mutex;
use pin_project_lite::pin_project;
use tokio::{runtime::Handle, sync::oneshot, task::coop};
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

    /// Runs `work` to its end in the lane of the task that calls.
    pub fn spawn_beside(&self, name: &'static str, on_panic: OnPanic, work: impl Future<Output = ()> + Send + 'static) {
        match LANE.try_with(Arc::clone) {
            Ok(lane) => self.spawn_in(&lane, name, on_panic, work),
            Err(_) => self.spawn(name, on_panic, work),
        }
    }

    /// Runs `work` to its end in a lane: that of the connection it is done for.
    pub fn spawn_in(
        &self,
        lane: &Arc<Lane>,
        name: &'static str,
        on_panic: OnPanic,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        self.spawn(name, on_panic, LANE.scope(Arc::clone(lane), work));
    }

    /// Runs `work`, one stream of the connection whose lane this is, to its end. It begins when there is a turn for it.
    pub fn spawn_stream(&self, lane: &Arc<Lane>, work: impl Future<Output = ()> + Send + 'static) {
        let turn = Some(Turn::of_stream());
        self.spawn("stream", OnPanic::Log, LANE.scope(Arc::clone(lane), Begun { turn, work }));
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
        let work = move || {
            yield_to_workers();
            work()
        };
        self.tracker.spawn_blocking(work).await.ok()
    }

    /// The same in a thread of its own, with the priority of the workers: threads that `work` starts inherit it.
    pub async fn once<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<Option<T>> {
        if self.single {
            return Ok(Some(work()));
        }
        let (done, result) = oneshot::channel();
        self.thread(name, OnPanic::Log, move || drop(done.send(work())))?;
        Ok(result.await.ok())
    }

    /// Polls what may change on the disk: runs `look` there every `interval`, and hands on what it found, until `take` has
    /// enough. A look that panicked found nothing.
    pub async fn poll<T: Send + 'static>(
        &self,
        interval: Duration,
        look: impl FnMut() -> T + Send + 'static,
        mut take: impl FnMut(T) -> ControlFlow<()> + Send,
    ) {
        let look = Arc::new(Mutex::new(look));
        loop {
            tokio::time::sleep(interval).await;
            let look = Arc::clone(&look);
            if let Some(found) = self.block(move || (look.lock())()).await
                && take(found).is_break()
            {
                return;
            }
        }
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

/// Gives the thread a lower priority than the workers have: reading and decoding for some, which may take all processors,
/// must not keep the workers from serving everybody.
fn yield_to_workers() {
    #[cfg(target_os = "linux")]
    {
        thread_local!(static YIELDS: () = {
            // The priority of a thread, as Linux has it. Without the right to change it, it stays as it was.
            rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICENESS).ok();
        });
        YIELDS.with(|()| ());
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

/// Workers have three times the weight of a thread that is this nice.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 5;

/// A turn: half a millisecond.
const TURN_STEPS: usize = 8192;
/// A task has 128 units of budget each time it is polled, so that it, too, has a turn; this many steps use up one.
const STEPS_A_UNIT: usize = TURN_STEPS / 128;

/// What it costs to begin a stream, and to answer it if there is nothing to it.
const STREAM_STEPS: usize = 512;

/// Counts the work of a loop whose length clients choose, in steps of some 50 ns: a node visited, a token inserted. Others
/// work whenever a turn is used up, whatever it was used for. Tasks of one [`Lane`] have their turns together.
#[derive(Debug, Default)]
pub struct Turn {
    owed: usize,
    /// The turn of the lane that was found used up.
    after: Option<u32>,
}

impl Turn {
    /// What it costs to begin a stream is counted already, and to be settled before it begins.
    pub fn of_stream() -> Self {
        Self { owed: STREAM_STEPS, after: None }
    }

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
        if self.owed < STEPS_A_UNIT {
            return Poll::Ready(());
        }
        match LANE.try_with(|lane| lane.take(self.owed, self.after)) {
            Ok(Ok(())) => *self = Self::default(),
            Ok(Err(turn)) => {
                self.after = Some(turn);
                // It is woken once all tasks that can work now have. Nothing is held meanwhile: it may not be polled again.
                return pin!(tokio::task::yield_now()).poll(context);
            }
            Err(_) => {
                while self.owed >= STEPS_A_UNIT {
                    ready!(coop::poll_proceed(context)).made_progress();
                    self.owed -= STEPS_A_UNIT;
                }
            }
        }
        Poll::Ready(())
    }
}

/// The tasks of one connection: they use up a turn together, and then all of them wait for the next. However many there are,
/// other clients wait for no more than one turn.
#[derive(Debug, Default)]
pub struct Lane {
    /// The number of the turn, and in the lower half how many steps of it are used up.
    turn: AtomicU64,
}

impl Lane {
    /// Does a part of a task, such as one poll of a stream that has no task of its own, as a task of this lane.
    pub fn within<T>(self: &Arc<Self>, work: impl FnOnce() -> T) -> T {
        LANE.sync_scope(Arc::clone(self), work)
    }

    /// Uses steps of this turn; of the next one, if `after` tells of this one that it is used up and everybody had a chance
    /// to work since. If it has too few left, its number comes back. A task that comes first may have more than there are.
    fn take(&self, steps: usize, after: Option<u32>) -> Result<(), u32> {
        let steps = steps.min(u32::MAX as usize / 2) as u64;
        let next = |at: u64| {
            let (turn, used) = ((at >> 32) as u32, at & u64::from(u32::MAX));
            if after == Some(turn) {
                return Some(u64::from(turn.wrapping_add(1)) << 32 | steps);
            }
            (used == 0 || used + steps <= TURN_STEPS as u64).then_some(at + steps)
        };
        let taken = self.turn.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        taken.map(drop).map_err(|at| (at >> 32) as u32)
    }
}

pin_project! {
    /// Work that begins once there is a turn for it. By hand, since an async block would store the work twice.
    struct Begun<F> {
        turn: Option<Turn>,
        #[pin]
        work: F,
    }
}

impl<F: Future<Output = ()>> Future for Begun<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if let Some(turn) = this.turn {
            ready!(turn.poll_settle(context));
            *this.turn = None;
        }
        this.work.poll(context)
    }
}

tokio::task_local! {
    static LANE: Arc<Lane>;
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
    async fn the_tasks_of_one_connection_have_their_turns_together_however_many_they_are() {
        const TASKS: usize = 100;
        let (tasks, lane) = (Tasks::default(), Arc::<Lane>::default());
        let (done, most) = (Arc::new(AtomicU64::new(0)), TASKS as u64 * 10);
        for _ in 0..TASKS {
            let done = Arc::clone(&done);
            let work = async move {
                for _ in 0..10 {
                    Turn::default().spend(TURN_STEPS / 2).await;
                    done.fetch_add(1, Ordering::Relaxed);
                }
            };
            tasks.spawn("busy", OnPanic::Log, LANE.scope(Arc::clone(&lane), work));
        }
        let (mut before, mut rounds) = (0, 0);
        while before < most {
            tokio::task::yield_now().await;
            let now = done.load(Ordering::Relaxed);
            assert!(now - before <= 2, "{} halves of a turn before another task had its own", now - before);
            (before, rounds) = (now, rounds + 1);
        }
        assert!(rounds <= most, "{rounds} rounds: some went by in which none of them worked");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_is_done_within_a_lane_uses_up_its_turns() {
        let lane = Arc::<Lane>::default();
        let mut streams = 0;
        let in_one_turn = poll_fn(|context| {
            while lane.within(|| Turn::of_stream().poll_settle(context)).is_ready() {
                streams += 1;
            }
            Poll::Ready(streams)
        });
        assert_eq!(in_one_turn.await, TURN_STEPS / STREAM_STEPS);
        assert_eq!(lane.take(1, None), Err(0), "it is used up for all");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn more_than_a_turn_at_once_has_one_to_itself() {
        let lane = Lane::default();
        assert_eq!(lane.take(3 * TURN_STEPS, None), Ok(()));
        assert_eq!(lane.take(1, None), Err(0), "it is used up");
        assert_eq!(lane.take(TURN_STEPS, Some(0)), Ok(()), "the next one");
        assert_eq!(lane.take(1, Some(0)), Err(1), "which others found used up, too");
        assert_eq!(lane.take(1, Some(1)), Ok(()));
        assert_eq!(lane.take(TURN_STEPS - 1, None), Ok(()), "there is room");
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
