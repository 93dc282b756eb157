//! How much slower than a machine all of this goes.
//!
//! Under emulation a packet takes many times as long, and nobody knows how many: the mesh gets
//! a fraction of the traffic, and everything the multiple of its time.

use std::time::Duration;

/// The factor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pace(u32);

impl Pace {
    /// That of a machine.
    pub(crate) const REAL: Self = Self(1);

    /// So many times slower.
    pub(crate) fn slower(factor: u32) -> Self {
        Self(factor.max(1))
    }

    /// Whether times mean nothing.
    pub(crate) fn is_slow(self) -> bool {
        self != Self::REAL
    }

    /// How long something takes, or may take, that takes this long on a machine.
    pub(crate) fn time(self, real: Duration) -> Duration {
        real.saturating_mul(self.0)
    }

    /// How many per second where a machine does with so many; never none.
    pub(crate) fn rate(self, real: u32) -> u32 {
        (real / self.0).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_slower_takes_longer_and_sends_less() {
        let pace = Pace::slower(20);
        assert_eq!(
            pace.time(Duration::from_millis(300)),
            Duration::from_secs(6)
        );
        assert_eq!((pace.rate(1000), pace.rate(7)), (50, 1));
        assert!(pace.is_slow() && !Pace::slower(0).is_slow());
        assert_eq!(Pace::REAL.rate(1000), 1000);
    }
}
