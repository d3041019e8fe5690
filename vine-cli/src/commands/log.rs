//! `vine log`.

use std::ffi::OsString;
use std::io::{self, BufRead as _, IsTerminal as _, Read as _};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use vine_core::log::op::{MAX_COMMIT, MAX_COMMIT_OPS, MAX_OP};

use super::{client, config_path, runtime, transfer};
use crate::api::{AppendRequest, Blob, LogOp, Position, TailLine, TailRequest};
use crate::cli::{AppendArgs, LogCommand, TailArgs};
use crate::client::{Client, ClientError};
use crate::config;
use crate::log;
use crate::output::{self, Failure, Format, Outcome};

/// How long a write may take: a disk may be slow, and only an answer says that it is done.
pub(super) const WRITE: Duration = Duration::from_secs(110);
/// Bytes that are printed at once, about.
const SHOWN_AT_ONCE: usize = 64 * 1024;
/// What an op costs in a commit beside its bytes, at most.
const OP_HEAD: usize = 4;

pub(super) fn run(command: LogCommand, config: Option<PathBuf>, format: Format) -> Outcome {
    match command {
        LogCommand::Append(args) if args.lines => append_lines(config, format),
        LogCommand::Append(args) => append(args, config, format),
        LogCommand::Tail(args) => tail(&args, config, format),
        LogCommand::Verify => transfer::verify(config, format),
        LogCommand::Export { file } => transfer::export(&file, config, format),
        LogCommand::Import { file } => transfer::import(&file, config, format),
    }
}

/// What a write that got no answer leaves open.
pub(super) fn unsure(error: ClientError) -> Failure {
    match error {
        ClientError::NotRunning(_) => not_running(error),
        ClientError::Broken { .. } => {
            let message = format!("{error}; the write may be there or not, which shows: vine log tail");
            Failure::failed("no_answer", message)
        }
        error => error.into(),
    }
}

/// Writing takes a daemon.
pub(super) fn not_running(error: ClientError) -> Failure {
    match error {
        ClientError::NotRunning(_) => {
            Failure::failed("not_running", format!("{error}; start it with: vine daemon start"))
        }
        error => error.into(),
    }
}

/// What standard input holds, up to `limit` bytes and one more.
pub(super) fn standard_input(limit: usize) -> Outcome<Bytes> {
    if io::stdin().is_terminal() {
        output::remark("reading from the terminal, up to Ctrl-D");
    }
    let mut bytes = Vec::new();
    let read = io::stdin().lock().take(limit as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| Failure::failed("io", format!("cannot read standard input: {error}")))?;
    Ok(bytes.into())
}

/// Where it lies, for people: one line.
pub(super) fn position_text(position: &Position) -> String {
    let Position { log, first_seq, first_ordinal, count } = position;
    match u64::from(*count) {
        0 | 1 => format!("ordinal {first_ordinal}, seq {first_seq} of log {log}"),
        count => {
            let (last_ordinal, last_seq) = (first_ordinal + count - 1, first_seq + count - 1);
            format!("ordinals {first_ordinal} to {last_ordinal}, seq {first_seq} to {last_seq} of log {log}")
        }
    }
}

/// Writes, and prints the position once it is durable.
async fn write(client: &Client, ops: Vec<Blob>, format: Format) -> Outcome {
    let position: Position = client.post("/v1/log/append", &AppendRequest { ops }, WRITE).await.map_err(unsure)?;
    match format {
        Format::Json => output::json_line(&position),
        Format::Text => output::line(position_text(&position)),
    }
    Ok(())
}

fn append(args: AppendArgs, config: Option<PathBuf>, format: Format) -> Outcome {
    let client = client(config)?;
    let op = match args.text {
        Some(text) => Bytes::from(OsString::into_vec(text)),
        None => standard_input(MAX_OP)?,
    };
    if op.len() > MAX_OP {
        let message = format!("an op has at most {MAX_OP} bytes, and this one has more; nothing was written");
        return Err(Failure::failed("too_large", message));
    }
    runtime()?.block_on(write(&client, vec![Blob(op)], format))
}

/// Each line of standard input is an op. What has come since the last write goes into the next one.
fn append_lines(config: Option<PathBuf>, format: Format) -> Outcome {
    let client = client(config)?;
    let (sender, mut lines) = mpsc::channel(2 * MAX_COMMIT_OPS);
    // Its own thread: standard input cannot be waited for in any other way that works with files and terminals.
    std::thread::spawn(move || read_lines(&sender));
    runtime()?.block_on(async {
        let mut left = None;
        loop {
            let Some(first) = (match left.take() {
                Some(line) => Some(line),
                None => lines.recv().await,
            }) else {
                return Ok(());
            };
            let first: Bytes = first?;
            let (mut bytes, mut ops) = (first.len() + OP_HEAD, vec![Blob(first)]);
            while ops.len() < MAX_COMMIT_OPS
                && let Ok(next) = lines.try_recv()
            {
                match next {
                    Ok(line) if bytes + line.len() + OP_HEAD <= MAX_COMMIT => {
                        bytes += line.len() + OP_HEAD;
                        ops.push(Blob(line));
                    }
                    later => {
                        left = Some(later);
                        break;
                    }
                }
            }
            write(&client, ops, format).await?;
        }
    })
}

fn read_lines(sender: &mpsc::Sender<Outcome<Bytes>>) {
    let mut input = io::stdin().lock();
    for number in 1_u64.. {
        let mut line = Vec::new();
        let read = (&mut input).take(MAX_OP as u64 + 2).read_until(b'\n', &mut line);
        let told = match read {
            Ok(0) => return,
            Ok(_) => {
                if line.last() == Some(&b'\n') {
                    line.pop();
                }
                if line.len() <= MAX_OP {
                    Ok(Bytes::from(line))
                } else {
                    let rest = if number == 1 { "nothing was written" } else { "the lines before it were written" };
                    let message = format!("line {number} is too long: an op has at most {MAX_OP} bytes; {rest}");
                    Err(Failure::failed("too_large", message))
                }
            }
            Err(error) => Err(Failure::failed("io", format!("cannot read line {number} of standard input: {error}"))),
        };
        let is_last = told.is_err();
        if sender.blocking_send(told).is_err() || is_last {
            return;
        }
    }
}

fn tail(args: &TailArgs, config: Option<PathBuf>, format: Format) -> Outcome {
    let asked = client(config.clone())?;
    let request = TailRequest { from: args.from, follow: args.follow };
    let runtime = runtime()?;
    match runtime.block_on(asked.stream("/v1/log/tail", &request)) {
        Ok(mut stream) => runtime.block_on(async {
            let mut shown = Shown::new(format);
            while let Some(lines) = stream.lines().await? {
                for line in lines.split_inclusive(|byte| *byte == b'\n') {
                    shown.json(line)?;
                }
                shown.flush();
            }
            shown.end()
        }),
        Err(error) if error.leaves_the_log() && !args.follow => tail_alone(args, config, format),
        Err(error) => Err(not_running(error)),
    }
}

/// Without a daemon.
fn tail_alone(args: &TailArgs, config: Option<PathBuf>, format: Format) -> Outcome {
    let (config, identity) = config::load(&config_path(config)?)?;
    let store = transfer::open_alone(&config, identity.peer_id())?;
    let names = log::names(&config, identity.peer_id());
    let mut shown = Shown::new(format);
    let failed = |error| Failure::from(log::trouble(&error));
    let until = store.status().wait().map_err(failed)?.store.next_ordinal;
    let (mut ops, mut next) = (store.subscribe(args.from), args.from);
    while next < until {
        if shown.out.len() > SHOWN_AT_ONCE {
            shown.flush();
        }
        match ops.wait_next().map_err(failed)? {
            vine_store::Item::Op(op) => {
                next = op.ordinal + 1;
                shown.line(&TailLine::Op(log::op(&op, &names)))?;
            }
            vine_store::Item::Damaged(damaged) => {
                next = damaged.ordinals.end;
                shown.line(&TailLine::Damaged { damaged: log::damaged(&damaged) })?;
            }
        }
    }
    shown.end()
}

/// What is printed of a log.
struct Shown {
    format: Format,
    damaged: u64,
    /// Lines to be printed at once.
    out: Vec<u8>,
}

impl Shown {
    fn new(format: Format) -> Shown {
        Shown { format, damaged: 0, out: Vec::new() }
    }

    /// A line as the daemon gives it.
    fn json(&mut self, line: &[u8]) -> Outcome {
        let read: Result<TailLine, _> = serde_json::from_slice(line);
        let read =
            read.map_err(|error| Failure::failed("no_answer", format!("the daemon says what is no op: {error}")));
        self.line(&read?)
    }

    fn line(&mut self, line: &TailLine) -> Outcome {
        match line {
            TailLine::Error { error } => {
                self.flush();
                return Err(Failure::failed(error.code.clone(), &error.message));
            }
            TailLine::Damaged { damaged } => {
                self.damaged += damaged.last_ordinal + 1 - damaged.first_ordinal;
                self.flush();
                output::remark(format_args!("vine: {}", damaged.message));
            }
            TailLine::Op(op) if self.format == Format::Text => self.out.extend_from_slice(op_text(op).as_bytes()),
            TailLine::Op(_) => {}
        }
        match (self.format, line) {
            (Format::Json, line) => self.out.extend_from_slice(output::compact(line).as_bytes()),
            (Format::Text, TailLine::Op(_)) => {}
            (Format::Text, _) => return Ok(()),
        }
        self.out.push(b'\n');
        Ok(())
    }

    /// Prints what has come: before more is waited for.
    fn flush(&mut self) {
        output::text(&self.out);
        self.out.clear();
    }

    fn end(mut self) -> Outcome {
        self.flush();
        match self.damaged {
            0 => Ok(()),
            ops => {
                let message = format!("{} cannot be read; see: vine log verify", output::count_of(ops, "op"));
                Err(Failure::failed("damaged", message).said())
            }
        }
    }
}

/// An op, for people: one line.
fn op_text(op: &LogOp) -> String {
    let author = op.author_name.as_deref().unwrap_or(&op.author);
    let blob = |blob: &Option<Blob>| blob.as_ref().map_or_else(String::new, |blob| output::safe(&blob.0));
    let what = match op.kind.as_str() {
        "plain" => blob(&op.data),
        "put" => format!("put {} = {}", blob(&op.key), blob(&op.value)),
        "delete" => format!("delete {}", blob(&op.key)),
        kind => format!("kind {kind}: {}", blob(&op.data)),
    };
    format!("{}  {}  {author}  {what}", op.ordinal, output::utc(op.time_ms))
}
