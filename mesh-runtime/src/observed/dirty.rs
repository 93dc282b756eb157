//! Which parts of the observed state may be out of date.

use std::{collections::BTreeSet, ops::BitOr};

use bitflags::bitflags;

/// Interfaces that are read one by one; more are cheaper to read all at once.
const SINGLY: usize = 64;

bitflags! {
    /// Parts of the observed state that are read as a whole.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub(crate) struct Parts: u16 {
        /// Every interface.
        const LINKS = 1;
        /// Addresses of this host.
        const ADDRESSES = 1 << 1;
        /// Routes: defaults, and those inside the cluster's network.
        const ROUTES = 1 << 2;
        /// Neighbours and forwarding entries of the bridge.
        const BRIDGE = 1 << 3;
        /// Neighbours and forwarding entries of the VXLAN device.
        const OVERLAY = 1 << 4;
        /// The ways to the peers' hosts.
        const NEXT_HOPS = 1 << 5;
        /// The inside of every container. Of new ones nothing is known anyway, and the kernel
        /// tells where something has changed.
        const CONTAINERS = 1 << 6;
        /// Whether our programs are attached still.
        const PROGRAMS = 1 << 7;
        /// Files under `/proc/sys/net`.
        const SETTINGS = 1 << 8;
        /// Policies of IPsec.
        const POLICIES = 1 << 9;
        /// Queueing disciplines and filters, of the interfaces that are read.
        const SHAPING = 1 << 10;
        /// What may change without a word: MTUs that are learnt and forgotten and next hops of their own objects, files, programs that are
        /// detached, policies that expire.
        const UNTOLD = Self::NEXT_HOPS.bits()
            | Self::SETTINGS.bits()
            | Self::PROGRAMS.bits()
            | Self::POLICIES.bits();
    }
}

/// What may be out of date.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dirty {
    pub(crate) parts: Parts,
    /// Indexes of interfaces.
    pub(crate) links: BTreeSet<u32>,
    /// Those among them that were down or gone, if only for a moment.
    pub(crate) fallen: BTreeSet<u32>,
}

impl Dirty {
    /// Everything.
    pub(crate) fn all() -> Self {
        Parts::all().into()
    }

    /// Whether nothing is.
    pub(crate) fn is_clean(&self) -> bool {
        self.parts.is_empty() && self.links.is_empty()
    }

    /// Whether any of `parts` is.
    pub(crate) fn any(&self, parts: Parts) -> bool {
        self.parts.intersects(parts)
    }

    /// Adds an interface.
    pub(crate) fn add_link(&mut self, index: u32) {
        if !self.parts.contains(Parts::LINKS) {
            self.links.insert(index);
        }
        if self.links.len() > SINGLY {
            self.parts |= Parts::LINKS;
            self.forget_links();
        }
    }

    /// Adds an interface that was down or gone.
    pub(crate) fn add_fallen_link(&mut self, index: u32) {
        self.add_link(index);
        if self.links.contains(&index) {
            self.fallen.insert(index);
        }
    }

    /// All are read anyway.
    fn forget_links(&mut self) {
        self.links.clear();
        self.fallen.clear();
    }
}

impl From<Parts> for Dirty {
    fn from(parts: Parts) -> Self {
        Self {
            parts,
            ..Self::default()
        }
    }
}

/// What either says.
impl BitOr for Dirty {
    type Output = Self;

    fn bitor(mut self, other: Self) -> Self {
        self.parts |= other.parts;
        if self.parts.contains(Parts::LINKS) {
            self.forget_links();
        }
        for link in other.links {
            self.add_link(link);
        }
        for link in other.fallen {
            self.add_fallen_link(link);
        }
        self
    }
}

impl BitOr<Parts> for Dirty {
    type Output = Self;

    fn bitor(self, parts: Parts) -> Self {
        self | Self::from(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_interfaces_are_read_one_by_one_and_many_all_at_once() {
        let mut dirty = Dirty::default();
        for index in 0..64 {
            dirty.add_link(index);
        }
        assert_eq!(dirty.links.len(), 64);
        assert!(!dirty.any(Parts::LINKS));
        dirty.add_link(64);
        assert!(dirty.links.is_empty() && dirty.any(Parts::LINKS));
        dirty.add_fallen_link(65);
        assert!(dirty.links.is_empty() && dirty.fallen.is_empty());
    }

    #[test]
    fn what_either_says_is_what_both_say_together() {
        let mut one = Dirty::from(Parts::ROUTES);
        one.add_link(1);
        let mut other = Dirty::from(Parts::NEXT_HOPS);
        other.add_fallen_link(2);
        let both = one.clone() | other;
        assert_eq!(both.parts, Parts::ROUTES | Parts::NEXT_HOPS);
        assert_eq!(both.links, [1, 2].into());
        assert_eq!(both.fallen, [2].into());
        assert_eq!(one | Parts::LINKS, Parts::ROUTES.union(Parts::LINKS).into());
    }
}
