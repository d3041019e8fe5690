//! Telling the story: a line a fact, with the time at which it was found.

use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::output::{self, Format, Tone};

/// Says what happens, since when it was made.
pub(super) struct Narrator {
    format: Format,
    colour: bool,
    started: Instant,
}

#[derive(Serialize)]
struct Line {
    at_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    about: Option<&'static str>,
    text: String,
}

impl Narrator {
    pub(super) fn new(format: Format) -> Narrator {
        Narrator { format, colour: output::colour(), started: Instant::now() }
    }

    /// The headline of what comes next.
    pub(super) fn chapter(&mut self, title: &str) {
        if self.format == Format::Text {
            output::line(format_args!("\n{}", output::toned(title, Tone::Good, self.colour)));
        }
    }

    /// A fact about one of the machines.
    pub(super) fn says(&mut self, about: &'static str, text: impl fmt::Display) {
        self.tell(Some(about), text.to_string());
    }

    /// A fact about all of them.
    pub(super) fn note(&mut self, text: impl fmt::Display) {
        self.tell(None, text.to_string());
    }

    fn tell(&mut self, about: Option<&'static str>, text: String) {
        let at = self.started.elapsed();
        match self.format {
            Format::Json => output::json_line(&Line { at_ms: (at.as_secs_f64() * 1e4).round() / 10.0, about, text }),
            Format::Text => {
                let clock = output::toned(&format!("{:>7.3} s", at.as_secs_f64()), Tone::Faint, self.colour);
                output::line(format_args!("{clock}  {:<6}  {text}", about.unwrap_or_default()));
            }
        }
    }
}

/// A duration of a round trip or of an outage.
pub(super) fn time(duration: Duration) -> String {
    if duration < Duration::from_millis(1) {
        return format!("{} µs", duration.as_micros());
    }
    if duration < Duration::from_secs(1) {
        return format!("{:.1} ms", duration.as_secs_f64() * 1e3);
    }
    format!("{:.2} s", duration.as_secs_f64())
}
