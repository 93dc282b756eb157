//! Keeps the wanted state on disk, beside the loop.

use std::{sync::Arc, time::Duration};

use tokio::{task::JoinHandle, time::Instant};

use crate::{
    problem::Problem,
    wanted::{
        Wanted,
        state::{Directory, Found, StateDirError},
    },
};

/// How long changes are gathered before they are written: a call is answered in
/// microseconds, and the disk takes milliseconds.
const WRITE_DELAY: Duration = Duration::from_millis(50);

/// How long a start waits for the file.
const READ_DEADLINE: Duration = Duration::from_secs(10);

/// How long to wait after a write that failed.
const RETRY_DELAY: Duration = Duration::from_secs(5);

/// What the loop keeps on disk, and how far it is.
#[derive(Debug, Default)]
pub(crate) struct StateWriter {
    /// `None`: nothing is kept.
    directory: Option<Arc<Directory>>,
    /// When what has changed is written; `None` if nothing has.
    due: Option<Instant>,
    writing: Option<JoinHandle<Result<(), StateDirError>>>,
    /// Whether the mark says that the file lags.
    behind: bool,
    /// Why it is not kept at the moment.
    problem: Option<Problem>,
}

impl StateWriter {
    /// Keeps the state in `directory`, if it is to be kept and could be opened.
    pub(crate) fn new(directory: Option<Result<Directory, StateDirError>>) -> Self {
        let mut writer = Self::default();
        match directory {
            Some(Ok(directory)) => writer.directory = Some(Arc::new(directory)),
            Some(Err(error)) => writer.failed(&error),
            None => {}
        }
        writer
    }

    /// What an earlier run left.
    pub(super) async fn read(&self) -> Found {
        let Some(directory) = self.directory.clone() else {
            return Found::default();
        };
        let reading = tokio::task::spawn_blocking(move || directory.read());
        match tokio::time::timeout(READ_DEADLINE, reading).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                tracing::warn!(name: "reading-state-file-ended-early", %error, "reading the state file ended early");
                Found::default()
            }
            Err(_) => {
                let seconds = READ_DEADLINE.as_secs();
                tracing::warn!(name: "disk-not-give-state-file",
                    seconds,
                    "the disk does not give the state file: going on without"
                );
                Found::default()
            }
        }
    }

    /// Notes that the wanted state has changed. To be called before the kernel is changed.
    pub(super) fn changed(&mut self, generation: u64) {
        let Some(directory) = &self.directory else {
            return;
        };
        if !self.behind {
            self.behind = true;
            if let Err(error) = directory.mark(true, generation) {
                self.failed(&error);
            }
        }
        self.due.get_or_insert_with(|| Instant::now() + WRITE_DELAY);
    }

    /// Notes the generation of a sync that brought no news.
    pub(super) fn generation(&mut self, generation: u64) {
        if let Some(directory) = &self.directory
            && let Err(error) = directory.mark(self.behind, generation)
        {
            self.failed(&error);
        }
    }

    /// When [`begin`](Self::begin) is to be called; `None` while there is nothing to write,
    /// or while something is being written.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due.filter(|_| self.writing.is_none())
    }

    /// Starts writing.
    pub(super) fn begin(&mut self, wanted: &Wanted) {
        let Some(directory) = self.directory.clone() else {
            return;
        };
        self.due = None;
        let wanted = wanted.clone();
        let write = move || directory.write(&wanted);
        self.writing = Some(tokio::task::spawn_blocking(write));
    }

    /// Waits until what is being written is; for ever if nothing is. Cancel safe.
    pub(super) async fn written(&mut self) -> Result<(), StateDirError> {
        let Some(writing) = &mut self.writing else {
            return std::future::pending().await;
        };
        let result = writing.await;
        self.writing = None;
        result.unwrap_or_else(|error| {
            Err(StateDirError::File {
                action: "write",
                path: self
                    .directory
                    .as_ref()
                    .map_or_else(Default::default, |it| it.path().to_owned()),
                source: std::io::Error::other(error),
            })
        })
    }

    /// Takes the result of [`written`](Self::written).
    pub(super) fn settle(&mut self, result: Result<(), StateDirError>, generation: u64) {
        let Some(directory) = &self.directory else {
            return;
        };
        let marked = result.and_then(|()| {
            if self.due.is_none() {
                directory.mark(false, generation)?;
                self.behind = false;
            }
            Ok(())
        });
        match marked {
            Ok(()) => self.problem = None,
            Err(error) => {
                self.failed(&error);
                self.due = Some(Instant::now() + RETRY_DELAY);
            }
        }
    }

    /// Writes what is not written yet, when the loop ends.
    pub(super) async fn flush(&mut self, wanted: &Wanted) {
        if self.writing.is_some() {
            let result = self.written().await;
            self.settle(result, wanted.generation);
        }
        if self.due.is_some() {
            self.begin(wanted);
            let result = self.written().await;
            if let Err(error) = &result {
                tracing::warn!(name: "what-last-calls-made-not", %error, "what the last calls made is not on the disk");
            }
            self.settle(result, wanted.generation);
        }
    }

    /// Why the state is not kept at the moment.
    pub(super) fn problem(&self) -> Option<Problem> {
        self.problem.clone()
    }

    fn failed(&mut self, error: &StateDirError) {
        self.problem = Some(Problem::StateNotKept(error.to_string()));
    }
}
