//! The daemon's log: text lines on standard error, or in a file once nobody watches.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{DefaultFields, Format};

use crate::output::{Failure, Outcome};

/// Environment variable with the filter, such as `debug` or `info,vine_tokio=trace`.
const VARIABLE: &str = "VINE_LOG";

/// Starts logging to standard error, or to `file`.
pub(super) fn start(file: Option<&File>) -> Outcome {
    let filter = match std::env::var(VARIABLE) {
        Ok(text) if !text.is_empty() => {
            EnvFilter::try_new(&text).map_err(|error| Failure::usage("usage", format!("{VARIABLE}={text}: {error}")))?
        }
        _ => EnvFilter::new("info"),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .fmt_fields(DefaultFields::new())
        .event_format(Format::default().with_target(false));
    let started = match file {
        Some(file) => {
            let file =
                file.try_clone().map_err(|error| Failure::failed("io", format!("cannot write the log: {error}")))?;
            builder.with_ansi(false).with_writer(Mutex::new(file)).try_init()
        }
        None => builder.with_ansi(io::stderr().is_terminal()).with_writer(io::stderr).try_init(),
    };
    started.map_err(|error| Failure::failed("io", error))
}

/// Opens the log of a detached daemon, which only its owner reads.
pub(super) fn open(path: &Path) -> Outcome<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| Failure::failed("io", format!("cannot open the log {}: {error}", path.display())))
}
