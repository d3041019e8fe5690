//! What the command says: text for people, JSON for machines, and failures in both.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use serde::Serialize;

use crate::config::{FaultReport, Faults};

/// How answers are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns for people.
    #[default]
    Text,
    /// Stable objects for programs.
    Json,
}

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: u8,
    code: Cow<'static, str>,
    message: String,
    faults: Vec<FaultReport>,
    /// The answer on standard output tells programs already what is wrong.
    said: bool,
}

/// The result of a command.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

#[derive(Serialize)]
struct ErrorDocument<'a> {
    error: ErrorBody<'a>,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    code: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "<[FaultReport]>::is_empty")]
    faults: &'a [FaultReport],
}

impl Failure {
    /// The command was understood and could not be carried out (exit code 1). `code` is for programs.
    pub(crate) fn failed(code: impl Into<Cow<'static, str>>, message: impl fmt::Display) -> Failure {
        Failure { exit: 1, code: code.into(), message: message.to_string(), faults: Vec::new(), said: false }
    }

    /// What was asked for, or configured, makes no sense (exit code 2).
    pub(crate) fn usage(code: impl Into<Cow<'static, str>>, message: impl fmt::Display) -> Failure {
        Failure { exit: 2, ..Failure::failed(code, message) }
    }

    /// The same failure, about which standard output needs no further JSON.
    pub(crate) fn said(self) -> Failure {
        Failure { said: true, ..self }
    }

    /// The sentence for people.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// Says what went wrong, on standard error for people and on standard output as JSON for programs that asked for
    /// it, and gives the exit code.
    pub(crate) fn report(&self, format: Format) -> ExitCode {
        if format == Format::Json && !self.said {
            let body = ErrorBody { code: &self.code, message: &self.message, faults: &self.faults };
            json(&ErrorDocument { error: body });
        }
        let mut stderr = io::stderr().lock();
        // Nobody is left to be told that standard error cannot be written.
        let _ = if self.faults.is_empty() {
            writeln!(stderr, "vine: {}", self.message)
        } else {
            writeln!(stderr, "{}", self.message)
        };
        ExitCode::from(self.exit)
    }
}

impl From<Faults> for Failure {
    fn from(faults: Faults) -> Failure {
        Failure {
            exit: 2,
            code: "configuration".into(),
            message: faults.to_string(),
            faults: faults.reports(),
            said: false,
        }
    }
}

impl From<crate::log::Trouble> for Failure {
    fn from(trouble: crate::log::Trouble) -> Failure {
        Failure::failed(trouble.code, trouble.message)
    }
}

impl From<crate::identity_file::IdentityFileError> for Failure {
    fn from(error: crate::identity_file::IdentityFileError) -> Failure {
        Failure::usage("identity", error)
    }
}

/// Writes one JSON document and a line end.
pub(crate) fn json(document: &impl Serialize) {
    let text = serde_json::to_string_pretty(document).expect("maps with string keys and finite numbers are JSON");
    line(text);
}

/// Writes one JSON document on one line, for streams of them.
pub(crate) fn json_line(document: &impl Serialize) {
    line(compact(document));
}

/// One JSON document on one line, without its end.
pub(crate) fn compact(document: &impl Serialize) -> String {
    serde_json::to_string(document).expect("maps with string keys and finite numbers are JSON")
}

/// Writes a line to standard output. A reader who went away (`vine peers | head -1`) ends the program quietly.
pub(crate) fn line(text: impl fmt::Display) {
    let mut stdout = io::stdout().lock();
    if writeln!(stdout, "{text}").and_then(|()| stdout.flush()).is_err() {
        std::process::exit(1);
    }
}

/// Writes text that has its line ends already, all at once.
pub(crate) fn text(text: &[u8]) {
    let mut stdout = io::stdout().lock();
    if stdout.write_all(text).and_then(|()| stdout.flush()).is_err() {
        std::process::exit(1);
    }
}

/// A remark for people that is not part of the answer.
pub(crate) fn remark(text: impl fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Colours that terminals of all themes show well.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tone {
    Plain,
    Good,
    Warn,
    Bad,
    Faint,
}

/// Whether standard output is a terminal that wants colour (<https://no-color.org>).
pub(crate) fn colour() -> bool {
    io::stdout().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// `text` in a tone, if colour is wanted.
pub(crate) fn toned(text: &str, tone: Tone, colour: bool) -> String {
    let code = match tone {
        _ if !colour => return text.to_owned(),
        Tone::Plain => return text.to_owned(),
        Tone::Good => "32",
        Tone::Warn => "33",
        Tone::Bad => "31",
        Tone::Faint => "2",
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// Rows in aligned columns.
pub(crate) struct Table {
    headers: Vec<&'static str>,
    rows: Vec<Vec<(String, Tone)>>,
}

impl Table {
    /// An empty table.
    pub(crate) fn new(headers: &[&'static str]) -> Table {
        Table { headers: headers.to_vec(), rows: Vec::new() }
    }

    /// Adds a row.
    pub(crate) fn row<const N: usize>(&mut self, cells: [(String, Tone); N]) {
        self.rows.push(cells.into());
    }

    /// Whether it has no row.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as text, without a line end.
    pub(crate) fn render(&self, colour: bool) -> String {
        let width = |column: usize| {
            let header = self.headers.get(column).map_or(0, |header| header.chars().count());
            let cells = self.rows.iter().filter_map(|row| row.get(column)).map(|(cell, _)| cell.chars().count());
            cells.fold(header, usize::max)
        };
        let widths: Vec<usize> = (0..self.headers.len()).map(width).collect();
        let header = self.headers.iter().map(|header| ((*header).to_owned(), Tone::Faint)).collect();
        let lines = std::iter::once(&header).chain(&self.rows).map(|row| {
            let mut line = String::new();
            for (index, ((cell, tone), width)) in row.iter().zip(&widths).enumerate() {
                line.push_str(&toned(cell, *tone, colour));
                if index + 1 < row.len() {
                    line.extend(std::iter::repeat_n(' ', width + 2 - cell.chars().count()));
                }
            }
            line
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// A duration in seconds as people say it: `0.4 s`, `12 s`, `3 min 20 s`, `5 h 2 min`, `3 d 4 h`.
pub(crate) fn seconds(seconds: f64) -> String {
    // Saturates for what no clock shows.
    let whole = seconds.max(0.0) as u64;
    match whole {
        _ if seconds < 10.0 => format!("{:.1} s", seconds.max(0.0)),
        0..120 => format!("{whole} s"),
        120..7200 => format!("{} min {} s", whole / 60, whole % 60),
        7200..172_800 => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{} d {} h", whole / 86_400, whole % 86_400 / 3600),
    }
}

/// `1 peer`, `2 peers`.
pub(crate) fn count(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// The same for what is counted in 64 bits.
pub(crate) fn count_of(number: u64, noun: &str) -> String {
    count(usize::try_from(number).unwrap_or(usize::MAX), noun)
}

/// A time of the wall clock, given in milliseconds since 1970, in the zone of the log: `2026-11-21 03:12:07Z`.
pub(crate) fn utc(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000;
    let (mut days, second) = (seconds / 86_400, seconds % 86_400);
    let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    // Every 400 years the calendar begins anew.
    let mut year = 1970 + days / 146_097 * 400;
    days %= 146_097;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year}-{month:02}-{:02} {hour:02}:{minute:02}:{second:02}Z", days + 1)
}

/// A count of bytes as people say it.
pub(crate) fn bytes(count: u64) -> String {
    let mut value = count as f64;
    let mut units = ["KiB", "MiB", "GiB"].iter();
    let mut unit = "B";
    while value >= 1024.0 {
        value /= 1024.0;
        unit = units.next().copied().unwrap_or("TiB");
        if unit == "TiB" {
            break;
        }
    }
    if unit == "B" { format!("{count} B") } else { format!("{value:.1} {unit}") }
}

/// Bytes of anybody as one line that does a terminal no harm: text as it is, but for control characters, which are escaped, and
/// bytes that are no UTF-8 as `\\xff`.
pub(crate) fn safe(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                '\n' => text.push_str("\\n"),
                '\t' => text.push_str("\\t"),
                c if is_harmless(c) => text.push(c),
                c if c.is_ascii() => text.push_str(&format!("\\x{:02x}", u32::from(c))),
                c => text.extend(c.escape_unicode()),
            }
        }
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
    }
    text
}

/// Whether a character stands for itself: neither control nor one that changes how others are shown (UAX #9).
fn is_harmless(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Hexadecimal digits.
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes that hexadecimal digits stand for.
pub(crate) fn from_hex(digits: &[u8]) -> Option<Vec<u8>> {
    let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

/// Milliseconds of a round trip, or a dash where there was none.
pub(crate) fn milliseconds(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |ms| if ms < 10.0 { format!("{ms:.2} ms") } else { format!("{ms:.1} ms") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_colourless_for_pipes() {
        let mut table = Table::new(&["NAME", "STATE"]);
        table.row([("alpha".to_owned(), Tone::Plain), ("up".to_owned(), Tone::Plain)]);
        table.row([("b".to_owned(), Tone::Plain), ("down".to_owned(), Tone::Bad)]);
        assert_eq!(table.render(false), "NAME   STATE\nalpha  up\nb      down");
        assert!(table.render(true).contains("\x1b[31mdown\x1b[0m"));
    }

    #[test]
    fn what_others_wrote_does_a_terminal_no_harm() {
        assert_eq!(safe("grün".as_bytes()), "grün");
        assert_eq!(safe(b"a\x1b[2J\n\xff\\"), r"a\x1b[2J\n\xff\\");
        assert_eq!(safe("a\u{202e}b".as_bytes()), r"a\u{202e}b");
        assert_eq!(from_hex(b"00fF"), Some(vec![0, 255]));
        assert_eq!(to_hex(&[0, 255]), "00ff");
        assert_eq!((from_hex(b"0"), from_hex(b"0g")), (None, None));
    }

    #[test]
    fn quantities() {
        assert_eq!(seconds(0.42), "0.4 s");
        assert_eq!(seconds(61.0), "61 s");
        assert_eq!(seconds(200.0), "3 min 20 s");
        assert_eq!(seconds(7260.0), "2 h 1 min");
        assert_eq!(seconds(1e300), format!("{} d {} h", u64::MAX / 86_400, u64::MAX % 86_400 / 3600));
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(u64::MAX), "16777216.0 TiB");
        assert_eq!(milliseconds(None), "-");
    }

    #[test]
    fn times() {
        // As `date -u -d @SECONDS` says.
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00Z"),
            (951_782_399, "2000-02-28 23:59:59Z"),
            (951_782_400, "2000-02-29 00:00:00Z"),
            (1_735_689_599, "2024-12-31 23:59:59Z"),
            (4_107_542_400, "2100-03-01 00:00:00Z"),
            (13_574_649_600, "2400-03-01 00:00:00Z"),
        ] {
            assert_eq!(utc(seconds * 1000), text);
        }
        assert!(utc(u64::MAX).ends_with('Z'));
    }
}
