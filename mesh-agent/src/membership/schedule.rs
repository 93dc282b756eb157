//! When a certificate is made anew, and how pressing that is.

use mesh_credentials::certificate::Presented;

/// The part of its life over which nodes that joined together spread, from two thirds on: one in this many.
const SPREAD: i64 = 20;

/// A day, in seconds.
const DAY: i64 = 24 * 60 * 60;

/// When to have a certificate made anew, in Unix seconds: from two thirds of its life on. `chance` is from 0 to 1.
#[must_use]
pub(super) fn renewal(certificate: &Presented, chance: f64) -> i64 {
    let life = certificate
        .not_after
        .saturating_sub(certificate.not_before)
        .max(0);
    // A life is far below what a float counts exactly.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
    let later = ((life / SPREAD) as f64 * chance.clamp(0.0, 1.0)) as i64;
    certificate.renew_at().saturating_add(later)
}

/// How much is left of a certificate's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Left {
    /// More than a third.
    Plenty,
    /// A third or less.
    Third,
    /// A day or less.
    Day,
    /// Nothing: it has expired.
    Nothing,
}

/// How much is left at a time in Unix seconds.
#[must_use]
pub(super) fn left(certificate: &Presented, now: i64) -> Left {
    let left = certificate.not_after.saturating_sub(now);
    if left < 0 {
        Left::Nothing
    } else if left <= DAY {
        Left::Day
    } else if now >= certificate.renew_at() {
        Left::Third
    } else {
        Left::Plenty
    }
}

#[cfg(test)]
mod tests {
    use mesh_credentials::{key_digest::KeyDigest, name::Name};

    use super::*;

    fn certificate(not_before: i64, not_after: i64) -> Presented {
        Presented {
            name: "spiffe://m/node/n".parse::<Name>().unwrap(),
            key: KeyDigest::of(b"key"),
            issuer: String::new(),
            not_before,
            not_after,
        }
    }

    #[test]
    fn a_certificate_is_renewed_from_two_thirds_of_its_life_on_and_well_before_its_end() {
        let week = certificate(0, 7 * DAY);
        assert_eq!(renewal(&week, 0.0), 7 * DAY / 3 * 2);
        assert_eq!(renewal(&week, 1.0), 7 * DAY / 3 * 2 + 7 * DAY / 20);
        for chance in [-1.0, 0.3, 2.0, f64::NAN] {
            let at = renewal(&week, chance);
            assert!((7 * DAY / 3 * 2..6 * DAY).contains(&at), "{chance}: {at}");
        }
        let _no_panic = renewal(&certificate(i64::MAX, i64::MIN), 1.0);
    }

    #[test]
    fn what_is_left_presses_the_more_the_less_it_is() {
        let week = certificate(0, 7 * DAY);
        for (now, expected) in [
            (-DAY, Left::Plenty),
            (4 * DAY, Left::Plenty),
            (7 * DAY / 3 * 2, Left::Third),
            (6 * DAY - 1, Left::Third),
            (6 * DAY, Left::Day),
            (7 * DAY, Left::Day),
            (7 * DAY + 1, Left::Nothing),
        ] {
            assert_eq!(left(&week, now), expected, "{now}");
        }
    }
}
