//! Congestion marks across a tunnel (RFC 3168, RFC 6040).

/// The two bits of explicit congestion notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ecn {
    /// The sender does not take part.
    NotEct,
    /// The sender takes part; the second of the two ways to say so.
    Ect1,
    /// The sender takes part.
    Ect0,
    /// A router met congestion.
    Ce,
}

impl Ecn {
    /// Reads the two lowest bits of the type of service.
    pub const fn of(tos: u8) -> Self {
        match tos & 0b11 {
            0b00 => Self::NotEct,
            0b01 => Self::Ect1,
            0b10 => Self::Ect0,
            _ => Self::Ce,
        }
    }

    /// The two bits.
    pub const fn bits(self) -> u8 {
        match self {
            Self::NotEct => 0b00,
            Self::Ect1 => 0b01,
            Self::Ect0 => 0b10,
            Self::Ce => 0b11,
        }
    }
}

/// The outer mark on encapsulation: the inner one, but congestion already met stays inside
/// (RFC 3168, section 9.1.1, full functionality). RFC 6040 would copy it; the kernel's tunnels
/// do not, and both paths must write the same.
pub const fn outer_for(inner: Ecn) -> Ecn {
    match inner {
        Ecn::Ce => Ecn::Ect0,
        other => other,
    }
}

/// The mark of the delivered packet (RFC 6040, figure 4). `None`: it must be dropped, because
/// congestion was met and its sender cannot be told.
pub const fn inner_after(outer: Ecn, inner: Ecn) -> Option<Ecn> {
    match (outer, inner) {
        (Ecn::Ce, Ecn::NotEct) => None,
        (_, Ecn::NotEct) => Some(Ecn::NotEct),
        (Ecn::Ce, _) => Some(Ecn::Ce),
        (Ecn::Ect1, Ecn::Ect0) => Some(Ecn::Ect1),
        (_, inner) => Some(inner),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Ecn; 4] = [Ecn::NotEct, Ecn::Ect1, Ecn::Ect0, Ecn::Ce];

    #[test]
    fn a_packet_that_meets_no_congestion_keeps_its_mark_through_the_tunnel() {
        for inner in ALL {
            assert_eq!(inner_after(outer_for(inner), inner), Some(inner));
        }
    }

    #[test]
    fn congestion_on_the_underlay_reaches_every_receiver_that_takes_part() {
        for inner in [Ecn::Ect0, Ecn::Ect1, Ecn::Ce] {
            assert_eq!(inner_after(Ecn::Ce, inner), Some(Ecn::Ce));
        }
        assert_eq!(inner_after(Ecn::Ce, Ecn::NotEct), None);
    }

    #[test]
    fn bits_and_names_agree() {
        for ecn in ALL {
            assert_eq!(Ecn::of(ecn.bits() | 0b1010_1000), ecn);
        }
    }
}
