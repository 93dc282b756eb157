//! What came of asking along a way. Pure.

use std::time::Duration;

/// What carried a packet, or several, as far as this node knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum CarriedBy {
    /// Nothing came, or it is not known.
    #[default]
    Unknown,
    FastPath,
    KernelPath,
    /// Some by the one, some by the other.
    Both,
    /// This node's bridge alone.
    Bridge,
}

impl CarriedBy {
    /// What carried one packet of which the VXLAN device has `seen` that it passed, and the programs counted `rose`
    /// packets of that peer meanwhile. Between them there is no third way, unless somebody else has made one: a packet
    /// that neither knows of took that.
    pub(super) fn of(seen: bool, rose: bool) -> Self {
        match (seen, rose) {
            (true, _) => Self::KernelPath,
            (false, true) => Self::FastPath,
            (false, false) => Self::Unknown,
        }
    }

    /// What carried both what this and what `other` is about.
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (one, another) if one == another => one,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            _ => Self::Both,
        }
    }
}

/// One question that was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) round_trip: Duration,
    /// What carried the question away from this node.
    pub(crate) out: CarriedBy,
    /// What carried the answer into it.
    pub(crate) back: CarriedBy,
}

/// What came of asking by one way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leg {
    pub(crate) sent: u32,
    pub(crate) answers: Vec<Answer>,
    /// The largest packet that passed, if it was looked for and any did.
    pub(crate) largest: Option<u32>,
    /// Why it could not be asked.
    pub(crate) error: Option<String>,
    /// Whether the peer's bridge address answered by this way.
    pub(crate) gateway: bool,
}

impl Leg {
    pub(crate) fn answered(&self) -> u32 {
        u32::try_from(self.answers.len()).unwrap_or(u32::MAX)
    }

    /// The shortest, the median and the longest round trip; zero where there is none.
    pub(crate) fn round_trips(&self) -> [Duration; 3] {
        let mut all: Vec<Duration> = self.answers.iter().map(|it| it.round_trip).collect();
        all.sort_unstable();
        match (all.first(), all.get(all.len() / 2), all.last()) {
            (Some(&min), Some(&median), Some(&max)) => [min, median, max],
            _ => Default::default(),
        }
    }

    /// What carried what was answered.
    pub(crate) fn carried_by(&self) -> CarriedBy {
        let each = self.answers.iter().map(|it| it.out.and(it.back));
        each.reduce(CarriedBy::and).unwrap_or_default()
    }
}

/// What the peer's host answers past everything that is ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HostSeen {
    pub(crate) round_trip: Option<Duration>,
    pub(crate) largest: Option<u32>,
    /// Whether it said that nobody serves the port of VXLAN.
    pub(crate) unserved: bool,
    pub(crate) error: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(millis: u64, out: CarriedBy, back: CarriedBy) -> Answer {
        Answer {
            round_trip: Duration::from_millis(millis),
            out,
            back,
        }
    }

    fn carried(answers: &[(CarriedBy, CarriedBy)]) -> CarriedBy {
        let answers = answers.iter().map(|&(out, back)| answer(1, out, back));
        Leg {
            answers: answers.collect(),
            ..Leg::default()
        }
        .carried_by()
    }

    #[test]
    fn what_one_path_carried_both_ways_every_time_it_carried_and_anything_else_is_mixed_or_not_known()
     {
        use CarriedBy::{Both, FastPath, KernelPath, Unknown};
        assert_eq!(carried(&[]), Unknown);
        assert_eq!(carried(&[(FastPath, FastPath); 3]), FastPath);
        assert_eq!(carried(&[(KernelPath, KernelPath)]), KernelPath);
        assert_eq!(carried(&[(FastPath, KernelPath)]), Both);
        let once = [(FastPath, FastPath), (KernelPath, KernelPath)];
        assert_eq!(carried(&once), Both);
        assert_eq!(
            carried(&[(FastPath, FastPath), (Unknown, FastPath)]),
            Unknown
        );
    }

    #[test]
    fn what_the_device_saw_took_the_kernel_path_whatever_else_the_programs_carried_meanwhile() {
        assert_eq!(CarriedBy::of(true, true), CarriedBy::KernelPath);
        assert_eq!(CarriedBy::of(true, false), CarriedBy::KernelPath);
        assert_eq!(CarriedBy::of(false, true), CarriedBy::FastPath);
        assert_eq!(CarriedBy::of(false, false), CarriedBy::Unknown);
    }

    #[test]
    fn round_trips_are_the_shortest_the_median_and_the_longest() {
        let leg = |times: &[u64]| Leg {
            answers: times
                .iter()
                .map(|&it| answer(it, CarriedBy::FastPath, CarriedBy::FastPath))
                .collect(),
            ..Leg::default()
        };
        let millis = |times: &[u64]| leg(times).round_trips().map(|it| it.as_millis());
        assert_eq!(millis(&[]), [0, 0, 0]);
        assert_eq!(millis(&[5]), [5, 5, 5]);
        assert_eq!(millis(&[9, 1, 3]), [1, 3, 9]);
    }
}
