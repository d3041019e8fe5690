//! Asking the daemon.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use crate::api::ErrorBody;
use crate::output::Failure;

/// A daemon that does not answer within this time is stuck. Requests that wait for something add what they wait for.
const PATIENCE: Duration = Duration::from_secs(10);

/// A stream begins within this time: the daemon may still be reading its log.
const STREAM_PATIENCE: Duration = Duration::from_secs(70);

/// The control socket of one configuration.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    socket: PathBuf,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// Nobody listens.
    #[error("vine is not running for this configuration (no daemon at {socket})", socket = .0.display())]
    NotRunning(PathBuf),
    /// The socket belongs to somebody else.
    #[error("no permission to talk to the daemon at {socket}; run this as the user that runs it (root, mostly)", socket = .0.display())]
    Permission(PathBuf),
    /// The daemon refused.
    #[error("{message}")]
    Refused {
        /// The HTTP status.
        status: StatusCode,
        /// For programs.
        code: String,
        /// For people.
        message: String,
    },
    /// The daemon went away, is stuck, or is something else.
    #[error("the daemon at {socket} gave no answer: {why}", socket = .socket.display())]
    Broken { socket: PathBuf, why: String },
}

impl ClientError {
    /// Whether no daemon has the log open: then a command may read it by itself.
    pub(crate) fn leaves_the_log(&self) -> bool {
        match self {
            ClientError::NotRunning(_) => true,
            ClientError::Refused { code, .. } => {
                matches!(
                    code.as_str(),
                    "log_off" | "log_io" | "log_in_use" | "log_foreign" | "log_version" | "log_misplaced"
                )
            }
            ClientError::Permission(_) | ClientError::Broken { .. } => false,
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        match &error {
            ClientError::NotRunning(_) => Failure::failed("not_running", error),
            ClientError::Permission(_) => Failure::failed("permission_denied", error),
            ClientError::Broken { .. } => Failure::failed("no_answer", error),
            ClientError::Refused { status, code, .. } => match (*status, code.clone()) {
                (StatusCode::UNPROCESSABLE_ENTITY, code) => Failure::usage(code, error),
                (_, code) => Failure::failed(code, error),
            },
        }
    }
}

impl Client {
    /// A client of the daemon at `socket`.
    pub(crate) fn new(socket: &Path) -> Client {
        Client { socket: socket.to_owned() }
    }

    /// Where the daemon is asked.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// The answer to a question.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let body = self.exchange(Method::GET, path, Bytes::new(), PATIENCE).await?;
        self.parse(&body)
    }

    /// The answer to a request that may take `wait`.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        wait: Duration,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| self.broken(error))?;
        let body = self.exchange(Method::POST, path, body.into(), PATIENCE + wait).await?;
        self.parse(&body)
    }

    /// Whether a daemon answers.
    pub(crate) async fn is_alive(&self) -> bool {
        !matches!(self.connect().await, Err(ClientError::NotRunning(_)))
    }

    fn parse<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(body).map_err(|error| self.broken(error))
    }

    fn broken(&self, why: impl ToString) -> ClientError {
        ClientError::Broken { socket: self.socket.clone(), why: why.to_string() }
    }

    async fn connect(&self) -> Result<UnixStream, ClientError> {
        UnixStream::connect(&self.socket).await.map_err(|error| match error.kind() {
            // A socket without a listener is what a killed daemon leaves behind.
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotADirectory => {
                ClientError::NotRunning(self.socket.clone())
            }
            io::ErrorKind::PermissionDenied => ClientError::Permission(self.socket.clone()),
            _ => self.broken(error),
        })
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        patience: Duration,
    ) -> Result<Bytes, ClientError> {
        let answer = tokio::time::timeout(patience, self.exchange_unhurried(method, path, body)).await;
        answer.unwrap_or_else(|_| Err(self.broken(format!("nothing within {} s", patience.as_secs()))))
    }

    async fn exchange_unhurried(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, ClientError> {
        let Answer { status, mut stream } = self.ask(method, path, body).await?;
        let body = stream.rest().await?;
        if status.is_success() { Ok(body) } else { Err(self.refused(status, &body)) }
    }

    /// The answer to a question whose end may be far.
    pub(crate) async fn stream(&self, path: &str, body: &impl Serialize) -> Result<Stream, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| self.broken(error))?;
        let answer = tokio::time::timeout(STREAM_PATIENCE, self.ask(Method::POST, path, body.into())).await;
        let Answer { status, mut stream } =
            answer.map_err(|_| self.broken(format!("nothing within {} s", STREAM_PATIENCE.as_secs())))??;
        if status.is_success() {
            return Ok(stream);
        }
        let body = stream.rest().await?;
        Err(self.refused(status, &body))
    }

    /// The answer, good or bad, to a request with any body that may take `wait`.
    pub(crate) async fn send(
        &self,
        path: &str,
        body: Bytes,
        wait: Duration,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let exchange = async {
            let Answer { status, mut stream } = self.ask(Method::POST, path, body).await?;
            Ok((status, stream.rest().await?))
        };
        let answer = tokio::time::timeout(PATIENCE + wait, exchange).await;
        answer.unwrap_or_else(|_| Err(self.broken(format!("nothing within {} s", (PATIENCE + wait).as_secs()))))
    }

    fn refused(&self, status: StatusCode, body: &[u8]) -> ClientError {
        match serde_json::from_slice::<ErrorBody>(body) {
            Ok(ErrorBody { error }) => ClientError::Refused { status, code: error.code, message: error.message },
            Err(_) => self.broken(format!("HTTP status {status}")),
        }
    }

    async fn ask(&self, method: Method, path: &str, body: Bytes) -> Result<Answer, ClientError> {
        let stream = self.connect().await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.broken(error))?;
        let driver = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "vine")
            .header("te", "trailers")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(|error| self.broken(error))?;
        let response = sender.send_request(request).await.map_err(|error| self.broken(error))?;
        let status = response.status();
        let stream =
            Stream { client: self.clone(), body: response.into_body(), driver, trailers: None, line: Vec::new() };
        Ok(Answer { status, stream })
    }
}

/// The head of an answer, and its body to be read.
struct Answer {
    status: StatusCode,
    stream: Stream,
}

/// The body of an answer, piece by piece. The daemon makes a piece when the one before has been taken.
pub(crate) struct Stream {
    client: Client,
    body: Incoming,
    driver: JoinHandle<hyper::Result<()>>,
    trailers: Option<HeaderMap>,
    /// What is there of a line.
    line: Vec<u8>,
}

impl Stream {
    /// The next piece; `None` at the end.
    pub(crate) async fn piece(&mut self) -> Result<Option<Bytes>, ClientError> {
        while let Some(frame) = self.body.frame().await {
            match frame.map_err(|error| self.client.broken(error))?.into_data() {
                Ok(data) => return Ok(Some(data)),
                Err(other) => self.trailers = other.into_trailers().ok(),
            }
        }
        Ok(None)
    }

    /// The next lines, each with its end.
    pub(crate) async fn lines(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        while let Some(piece) = self.piece().await? {
            let complete = piece.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            let (complete, rest) = piece.split_at(complete);
            if complete.is_empty() {
                self.line.extend_from_slice(rest);
                continue;
            }
            let mut lines = std::mem::replace(&mut self.line, rest.to_vec());
            lines.extend_from_slice(complete);
            return Ok(Some(lines));
        }
        Ok(None)
    }

    /// A trailer, once the end has come.
    pub(crate) fn trailer(&self, name: &str) -> Option<&str> {
        self.trailers.as_ref()?.get(name)?.to_str().ok()
    }

    async fn rest(&mut self) -> Result<Bytes, ClientError> {
        let body = (&mut self.body).collect().await;
        Ok(body.map_err(|error| self.client.broken(error))?.to_bytes())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.driver.abort();
    }
}
