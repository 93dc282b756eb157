//! The switch by which the programs tell what becomes of single packets.

use std::{net::Ipv4Addr, time::Duration};

use aya::{
    maps::{Array, MapData, PerCpuArray},
    util::nr_cpus,
};
use mesh_layout::{WATCH_CARRIED, WATCH_WINDOW_SHIFT, Watch, WatchStats, map_names};

use super::{FastPath, FastPathError, listeners::Listener, maps::monotonic_now};

/// How many drops, and how many other packets, all CPUs together tell of in a second.
const EVENTS_A_SECOND: u64 = 1000;

/// What somebody looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Watched {
    /// Whether also what is carried or left to the kernel.
    pub(crate) carried: bool,
    /// The network address of the one peer whose packets count.
    pub(crate) only: Option<Ipv4Addr>,
}

impl Watched {
    /// What both look at.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            carried: self.carried || other.carried,
            only: self.only.filter(|only| other.only == Some(*only)),
        }
    }
}

/// Packets that were not told of since the maps were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Untold {
    /// Because of the budget.
    pub(crate) over_budget: u64,
    /// Because the ring buffer was full.
    pub(crate) lost: u64,
}

/// The two maps.
pub(super) struct WatchMaps {
    pub(super) watch: Array<MapData, Watch>,
    pub(super) stats: PerCpuArray<MapData, WatchStats>,
}

/// How many events a CPU tells of in a window, of `cpus`.
fn budget(cpus: usize) -> u32 {
    let windows = (1_000_000_000_u64 >> WATCH_WINDOW_SHIFT) + 1;
    let each = EVENTS_A_SECOND / windows / (cpus.max(1) as u64);
    u32::try_from(each.max(1)).unwrap_or(u32::MAX)
}

impl FastPath {
    /// Has one be told of events.
    pub(crate) fn listen(&self, listener: Listener) {
        self.listeners.add(listener);
    }

    /// Has the programs tell what is `watched`, for so long; `None` ends it.
    ///
    /// # Errors
    ///
    /// A map that cannot be written.
    pub(crate) fn watch(
        &mut self,
        watched: Option<Watched>,
        how_long: Duration,
    ) -> Result<(), FastPathError> {
        let entry = watched.map_or(Watch::default(), |watched| Watch {
            until_ns: u64::try_from((monotonic_now() + how_long).as_nanos()).unwrap_or(u64::MAX),
            flags: if watched.carried { WATCH_CARRIED } else { 0 },
            budget: budget(nr_cpus().unwrap_or(1)),
            subnet: watched.only.map_or([0; 4], |only| only.octets()),
            pad: [0; 4],
        });
        let written = self.maps.watch.watch.set(0, entry, 0);
        written.map_err(|source| FastPathError::Map {
            map: map_names::WATCH,
            source,
        })
    }

    /// What was not told of.
    ///
    /// # Errors
    ///
    /// A map that cannot be read.
    pub(crate) fn untold(&self) -> Result<Untold, FastPathError> {
        let read = self.maps.watch.stats.get(&0, 0);
        let cpus = read.map_err(|source| FastPathError::Map {
            map: map_names::WATCH_STATS,
            source,
        })?;
        Ok(cpus.iter().fold(Untold::default(), |sum, cpu| Untold {
            over_budget: sum.over_budget + cpu.over_budget,
            lost: sum.lost + cpu.lost,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_cpus_together_tell_of_no_more_than_a_thousand_in_a_second_but_each_of_one() {
        for cpus in [1, 2, 3, 8, 100] {
            let windows = 1e9 / f64::from(1_u32 << WATCH_WINDOW_SHIFT);
            let told = f64::from(budget(cpus)) * cpus as f64 * windows;
            assert!(told <= 1000.0, "{cpus}: {told}");
        }
        assert_eq!(budget(10_000), 1);
    }

    #[test]
    fn two_who_look_at_different_things_have_both_told() {
        let of = |carried, last: Option<u8>| Watched {
            carried,
            only: last.map(|last| Ipv4Addr::new(10, 42, last, 0)),
        };
        assert_eq!(of(false, Some(2)).and(of(true, Some(2))), of(true, Some(2)));
        assert_eq!(of(true, Some(2)).and(of(true, Some(3))), of(true, None));
        assert_eq!(of(false, Some(2)).and(of(false, None)), of(false, None));
        assert_eq!(of(false, None).and(of(false, Some(2))), of(false, None));
    }
}
