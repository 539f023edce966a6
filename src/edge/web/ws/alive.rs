//! Whether the client of a connection is there: it is sent a ping every interval, and must show in time that it lives.
//!
//! An answer is not the only sign of life: anything counts that comes, since a client cannot answer amid a large message;
//! and so does that it takes what it had not taken for a while, since a ping waits behind what was sent before it. A client
//! whose messages the hub does not read just now cannot show anything.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep};

use super::line::Line;

/// The time of one connection.
#[derive(Debug)]
pub(super) struct Alive {
    interval: Duration,
    timeout: Duration,
    /// Until the next ping, or for an answer to the last.
    timer: Pin<Box<Sleep>>,
    /// When the ping was sent that waits for an answer.
    asked: Option<Instant>,
}

/// What it is time for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Beat {
    /// A ping.
    Ping,
    /// The end: the client is gone.
    Gone,
}

impl Alive {
    pub(super) fn new(interval: Duration, timeout: Duration) -> Self {
        Self { interval, timeout, timer: Box::pin(tokio::time::sleep(interval)), asked: None }
    }

    /// Ready when it is time for something.
    pub(super) fn poll(&mut self, context: &mut Context<'_>, line: &Line) -> Poll<Beat> {
        loop {
            ready!(self.timer.as_mut().poll(context));
            let now = Instant::now();
            match self.asked.take() {
                None => {
                    line.ask();
                    self.asked = Some(now);
                    self.timer.as_mut().reset(now + self.timeout);
                    return Poll::Ready(Beat::Ping);
                }
                Some(asked) if line.may_be_alive() => self.timer.as_mut().reset((asked + self.interval).max(now)),
                Some(_) => return Poll::Ready(Beat::Gone),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(30);
    const TIMEOUT: Duration = Duration::from_secs(10);

    async fn beat(alive: &mut Alive, line: &Line) -> (Beat, Duration) {
        let start = Instant::now();
        let beat = poll_fn(|context| alive.poll(context, line)).await;
        (beat, start.elapsed())
    }

    /// With the resolution of timers.
    fn after(seconds: u64, (beat, took): (Beat, Duration)) -> Beat {
        assert!(took.abs_diff(Duration::from_secs(seconds)) <= Duration::from_millis(2), "{beat:?} after {took:?}");
        beat
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_answers_is_asked_every_interval_and_one_that_does_not_is_gone() {
        let (mut alive, line) = (Alive::new(INTERVAL, TIMEOUT), Line::default());
        line.listen(true);
        assert_eq!(after(30, beat(&mut alive, &line).await), Beat::Ping);
        for _ in 0..3 {
            line.hear();
            assert_eq!(after(30, beat(&mut alive, &line).await), Beat::Ping);
        }
        assert_eq!(after(10, beat(&mut alive, &line).await), Beat::Gone);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_the_hub_does_not_read_is_not_gone_for_that() {
        let (mut alive, line) = (Alive::new(INTERVAL, TIMEOUT), Line::default());
        for _ in 0..3 {
            assert_eq!(beat(&mut alive, &line).await.0, Beat::Ping);
        }
        line.listen(true);
        assert_eq!(after(10, beat(&mut alive, &line).await), Beat::Gone);
    }
}
