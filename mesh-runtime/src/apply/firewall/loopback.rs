//! Whether our bridge routes loopback (`route_localnet`), without which no published port is reached by 127.0.0.1.
//!
//! What a container sends to loopback, the kernel takes from such a bridge, and the rules drop it. So it routes loopback
//! only once the rules have been seen, and no more as soon as they are seen damaged; and only while a port is
//! published that needs it, since what nobody uses nobody has to guard.
//!
//! Others may want the same of our bridge, as CNI's `portmap` does: what was there before is not taken back.

use crate::{apply::sysctl, desired::firewall::Ruleset, observed};

/// Who has the bridge route loopback.
#[derive(Debug)]
pub(super) struct Loopback {
    /// Whether it is this project; `None` until it was looked at.
    ours: Option<bool>,
    /// Whether it was said that it cannot be.
    said: bool,
}

impl Loopback {
    /// After an earlier run, which had the bridge route loopback if a port was `published` at its end: also that of a container which
    /// is gone by now.
    pub(super) fn after(published: bool) -> Self {
        Self {
            ours: published.then_some(true),
            said: false,
        }
    }

    /// Whether these rules, which stand, ask for something else than there is.
    pub(super) fn is_behind(&self, rules: &Ruleset) -> bool {
        match rules.routes_loopback() {
            Some(bridge) => observed::sysctl::route_localnet(bridge) == Some(false),
            None => self.ours != Some(false),
        }
    }

    /// The rules stand.
    pub(super) fn follow(&mut self, rules: &Ruleset) {
        match rules.routes_loopback() {
            Some(bridge) => match observed::sysctl::route_localnet(bridge) {
                Some(true) => {
                    self.ours.get_or_insert(true);
                }
                Some(false) => self.set(bridge, true),
                // It comes back with rules of its own.
                None => {}
            },
            None => {
                self.close(rules);
                self.ours = Some(false);
            }
        }
    }

    /// The rules do not stand, or nobody needs it any more.
    pub(super) fn close(&mut self, wanted: &Ruleset) {
        let ours = self.ours.unwrap_or(wanted.routes_loopback().is_some());
        if ours && observed::sysctl::route_localnet(wanted.bridge()) == Some(true) {
            self.set(wanted.bridge(), false);
        }
    }

    fn set(&mut self, bridge: &str, routes: bool) {
        match sysctl::route_localnet(bridge, routes) {
            Ok(()) => {
                self.ours = Some(true);
                self.said = false;
                tracing::debug!(name: "loopback-by-bridge", bridge, routes, "127.0.0.1 of this host by the bridge");
            }
            Err(error) if !self.said => {
                self.said = true;
                tracing::warn!(name: "cannot-set-route-localnet",
                    bridge,
                    routes,
                    %error,
                    "cannot set route_localnet: published ports are not reached by 127.0.0.1"
                );
            }
            Err(_) => {}
        }
    }
}
