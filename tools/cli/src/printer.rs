//! Where each line goes: data to standard output, everything else to standard error.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// JSON, for programs.
    Json,
    /// A table, for people.
    Table,
}

/// The one place that prints.
#[derive(Debug)]
pub struct Printer {
    format: Format,
}

impl Printer {
    /// A printer for one run of the command.
    pub fn new(format: Format) -> Self {
        Self { format }
    }

    /// The result: `value` as JSON, or the table that `rows` makes of it.
    pub fn result(&self, value: &Value, head: &[&str], rows: Vec<Vec<String>>) {
        match self.format {
            Format::Json => self.data(&serde_json::to_string_pretty(value).expect("a value is JSON")),
            Format::Table => self.data(&table(head, rows)),
        }
    }

    /// Pairs of name and value, one a line, or the JSON.
    pub fn facts(&self, value: &Value, facts: &[(&str, String)]) {
        let rows = facts.iter().map(|(name, fact)| vec![(*name).to_owned(), fact.clone()]).collect();
        self.result(value, &[], rows);
    }

    /// A text of several lines as it is, or the JSON.
    pub fn text(&self, value: &Value, text: &str) {
        match self.format {
            Format::Json => self.data(&serde_json::to_string_pretty(value).expect("a value is JSON")),
            Format::Table => self.data(text),
        }
    }

    /// A line of data on standard output.
    #[allow(clippy::unused_self, reason = "output goes through the printer, whatever the format")]
    pub fn data(&self, text: &str) {
        // A reader that went away (`| head`) is not an error of ours.
        let _ = writeln!(std::io::stdout().lock(), "{text}");
    }

    /// A line for people on standard error.
    #[allow(clippy::unused_self, reason = "output goes through the printer, whatever the format")]
    pub fn note(&self, text: &str) {
        let _ = writeln!(std::io::stderr().lock(), "{text}");
    }

    /// Progress: a moving line on a terminal, plain lines elsewhere.
    pub fn progress(&self) -> Progress {
        if !std::io::stderr().is_terminal() {
            return Progress { bar: None, last: String::new() };
        }
        let bar = ProgressBar::new_spinner();
        let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})").expect("a constant template");
        bar.set_style(style);
        bar.enable_steady_tick(Duration::from_millis(120));
        Progress { bar: Some(bar), last: String::new() }
    }
}

/// Progress of one long operation.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    last: String,
}

impl Progress {
    /// Shows what is being done now; the same text twice is shown once.
    pub fn show(&mut self, text: &str) {
        if text == self.last {
            return;
        }
        text.clone_into(&mut self.last);
        match &self.bar {
            Some(bar) => bar.set_message(text.to_owned()),
            None => {
                let _ = writeln!(std::io::stderr().lock(), "  {text}");
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn table(head: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    if !head.is_empty() {
        table.set_header(head.iter().map(|name| name.to_uppercase()));
    }
    table.add_rows(rows);
    table.trim_fmt()
}
