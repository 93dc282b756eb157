//! What the control plane's answers say beside their bodies: its clock, and who its authorities are.

use std::sync::{Mutex, PoisonError};

use mesh_credentials::control_plane_check::clock as shown;
use mesh_rest::client::{Notice, Notices};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::clock::{self, Clocks, News};

/// What was heard last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heard {
    /// What the control plane calls its set of authorities.
    pub authorities: Option<String>,
    /// By how much its clock is ahead of this host's, in seconds: 0 while they show about the same.
    pub clock_ahead: i64,
}

/// Hears it.
#[derive(Debug, Default)]
pub struct Ears {
    clocks: Mutex<Clocks>,
    heard: watch::Sender<Heard>,
}

impl Ears {
    /// Changes with each answer.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Heard> {
        self.heard.subscribe()
    }

    fn compare(&self, theirs: i64) -> i64 {
        let ours = clock::now();
        let mut clocks = self.clocks.lock().unwrap_or_else(PoisonError::into_inner);
        let news = clocks.compare(ours, theirs);
        match news {
            Some(News::Differ) => warn!(
                ours = shown(ours),
                theirs = shown(theirs),
                difference_s = ours.abs_diff(theirs),
                "this host's clock and the control plane's show different times: set the wrong one, before certificates \
                 count as expired"
            ),
            Some(News::Agree) => info!(
                ours = shown(ours),
                theirs = shown(theirs),
                "this host's clock and the control plane's show the same time again"
            ),
            None => {}
        }
        match clocks.differ() {
            true => theirs.saturating_sub(ours),
            false => 0,
        }
    }
}

impl Notices for Ears {
    fn take(&self, notice: Notice) {
        let ahead = notice.date.map(|theirs| self.compare(theirs));
        self.heard.send_modify(|heard| {
            heard.clock_ahead = ahead.unwrap_or(heard.clock_ahead);
            if notice.authorities.is_some() {
                heard.authorities = notice.authorities;
            }
        });
    }
}
