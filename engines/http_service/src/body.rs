//! Request bodies under a deadline, and what is said of a body that did not arrive.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::StatusCode;
use http_body::{Frame, SizeHint};
use public_api::denial::ErrorBody;
use tokio::time::{Instant, Sleep, sleep_until};

/// The body had not arrived in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body did not arrive in time")]
pub struct TooSlow;

/// A body that ends with [`TooSlow`] at its deadline, however steadily it trickles.
struct Timed {
    body: Body,
    deadline: Instant,
    /// Set when the body first makes its reader wait.
    alarm: Option<Pin<Box<Sleep>>>,
}

/// The body under a deadline; one that has ended already is left as it is.
pub fn timed(body: Body, within: Option<Duration>) -> Body {
    match within {
        Some(within) if !body.is_end_stream() => {
            Body::new(Timed { body, deadline: Instant::now() + within, alarm: None })
        }
        _ => body,
    }
}

impl HttpBody for Timed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            return Poll::Ready(frame);
        }
        let deadline = self.deadline;
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        alarm.as_mut().poll(context).map(|()| Some(Err(axum::Error::new(TooSlow))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The answer for a body that could not be read, by the rejection of axum's extractor.
pub fn unread(status: StatusCode, rejection: &(dyn Error + 'static)) -> (StatusCode, ErrorBody) {
    if status == StatusCode::PAYLOAD_TOO_LARGE {
        return (status, ErrorBody::new("RequestBodyTooLarge", "the body is longer than this path takes"));
    }
    let mut cause = Some(rejection);
    while let Some(error) = cause {
        if error.is::<TooSlow>() {
            let body = ErrorBody::new("RequestTimeout", "the body did not arrive in time");
            return (StatusCode::REQUEST_TIMEOUT, body);
        }
        cause = error.source();
    }
    (status, ErrorBody::new("InvalidRequest", "the body could not be read"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::extract::{DefaultBodyLimit, FromRequest as _, Request};
    use tower::{Layer as _, ServiceExt as _, service_fn};

    /// What an extractor makes of a body.
    async fn read(body: Body) -> Result<usize, (StatusCode, String)> {
        let extract =
            service_fn(async |request: Request| Ok::<_, ()>(Bytes::from_request(request, &()).await));
        let limited = DefaultBodyLimit::max(100).layer(extract);
        let read = limited.oneshot(Request::new(body)).await.expect("infallible");
        read.map(|bytes| bytes.len()).map_err(|rejection| {
            let (status, body) = unread(rejection.status(), &rejection);
            (status, body.error.code)
        })
    }

    struct Never;

    impl HttpBody for Never {
        type Data = Bytes;
        type Error = axum::Error;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
            Poll::Pending
        }
    }

    #[tokio::test]
    async fn each_way_to_fail_has_its_answer() {
        let soon = Some(Duration::from_millis(10));
        assert_eq!(read(timed(Body::from("all there"), soon)).await, Ok(9));
        assert_eq!(read(timed(Body::empty(), soon)).await, Ok(0));
        let late = (StatusCode::REQUEST_TIMEOUT, "RequestTimeout".to_owned());
        assert_eq!(read(timed(Body::new(Never), soon)).await, Err(late));
        let long = (StatusCode::PAYLOAD_TOO_LARGE, "RequestBodyTooLarge".to_owned());
        assert_eq!(read(timed(Body::from(vec![0; 101]), soon)).await, Err(long));
    }
}
