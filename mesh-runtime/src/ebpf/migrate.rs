//! Takes over the maps of a build with another layout, older or newer.
//!
//! A layout only ever grows: a field keeps its place, and new ones are added at the end or in
//! what was padding. So an entry of another layout is the beginning of ours, or ours the
//! beginning of it, and what one of them does not know is zero.
//!
//! Counters whose layout is the same are shared, not copied: the programs of the other build
//! go on counting in the same map until ours take their place, and no packet is missed.

use std::{fs, io, path::Path};

use aya::maps::{MapData, MapError};
use mesh_layout::{Drops, Passes, PeerStats, map_names};

use super::{
    FastPathError,
    bpf::{RawMap, Shape},
    bpffs::PinDirectory,
};

/// Maps that the programs write, with the length of a value and, where it is not the number
/// of peers, their capacity.
const COUNTERS: [(&str, usize, Option<u32>); 3] = [
    (map_names::PEER_STATS, size_of::<PeerStats>(), None),
    (map_names::DROPS, size_of::<Drops>(), Some(1)),
    (map_names::PASSES, size_of::<Passes>(), Some(1)),
];

/// The directory to take over, if it is not our own: the one that the symlinks `current`ly
/// point into, or, where there are none, the highest of those `present` beside a missing one
/// of ours.
pub(super) fn source(current: Option<&str>, own: &str, present: &[String]) -> Option<String> {
    let there = |name: &str| present.iter().any(|it| it == name);
    match current {
        Some(current) if there(current) => (current != own).then(|| current.to_owned()),
        _ if there(own) => None,
        _ => present.iter().max_by_key(|name| version(name)).cloned(),
    }
}

/// The version in the name of a directory of maps.
pub(super) fn version(name: &str) -> Option<u32> {
    name.strip_prefix('v')?.parse().ok()
}

/// An element of one layout in another: for each CPU the beginning of its value, filled up
/// with zeros.
fn convert(element: &[u8], old: Shape, new: Shape) -> Vec<u8> {
    let mut converted = vec![0; new.element_len()];
    let kept = old.value_len.min(new.value_len);
    let slots = element
        .chunks(old.stride())
        .zip(converted.chunks_mut(new.stride()));
    for (from, to) in slots {
        to[..kept].copy_from_slice(&from[..kept]);
    }
    converted
}

/// Pins the counters of the other build as ours too, where they have our shape. It comes
/// before our maps are made.
pub(super) fn share_counters(from: &Path, pins: &PinDirectory, max_peers: u32) {
    for (name, value_len, capacity) in COUNTERS {
        let old = from.join(name);
        let shared = RawMap::open(&old).map_err(|error| error.to_string());
        let shared = shared.and_then(|map| {
            let shape = map.shape();
            let ours = shape.value_len == value_len
                && shape.key_len == size_of::<u32>()
                && shape.capacity == capacity.unwrap_or(max_peers);
            if ours {
                let map = MapData::from_pin(&old).map_err(|error| error.to_string())?;
                map.pin(pins.map(name)).map_err(|error| error.to_string())?;
            }
            Ok(())
        });
        if let Err(error) = shared {
            tracing::warn!(
                map = name,
                error,
                "cannot take over counters: they begin anew"
            );
        }
    }
}

/// Copies what was not shared into our maps, then removes the other build's directory; its
/// programs keep their maps until ours take their place. What cannot be copied is written
/// anew from the wanted state, except for counters, which begin anew.
pub(super) fn copy(from: &Path, pins: &PinDirectory) -> Result<(), FastPathError> {
    for name in map_names::ALL {
        if name == map_names::EVENTS {
            continue;
        }
        match copy_map(&from.join(name), &pins.map(name)) {
            Ok(entries) => {
                tracing::info!(map = name, entries, from = %from.display(), "taken over")
            }
            Err(error) => tracing::warn!(map = name, error, "cannot take over entries"),
        }
    }
    remove(from)
}

/// Removes a directory of maps.
pub(super) fn remove(directory: &Path) -> Result<(), FastPathError> {
    match fs::remove_dir_all(directory) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(FastPathError::PinDirectory {
                action: "remove",
                path: directory.to_owned(),
                source,
            })
        }
        _ => Ok(()),
    }
}

fn copy_map(from: &Path, to: &Path) -> Result<usize, String> {
    let text = |error: MapError| error.to_string();
    let (source, target) = (
        RawMap::open(from).map_err(text)?,
        RawMap::open(to).map_err(text)?,
    );
    let (old, new) = (source.shape(), target.shape());
    if source.id() == target.id() {
        return Ok(old.capacity as usize);
    }
    if old.key_len != new.key_len {
        return Err(format!(
            "keys had {} bytes and have {}",
            old.key_len, new.key_len
        ));
    }
    copy_entries(&source, &target).map_err(|error| error.to_string())
}

fn copy_entries(source: &RawMap, target: &RawMap) -> io::Result<usize> {
    let (old, new) = (source.shape(), target.shape());
    let keys = source.keys()?;
    let mut copied = 0;
    for key in keys.iter().take(new.capacity as usize) {
        target.set(key, &convert(&source.get(key)?, old, new))?;
        copied += 1;
    }
    Ok(copied)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shape() -> impl Strategy<Value = (usize, usize)> {
        (1_usize..100, prop_oneof![Just(1_usize), 2_usize..5])
    }

    proptest! {
        #[test]
        fn what_both_layouts_know_is_kept_for_every_cpu_and_the_rest_is_zero(
            (old_len, slots) in shape(), new_len in 1_usize..100, seed: u8,
        ) {
            let shape = |value_len| Shape { key_len: 4, value_len, capacity: 1, slots };
            let (old, new) = (shape(old_len), shape(new_len));
            let element: Vec<u8> = (0..old.element_len())
                .map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed) | 1)
                .collect();
            let converted = convert(&element, old, new);
            prop_assert_eq!(converted.len(), new.element_len());
            for slot in 0..slots {
                let before = &element[slot * old.stride()..][..old_len];
                let after = &converted[slot * new.stride()..][..new.stride()];
                let kept = old_len.min(new_len);
                prop_assert_eq!(&after[..kept], &before[..kept]);
                prop_assert!(after[kept..].iter().all(|&byte| byte == 0));
            }
        }
    }

    #[test]
    fn what_the_symlinks_point_into_is_taken_over_unless_it_is_ours() {
        let present = |names: &[&str]| names.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        let v1 = Some("v1".to_owned());
        assert_eq!(
            source(Some("v1"), "v2", &present(&["v1"])),
            v1,
            "an upgrade"
        );
        assert_eq!(
            source(Some("v2"), "v2", &present(&["v2"])),
            None,
            "a restart"
        );
        assert_eq!(source(None, "v2", &present(&[])), None, "the first start");
        let both = present(&["v1", "v2"]);
        assert_eq!(
            source(Some("v1"), "v2", &both),
            v1,
            "ours was left half filled, or behind"
        );
        assert_eq!(
            source(Some("v2"), "v2", &both),
            None,
            "the other was left behind"
        );
        assert_eq!(
            source(Some("v2"), "v1", &both),
            Some("v2".to_owned()),
            "a downgrade"
        );
        assert_eq!(
            source(Some("v3"), "v2", &present(&["v1"])),
            v1,
            "the symlinks lead nowhere"
        );
        assert_eq!(source(None, "v2", &both), None);
    }
}
