//! The control socket's server: one request a call of [`Service`], JSON in and out.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixListener;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::log;
use super::service::{Refusal, Service};
use crate::api::{ErrorBody, ErrorDetail};

/// Largest request body that writes nothing: a ping target is short.
pub(super) const MAX_BODY: usize = 64 << 10;
/// Connections at a time; a further one waits. More than streams, which last.
const MAX_CONNECTIONS: usize = 96;
/// How long a client may take to say what it wants: the head of its request, and again the body.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the answers that are on their way when the daemon ends may take to leave.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Serves the socket until `end`, and then lets the answers leave that are on their way.
pub(super) async fn serve(listener: UnixListener, service: Arc<Service>, end: oneshot::Receiver<()>) {
    let mut connections = JoinSet::new();
    tokio::select! {
        () = accept(&listener, &service, &mut connections) => {}
        _ = end => {}
    }
    let left = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(LAST_WORDS, left).await;
}

async fn accept(listener: &UnixListener, service: &Arc<Service>, connections: &mut JoinSet<()>) {
    loop {
        while connections.len() >= MAX_CONNECTIONS {
            connections.join_next().await;
        }
        while connections.try_join_next().is_some() {}
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, mostly: trying again at once would only spin.
                tracing::warn!(%error, "control socket");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let service = Arc::clone(service);
        connections.spawn(async move {
            let answer = service_fn(|request| answer(request, &service));
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .serve_connection(TokioIo::new(stream), answer);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "control connection");
            }
        });
    }
}

/// What responses consist of: one piece, or as many as come.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Any body as the one kind that responses have.
pub(super) fn boxed(body: impl hyper::body::Body<Data = Bytes, Error = io::Error> + Send + 'static) -> Body {
    UnsyncBoxBody::new(body)
}

async fn answer(request: Request<Incoming>, service: &Service) -> Result<Response<Body>, Infallible> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    let allowed = match path {
        "/v1/ping" | "/v1/why" | "/v1/reload" | "/v1/stop" => Method::POST,
        "/v1/status" | "/v1/peers" | "/v1/routes" | "/v1/sessions" | "/v1/relayed" | "/v1/netcheck"
        | "/v1/counters" | "/v1/snapshot" | "/v1/daemon" => Method::GET,
        _ => match log::method(path) {
            Some(method) => method,
            None => {
                let message = format!("there is no {path}");
                return Ok(refuse(&Refusal::new(StatusCode::NOT_FOUND, "not_found", message)));
            }
        },
    };
    if parts.method != allowed {
        let refusal = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method", format!("{path} takes {allowed}"));
        let mut response = refuse(&refusal);
        if let Ok(value) = allowed.as_str().parse() {
            response.headers_mut().insert(ALLOW, value);
        }
        return Ok(response);
    }
    Ok(match path {
        "/v1/status" => json(service.status().await),
        "/v1/peers" => json(service.peers().await),
        "/v1/routes" => json(service.routes().await),
        "/v1/sessions" => json(service.sessions().await),
        "/v1/relayed" => json(service.relayed().await),
        "/v1/netcheck" => json(service.netcheck().await),
        "/v1/counters" => json(service.counters().await),
        "/v1/snapshot" => json(service.snapshot().await),
        "/v1/daemon" => json(Ok(service.daemon())),
        "/v1/reload" => json(service.reload().await),
        "/v1/stop" => json(Ok(service.stop())),
        "/v1/why" => json(why(body, service).await),
        "/v1/ping" => json(ping(body, service).await),
        _ => log::answer(path, body, &service.log).await,
    })
}

async fn ping(body: Incoming, service: &Service) -> Result<crate::api::PingReply, Refusal> {
    service.ping(read(body, MAX_BODY).await?).await
}

async fn why(body: Incoming, service: &Service) -> Result<crate::api::Why, Refusal> {
    service.why(read(body, MAX_BODY).await?).await
}

/// The document that came with a request.
pub(super) async fn read<T: DeserializeOwned>(body: Incoming, limit: usize) -> Result<T, Refusal> {
    let body = read_bytes(body, limit).await?;
    serde_json::from_slice(&body).map_err(|error| bad(error.to_string()))
}

/// The bytes that came with a request.
pub(super) async fn read_bytes(body: Incoming, limit: usize) -> Result<Bytes, Refusal> {
    let body = tokio::time::timeout(PATIENCE, Limited::new(body, limit).collect()).await;
    let cut = |error: Box<dyn std::error::Error + Send + Sync>| match error.is::<LengthLimitError>() {
        true => bad(format!("the request has more than {limit} bytes")),
        false => bad(error.to_string()),
    };
    Ok(body.map_err(|error| bad(error.to_string()))?.map_err(cut)?.to_bytes())
}

fn bad(why: String) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "bad_request", why)
}

pub(super) fn json(result: Result<impl Serialize, Refusal>) -> Response<Body> {
    match result {
        Ok(answer) => respond(StatusCode::OK, &answer),
        Err(refusal) => refuse(&refusal),
    }
}

pub(super) fn refuse(refusal: &Refusal) -> Response<Body> {
    let error = ErrorDetail { code: refusal.code.to_owned(), message: refusal.message.clone() };
    respond(refusal.status, &ErrorBody { error })
}

pub(super) fn respond(status: StatusCode, body: &impl Serialize) -> Response<Body> {
    let mut text = serde_json::to_vec(body).expect("maps with string keys and finite numbers are JSON");
    // For the terminal of whoever asks with curl.
    text.push(b'\n');
    let mut response = Response::new(boxed(Full::new(Bytes::from(text)).map_err(|never| match never {})));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    response
}
