//! Reading a TOML table key by key, so that every fault of it can be reported and none hides another.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::Faults;

/// Where something stands in the file.
pub(crate) type Span = Range<usize>;

/// A value and the place that it came from.
#[derive(Debug, Clone)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) span: Span,
}

impl<T> At<T> {
    /// The same place with another value.
    pub(crate) fn with<U>(&self, value: U) -> At<U> {
        At { value, span: self.span.clone() }
    }
}

impl At<&str> {
    /// The value that the text stands for; that it stands for none is a fault of its place.
    pub(crate) fn parse<T>(&self, faults: &mut Faults, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<At<T>> {
        match parse(self.value) {
            Ok(value) => Some(self.with(value)),
            Err(why) => {
                faults.at(self.span.clone(), why);
                None
            }
        }
    }
}

/// A table that is being read. It learns which keys are known by being asked for them, so that [`Section::finish`]
/// can name the ones that nobody asked for.
pub(crate) struct Section<'d> {
    title: &'static str,
    span: Span,
    table: Option<&'d DeTable<'d>>,
    known: Vec<&'static str>,
    /// The text could not be parsed as a whole: what seems to be missing may stand in the part that was not understood.
    torn: bool,
}

impl<'d> Section<'d> {
    /// The whole document.
    pub(crate) fn root(table: &'d DeTable<'d>, torn: bool) -> Self {
        Section { title: "the file", span: 0..0, table: Some(table), known: Vec::new(), torn }
    }

    fn get(&mut self, key: &'static str) -> Option<At<&'d DeValue<'d>>> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        let value: &'d Spanned<DeValue<'d>> = self.table?.get(key)?;
        Some(At { value: value.get_ref(), span: value.span() })
    }

    /// Where this section's header stands.
    pub(crate) fn span(&self) -> Span {
        self.span.clone()
    }

    /// Whether the key is there, whatever its value.
    pub(crate) fn has(&mut self, key: &'static str) -> bool {
        self.get(key).is_some()
    }

    /// Where the value of `key` stands, or the section's header where there is none.
    pub(crate) fn span_of(&mut self, key: &'static str) -> Span {
        let header = self.span();
        self.get(key).map_or(header, |found| found.span)
    }

    /// The table under `key`. A missing one reads as empty, and is a fault where it is `required`.
    pub(crate) fn table(
        &mut self,
        faults: &mut Faults,
        key: &'static str,
        title: &'static str,
        required: bool,
    ) -> Self {
        let mut section = Section { title, span: 0..0, table: None, known: Vec::new(), torn: self.torn };
        match self.get(key) {
            Some(At { value: DeValue::Table(table), span }) => {
                section.table = Some(table);
                section.span = span;
            }
            Some(found) => {
                faults
                    .at(found.span.clone(), format!("`{key}` is a table, written {title}, not {}", kind(found.value)));
                section.torn = true;
            }
            None => {
                if required && !self.torn {
                    faults.whole(format!("section {title} is missing"));
                }
                // One fault is enough for a section that is not there.
                section.torn = true;
            }
        }
        section
    }

    /// The tables of the array under `key`, none where there is no such key.
    pub(crate) fn tables(&mut self, faults: &mut Faults, key: &'static str, title: &'static str) -> Vec<Self> {
        let Some(found) = self.get(key) else { return Vec::new() };
        let DeValue::Array(array) = found.value else {
            let what = kind(found.value);
            faults.at(found.span, format!("`{key}` is a list of tables, each written {title}, not {what}"));
            return Vec::new();
        };
        let mut sections = Vec::new();
        for entry in array.iter() {
            let DeValue::Table(table) = entry.get_ref() else {
                let what = kind(entry.get_ref());
                faults.at(entry.span(), format!("an entry of `{key}` is a table, not {what}"));
                continue;
            };
            let section = Section { title, span: entry.span(), table: Some(table), known: Vec::new(), torn: self.torn };
            sections.push(section);
        }
        sections
    }

    /// Reports the absence of `key`, unless the text is torn or the key is there.
    pub(crate) fn require(&mut self, faults: &mut Faults, key: &'static str, example: &str) {
        if !self.has(key) && !self.torn {
            faults.at(self.span(), format!("key `{key}` is missing in {}; for example: {key} = {example}", self.title));
        }
    }

    fn typed<T>(
        &mut self,
        faults: &mut Faults,
        key: &'static str,
        wanted: &str,
        read: impl Fn(&'d DeValue<'d>) -> Option<T>,
    ) -> Option<At<T>> {
        let found = self.get(key)?;
        match read(found.value) {
            Some(value) => Some(found.with(value)),
            None => {
                let what = kind(found.value);
                faults.at(found.span, format!("`{key}` in {} must be {wanted}, not {what}", self.title));
                None
            }
        }
    }

    /// The string under `key`.
    pub(crate) fn text(&mut self, faults: &mut Faults, key: &'static str) -> Option<At<&'d str>> {
        self.typed(faults, key, "a string", |value| value.as_str())
    }

    /// The value that the string under `key` stands for.
    pub(crate) fn parse<T>(
        &mut self,
        faults: &mut Faults,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<At<T>> {
        self.text(faults, key)?.parse(faults, parse)
    }

    /// The boolean under `key`.
    pub(crate) fn boolean(&mut self, faults: &mut Faults, key: &'static str) -> Option<At<bool>> {
        self.typed(faults, key, "true or false", |value| value.as_bool())
    }

    /// The integer under `key`, which must lie in `range`.
    pub(crate) fn integer<T: TryFrom<i64> + PartialOrd + std::fmt::Display>(
        &mut self,
        faults: &mut Faults,
        key: &'static str,
        range: std::ops::RangeInclusive<T>,
    ) -> Option<At<T>> {
        // `None` inside: an integer that fits no i64, hence no range of ours.
        let found = self.typed(faults, key, "an integer", |value| {
            value.as_integer().map(|integer| i64::from_str_radix(integer.as_str(), integer.radix()).ok())
        })?;
        match found.value.and_then(|value| T::try_from(value).ok()).filter(|value| range.contains(value)) {
            Some(value) => Some(found.with(value)),
            None => {
                let (low, high) = range.into_inner();
                faults.at(found.span, format!("`{key}` in {} must lie between {low} and {high}", self.title));
                None
            }
        }
    }

    /// The strings of the list under `key`, `None` where there is no such key. Entries of another type are faults and
    /// are left out.
    pub(crate) fn texts(&mut self, faults: &mut Faults, key: &'static str) -> Option<Vec<At<&'d str>>> {
        let found = self.typed(faults, key, "a list of strings", |value| value.as_array())?;
        let mut texts = Vec::new();
        for entry in found.value.iter() {
            match entry.get_ref().as_str() {
                Some(text) => texts.push(At { value: text, span: entry.span() }),
                None => {
                    let what = kind(entry.get_ref());
                    faults.at(entry.span(), format!("an entry of `{key}` must be a string, not {what}"));
                }
            }
        }
        Some(texts)
    }

    /// Reports every key that nobody asked for, with the nearest one that is known.
    pub(crate) fn finish(self, faults: &mut Faults) {
        let Some(table) = self.table else { return };
        for key in table.keys() {
            let name: &str = key.get_ref();
            if self.known.contains(&name) {
                continue;
            }
            let hint = match nearest(name, &self.known) {
                Some(known) => format!("; did you mean `{known}`?"),
                None => format!("; known here: {}", self.known.join(", ")),
            };
            faults.at(key.span(), format!("unknown key `{name}` in {}{hint}", self.title));
        }
    }
}

/// The word of `known` that `word` is probably a slip of.
fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let lower = word.to_lowercase().replace('-', "_");
    known
        .iter()
        .map(|candidate| {
            (strsim::damerau_levenshtein(&lower, candidate), strsim::jaro_winkler(&lower, candidate), *candidate)
        })
        .filter(|(distance, likeness, candidate)| *distance <= candidate.len().div_ceil(3) || *likeness > 0.87)
        .min_by(|a, b| a.0.cmp(&b.0).then(b.1.total_cmp(&a.1)))
        .map(|(_, _, candidate)| candidate)
}

/// A TOML type in words.
fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn slips_find_their_word() {
        let known = ["name", "peer_id", "prefix", "prefixes", "relay_capable"];
        assert_eq!(nearest("prefx", &known), Some("prefix"));
        assert_eq!(nearest("prefxes", &known), Some("prefixes"));
        assert_eq!(nearest("peer-id", &known), Some("peer_id"));
        assert_eq!(nearest("PeerId", &known), Some("peer_id"));
        assert_eq!(nearest("relay", &known), Some("relay_capable"));
        assert_eq!(nearest("colour", &known), None);
    }
}
