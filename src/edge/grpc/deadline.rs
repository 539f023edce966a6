//! The deadline of a call, as its client sent it in `grpc-timeout`.
//!
//! Owns how the header is read, and the end of a call whose time is over: what serves the call is dropped, as when the
//! client cancels, and the client gets DEADLINE_EXCEEDED. It never decides what becomes of work that was begun; whoever
//! serves the call hands that to `Tasks::see_through`.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::{Body as _, Frame};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tonic::{Status, body::Body};

use super::framing;
use crate::edge::wire::status;
use crate::model::CommandError;

const HEADER: &str = "grpc-timeout";
/// The most digits that the specification allows.
const MAX_DIGITS: usize = 8;

/// When a call is over, whatever has become of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline(Instant);

impl Deadline {
    /// The deadline of a call that has come just now; `None` if its client waits for ever.
    pub(super) fn of(headers: &HeaderMap) -> Result<Option<Self>, CommandError> {
        let mut all = headers.get_all(HEADER).iter();
        let timeout = match (all.next(), all.next()) {
            (None, _) => return Ok(None),
            (Some(one), None) => parse(one.as_bytes()),
            (Some(_), Some(_)) => None,
        };
        let problem = || "must be 1 to 8 digits and one of the units H, M, S, m, u and n, and sent once".to_owned();
        let timeout = timeout.ok_or_else(|| CommandError::Field { field: HEADER, problem: problem() })?;
        Ok(Instant::now().checked_add(timeout).map(Self))
    }

    /// Serves a call until its deadline.
    pub(super) async fn keep(self, serving: impl Future<Output = Response<Body>>) -> Response<Body> {
        // A client may send what is left of its own deadline, and that may be nothing.
        if self.0 <= Instant::now() {
            return status::deadline_exceeded().into_http();
        }
        match timeout_at(self.0, serving).await {
            Err(_) => status::deadline_exceeded().into_http(),
            Ok(response) if response.body().is_end_stream() => response,
            Ok(response) => response.map(|body| Body::new(Limited::new(body, self))),
        }
    }
}

/// The time in a value of the header.
fn parse(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > MAX_DIGITS || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count = digits.iter().fold(0, |count, digit| count * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(count * 3600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

/// The body of a response until the deadline of its call. A body hands out whole messages, so none is cut in two.
struct Limited {
    /// `None` once it is over.
    body: Option<Body>,
    timer: Pin<Box<Sleep>>,
}

impl Limited {
    fn new(body: Body, deadline: Deadline) -> Self {
        Self { body: Some(body), timer: Box::pin(sleep_until(deadline.0)) }
    }
}

impl http_body::Body for Limited {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        // First: a session that always has something to send ends in time, too.
        if this.timer.as_mut().poll(context).is_ready() {
            this.body = None;
            return Poll::Ready(Some(Ok(Frame::trailers(framing::trailers(&status::deadline_exceeded())))));
        }
        let frame = Pin::new(body).poll_frame(context);
        if matches!(&frame, Poll::Ready(None)) || matches!(&frame, Poll::Ready(Some(Ok(frame))) if frame.is_trailers())
        {
            this.body = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(http_body::Body::is_end_stream)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http_body_util::{BodyExt, StreamBody};
    use tokio::sync::oneshot;
    use tonic::Code;

    use super::*;
    use crate::tasks::Tasks;

    fn headers(values: &[&str]) -> HeaderMap {
        values
            .iter()
            .map(|value| (HEADER.parse().expect("a name"), HeaderValue::from_str(value).expect(value)))
            .collect()
    }

    fn code(headers: &HeaderMap) -> Option<Code> {
        Status::from_header_map(headers).map(|status| status.code())
    }

    #[test]
    fn a_timeout_is_read_as_the_specification_has_it() {
        let second = Duration::from_secs(1);
        for (value, wanted) in [
            ("0n", Duration::ZERO),
            ("99999999H", second * 99_999_999 * 3600),
            ("2M", second * 120),
            ("1S", second),
            ("1000m", second),
            ("1000000u", second),
            ("99999999n", Duration::from_nanos(99_999_999)),
        ] {
            assert_eq!(parse(value.as_bytes()), Some(wanted), "{value}");
            assert!(Deadline::of(&headers(&[value])).is_ok(), "{value}");
        }
        for value in ["", "S", "5", "5s", "5 S", "+5S", "-5S", "1.5S", "123456789S", "5SS", "abcS"] {
            assert!(Deadline::of(&headers(&[value])).is_err(), "{value}");
        }
        assert!(Deadline::of(&headers(&["1S", "1S"])).is_err(), "sent twice");
        assert!(Deadline::of(&headers(&[])).is_ok_and(|deadline| deadline.is_none()));
    }

    fn in_a_second() -> Deadline {
        Deadline::of(&headers(&["1S"])).ok().flatten().expect("a deadline")
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_begun_is_seen_through_although_its_client_is_told_of_the_deadline() {
        let (gate, opened) = oneshot::channel::<()>();
        let (done, stored) = oneshot::channel();
        let storing = Tasks::default().see_through("test", async move {
            opened.await.ok();
            done.send(()).ok();
        });
        let serving = async move {
            storing.await;
            Status::ok("").into_http()
        };
        let response = in_a_second().keep(serving).await;
        assert_eq!(code(response.headers()), Some(Code::DeadlineExceeded));
        gate.send(()).expect("it goes on");
        stored.await.expect("it is done");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_at_its_deadline_whether_it_is_idle_or_busy() {
        let idle = Body::new(StreamBody::new(tokio_stream::pending::<Result<Frame<Bytes>, Status>>()));
        let response = in_a_second().keep(async { Response::new(idle) }).await;
        let ended = response.into_body().collect().await.expect("an end");
        assert_eq!(ended.trailers().and_then(code), Some(Code::DeadlineExceeded));

        let busy =
            tokio_stream::iter(std::iter::repeat_with(|| Ok::<_, Status>(Frame::data(Bytes::from_static(b"x")))));
        let mut response = in_a_second().keep(async { Response::new(Body::new(StreamBody::new(busy))) }).await;
        for _ in 0..100 {
            let frame = response.body_mut().frame().await.expect("open").expect("a frame");
            assert!(frame.is_data(), "before the deadline");
        }
        tokio::time::advance(Duration::from_secs(1)).await;
        let last = response.body_mut().frame().await.expect("open").expect("a frame");
        assert_eq!(last.trailers_ref().and_then(code), Some(Code::DeadlineExceeded));
        assert!(response.body_mut().frame().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_ends_before_its_deadline_ends_as_it_would_without() {
        let frames = [Frame::data(Bytes::from_static(b"x")), Frame::trailers(framing::trailers(&Status::ok("")))];
        let body = Body::new(StreamBody::new(tokio_stream::iter(frames.map(Ok::<_, Status>))));
        let mut response = in_a_second().keep(async { Response::new(body) }).await;
        assert!(response.body_mut().frame().await.expect("open").expect("a frame").is_data());
        let trailers = response.body_mut().frame().await.expect("open").expect("a frame");
        assert_eq!(trailers.trailers_ref().and_then(code), Some(Code::Ok));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(response.body().is_end_stream() && response.body_mut().frame().await.is_none(), "it ended once");
    }
}
