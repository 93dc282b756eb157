//! What the loop counts of itself: how long rounds take, and what it put right by itself.

use std::{collections::BTreeSet, net::Ipv4Addr, sync::Arc, time::SystemTime};

use ipnet::Ipv4Net;
use mesh_metrics::{
    Counters, Timings,
    catalog::runtime::{RECONCILE_DURATION, REPAIRS},
};
use tokio::sync::watch;

use crate::{
    desired::{Desired, underlay::Underlay},
    diff::change::Change,
    settings::Device,
    wanted::{Wanted, node_settings::NodeSettings, peer::Peer},
};

/// What is counted, the same for all its clones.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    pub(crate) repairs: Counters,
    pub(crate) rounds: Timings,
}

impl Default for Tally {
    fn default() -> Self {
        let repairs = Repaired::ALL.iter();
        Self {
            // All are shown from the start: there are few, and the first repair is one that somebody wants to see.
            repairs: repairs.fold(Counters::new(&REPAIRS), |counters, what| {
                counters.beginning_with(&[what.as_str()])
            }),
            rounds: Timings::new(&RECONCILE_DURATION),
        }
    }
}

impl Tally {
    /// Counts repairs.
    pub(super) fn repaired(&self, what: Repaired, count: u64) {
        if count > 0 {
            self.repairs.add(&[what.as_str()], count);
        }
    }
}

/// What was put right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repaired {
    Device,
    Address,
    BridgePort,
    Sysctl,
    Route,
    Neighbour,
    ForwardingEntry,
    MapEntry,
    Pin,
    Program,
    Firewall,
}

impl Repaired {
    const ALL: &[Self] = &[
        Self::Device,
        Self::Address,
        Self::BridgePort,
        Self::Sysctl,
        Self::Route,
        Self::Neighbour,
        Self::ForwardingEntry,
        Self::MapEntry,
        Self::Pin,
        Self::Program,
        Self::Firewall,
    ];

    /// As the label says it.
    fn as_str(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Address => "address",
            Self::BridgePort => "bridge_port",
            Self::Sysctl => "sysctl",
            Self::Route => "route",
            Self::Neighbour => "neighbour",
            Self::ForwardingEntry => "forwarding_entry",
            Self::MapEntry => "map_entry",
            Self::Pin => "pin",
            Self::Program => "program",
            Self::Firewall => "firewall",
        }
    }

    /// That of a change; `None`: it comes with containers that come and go, of which nobody tells before.
    fn of(change: &Change) -> Option<Self> {
        Some(match change {
            Change::EnableForwarding | Change::SetSettings(_) => Self::Sysctl,
            Change::DeleteDevice(Device::Bridge | Device::Overlay)
            | Change::CreateBridge { .. }
            | Change::CreateOverlay { .. }
            | Change::SetMac(..)
            | Change::SetMtu(..)
            | Change::SetLocal(_)
            | Change::SetUp(_) => Self::Device,
            Change::Enslave { .. } => Self::BridgePort,
            Change::AddAddress(_) | Change::RemoveAddress(_) => Self::Address,
            Change::AddRoute(_) | Change::ReplaceRoute(_) | Change::RemoveRoute { .. } => {
                Self::Route
            }
            Change::SetNeighbour { .. } | Change::RemoveNeighbour { .. } => Self::Neighbour,
            Change::SetForwarding { .. } | Change::RemoveForwarding { .. } => Self::ForwardingEntry,
            Change::Headroom(_)
            | Change::ForgetContainer { .. }
            | Change::PinContainer { .. }
            | Change::GiveBack { .. }
            | Change::UnpinContainer { .. } => return None,
        })
    }
}

/// What the kernel's state follows from. While it is the same, and the kernel once showed all that followed, a change is a
/// repair.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Basis {
    subnet: Option<Ipv4Net>,
    host_address: Option<Ipv4Addr>,
    node_settings: NodeSettings,
    peers: Same<std::collections::BTreeMap<Ipv4Net, Peer>>,
    injected: Same<BTreeSet<Ipv4Net>>,
    underlay: Option<Underlay>,
}

/// Compared by where it is: whoever changes it makes another.
#[derive(Clone, Debug)]
struct Same<T>(Arc<T>);

impl<T> PartialEq for Same<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Basis {
    pub(super) fn of(wanted: &Wanted, desired: &Desired) -> Self {
        Self {
            subnet: wanted.subnet,
            host_address: wanted.host_address,
            node_settings: wanted.node_settings,
            peers: Same(Arc::clone(&wanted.peers)),
            injected: Same(Arc::clone(&wanted.injected)),
            underlay: desired.underlay.clone(),
        }
    }
}

/// What a round has learnt for the tally.
#[derive(Debug, Default)]
pub(super) struct Account {
    tally: Tally,
    /// Of the last round after which the kernel showed all that followed from it.
    settled: Option<Basis>,
    /// When the last whole peer set came.
    pub(super) last_sync: Option<SystemTime>,
    /// Whether the kernel's state is known.
    well: watch::Sender<bool>,
}

impl Account {
    pub(super) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Tells those who watch whether the kernel's state is known.
    pub(super) fn note_health(&self, well: bool) {
        self.well
            .send_if_modified(|told| std::mem::replace(told, well) != well);
    }

    /// News of that.
    pub(super) fn health(&self) -> watch::Receiver<bool> {
        self.well.subscribe()
    }

    /// Notes the changes that a round has made because of `basis`, of which so many failed.
    pub(super) fn made(&mut self, changes: &[Change], failed: usize, basis: Basis) {
        if self.settled.as_ref() == Some(&basis) && failed == 0 {
            for what in changes.iter().filter_map(Repaired::of) {
                self.tally.repaired(what, 1);
            }
        }
        // What has failed is tried again, and is no repair then.
        self.settled = (failed == 0).then_some(basis);
    }
}

#[cfg(test)]
mod tests {
    use mesh_metrics::Scrape;

    use super::*;

    fn count(account: &Account, what: Repaired) -> u64 {
        let mut scrape = Scrape::default();
        account.tally.repairs.show(&mut scrape);
        let text = scrape.into_text().unwrap();
        let series = format!("quilt_mesh_repairs_total{{what=\"{}\"}} ", what.as_str());
        let mut values = text.lines().filter_map(|line| line.strip_prefix(&series));
        values.next().unwrap().parse().unwrap()
    }

    #[test]
    fn a_change_is_a_repair_where_nothing_else_has_given_cause_for_it() {
        let mut account = Account::default();
        let mut wanted = Wanted::default();
        let desired = Desired::default();
        let made = |account: &mut Account, wanted: &Wanted, failed| {
            let changes = [
                Change::EnableForwarding,
                Change::GiveBack { port: 7 },
                Change::SetNeighbour {
                    address: Ipv4Addr::new(10, 42, 2, 0),
                    mac: [2; 6],
                },
            ];
            account.made(&changes, failed, Basis::of(wanted, &desired));
        };
        let counts = |account: &Account| {
            [Repaired::Sysctl, Repaired::Neighbour, Repaired::Route].map(|it| count(account, it))
        };
        // The first time it is what was asked for.
        made(&mut account, &wanted, 0);
        assert_eq!(counts(&account), [0, 0, 0]);
        made(&mut account, &wanted, 0);
        assert_eq!(counts(&account), [1, 1, 0]);
        wanted.set_subnet("10.42.1.0/24".parse().unwrap());
        made(&mut account, &wanted, 1);
        assert_eq!(counts(&account), [1, 1, 0]);
        // Another attempt is none either.
        made(&mut account, &wanted, 0);
        assert_eq!(counts(&account), [1, 1, 0]);
        made(&mut account, &wanted, 0);
        assert_eq!(counts(&account), [2, 2, 0]);
    }
}
