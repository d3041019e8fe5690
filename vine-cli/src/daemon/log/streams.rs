//! Answers that go on: each piece is made when the one before has left, so that nothing piles up for who reads slowly.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{FutureExt as _, stream};
use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, TRAILER};
use hyper::{Response, StatusCode};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use vine_store::{Exporter, Handle, Item, StoreError, Subscription, Verification, Watch, Watched};

use super::super::control::{Body, MAX_BODY, boxed, read, refuse};
use super::super::service::Refusal;
use super::routes::line;
use super::{LogService, MAX_STREAMS};
use crate::api::{Blob, Change, ErrorDetail, Progress, TailLine, TailRequest, VerifyLine, WatchLine, WatchRequest};
use crate::log::{self, Names, Trouble};

/// Bytes that are gathered into one piece, about.
const PIECE: usize = 64 * 1024;
/// A verification says how far it is after so many bytes.
const SAID_EVERY: u64 = 64 << 20;
/// The trailer that says what an export had to leave out.
pub(crate) const LEFT_OUT: &str = "vine-left-out";

/// A stream, of its media type.
pub(super) struct Streamed {
    media_type: &'static str,
    body: Body,
}

const LINES: &str = "application/x-ndjson";
const ARCHIVE: &str = "application/octet-stream";

/// The response to a request for a stream.
pub(super) fn response(streamed: Result<Streamed, Refusal>) -> Response<Body> {
    match streamed {
        Ok(Streamed { media_type, body }) => {
            let mut response = Response::new(body);
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
            headers.insert(TRAILER, HeaderValue::from_static(LEFT_OUT));
            response
        }
        Err(refusal) => refuse(&refusal),
    }
}

/// Something that is given out piece by piece.
trait Pieces: Send + 'static {
    /// The next piece; `None` at the end.
    fn next(&mut self) -> impl Future<Output = Option<io::Result<Frame<Bytes>>>> + Send;
}

fn streamed(media_type: &'static str, pieces: impl Pieces, permit: OwnedSemaphorePermit) -> Streamed {
    let next = |(mut pieces, permit): (_, OwnedSemaphorePermit)| async move {
        let piece = Pieces::next(&mut pieces).await?;
        Some((piece, (pieces, permit)))
    };
    Streamed { media_type, body: boxed(StreamBody::new(stream::unfold((pieces, permit), next))) }
}

fn detail(trouble: Trouble) -> ErrorDetail {
    ErrorDetail { code: trouble.code.to_owned(), message: trouble.message }
}

impl LogService {
    fn permit(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        Arc::clone(&self.streams).try_acquire_owned().map_err(|_| {
            let message = format!("{MAX_STREAMS} commands follow the log or read it already; end one of them");
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_streams", message)
        })
    }

    async fn next_ordinal(store: &Handle) -> Result<u64, Refusal> {
        Ok(store.status().await.map_err(|error| log::trouble(&error))?.store.next_ordinal)
    }

    pub(super) async fn tail(&self, body: Incoming) -> Result<Streamed, Refusal> {
        let TailRequest { from, follow } = read(body, MAX_BODY).await?;
        let (permit, store) = (self.permit()?, self.store().await?);
        let until = if follow { None } else { Some(Self::next_ordinal(&store).await?) };
        let ops = store.subscribe(from);
        let is_over = until.is_some_and(|until| from >= until);
        Ok(streamed(LINES, Gathered(Tail { ops, until, names: self.names(), is_over }), permit))
    }

    pub(super) async fn watch(&self, body: Incoming) -> Result<Streamed, Refusal> {
        let WatchRequest { prefix, from } = read(body, MAX_BODY).await?;
        let (permit, store) = (self.permit()?, self.store().await?);
        let from = match from {
            Some(from) => from,
            None => Self::next_ordinal(&store).await?,
        };
        Ok(streamed(LINES, Changes { watch: store.watch(prefix.0, from), is_over: false }, permit))
    }

    pub(super) async fn export(&self) -> Result<Streamed, Refusal> {
        let (permit, store) = (self.permit()?, self.store().await?);
        let exporter = Exporter::begin(store).await.map_err(|error| log::trouble(&error))?;
        Ok(streamed(ARCHIVE, Export { exporter, is_over: false }, permit))
    }

    pub(super) async fn verify(self: &Arc<Self>) -> Result<Streamed, Refusal> {
        let (permit, store) = (self.permit()?, self.store().await?);
        let (lines, rest) = mpsc::channel(8);
        let service = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            let last = match service.read_all(&store, &lines) {
                Ok(last) => last,
                Err(trouble) => Some(VerifyLine::Error(detail(trouble))),
            };
            // Nobody may be there any more to hear it.
            last.map(|last| lines.blocking_send(last))
        });
        Ok(streamed(LINES, Gathered(Lines { rest }), permit))
    }

    /// Reads everything; `None` when nobody listens any more.
    fn read_all(&self, store: &Handle, lines: &mpsc::Sender<VerifyLine>) -> Result<Option<VerifyLine>, Trouble> {
        let failed = |error| log::cannot_open(&self.dir, &error);
        let mut said = 0;
        let progress = |bytes, total| {
            if bytes >= said + SAID_EVERY {
                said = bytes;
                let _ = lines.try_send(VerifyLine::Progress(Progress { bytes, total }));
            }
            !lines.is_closed()
        };
        let reading = Verification::beside(store, &self.dir, self.owner, self.options.clone());
        let mut reading = reading.map_err(failed)?;
        let Some(report) = reading.run(progress).map_err(failed)? else { return Ok(None) };
        Ok(Some(VerifyLine::Report(log::verified(&self.dir, &report, reading.state_hash()))))
    }
}

/// Something that is told line by line. That a call is given up loses no line.
trait Told: Send + 'static {
    type Line: Serialize + Send;

    /// The next line; `None` at the end, and ever after.
    fn next(&mut self) -> impl Future<Output = Option<Self::Line>> + Send;
}

/// Lines in pieces: the first as soon as it comes, and behind it what is there already.
struct Gathered<T>(T);

impl<T: Told> Pieces for Gathered<T> {
    async fn next(&mut self) -> Option<io::Result<Frame<Bytes>>> {
        let mut out = Vec::new();
        line(&mut out, &self.0.next().await?);
        while out.len() < PIECE {
            let Some(Some(next)) = self.0.next().now_or_never() else { break };
            line(&mut out, &next);
        }
        Some(Ok(Frame::data(out.into())))
    }
}

/// Ops.
struct Tail {
    ops: Subscription,
    /// The ordinal behind the last one that is wanted.
    until: Option<u64>,
    names: Arc<Names>,
    is_over: bool,
}

impl Told for Tail {
    type Line = TailLine;

    async fn next(&mut self) -> Option<TailLine> {
        if self.is_over {
            return None;
        }
        let (line, next) = match self.ops.next().await {
            Ok(Item::Op(op)) => (TailLine::Op(log::op(&op, &self.names)), op.ordinal + 1),
            Ok(Item::Damaged(damaged)) => (TailLine::Damaged { damaged: log::damaged(&damaged) }, damaged.ordinals.end),
            Err(error) => {
                self.is_over = true;
                return failed(&error).map(|error| TailLine::Error { error });
            }
        };
        self.is_over = self.until.is_some_and(|until| next >= until);
        Some(line)
    }
}

/// How an error ends a stream: that the daemon stops is the end that a stream has.
fn failed(error: &StoreError) -> Option<ErrorDetail> {
    match error {
        StoreError::Closed => None,
        error => Some(detail(log::trouble(error))),
    }
}

/// Changes of keys, each a piece of its own: a look for the next one must not be given up.
struct Changes {
    watch: Watch,
    is_over: bool,
}

impl Pieces for Changes {
    async fn next(&mut self) -> Option<io::Result<Frame<Bytes>>> {
        if self.is_over {
            return None;
        }
        let next = match self.watch.next().await {
            Ok(Watched::Change(change)) => WatchLine::Change(Change {
                ordinal: change.ordinal,
                key: Blob(change.key),
                value: change.value.map(Blob),
            }),
            Ok(Watched::Damaged(damaged)) => WatchLine::Damaged { damaged: log::damaged(&damaged) },
            Err(error) => {
                self.is_over = true;
                WatchLine::Error { error: failed(&error)? }
            }
        };
        let mut out = Vec::new();
        line(&mut out, &next);
        Some(Ok(Frame::data(out.into())))
    }
}

/// What a verification says.
struct Lines {
    rest: mpsc::Receiver<VerifyLine>,
}

impl Told for Lines {
    type Line = VerifyLine;

    async fn next(&mut self) -> Option<VerifyLine> {
        self.rest.recv().await
    }
}

/// An archive.
struct Export {
    exporter: Exporter,
    is_over: bool,
}

impl Pieces for Export {
    async fn next(&mut self) -> Option<io::Result<Frame<Bytes>>> {
        if self.is_over {
            return None;
        }
        match self.exporter.next().await {
            Ok(Some(piece)) => Some(Ok(Frame::data(piece.into()))),
            Ok(None) => {
                self.is_over = true;
                let left_out = serde_json::to_string(&log::left_out(self.exporter.left_out()?)).ok()?;
                let mut trailers = HeaderMap::new();
                trailers.insert(LEFT_OUT, HeaderValue::from_str(&left_out).ok()?);
                Some(Ok(Frame::trailers(trailers)))
            }
            Err(error) => {
                self.is_over = true;
                tracing::warn!("export of the log: {}", log::trouble(&error).message);
                // Without an end the archive is a cut one, and whoever reads it sees that.
                Some(Err(io::Error::other(error)))
            }
        }
    }
}
