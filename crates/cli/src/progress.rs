//! Tells a person, or the process that started this one, how far the start has come: one line a step with the milliseconds it took.

use std::io::Write;
use std::sync::Mutex;
use std::time::Instant;

use serde::{Deserialize, Serialize};

/// A line between the process that runs a cluster and the one that started it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Line {
    Step {
        what: String,
        ms: u64,
    },
    /// What a person wants to know, as it is to be printed.
    Note {
        text: String,
    },
    Ready {
        ms: u64,
    },
    /// Not everything is there after the time that was given; the cluster goes on.
    Late {
        why: String,
    },
    Failed {
        why: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Person,
    Machine,
}

pub struct Progress {
    form: Form,
    start: Instant,
    last: Mutex<Instant>,
}

fn ms(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

impl Progress {
    pub fn new(form: Form) -> Progress {
        let now = Instant::now();
        Progress { form, start: now, last: Mutex::new(now) }
    }

    /// A step is done; its time runs from the step before.
    pub fn step(&self, what: impl Into<String>) {
        let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let line = Line::Step { what: what.into(), ms: ms(*last) };
        *last = Instant::now();
        self.say(&line);
    }

    pub fn note(&self, text: impl Into<String>) {
        self.say(&Line::Note { text: text.into() });
    }

    pub fn ready(&self) {
        self.say(&Line::Ready { ms: ms(self.start) });
    }

    pub fn late(&self, why: impl Into<String>) {
        self.say(&Line::Late { why: why.into() });
    }

    pub fn failed(&self, error: &anyhow::Error) {
        if self.form == Form::Machine {
            self.say(&Line::Failed { why: format!("{error:#}") });
        }
    }

    fn say(&self, line: &Line) {
        let text = match self.form {
            Form::Machine => serde_json::to_string(line).unwrap_or_default(),
            Form::Person => line.to_string(),
        };
        let mut out = std::io::stdout().lock();
        // Whoever started this process may be gone; that is no reason to stop.
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    }
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Line::Step { what, ms } => write!(f, "  {ms:>6} ms  {what}"),
            Line::Note { text } => f.write_str(text),
            Line::Ready { ms } => write!(f, "  {ms:>6} ms  in all"),
            Line::Late { why } => write!(f, "not everything is ready in time:\n{why}"),
            Line::Failed { why } => write!(f, "error: {why}"),
        }
    }
}
