//! Writes lines, and later what was held back of them.

use std::{
    io::{self, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Instant,
};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    Layer,
    fmt::{
        format::Writer,
        time::{FormatTime as _, SystemTime},
    },
    layer::Context,
};

use crate::{Format, line::Line, repeats::Repeats};

/// The log of this process. What is held back is told when it goes.
#[derive(Debug)]
pub struct Log {
    shared: Arc<Shared>,
    teller: Option<JoinHandle<()>>,
}

struct Shared {
    format: Format,
    colour: bool,
    state: Mutex<State>,
    /// That something is held back, or that the log ends.
    changed: Condvar,
}

struct State {
    repeats: Repeats<Line>,
    to: Box<dyn Write + Send>,
    ended: bool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("format", &self.format)
            .finish_non_exhaustive()
    }
}

impl Log {
    /// Lines are written to `to`, each with one call.
    pub(crate) fn start(
        format: Format,
        colour: bool,
        to: impl Write + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            format,
            colour,
            state: Mutex::new(State {
                repeats: Repeats::default(),
                to: Box::new(to),
                ended: false,
            }),
            changed: Condvar::new(),
        });
        let of_teller = Arc::clone(&shared);
        // It sleeps for as long as nothing is held back.
        let teller = thread::Builder::new()
            .name("log".to_owned())
            .stack_size(64 * 1024)
            .spawn(move || of_teller.tell())?;
        Ok(Self {
            shared,
            teller: Some(teller),
        })
    }

    pub(crate) fn layer(&self) -> Lines {
        Lines(Arc::clone(&self.shared))
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.shared.locked().ended = true;
        self.shared.changed.notify_one();
        if let Some(teller) = self.teller.take() {
            // It panics nowhere; and there is nobody to tell.
            let _ = teller.join();
        }
    }
}

/// Makes lines of events.
pub(crate) struct Lines(Arc<Shared>);

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        self.0.say(&Line::of(event), Instant::now());
    }
}

impl Shared {
    fn locked(&self) -> MutexGuard<'_, State> {
        // Whoever panicked while it wrote has at most left a line unfinished.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, line: &Line, now: Instant) {
        let mut state = self.locked();
        // Whoever asks for what else there is to tell wants each of it.
        if line.level > Level::INFO {
            return self.write(&mut state, line, 0);
        }
        match state.repeats.is_said(line, now) {
            true => self.write(&mut state, line, 0),
            false => self.changed.notify_one(),
        }
    }

    fn write(&self, state: &mut State, line: &Line, repeated: u64) {
        let written = line.written(self.format, self.colour, &time(), repeated);
        // Where there is nobody to read it, there is nobody to tell.
        let _ = state.to.write_all(written.as_bytes());
        let _ = state.to.flush();
    }

    /// Tells what was held back, when it is time, until the log ends.
    fn tell(&self) {
        let mut state = self.locked();
        loop {
            let ended = state.ended;
            let due = match ended {
                true => state.repeats.end(),
                false => state.repeats.due(Instant::now()),
            };
            for (line, repeated) in due {
                self.write(&mut state, &line, repeated);
            }
            if ended {
                return;
            }
            let next = state.repeats.next_due();
            state = match next.map(|it| it.saturating_duration_since(Instant::now())) {
                None => self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(left) => {
                    let waited = self.changed.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

/// The time, as in RFC 3339, in UTC, to the microsecond.
fn time() -> String {
    let mut time = String::with_capacity(32);
    match SystemTime.format_time(&mut Writer::new(&mut time)) {
        Ok(()) => time,
        Err(_) => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tracing::{debug, error, info, subscriber::with_default, warn};
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The lines of what `events` logs, without their times, to its end.
    fn lines(format: Format, events: impl FnOnce()) -> Vec<String> {
        let written = Written::default();
        let log = Log::start(format, false, written.clone()).unwrap();
        let subscriber = tracing_subscriber::registry().with(log.layer());
        with_default(subscriber, events);
        drop(log);
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'));
        text.lines().map(str::to_owned).collect()
    }

    fn timeless(line: &str) -> &str {
        let (time, rest) = line.split_once(' ').unwrap();
        assert!(time.ends_with('Z') && time.contains('T'), "{line}");
        rest
    }

    #[test]
    fn a_line_of_text_has_time_level_id_message_and_fields() {
        let lines = lines(Format::Text, || {
            let error = io::Error::other("no way");
            warn!(name: "peer-lost", peer = "host2", %error, times = 3, "the peer is gone");
            info!(name: "started", "it runs");
        });
        assert_eq!(
            lines.iter().map(|it| timeless(it)).collect::<Vec<_>>(),
            [
                r#" WARN peer-lost: the peer is gone peer="host2" error=no way times=3"#,
                " INFO started: it runs",
            ]
        );
    }

    #[test]
    fn a_line_of_json_is_one_object_with_everything() {
        let lines = lines(Format::Json, || {
            error!(name: "peer-lost", peer = "host2", up = false, times = 3, event = "x", "the peer\nis gone");
        });
        let [line] = lines.as_slice() else {
            panic!("{lines:?}")
        };
        let mut object: Value = serde_json::from_str(line).unwrap();
        let time = object.as_object_mut().unwrap().remove("time").unwrap();
        assert!(time.as_str().unwrap().ends_with('Z'));
        assert_eq!(
            object,
            json!({
                "level": "error", "event": "peer-lost", "message": "the peer\nis gone",
                "target": "mesh_log::writing::tests", "peer": "host2", "up": false, "times": 3, "event_": "x",
            })
        );
    }

    #[test]
    fn what_the_network_says_begins_no_line_and_speaks_to_no_terminal() {
        let lines = lines(Format::Text, || {
            let said = "bad\n2026-01-01T00:00:00Z ERROR forged: \x1b[2J";
            warn!(name: "refused", %said, quoted = said, "{said}");
        });
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(!lines[0].contains('\x1b'), "{lines:?}");
    }

    #[test]
    fn what_repeats_is_written_once_and_counted_at_the_end() {
        let lines = lines(Format::Text, || {
            for _ in 0..1000 {
                warn!(name: "refused", who = "a", "no");
            }
            warn!(name: "refused", who = "b", "no");
        });
        assert_eq!(
            lines.iter().map(|it| timeless(it)).collect::<Vec<_>>(),
            [
                r#" WARN refused: no who="a""#,
                r#" WARN refused: no who="b""#,
                r#" WARN refused: no who="a" repeated=999"#,
            ]
        );
    }

    #[test]
    fn what_was_asked_for_to_see_each_of_it_is_written_each_time() {
        let lines = lines(Format::Text, || {
            for _ in 0..3 {
                debug!(name: "heartbeat", "heartbeat");
            }
        });
        assert_eq!(lines.len(), 3);
    }

    #[test]
    fn of_what_changes_to_and_fro_the_last_is_told_last() {
        let lines = lines(Format::Text, || {
            for _ in 0..20 {
                warn!(name: "lost", "lost");
                warn!(name: "back", "back");
            }
        });
        assert_eq!(
            lines.iter().map(|it| timeless(it)).collect::<Vec<_>>(),
            [
                " WARN lost: lost",
                " WARN back: back",
                " WARN lost: lost repeated=19",
                " WARN back: back repeated=19",
            ]
        );
    }

    #[test]
    fn an_event_of_somebody_elses_has_its_module_for_an_id() {
        let lines = lines(Format::Text, || info!(target: "sqlx::query", "slow"));
        assert_eq!(timeless(&lines[0]), " INFO sqlx::query: slow");
    }
}
