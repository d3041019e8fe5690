//! Faults of a configuration file, reported the way a compiler reports them: all at once, with line and column.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// One thing that is wrong with the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Bytes of the text that are at fault; `None` for a fault of the file as a whole.
    span: Option<Range<usize>>,
    message: String,
}

/// Everything that is wrong with one file, in the order of the text.
#[derive(Debug, Clone)]
pub(crate) struct Faults {
    path: PathBuf,
    text: String,
    list: Vec<Fault>,
    /// Where the text could not be parsed.
    torn: Vec<usize>,
}

/// A fault as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct FaultReport {
    file: String,
    line: Option<usize>,
    column: Option<usize>,
    message: String,
}

#[cfg(test)]
impl FaultReport {
    pub(crate) fn place(&self) -> Option<(usize, usize)> {
        self.line.zip(self.column)
    }
}

impl Faults {
    /// No faults yet, for the file at `path` that holds `text`.
    pub(crate) fn new(path: &Path, text: &str) -> Self {
        Faults { path: path.to_owned(), text: text.to_owned(), list: Vec::new(), torn: Vec::new() }
    }

    /// Records that the text could not be parsed at `span`. What was read there instead is nobody's fault.
    pub(crate) fn torn(&mut self, span: Range<usize>, message: impl Into<String>) {
        self.at(span.clone(), message);
        self.torn.push(span.start);
    }

    /// Records a fault of the bytes `span`.
    pub(crate) fn at(&mut self, span: Range<usize>, message: impl Into<String>) {
        if self.torn.contains(&span.start) {
            return;
        }
        self.list.push(Fault { span: Some(span), message: message.into() });
    }

    /// Records a fault of the file as a whole.
    pub(crate) fn whole(&mut self, message: impl Into<String>) {
        self.list.push(Fault { span: None, message: message.into() });
    }

    /// Whether nothing is wrong.
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many things are wrong.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// Brings the faults into the order of the text.
    pub(crate) fn sort(&mut self) {
        self.list.sort_by_key(|fault| fault.span.as_ref().map_or((0, 0), |span| (1, span.start)));
        self.list.dedup();
    }

    /// The faults as JSON objects.
    pub(crate) fn reports(&self) -> Vec<FaultReport> {
        self.list
            .iter()
            .map(|fault| {
                let place = fault.span.as_ref().map(|span| self.place(span.start));
                FaultReport {
                    file: self.path.display().to_string(),
                    line: place.as_ref().map(|place| place.line),
                    column: place.as_ref().map(|place| place.column),
                    message: fault.message.clone(),
                }
            })
            .collect()
    }

    /// `file:line:column` of byte `offset`, for a message that points at another place of the same file.
    pub(crate) fn name_of(&self, offset: usize) -> String {
        let place = self.place(offset);
        format!("line {}", place.line)
    }

    fn place(&self, offset: usize) -> Place<'_> {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        let before = self.text.get(..offset).unwrap_or_default();
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let rest = self.text.get(start..).unwrap_or_default();
        Place {
            line: before.matches('\n').count() + 1,
            column: before.get(start..).unwrap_or_default().chars().count() + 1,
            text: rest.split(['\n', '\r']).next().unwrap_or_default(),
        }
    }
}

/// Where in the text something is: line and column count from 1, columns in characters.
struct Place<'a> {
    line: usize,
    column: usize,
    text: &'a str,
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.list.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            let path = self.path.display();
            let Some(span) = &fault.span else {
                write!(f, "{path}: {}", fault.message)?;
                continue;
            };
            let place = self.place(span.start);
            writeln!(f, "{path}:{}:{}: {}", place.line, place.column, fault.message)?;
            let gutter = place.line.to_string().len();
            writeln!(f, "{} | {}", place.line, place.text)?;
            let width =
                self.text.get(span.clone()).map_or(1, |text| text.lines().next().unwrap_or_default().chars().count());
            let room = place.text.chars().count().saturating_sub(place.column - 1);
            // Tabs are kept in the padding, so that the carets stand below what they mean on any terminal.
            let padding: String =
                place.text.chars().take(place.column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
            write!(f, "{:gutter$} | {padding}{}", "", "^".repeat(width.min(room).max(1)))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_column_and_carets() {
        let text = "[node]\nnäme = 3\n";
        let mut faults = Faults::new(Path::new("vine.toml"), text);
        let at = text.find('3').expect("it is there");
        faults.at(at..at + 1, "three");
        assert_eq!(faults.to_string(), "vine.toml:2:8: three\n2 | näme = 3\n  |        ^");
    }

    #[test]
    fn a_span_past_the_end_still_has_a_place() {
        let mut faults = Faults::new(Path::new("vine.toml"), "a = 1\n");
        faults.at(900..910, "late");
        assert!(faults.to_string().starts_with("vine.toml:2:1: late"), "{faults}");
    }

    #[test]
    fn faults_come_in_the_order_of_the_text() {
        let mut faults = Faults::new(Path::new("v"), "a\nb\n");
        faults.at(2..3, "second");
        faults.whole("file");
        faults.at(0..1, "first");
        faults.sort();
        let text = faults.to_string();
        let order: Vec<_> = ["file", "first", "second"].iter().map(|word| text.find(word)).collect();
        assert!(order.is_sorted(), "{text}");
    }
}
