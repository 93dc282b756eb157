//! The programs' log statements cost nothing unless they are switched on. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::collections::BTreeMap;

use aya::{
    Ebpf, EbpfLoader, TestRun as _, TestRunOptions,
    maps::{Map, RingBuf},
    programs::{ProgramInfo, SchedClassifier},
};
use mesh_layout::{map_names, program_names};

/// `log::Level::Debug`.
const DEBUG: u8 = 4;
/// `TC_ACT_SHOT` of linux/pkt_cls.h.
const DROPPED: u32 = 2;

/// The programs as the runtime loads them, with log statements up to this level.
fn load(level: u8) -> Ebpf {
    let mut loader = EbpfLoader::new();
    loader.btf(None);
    for name in [
        map_names::PEERS,
        map_names::VTEPS,
        map_names::PEER_STATS,
        map_names::PATHS,
    ] {
        loader.map_max_entries(name, 16);
    }
    let mut ebpf = loader
        .override_global(aya_log::LEVEL, &level, true)
        .load(mesh_runtime::ebpf::OBJECT)
        .expect("loading eBPF needs root");
    for name in program_names::ALL {
        let program = ebpf.program_mut(name).unwrap();
        <&mut SchedClassifier>::try_from(program)
            .unwrap()
            .load()
            .unwrap();
    }
    ebpf
}

/// Bytes of each program's instructions after the verifier took out what is never reached.
fn sizes(ebpf: &Ebpf) -> BTreeMap<&'static str, u32> {
    let size = |info: ProgramInfo| info.size_translated().unwrap();
    program_names::ALL
        .into_iter()
        .map(|name| (name, size(ebpf.program(name).unwrap().info().unwrap())))
        .collect()
}

/// Has the overlay's program drop a packet too short for an IPv4 header, and returns how many
/// log entries there are.
fn entries_after_a_drop(ebpf: &mut Ebpf) -> usize {
    let program = ebpf.program_mut(program_names::SAFETY_NET).unwrap();
    let result = <&mut SchedClassifier>::try_from(program)
        .unwrap()
        .test_run(TestRunOptions {
            data_in: Some(&[0; 20]),
            ..TestRunOptions::new()
        })
        .unwrap();
    assert_eq!(result.return_value, DROPPED);
    let logs: Map = ebpf.take_map("AYA_LOGS").unwrap();
    let mut logs = RingBuf::try_from(logs).unwrap();
    std::iter::from_fn(|| logs.next().map(drop)).count()
}

#[test]
fn log_statements_are_no_part_of_the_programs_unless_they_are_switched_on() {
    let (mut silent, mut talking) = (load(0), load(DEBUG));
    let (without, with) = (sizes(&silent), sizes(&talking));
    for name in [
        program_names::ENCAPSULATE,
        program_names::CATCH_ALL,
        program_names::DECAPSULATE,
        program_names::SAFETY_NET,
        program_names::COUNT_EGRESS,
    ] {
        let saved = with[name] - without[name];
        println!(
            "{name}: {} bytes of instructions, {saved} more with logs",
            without[name]
        );
        // The statement itself is a function of hundreds of instructions.
        assert!(saved > 1000, "{name}: {without:?} {with:?}");
    }
    assert_eq!(entries_after_a_drop(&mut silent), 0);
    assert_eq!(entries_after_a_drop(&mut talking), 1);
}
