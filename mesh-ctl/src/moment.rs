//! Moments, as the programs' events have them.

use std::fmt;

/// Nanoseconds since 1970, shown in UTC (RFC 3339).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    seconds: u64,
    nanoseconds: u64,
}

impl Moment {
    pub(crate) fn of(nanoseconds: u64) -> Self {
        Self {
            seconds: nanoseconds / 1_000_000_000,
            nanoseconds: nanoseconds % 1_000_000_000,
        }
    }

    /// The time of the day, to the millisecond.
    pub(crate) fn time(self) -> String {
        let of_day = self.seconds % 86_400;
        format!(
            "{:02}:{:02}:{:02}.{:03}",
            of_day / 3600,
            of_day / 60 % 60,
            of_day % 60,
            self.nanoseconds / 1_000_000
        )
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = date(self.seconds / 86_400);
        let of_day = self.seconds % 86_400;
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:09}Z",
            of_day / 3600,
            of_day / 60 % 60,
            of_day % 60,
            self.nanoseconds
        )
    }
}

/// The date of a day since 1970-01-01 in the Gregorian calendar: years that begin in March, in eras of 400 years, so that
/// the leap day comes last.
fn date(days: u64) -> (u64, u64, u64) {
    // From 0000-03-01 on.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = match month {
        0..10 => (month + 3, 0),
        _ => (month - 9, 1),
    };
    (era * 400 + year + next, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments_have_their_dates() {
        for (seconds, shown) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_399, "2000-02-28T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (951_868_800, "2000-03-01T00:00:00"),
            (1_709_164_800, "2024-02-29T00:00:00"),
            (1_798_761_599, "2026-12-31T23:59:59"),
            (4_107_542_400, "2100-03-01T00:00:00"),
        ] {
            let moment = Moment::of(seconds * 1_000_000_000 + 7);
            assert_eq!(moment.to_string(), format!("{shown}.000000007Z"));
        }
        assert_eq!(Moment::of(61_001_000_000).time(), "00:01:01.001");
    }
}
