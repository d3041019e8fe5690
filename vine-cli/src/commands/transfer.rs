//! `vine log verify`, `vine log export` and `vine log import`: what goes through all of the log.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::StatusCode;
use serde::Serialize;
use tokio::runtime::Runtime;
use vine_core::PeerId;
use vine_core::log::archive::{ArchiveError, ArchiveReader, Summary};
use vine_store::{Exporter, Handle, Records, Unpacker, Verification};

use super::log::not_running;
use super::{client, config_path, runtime};
use crate::api::{ImportRefused, Imported, LeftOut, LogStatus, Progress, Verified, VerifyLine};
use crate::client::{Client, Stream};
use crate::config::{self, Config};
use crate::daemon::LEFT_OUT;
use crate::files::{self, Existing};
use crate::log;
use crate::output::{self, Failure, Format, Outcome};

/// How long the daemon may take for a batch: it checks every signature, and syncs.
const TAKING: Duration = Duration::from_secs(110);
/// Standard input or output.
const STANDARD: &str = "-";

/// The log read by this process alone, where there is no daemon.
pub(super) fn open_alone(config: &Config, owner: PeerId) -> Outcome<Handle> {
    let dir = there(config)?;
    Handle::open_read_only(&dir, owner, log::options(config)).map_err(|error| log::cannot_open(&dir, &error).into())
}

/// The directory of the log, if it is there.
fn there(config: &Config) -> Outcome<PathBuf> {
    let dir = log::directory(config);
    if dir.is_dir() {
        return Ok(dir);
    }
    let message = format!("there is no log yet: {} does not exist, and vine is not running", dir.display());
    Err(Failure::failed("no_log", message))
}

/// Says on a terminal from time to time how far something is.
struct Meter {
    is_shown: bool,
    what: &'static str,
    last: Instant,
    said: bool,
}

impl Meter {
    fn new(what: &'static str) -> Meter {
        Meter { is_shown: io::stderr().is_terminal(), what, last: Instant::now(), said: false }
    }

    fn at(&mut self, bytes: u64, total: Option<u64>) {
        if !self.is_shown || self.last.elapsed() < Duration::from_millis(200) {
            return;
        }
        self.last = Instant::now();
        self.said = true;
        let of = total.map_or_else(String::new, |total| format!(" of {}", output::bytes(total)));
        let _ = write!(io::stderr().lock(), "\r{} {}{of}\x1b[K", self.what, output::bytes(bytes));
    }
}

impl Drop for Meter {
    /// Leaves nothing behind.
    fn drop(&mut self) {
        if self.said {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}

pub(super) fn verify(config: Option<PathBuf>, format: Format) -> Outcome {
    let asked = client(config.clone())?;
    let runtime = runtime()?;
    let verified = match runtime.block_on(asked.stream("/v1/log/verify", &())) {
        Ok(stream) => runtime.block_on(verify_there(stream))?,
        Err(error) if error.leaves_the_log() => verify_alone(config)?,
        Err(error) => return Err(error.into()),
    };
    match format {
        Format::Json => output::json(&verified),
        Format::Text => output::line(verified_text(&verified)),
    }
    if verified.sound {
        return Ok(());
    }
    let lost = verified.findings.iter().filter(|finding| finding.lost).count() as u64 + verified.unlisted;
    let found = output::count_of(lost, "finding");
    let cure = "what is not named is whole and stays in use; to have back what is lost, import an archive of it";
    Err(Failure::failed("damaged", format!("the log is damaged ({found}); {cure}")).said())
}

/// The daemon reads.
async fn verify_there(mut stream: Stream) -> Outcome<Verified> {
    let mut meter = Meter::new("read");
    while let Some(lines) = stream.lines().await? {
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            match serde_json::from_slice(line).map_err(|error| Failure::failed("no_answer", error))? {
                VerifyLine::Progress(Progress { bytes, total }) => meter.at(bytes, Some(total)),
                VerifyLine::Report(verified) => return Ok(verified),
                VerifyLine::Error(error) => return Err(Failure::failed(error.code, error.message)),
            }
        }
    }
    Err(Failure::failed("no_answer", "the daemon stopped before it had read all of the log"))
}

/// This process reads.
fn verify_alone(config: Option<PathBuf>) -> Outcome<Verified> {
    let (config, identity) = config::load(&config_path(config)?)?;
    let dir = there(&config)?;
    let failed = |error| Failure::from(log::cannot_open(&dir, &error));
    let mut meter = Meter::new("read");
    let mut reading = Verification::alone(&dir, identity.peer_id(), log::options(&config)).map_err(failed)?;
    let report = reading.run(|bytes, total| {
        meter.at(bytes, Some(total));
        true
    });
    let report = report.map_err(failed)?.unwrap_or_default();
    Ok(log::verified(&dir, &report, reading.state_hash()))
}

fn verified_text(verified: &Verified) -> String {
    let mut lines: Vec<String> = verified.findings.iter().map(|finding| finding.message.clone()).collect();
    if verified.unlisted > 0 {
        lines.push(format!("and {} more", output::count_of(verified.unlisted, "finding")));
    }
    lines.push(format!(
        "{}: {} of {} in {}, {}, state {}",
        if verified.sound { "the log is whole" } else { "the log is damaged" },
        output::count_of(verified.ops, "op"),
        output::count_of(verified.commits, "commit"),
        output::count_of(verified.files, "file"),
        output::bytes(verified.bytes),
        verified.state_hash,
    ));
    lines.join("\n")
}

/// What an export wrote.
#[derive(Debug, Serialize)]
struct Exported<'a> {
    file: &'a Path,
    bytes: u64,
    logs: u64,
    commits: u64,
    ops: u64,
    /// What it lacks, because it is damaged.
    left_out: Option<LeftOut>,
}

/// Where the pieces of an archive come from.
enum Source {
    Daemon(Stream),
    Alone(Box<Exporter>),
}

impl Source {
    async fn open(config: Option<PathBuf>) -> Outcome<Source> {
        let asked = client(config.clone())?;
        match asked.stream("/v1/log/export", &()).await {
            Ok(stream) => Ok(Source::Daemon(stream)),
            Err(error) if error.leaves_the_log() => {
                let (config, identity) = config::load(&config_path(config)?)?;
                let store = open_alone(&config, identity.peer_id())?;
                let begun = Exporter::begin(store).await;
                Ok(Source::Alone(Box::new(begun.map_err(|error| log::trouble(&error))?)))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn piece(&mut self) -> Outcome<Option<Bytes>> {
        match self {
            Source::Daemon(stream) => Ok(stream.piece().await?),
            Source::Alone(exporter) => {
                let piece = exporter.next().await.map_err(|error| log::trouble(&error))?;
                Ok(piece.map(Bytes::from))
            }
        }
    }

    fn left_out(&self) -> Option<LeftOut> {
        match self {
            Source::Daemon(stream) => serde_json::from_str(stream.trailer(LEFT_OUT)?).ok(),
            Source::Alone(exporter) => exporter.left_out().map(log::left_out),
        }
    }
}

pub(super) fn export(file: &Path, config: Option<PathBuf>, format: Format) -> Outcome {
    let is_standard = file == Path::new(STANDARD);
    if is_standard && io::stdout().is_terminal() {
        let message = "an archive is nothing for a terminal; name a file, or pipe it somewhere";
        return Err(Failure::usage("usage", message));
    }
    if !is_standard && file.symlink_metadata().is_ok() {
        return Err(exists(file));
    }
    let runtime = runtime()?;
    let mut source = runtime.block_on(Source::open(config))?;
    let (bytes, summary) = if is_standard {
        copy(&runtime, &mut source, &mut io::stdout().lock())?
    } else {
        copy_to(file, &runtime, &mut source)?
    };
    let Summary { geneses: logs, commits, ops } = summary;
    let exported = Exported { file, bytes, logs, commits, ops, left_out: source.left_out() };
    if !is_standard {
        match format {
            Format::Json => output::json(&exported),
            Format::Text => output::line(exported_text(&exported)),
        }
    }
    match exported.left_out {
        None => Ok(()),
        Some(LeftOut { ops, why }) => {
            let message = format!("the archive lacks {}, because of damage: {why}", output::count_of(ops, "op"));
            Err(Failure::failed("damaged", message).said())
        }
    }
}

fn exported_text(exported: &Exported<'_>) -> String {
    let (ops, commits) = (output::count_of(exported.ops, "op"), output::count_of(exported.commits, "commit"));
    let (logs, bytes) = (output::count_of(exported.logs, "log"), output::bytes(exported.bytes));
    format!("{}: {ops} of {commits} of {logs}, {bytes}", exported.file.display())
}

/// Writes a file that is there whole or not at all.
fn copy_to(file: &Path, runtime: &Runtime, source: &mut Source) -> Outcome<(u64, Summary)> {
    let mut copied = None;
    let written = files::write_atomically(file, 0o600, Existing::Keep, |out| {
        let is_good = copied.insert(copy(runtime, source, out)).is_ok();
        if is_good { Ok(()) } else { Err(io::Error::other("the archive is not complete")) }
    });
    match (copied, written) {
        (Some(Err(failure)), _) => Err(failure),
        (Some(Ok(copied)), Ok(())) => Ok(copied),
        (_, Err(error)) if error.kind() == io::ErrorKind::AlreadyExists => Err(exists(file)),
        (_, Err(error)) => Err(Failure::failed("io", format!("cannot write {}: {error}", file.display()))),
        (None, Ok(())) => Err(Failure::failed("io", format!("cannot write {}", file.display()))),
    }
}

fn exists(file: &Path) -> Failure {
    Failure::failed("exists", format!("{} exists already and was left alone", file.display()))
}

/// Writes the archive, and reads it on the way: only what comes to its proper end is one.
fn copy(runtime: &Runtime, source: &mut Source, out: &mut impl Write) -> Outcome<(u64, Summary)> {
    let mut meter = Meter::new("wrote");
    let (mut reader, mut bytes) = (ArchiveReader::new(), 0);
    while let Some(piece) = runtime.block_on(source.piece())? {
        let mut input = &piece[..];
        while reader.read(&mut input).map_err(|error| Failure::failed("no_answer", error))?.is_some() {}
        let failed = |error| Failure::failed("io", format!("cannot write the archive: {error}"));
        out.write_all(&piece).map_err(failed)?;
        bytes += piece.len() as u64;
        meter.at(bytes, None);
    }
    let flushed = out.flush();
    flushed.map_err(|error| Failure::failed("io", format!("cannot write the archive: {error}")))?;
    let summary = reader.finish().map_err(|error| Failure::failed("no_answer", error))?;
    Ok((bytes, summary))
}

pub(super) fn import(file: &Path, config: Option<PathBuf>, format: Format) -> Outcome {
    let client = client(config)?;
    let runtime = runtime()?;
    // Before anything is read: without a daemon there is nothing to import into.
    let _: LogStatus = runtime.block_on(client.get("/v1/log")).map_err(not_running)?;
    let mut import = Import { client, runtime, place: file.display().to_string(), taken: Imported::default() };
    let mut meter = Meter::new("imported");
    let summary = if file == Path::new(STANDARD) {
        import.place = "standard input".to_owned();
        import.run(&mut io::stdin().lock(), None, &mut meter)?
    } else {
        let cannot = |error| Failure::failed("io", format!("cannot read {}: {error}", file.display()));
        let total = File::open(file).and_then(|file| file.metadata()).map_err(cannot)?.len();
        // A file can be read twice: nothing of a damaged one is taken.
        import.check(&mut File::open(file).map_err(cannot)?)?;
        import.run(&mut File::open(file).map_err(cannot)?, Some(total), &mut meter)?
    };
    drop(meter);
    let Imported { new, known, uncompared } = import.taken;
    match format {
        Format::Json => {
            output::json(&ImportedDocument { new, known, uncompared, commits: summary.commits, ops: summary.ops })
        }
        Format::Text => output::line(format_args!(
            "{}: {} of {}; {} new here, {known} known{}",
            import.place,
            output::count_of(summary.ops, "op"),
            output::count_of(summary.commits, "commit"),
            output::count_of(new, "record"),
            match uncompared {
                0 => String::new(),
                _ => format!(", {uncompared} too old to be compared with what is here"),
            },
        )),
    }
    Ok(())
}

/// What an import did.
#[derive(Debug, Serialize)]
struct ImportedDocument {
    /// Records (beginnings of logs, and commits) that are new here, and those that were here already.
    new: u64,
    known: u64,
    /// Commits so far behind the end of their log that they were not compared with those that are here.
    uncompared: u64,
    /// What the archive holds.
    commits: u64,
    ops: u64,
}

/// An import on its way.
struct Import {
    client: Client,
    runtime: Runtime,
    /// What is read, for messages.
    place: String,
    taken: Imported,
}

impl Import {
    /// Reads all of it, and takes nothing.
    fn check(&mut self, input: &mut impl Read) -> Outcome {
        self.each(input, |_, _| Ok(())).map(|_| ())
    }

    /// Takes it batch by batch; the last one only once the end has come, and is right.
    fn run(&mut self, input: &mut impl Read, total: Option<u64>, meter: &mut Meter) -> Outcome<Summary> {
        self.each(input, |import, batch| {
            import.send(batch)?;
            meter.at(batch.place(0).unwrap_or_default(), total);
            Ok(())
        })
    }

    /// Every batch of an archive.
    fn each(
        &mut self,
        input: &mut impl Read,
        mut take: impl FnMut(&mut Import, &Records) -> Outcome,
    ) -> Outcome<Summary> {
        let (mut unpacker, mut buffer) = (Unpacker::new(), vec![0; 256 * 1024]);
        loop {
            let read = match input.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.refused("io", format!("cannot be read: {error}"))),
            };
            let mut rest = buffer.get(..read).unwrap_or_default();
            while let Some(batch) = unpacker.read(&mut rest).map_err(|error| self.damaged(&error))? {
                take(self, &batch)?;
            }
        }
        let (last, summary) = unpacker.finish().map_err(|error| self.damaged(&error))?;
        last.map_or(Ok(()), |last| take(self, &last))?;
        Ok(summary)
    }

    fn send(&mut self, batch: &Records) -> Outcome {
        let sent = self.client.send("/v1/log/import", batch.to_archive().into(), TAKING);
        let (status, answer) = self.runtime.block_on(sent).map_err(not_running)?;
        if status == StatusCode::OK {
            let taken = serde_json::from_slice(&answer).map_err(|error| Failure::failed("no_answer", error))?;
            self.took(taken);
            return Ok(());
        }
        let refused: ImportRefused = serde_json::from_slice(&answer)
            .map_err(|_| Failure::failed("no_answer", format!("HTTP status {status}")))?;
        self.took(refused.imported);
        let at = refused.record.and_then(|record| batch.place(usize::try_from(record).ok()?));
        let why = match at {
            Some(at) => format!("byte {at}: {}", refused.error.message),
            None => refused.error.message,
        };
        Err(self.refused(refused.error.code, why))
    }

    fn took(&mut self, taken: Imported) {
        self.taken.new += taken.new;
        self.taken.known += taken.known;
        self.taken.uncompared += taken.uncompared;
    }

    fn damaged(&self, error: &ArchiveError) -> Failure {
        self.refused("import_refused", error.to_string())
    }

    /// Why it goes no further, and what was taken until then.
    fn refused(&self, code: impl Into<std::borrow::Cow<'static, str>>, why: String) -> Failure {
        let taken = match self.taken {
            Imported { new: 0, .. } => "nothing was imported".to_owned(),
            Imported { new, .. } => {
                format!("{} from before it were imported, and stay", output::count_of(new, "record"))
            }
        };
        Failure::failed(code, format!("{}: {why}; {taken}", self.place))
    }
}
