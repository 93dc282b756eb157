//! One line on stderr per step, with the time since the start.

use std::{
    cell::Cell,
    io::{IsTerminal as _, Write as _, stderr},
    time::{Duration, Instant},
};

pub(crate) struct Progress {
    started: Instant,
    terminal: bool,
    /// Whether the line on the terminal is one to be overwritten.
    open_line: Cell<bool>,
}

impl Progress {
    pub(crate) fn start() -> Self {
        Self {
            started: Instant::now(),
            terminal: stderr().is_terminal(),
            open_line: Cell::new(false),
        }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Prints a line.
    pub(crate) fn step(&self, text: impl AsRef<str>) {
        self.line(text.as_ref(), true);
    }

    /// Shows a state that changes by the second; on a terminal only, where it is overwritten.
    pub(crate) fn waiting(&self, text: impl AsRef<str>) {
        if self.terminal {
            self.line(text.as_ref(), false);
        }
    }

    fn line(&self, text: &str, end: bool) {
        let mut out = stderr().lock();
        let erase = if self.open_line.get() { "\r\x1b[K" } else { "" };
        let newline = if end { "\n" } else { "" };
        // Nobody is left to hear of an error on stderr.
        let _ = write!(
            out,
            "{erase}{:7.1} s  {text}{newline}",
            self.elapsed().as_secs_f64()
        );
        let _ = out.flush();
        self.open_line.set(!end);
    }
}
