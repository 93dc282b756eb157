//! Takes over the maps of a build with another layout, older or newer.
//!
//! A layout only ever grows: a field keeps its place, and new ones are added at the end, in
//! what was padding, or where a field is gone. So an entry of another layout is the beginning of ours, or ours the
//! beginning of it, what one of them does not know is zero, and what ours has in the place of a field that
//! is gone is set to what the other build meant without saying it ([`translate`]). A build of an earlier
//! layout knows only the first half of that rule: so in an entry of ours the places of its
//! fields hold what does no harm until it has written its own.
//!
//! Counters whose layout is the same are shared, not copied: the programs of the other build
//! go on counting in the same map until ours take their place, and no packet is missed.

use std::{
    fs, io,
    mem::{offset_of, size_of},
    path::Path,
};

use aya::maps::{MapData, MapError};
use mesh_layout::{Drops, PORT_STRICT, Passes, Peer, PeerStats, StrictPort, map_names};

use super::{
    FastPathError,
    bpf::{RawMap, Shape},
    bpffs::PinDirectory,
};

/// The layout in which peers lost next hop and link, ports got flags, and one reason of passes gave its
/// place to another.
const PATHS_BY_PROGRAM: u32 = 3;

/// Maps that the programs write, with the length of a value, where it is not the number
/// of peers their capacity, and the first layout in which they mean what they mean now.
const COUNTERS: [(&str, usize, Option<u32>, u32); 3] = [
    (map_names::PEER_STATS, size_of::<PeerStats>(), None, 0),
    (map_names::DROPS, size_of::<Drops>(), Some(1), 0),
    (
        map_names::PASSES,
        size_of::<Passes>(),
        Some(1),
        PATHS_BY_PROGRAM,
    ),
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

/// Has the value of an entry that came from layout `from` say in our words what it said there. `value` is as
/// long as ours.
fn translate(map: &str, from: u32, value: &mut [u8]) {
    if from >= PATHS_BY_PROGRAM {
        return;
    }
    match map {
        // Next hop and link were here: the programs ask the kernel now.
        map_names::PEERS => value[offset_of!(Peer, transport)..offset_of!(Peer, vni)].fill(0),
        // That there was an entry said it.
        map_names::STRICT_PORTS => {
            let flags = offset_of!(StrictPort, flags);
            value[flags..][..size_of::<u32>()].copy_from_slice(&PORT_STRICT.to_ne_bytes());
        }
        // Congestion marks were counted here, which are not left to the kernel any more.
        map_names::PASSES => {
            value[offset_of!(Passes, left_to_kernel)..][..size_of::<u64>()].fill(0);
        }
        _ => {}
    }
}

/// The layout of a directory of maps; of one that is not named after any, the first.
fn layout(directory: &Path) -> u32 {
    let name = directory.file_name().unwrap_or_default();
    version(&name.to_string_lossy()).unwrap_or(1)
}

/// Pins the counters of the other build as ours too, where they have our shape. It comes
/// before our maps are made.
pub(super) fn share_counters(from: &Path, pins: &PinDirectory, max_peers: u32) {
    let shareable = COUNTERS.iter().filter(|(.., since)| layout(from) >= *since);
    for &(name, value_len, capacity, _) in shareable {
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
            tracing::warn!(name: "cannot-take-over-counters",
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
        // What was said of ways is asked anew, events are of the past, and who looks at them asks again.
        let fresh = [
            map_names::EVENTS,
            map_names::PATHS,
            map_names::WATCH,
            map_names::WATCH_STATS,
        ];
        if fresh.contains(&name) {
            continue;
        }
        match copy_map(name, from, pins) {
            Ok(entries) => {
                tracing::info!(name: "taken-over", map = name, entries, from = %from.display(), "taken over")
            }
            Err(error) => {
                tracing::warn!(name: "cannot-take-over-entries", map = name, error, "cannot take over entries")
            }
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

fn copy_map(name: &str, from: &Path, pins: &PinDirectory) -> Result<usize, String> {
    let text = |error: MapError| error.to_string();
    let (source, target) = (
        RawMap::open(&from.join(name)).map_err(text)?,
        RawMap::open(&pins.map(name)).map_err(text)?,
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
    copy_entries(name, layout(from), &source, &target).map_err(|error| error.to_string())
}

fn copy_entries(name: &str, from: u32, source: &RawMap, target: &RawMap) -> io::Result<usize> {
    let (old, new) = (source.shape(), target.shape());
    let keys = source.keys()?;
    let mut copied = 0;
    for key in keys.iter().take(new.capacity as usize) {
        let mut element = convert(&source.get(key)?, old, new);
        for value in element.chunks_mut(new.stride()) {
            translate(name, from, &mut value[..new.value_len]);
        }
        target.set(key, &element)?;
        copied += 1;
    }
    Ok(copied)
}

#[cfg(test)]
mod tests {
    use mesh_layout::{ENDPOINT_HELD, Endpoint};
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

    /// Entries of layout 2 as its programs knew them, byte for byte.
    mod v2 {
        pub(super) fn peer(next_hop: [u8; 4], link: u32) -> Vec<u8> {
            let mut bytes = vec![192, 0, 2, 3];
            bytes.extend(next_hop);
            for number in [link, 100, 5] {
                bytes.extend(number.to_ne_bytes());
            }
            bytes.extend([2, 0x51, 10, 42, 2, 0, 0, 0]);
            bytes
        }

        pub(super) fn endpoint() -> Vec<u8> {
            let mut bytes = 9_u32.to_ne_bytes().to_vec();
            bytes.extend([0x0a, 0, 0, 0, 0, 2]);
            bytes.extend(1_u16.to_ne_bytes());
            bytes
        }
    }

    /// What a build of layout `from` left as a build that wants `length` bytes takes it over.
    fn taken_over(map: &str, from: u32, value: &[u8], length: usize) -> Vec<u8> {
        let shape = |value_len| Shape {
            key_len: 4,
            value_len,
            capacity: 1,
            slots: 1,
        };
        let mut converted = convert(value, shape(value.len()), shape(length));
        translate(map, from, &mut converted);
        converted
    }

    /// The bytes of an entry of ours.
    fn bytes<T: aya::Pod>(value: &T) -> Vec<u8> {
        // SAFETY: a `Pod` is bytes without padding, as many as it is long.
        unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
            .to_vec()
    }

    fn our_peer(mtu: u32) -> Peer {
        Peer {
            address: [192, 0, 2, 3],
            transport: 0,
            flags: 0,
            reserved: [0; 2],
            mtu,
            vni: 100,
            counters: 5,
            mac: [2, 0x51, 10, 42, 2, 0],
            pad: [0; 2],
        }
    }

    fn our_endpoint(flags: u16) -> Endpoint {
        Endpoint {
            link: 9,
            mac: [0x0a, 0, 0, 0, 0, 2],
            flags,
            identity: 0,
        }
    }

    #[test]
    fn a_peer_of_layout_2_keeps_what_it_is_and_loses_its_next_hop() {
        let before = v2::peer([192, 0, 2, 254], 7);
        let ours = taken_over(map_names::PEERS, 2, &before, size_of::<Peer>());
        assert_eq!(ours, bytes(&our_peer(0)));
    }

    #[test]
    fn a_container_and_a_strict_port_of_layout_2_stay_what_they_were() {
        let ours = taken_over(
            map_names::ENDPOINTS,
            2,
            &v2::endpoint(),
            size_of::<Endpoint>(),
        );
        assert_eq!(ours, bytes(&our_endpoint(ENDPOINT_HELD)));
        let ours = taken_over(map_names::STRICT_PORTS, 2, &[0; 4], size_of::<StrictPort>());
        assert_eq!(ours, bytes(&StrictPort { flags: PORT_STRICT }));
    }

    #[test]
    fn a_count_whose_reason_is_gone_is_not_taken_for_anothers() {
        let counts = |left_to_kernel| Passes {
            not_peer: 3,
            left_to_kernel,
            forwarding_off: 4,
            ..Passes::default()
        };
        let before = bytes(&counts(17));
        let ours = taken_over(map_names::PASSES, 2, &before, size_of::<Passes>());
        assert_eq!(ours, bytes(&counts(0)));
        let ours = taken_over(map_names::PASSES, 3, &before, size_of::<Passes>());
        assert_eq!(ours, before, "in our own layout it is that reason's");
    }

    /// The release before this layout takes entries over as far as both know them, and knows no more.
    fn by_the_previous_release(value: &[u8], length: usize) -> Vec<u8> {
        taken_over("", PATHS_BY_PROGRAM, value, length)
    }

    #[test]
    fn the_previous_release_finds_its_peers_in_ours_on_the_kernel_path_until_it_writes_them() {
        let theirs = by_the_previous_release(&bytes(&our_peer(0)), v2::peer([0; 4], 0).len());
        assert_eq!(theirs, v2::peer([0; 4], 0), "without a next hop");
        let small = by_the_previous_release(&bytes(&our_peer(1400)), theirs.len());
        // Its programs leave packets to the kernel where no interface has that index.
        assert_eq!(small, v2::peer([0; 4], 1400));
    }

    #[test]
    fn the_previous_release_finds_who_holds_an_address_and_which_ports_are_strict() {
        let ours = our_endpoint(ENDPOINT_HELD);
        let theirs = by_the_previous_release(&bytes(&ours), v2::endpoint().len());
        assert_eq!(theirs, v2::endpoint());
        let identified = Endpoint {
            identity: 0x1234_5678,
            ..ours
        };
        let theirs = by_the_previous_release(&bytes(&identified), v2::endpoint().len());
        assert_eq!(theirs, v2::endpoint());
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
