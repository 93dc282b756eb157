//! The fast path's place in the loop: opened beside it, shown the result of each round.

use tokio::task::JoinHandle;

use super::Reconciler;
use crate::{
    data_plane::fast_path_state,
    fast_path::{FastPath, FastPathError, FastPathOptions, FastPathState, detach_leftovers},
    kernel::observed::Observed,
    options::{FastPathMode, RuntimeOptions},
    problem::Problem,
};

/// Where the fast path stands.
pub(crate) enum FastPathSlot {
    /// Nobody has looked yet.
    Unopened,
    /// Switched off.
    Off,
    /// Being loaded; the kernel path works meanwhile.
    Opening(JoinHandle<Result<FastPath, FastPathError>>),
    /// This host cannot do it.
    Unavailable(String),
    /// Loaded.
    Open(Box<OpenFastPath>),
}

/// A loaded fast path.
pub(crate) struct OpenFastPath {
    pub(super) fast_path: FastPath,
    /// What it was shown last, if it took it.
    pub(super) shown: Option<FastPathState>,
    /// Why it did not.
    pub(super) refused: Option<String>,
}

impl FastPathSlot {
    /// A fast path that is open already.
    pub(crate) fn open(fast_path: FastPath) -> Self {
        Self::Open(Box::new(OpenFastPath {
            fast_path,
            shown: None,
            refused: None,
        }))
    }

    /// Starts opening it, or sees to it that nothing of an earlier run is left attached.
    pub(super) async fn begin(&mut self, options: &RuntimeOptions, observed: &Observed) {
        if !matches!(self, Self::Unopened) {
            return;
        }
        if options.fast_path == FastPathMode::Off {
            detach(options, observed).await;
            *self = Self::Off;
            return;
        }
        let options = fast_path_options(options);
        *self = Self::Opening(tokio::task::spawn_blocking(move || {
            FastPath::open(&options)
        }));
    }

    /// Generation of the peer set that the maps of an open fast path show.
    pub(super) fn generation(&self) -> Option<u64> {
        match self {
            Self::Open(open) => open.fast_path.report().ok().map(|report| report.generation),
            _ => None,
        }
    }

    /// Waits until opening has come to an end; for ever if it is not being opened.
    pub(super) async fn opened(&mut self) -> Result<FastPath, String> {
        match self {
            Self::Opening(task) => match task.await {
                Ok(result) => result.map_err(|error| error.to_string()),
                Err(error) => Err(format!("loading it ended early: {error}")),
            },
            _ => std::future::pending().await,
        }
    }

    /// Takes the result of [`opened`](Self::opened).
    pub(super) async fn settle(
        &mut self,
        opened: Result<FastPath, String>,
        options: &RuntimeOptions,
        observed: &Observed,
    ) {
        *self = match opened {
            Ok(fast_path) => Self::open(fast_path),
            Err(reason) => {
                tracing::warn!(%reason, "no fast path: this node runs on the kernel path");
                // Programs of an earlier run would go by maps that nobody keeps up to date.
                detach(options, observed).await;
                Self::Unavailable(reason)
            }
        };
    }
}

/// Detaches what an earlier run left attached.
async fn detach(options: &RuntimeOptions, observed: &Observed) {
    let bpffs = options.bpffs.clone();
    let interfaces: Vec<String> = observed
        .links
        .values()
        .map(|link| link.name.clone())
        .collect();
    let detached =
        tokio::task::spawn_blocking(move || detach_leftovers(&bpffs, &interfaces, false)).await;
    match detached {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(%error, "cannot detach programs that an earlier run may have left");
        }
        Err(error) => tracing::warn!(%error, "detaching programs of an earlier run ended early"),
    }
}

/// The fast path's part of the options.
pub(crate) fn fast_path_options(options: &RuntimeOptions) -> FastPathOptions {
    FastPathOptions {
        bpffs: options.bpffs.clone(),
        max_peers: options.max_peers(),
        attach: options.attach,
        guard: options.guard,
        log_programs: tracing::enabled!(tracing::Level::DEBUG),
    }
}

impl Reconciler {
    /// Shows the fast path the result of a round.
    pub(super) fn show_fast_path(&mut self) -> Option<Problem> {
        let FastPathSlot::Open(open) = &mut self.fast_path else {
            return None;
        };
        let state = fast_path_state(
            &self.settings,
            &self.wanted,
            &self.observed,
            self.view.underlay.as_ref(),
            &self.view.blocked,
        )?;
        match open.fast_path.apply(&state) {
            Ok(changes) => {
                if changes.attached + changes.detached > 0 {
                    tracing::info!(
                        attached = changes.attached,
                        detached = changes.detached,
                        "fast path programs moved"
                    );
                }
                open.shown = Some(state);
                open.refused = None;
                None
            }
            Err(error) => {
                let reason = error.to_string();
                open.refused = Some(reason.clone());
                Some(Problem::FastPath(reason))
            }
        }
    }
}
