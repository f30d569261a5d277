//! Reads the bodies of requests, within limits of their size, their duration, and the memory for
//! all of them.

use std::{pin::pin, sync::Arc, time::Duration};

use axum::{
    body::HttpBody,
    http::{HeaderMap, Method, header, request::Parts},
};
use bytes::Bytes;
use futures_util::FutureExt as _;
use http_body_util::BodyExt as _;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time,
};

use crate::{
    auth::Caller,
    http::{
        config::{AlertmanagerConfig, HttpConfig},
        endpoints::{BodyKind, note_refusal},
        problem::{Problem, ProblemKind},
    },
    telemetry::{self, Shed},
};

/// Maximum part of a refused body that is still read, so that its sender reads the answer instead
/// of a reset connection.
const DRAIN_BYTES: usize = 32 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(2);

/// Number of bytes that are reserved for the body of each connection, outside of the shared memory:
/// most calls are that small, so that large bodies never keep them out.
const FREE_BYTES: usize = 4 << 10;

/// The limit of callers without a token: they take no more than the reserved bytes.
const LOGINS: MaxSize = MaxSize { bytes: FREE_BYTES, remedy: "send the token, and nothing else" };

/// The largest body that an endpoint takes.
#[derive(Clone, Copy, Debug)]
struct MaxSize {
    bytes: usize,
    /// The advice to the sender.
    remedy: &'static str,
}

/// Limits the size, the duration and the memory of bodies.
#[derive(Debug)]
pub(super) struct BodyLimiter {
    calls: MaxSize,
    deliveries: MaxSize,
    timeout: Duration,
    memory: Arc<Semaphore>,
}

/// A body as it arrives.
pub(super) trait RequestBody: HttpBody<Data = Bytes, Error: Send> + Send + Unpin {}

impl<B: HttpBody<Data = Bytes, Error: Send> + Send + Unpin> RequestBody for B {}

/// A body's share of the memory; it is released on drop.
pub(super) type BodyPermit = Option<OwnedSemaphorePermit>;

impl BodyLimiter {
    pub(super) fn new(config: HttpConfig, alertmanager: AlertmanagerConfig) -> Self {
        let calls = MaxSize {
            bytes: config.max_body_bytes.get(),
            remedy: "send it in parts, or raise http.max_body_bytes",
        };
        let deliveries = MaxSize {
            bytes: alertmanager.max_body_bytes.get(),
            remedy: "set max_alerts in Alertmanager's webhook_config, or raise \
                     alertmanager.max_body_bytes",
        };
        let set_aside = FREE_BYTES * usize::from(config.max_connections.get());
        let memory = config.max_total_body_bytes.get().saturating_sub(set_aside);
        let memory = memory.max(calls.bytes).max(deliveries.bytes).min(Semaphore::MAX_PERMITS);
        Self {
            calls,
            deliveries,
            timeout: Duration::from_secs(config.body_timeout_seconds.get().into()),
            memory: Arc::new(Semaphore::new(memory)),
        }
    }

    /// Reads the whole body of a request, and logs the refusal of a delivery. A body that the call
    /// does not use is not read: otherwise callers without a token could make the service wait for
    /// theirs, and hold them. `caller` is `None` if everybody may call. The body of a login is
    /// short, and its caller has no token yet.
    ///
    /// # Errors
    /// If the body is too large, too slow or incomplete, or if there is no memory for it.
    pub(super) async fn read(
        &self,
        kind: BodyKind,
        caller: Option<&Caller>,
        head: &Parts,
        body: impl RequestBody,
    ) -> Result<(Bytes, BodyPermit), Problem> {
        if matches!(head.method, Method::GET | Method::HEAD) {
            return Ok((Bytes::new(), None));
        }
        if kind == BodyKind::Login {
            return self.read_within(LOGINS, &head.headers, body).await;
        }
        let Some(caller) = caller else { return Ok((Bytes::new(), None)) };
        if kind == BodyKind::Call {
            return self.read_within(self.calls, &head.headers, body).await;
        }
        let announced = announced_length(&head.headers);
        let read = self.read_within(self.deliveries, &head.headers, body).await;
        read.inspect_err(|problem| note_refusal(caller, announced, problem))
    }

    async fn read_within(
        &self,
        max: MaxSize,
        headers: &HeaderMap,
        mut body: impl RequestBody,
    ) -> Result<(Bytes, BodyPermit), Problem> {
        let announced = announced_length(headers).unwrap_or_default();
        let is_too_large = announced > max.bytes;
        if is_too_large && headers.contains_key(header::EXPECT) {
            // A client that asks before it sends is answered before it sends.
            return Err(too_large(max));
        }
        let read = if is_too_large {
            Err(too_large(max))
        } else {
            let collected = self.collect_in_time(&mut body, announced, max).await;
            // The service does not wait for a slow client a second time.
            collected.ok_or_else(|| too_slow(self.timeout))?
        };
        if read.is_err() {
            // Whether the rest came in time makes no difference to the answer.
            let _ = time::timeout(DRAIN_TIME, drain(body)).await;
        }
        read
    }

    /// Collects the body; returns `None` on a timeout.
    async fn collect_in_time(
        &self,
        body: &mut impl RequestBody,
        announced: usize,
        max: MaxSize,
    ) -> Option<Result<(Bytes, BodyPermit), Problem>> {
        let mut collecting = pin!(self.collect(body, announced, max));
        // Most bodies arrive with the head, and need no timer.
        let collected = collecting.as_mut().now_or_never();
        if collected.is_some() {
            return collected;
        }
        time::timeout(self.timeout, collecting).await.ok()
    }

    async fn collect(
        &self,
        body: &mut impl RequestBody,
        announced: usize,
        max: MaxSize,
    ) -> Result<(Bytes, BodyPermit), Problem> {
        let mut only = Bytes::new();
        let mut joined = Vec::new();
        let mut permit = None;
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| broken_off())?.into_data() else { continue };
            let length = only.len() + joined.len() + data.len();
            if length > max.bytes {
                return Err(too_large(max));
            }
            // A sender that announces much and sends little takes no memory from others.
            let wanted = if length > FREE_BYTES { length.max(announced) } else { length };
            if length == data.len() {
                self.enlarge(&mut permit, wanted).await?;
                only = data;
                continue;
            }
            // Frames are joined: kept as they arrive, frames of a byte each would take a hundred
            // times their length.
            if joined.capacity() < length {
                let capacity = (2 * joined.capacity()).max(wanted).clamp(length, max.bytes);
                self.enlarge(&mut permit, capacity).await?;
                joined.reserve_exact(capacity - joined.len());
            }
            joined.extend_from_slice(&std::mem::take(&mut only));
            joined.extend_from_slice(&data);
        }
        let bytes = if joined.is_empty() { only } else { joined.into() };
        Ok((bytes, permit))
    }

    /// Extends `permit` to a body of `bytes`. Only a body that has none yet waits for memory: if
    /// several waited with a part of theirs, none might ever get the rest.
    async fn enlarge(&self, permit: &mut BodyPermit, bytes: usize) -> Result<(), Problem> {
        let counted = bytes.saturating_sub(FREE_BYTES);
        let held = permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        if counted <= held {
            return Ok(());
        }
        let count = u32::try_from(counted - held).unwrap_or(u32::MAX);
        let memory = Arc::clone(&self.memory);
        let added = match permit {
            Some(_) => memory.try_acquire_many_owned(count).ok(),
            None => {
                let turn = memory.acquire_many_owned(count);
                // This timeout is shorter than the body's own, so that its sender reads the right
                // reason.
                time::timeout(self.timeout / 2, turn).await.ok().and_then(Result::ok)
            }
        };
        let Some(added) = added else {
            telemetry::shed(Shed::Bodies);
            return Err(no_memory());
        };
        match permit {
            Some(permit) => permit.merge(added),
            None => *permit = Some(added),
        }
        Ok(())
    }
}

fn announced_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

async fn drain(mut body: impl RequestBody) {
    let mut drained = 0;
    while drained < DRAIN_BYTES
        && let Some(Ok(frame)) = body.frame().await
    {
        drained += frame.data_ref().map_or(0, Bytes::len);
    }
}

fn too_large(MaxSize { bytes, remedy }: MaxSize) -> Problem {
    let detail = format!("the body is larger than {bytes} bytes: {remedy}");
    Problem::new(ProblemKind::ContentTooLarge, detail)
}

fn too_slow(timeout: Duration) -> Problem {
    let seconds = timeout.as_secs();
    Problem::new(
        ProblemKind::RequestTimeout,
        format!("the body did not arrive within {seconds} s: send it again, in smaller parts"),
    )
}

fn no_memory() -> Problem {
    let detail = "the memory for large bodies is in use, and nothing was recorded: try again in a \
                  moment, or send it in smaller parts";
    Problem::new(ProblemKind::Overloaded, detail)
}

fn broken_off() -> Problem {
    let detail = "the body ends early, or its chunks are not valid HTTP/1.1: send the complete \
                  body";
    Problem::new(ProblemKind::MalformedRequest, detail)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use axum::{body::Body, extract::Request};
    use futures_util::stream;

    use super::*;

    const MAX_BODY_BYTES: usize = 64 << 10;

    fn limiter() -> BodyLimiter {
        let max = MaxSize { bytes: MAX_BODY_BYTES, remedy: "send less" };
        let memory = Arc::new(Semaphore::new(MAX_BODY_BYTES));
        let timeout = Duration::from_millis(100);
        BodyLimiter { calls: max, deliveries: max, timeout, memory }
    }

    fn head(method: Method) -> Parts {
        Request::builder().method(method).body(()).unwrap().into_parts().0
    }

    async fn read(limiter: &BodyLimiter, frames: &[&[u8]]) -> Result<(Bytes, BodyPermit), Problem> {
        let frames: Vec<_> =
            frames.iter().map(|data| Ok::<_, Infallible>(Bytes::copy_from_slice(data))).collect();
        let (caller, head) = (Caller::default(), head(Method::POST));
        let body = Body::from_stream(stream::iter(frames));
        limiter.read(BodyKind::Call, Some(&caller), &head, body).await
    }

    #[tokio::test]
    async fn a_body_is_the_same_in_one_frame_or_in_many() {
        for frames in [&[&b"abc"[..]] as &[&[u8]], &[b"a", b"b", b"c"], &[b"", b"ab", b"", b"c"]] {
            let (bytes, permit) = read(&limiter(), frames).await.unwrap();
            assert_eq!(&bytes[..], b"abc");
            assert!(permit.is_none());
        }
        assert!(read(&limiter(), &[]).await.unwrap().0.is_empty());
    }

    #[tokio::test]
    async fn the_service_does_not_wait_for_a_body_that_it_does_not_use() {
        let endless = || Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
        let caller = Caller::default();
        for (method, caller) in [(Method::GET, Some(&caller)), (Method::POST, None)] {
            let (head, limiter) = (head(method), limiter());
            let (bytes, _) = limiter.read(BodyKind::Call, caller, &head, endless()).await.unwrap();
            assert!(bytes.is_empty());
        }
    }

    #[tokio::test]
    async fn the_limit_applies_to_the_whole_body() {
        let half = vec![b' '; MAX_BODY_BYTES / 2];
        assert_eq!(read(&limiter(), &[&half, &half]).await.unwrap().0.len(), MAX_BODY_BYTES);
        assert!(read(&limiter(), &[&half, &half, b"x"]).await.is_err());
    }

    #[tokio::test]
    async fn small_bodies_are_read_while_large_ones_take_all_memory() {
        let limiter = limiter();
        let large = vec![b' '; MAX_BODY_BYTES];
        let first = read(&limiter, &[&large]).await.unwrap();
        let second = read(&limiter, &[&large[..FREE_BYTES + 1]]).await.unwrap();
        assert_eq!(limiter.memory.available_permits(), FREE_BYTES - 1);
        assert!(read(&limiter, &[&large]).await.is_err());
        assert!(read(&limiter, &[&large[..FREE_BYTES]]).await.is_ok());
        drop((first, second));
        assert!(read(&limiter, &[&large]).await.is_ok());
    }

    #[tokio::test]
    async fn a_large_body_waits_for_the_memory_of_another() {
        let limiter = BodyLimiter { timeout: Duration::from_secs(60), ..limiter() };
        let large = vec![b' '; MAX_BODY_BYTES];
        let first = read(&limiter, &[&large]).await.unwrap();
        let frames: &[&[u8]] = &[&large];
        let mut second = pin!(read(&limiter, frames));
        assert!(second.as_mut().now_or_never().is_none());
        drop(first);
        assert!(second.await.is_ok());
    }
}
