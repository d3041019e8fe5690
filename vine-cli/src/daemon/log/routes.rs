//! What the control socket can ask of the log.

use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::{Method, Response, StatusCode};
use serde::Serialize;
use vine_store::{ImportError, Importer, Pending};

use super::super::control::{Body, MAX_BODY, json, read, read_bytes, respond};
use super::super::service::Refusal;
use super::{LogService, streams};
use crate::api::{
    AppendRequest, Blob, Entry, ErrorDetail, ImportRefused, Imported, KeyRequest, ListRequest, Page, Position,
};
use crate::log;

/// Largest body of a write or import. A commit has at most a mebibyte, which JSON may make six times as long where it is
/// text with many control characters.
const MAX_WRITE: usize = 8 << 20;
/// Largest archive in one request; a longer one is sent in parts, each an archive of its own.
const MAX_ARCHIVE: usize = 4 << 20;
/// Keys of one page, and the bytes with which it is full.
const PAGE: usize = 1000;
const PAGE_BYTES: usize = 1 << 20;

/// How `path` is asked for, if it is about the log.
pub(in crate::daemon) fn method(path: &str) -> Option<Method> {
    match path {
        "/v1/log" => Some(Method::GET),
        "/v1/log/append" | "/v1/log/tail" | "/v1/log/verify" | "/v1/log/export" | "/v1/log/import" | "/v1/kv/put"
        | "/v1/kv/get" | "/v1/kv/delete" | "/v1/kv/list" | "/v1/kv/watch" => Some(Method::POST),
        _ => None,
    }
}

/// Answers a request for one of the paths that [`method`] knows.
pub(in crate::daemon) async fn answer(path: &str, body: Incoming, service: &Arc<LogService>) -> Response<Body> {
    match path {
        "/v1/log" => json(Ok(service.status().await)),
        "/v1/log/append" => json(service.append(body).await.inspect_err(|refusal| service.count(refusal))),
        "/v1/kv/put" => json(service.put(body).await.inspect_err(|refusal| service.count(refusal))),
        "/v1/kv/delete" => json(service.delete(body).await.inspect_err(|refusal| service.count(refusal))),
        "/v1/kv/get" => json(service.get(body).await),
        "/v1/kv/list" => json(service.list(body).await),
        "/v1/log/import" => service.import(body).await,
        "/v1/log/tail" => streams::response(service.tail(body).await),
        "/v1/kv/watch" => streams::response(service.watch(body).await),
        "/v1/log/export" => streams::response(service.export().await),
        _ => streams::response(service.verify().await),
    }
}

impl LogService {
    async fn append(&self, body: Incoming) -> Result<Position, Refusal> {
        let request: AppendRequest = read(body, MAX_WRITE).await?;
        let ops = request.ops.into_iter().map(|blob| blob.0).collect();
        self.written(self.store().await?.append(ops)).await
    }

    async fn put(&self, body: Incoming) -> Result<Position, Refusal> {
        let Entry { key, value } = read(body, MAX_WRITE).await?;
        self.written(self.store().await?.put(key.0, value.0)).await
    }

    async fn delete(&self, body: Incoming) -> Result<Position, Refusal> {
        let KeyRequest { key } = read(body, MAX_BODY).await?;
        self.written(self.store().await?.delete(key.0)).await
    }

    /// Waits until it is durable. Where the asker goes away meanwhile it is written all the same.
    async fn written(&self, writing: Pending<vine_store::Position>) -> Result<Position, Refusal> {
        let position = writing.await.map_err(|error| log::not_written(&error))?;
        self.has_room();
        Ok(log::position(&position))
    }

    async fn get(&self, body: Incoming) -> Result<Entry, Refusal> {
        let KeyRequest { key } = read(body, MAX_BODY).await?;
        let found = self.store().await?.get(key.0.clone()).await.map_err(|error| log::trouble(&error))?;
        match found {
            Some(value) => Ok(Entry { key, value: Blob(value) }),
            None => Err(Refusal::new(StatusCode::NOT_FOUND, "no_such_key", "this key has no value".to_owned())),
        }
    }

    async fn list(&self, body: Incoming) -> Result<Page, Refusal> {
        let ListRequest { prefix, after } = read(body, MAX_BODY).await?;
        let scanning = self.store().await?.scan(prefix.0, after.map(|key| key.0), PAGE);
        let scanned = scanning.await.map_err(|error| log::trouble(&error))?;
        let (found, mut bytes) = (scanned.pairs.len(), 0);
        let fits = |(key, value): &(Bytes, Bytes)| {
            let is_first = bytes == 0;
            bytes += key.len() + value.len();
            is_first || bytes <= PAGE_BYTES
        };
        let pairs = scanned.pairs.into_iter().take_while(fits);
        let entries: Vec<Entry> = pairs.map(|(key, value)| Entry { key: Blob(key), value: Blob(value) }).collect();
        let more = entries.len() < found || found == PAGE;
        Ok(Page { entries, more, next_ordinal: scanned.next_ordinal })
    }

    async fn import(&self, body: Incoming) -> Response<Body> {
        let mut imported = Imported::default();
        match self.try_import(body, &mut imported).await {
            Ok(()) => {
                self.has_room();
                respond(StatusCode::OK, &imported)
            }
            Err((refusal, record)) => {
                self.count(&refusal);
                let error = ErrorDetail { code: refusal.code.to_owned(), message: refusal.message };
                respond(refusal.status, &ImportRefused { error, record, imported })
            }
        }
    }

    async fn try_import(&self, body: Incoming, imported: &mut Imported) -> Result<(), (Refusal, Option<u64>)> {
        let whole = |refusal| (refusal, None);
        let archive = read_bytes(body, MAX_ARCHIVE).await.map_err(whole)?;
        let mut importer = Importer::new(self.store().await.map_err(whole)?);
        let taken = match importer.feed(&archive).await {
            Ok(()) => importer.finish().await,
            Err(error) => Err(error),
        };
        *imported = log::imported(importer.imported());
        taken.map(|_| ()).map_err(|error| {
            let record = if let ImportError::Refused { record, .. } = error { Some(record) } else { None };
            (log::import_failed(&error).into(), record)
        })
    }
}

/// One line of a stream.
pub(super) fn line(out: &mut Vec<u8>, document: &impl Serialize) {
    serde_json::to_writer(&mut *out, document).expect("maps with string keys and finite numbers are JSON");
    out.push(b'\n');
}
