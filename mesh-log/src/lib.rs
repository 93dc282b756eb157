//! The log of a daemon, on standard error: one line for one event, as [`Format::Text`] for people or [`Format::Json`]
//! for a collector. Each kind of event has an id, which stays when its words change: the `name:` of the macro that
//! logs it. A line that repeats is said once and counted.
//!
//! `line` makes a line of an event, `repeats` decides what is held back (pure), `writing` writes.

mod line;
mod repeats;
mod writing;

use std::io::{self, IsTerminal as _};

use tracing_subscriber::{
    Layer as _, Registry,
    layer::{Filter, SubscriberExt as _},
    util::SubscriberInitExt as _,
};

pub use writing::Log;

/// What a line looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people: time, level, id, message, then fields as `name=value`.
    #[default]
    Text,
    /// One object a line: `time` (RFC 3339, UTC), `level`, `event` (the id), `message`, `target` (the module, for
    /// `--log-level`), the fields of the event, and `repeated` where it stands for lines that were held back.
    Json,
}

/// How a daemon writes its log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct LogOptions {
    /// What a line of the log looks like
    #[arg(
        long,
        value_name = "FORMAT",
        env = "QUILT_MESH_LOG_FORMAT",
        default_value = "text"
    )]
    pub log_format: Format,
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The process logs already.
    #[error("this process logs already")]
    Started(#[from] tracing_subscriber::util::TryInitError),
    /// There is no thread that could tell what was held back.
    #[error("cannot start the thread of the log: {0}")]
    Thread(#[from] io::Error),
}

/// Logs what `filter` lets through to standard error, from now until the process ends. What is held back when the
/// returned value goes is told then.
///
/// # Errors
///
/// If the process logs already, or no thread can be started.
pub fn start(
    format: Format,
    filter: impl Filter<Registry> + Send + Sync + 'static,
) -> Result<Log, LogError> {
    let colour = format == Format::Text && io::stderr().is_terminal();
    let log = Log::start(format, colour, io::stderr())?;
    tracing_subscriber::registry()
        .with(log.layer().with_filter(filter))
        .try_init()?;
    Ok(log)
}
