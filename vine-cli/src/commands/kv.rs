//! `vine kv`.

use std::ffi::OsString;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use vine_core::log::op::{MAX_KEY, MAX_VALUE};

use super::log::{WRITE, not_running, position_text, standard_input, unsure};
use super::{client, runtime};
use crate::api::{Blob, Entry, KeyRequest, ListRequest, Page, Position, WatchLine, WatchRequest};
use crate::cli::KvCommand;
use crate::client::Client;
use crate::output::{self, Failure, Format, Outcome};

pub(super) fn run(command: KvCommand, config: Option<PathBuf>, format: Format) -> Outcome {
    let client = client(config)?;
    match command {
        KvCommand::Put { key, value, hex } => {
            let key = given_key(key, hex)?;
            let value = match value {
                Some(value) => given(value, hex, "value")?,
                None => standard_input(MAX_VALUE)?,
            };
            if value.len() > MAX_VALUE {
                let message =
                    format!("a value has at most {MAX_VALUE} bytes, and this one has more; nothing was written");
                return Err(Failure::failed("too_large", message));
            }
            write(&client, "/v1/kv/put", &Entry { key: Blob(key), value: Blob(value) }, format)
        }
        KvCommand::Delete { key, hex } => {
            write(&client, "/v1/kv/delete", &KeyRequest { key: Blob(given_key(key, hex)?) }, format)
        }
        KvCommand::Get { key, hex } => get(&client, given_key(key, hex)?, hex, format),
        KvCommand::List { prefix, hex } => list(&client, given(prefix, hex, "prefix")?, hex, format),
        KvCommand::Watch { prefix, from, hex } => watch(&client, given(prefix, hex, "prefix")?, from, hex, format),
    }
}

/// The bytes of an argument.
fn given(argument: OsString, hex: bool, what: &str) -> Outcome<Bytes> {
    let bytes = argument.into_vec();
    if !hex {
        return Ok(bytes.into());
    }
    output::from_hex(&bytes).map(Bytes::from).ok_or_else(|| {
        Failure::usage("usage", format!("with --hex the {what} is an even number of hexadecimal digits"))
    })
}

fn given_key(argument: OsString, hex: bool) -> Outcome<Bytes> {
    let key = given(argument, hex, "key")?;
    match key.len() {
        1..=MAX_KEY => Ok(key),
        0 => Err(Failure::usage("usage", format!("the key is empty; a key has 1 to {MAX_KEY} bytes"))),
        len => Err(Failure::failed("too_large", format!("the key has {len} bytes; a key has 1 to {MAX_KEY}"))),
    }
}

fn write(client: &Client, path: &str, request: &impl serde::Serialize, format: Format) -> Outcome {
    let position: Position = runtime()?.block_on(client.post(path, request, WRITE)).map_err(unsure)?;
    match format {
        Format::Json => output::json_line(&position),
        Format::Text => output::line(position_text(&position)),
    }
    Ok(())
}

fn get(client: &Client, key: Bytes, hex: bool, format: Format) -> Outcome {
    let request = KeyRequest { key: Blob(key) };
    let entry: Entry = runtime()?.block_on(client.post("/v1/kv/get", &request, Duration::ZERO)).map_err(not_running)?;
    match format {
        Format::Json => output::json(&entry),
        Format::Text if hex => output::line(output::to_hex(&entry.value.0)),
        Format::Text if io::stdout().is_terminal() => output::line(output::safe(&entry.value.0)),
        // Exactly the value, for files and programs.
        Format::Text => {
            let written = io::stdout().lock().write_all(&entry.value.0).and_then(|()| io::stdout().flush());
            written.map_err(|error| Failure::failed("io", format!("cannot write the value: {error}")))?;
        }
    }
    Ok(())
}

/// Bytes as they are shown.
fn shown(blob: &Blob, hex: bool) -> String {
    if hex { output::to_hex(&blob.0) } else { output::safe(&blob.0) }
}

/// Page by page: JSON is one object a line, as there is no end to how many there may be.
fn list(client: &Client, prefix: Bytes, hex: bool, format: Format) -> Outcome {
    let runtime = runtime()?;
    let mut request = ListRequest { prefix: Blob(prefix), after: None };
    loop {
        let page: Page = runtime.block_on(client.post("/v1/kv/list", &request, Duration::ZERO)).map_err(not_running)?;
        for entry in &page.entries {
            match format {
                Format::Json => output::json_line(entry),
                Format::Text => output::line(format_args!("{} = {}", shown(&entry.key, hex), shown(&entry.value, hex))),
            }
        }
        match page.entries.into_iter().next_back() {
            Some(last) if page.more => request.after = Some(last.key),
            _ => return Ok(()),
        }
    }
}

fn watch(client: &Client, prefix: Bytes, from: Option<u64>, hex: bool, format: Format) -> Outcome {
    let request = WatchRequest { prefix: Blob(prefix), from };
    runtime()?.block_on(async {
        let mut stream = client.stream("/v1/kv/watch", &request).await.map_err(not_running)?;
        while let Some(lines) = stream.lines().await? {
            for line in lines.split_inclusive(|byte| *byte == b'\n') {
                let read: Result<WatchLine, _> = serde_json::from_slice(line);
                let line = read.map_err(|error| Failure::failed("no_answer", error))?;
                change(&line, hex, format)?;
            }
        }
        Ok(())
    })
}

fn change(line: &WatchLine, hex: bool, format: Format) -> Outcome {
    match line {
        WatchLine::Error { error } => return Err(Failure::failed(error.code.clone(), &error.message)),
        WatchLine::Damaged { damaged } => output::remark(format_args!("vine: {}", damaged.message)),
        WatchLine::Change(change) if format == Format::Text => {
            let key = shown(&change.key, hex);
            output::line(match &change.value {
                Some(value) => format!("{}  {key} = {}", change.ordinal, shown(value, hex)),
                None => format!("{}  {key} deleted", change.ordinal),
            });
        }
        WatchLine::Change(_) => {}
    }
    if format == Format::Json {
        output::json_line(line);
    }
    Ok(())
}
