//! A million generated packets, through program and model alike. Needs root.
//!
//! | environment variable | means | if not set |
//! |---|---|---|
//! | `QUILT_MESH_PACKET_SEED` | where the sequence starts | a fixed number: every run sees the same packets |
//! | `QUILT_MESH_PACKETS` | how many | 1,000,000 |
//! | `QUILT_MESH_LOOK_EACH` | 1: compare the counters after every packet, which is slow | after 500 |
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "functions of tests, which may panic like tests"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use mesh_layout::{DropReason, PassReason};
use mesh_model::{
    Arrival, Ledger, Program, Verdict,
    generate::{Devices, Random, node, packet, peer_addresses},
};

mod harness;
use harness::{
    Ground, OVERLAY_MTU, Programs, add_device, coarse_now, compare,
    node::{PORT, SIBLING_PORT, UNDERLAY},
    ways,
};

/// Packets between two changes of what the node knows. After each the counters are compared;
/// packet and action are compared after every packet.
const PER_NODE: usize = 500;

const SEED: u64 = 0x5155_494c_545f_0001;

fn from_environment(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(value) => value
            .parse()
            .unwrap_or_else(|_| panic!("{name}={value}: a decimal number is needed")),
        Err(_) => default,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_million_generated_packets_find_no_difference_between_programs_and_model() {
    let seed = from_environment("QUILT_MESH_PACKET_SEED", SEED);
    let packets = from_environment("QUILT_MESH_PACKETS", 1_000_000);
    println!("QUILT_MESH_PACKET_SEED={seed} QUILT_MESH_PACKETS={packets}");

    let ground = Ground::new("million").await;
    let small = add_device(&ground.namespace, "small", 1400).await;
    let jumbo = add_device(&ground.namespace, "jumbo", 8950).await;
    let overlays = vec![
        (ground.overlay_link, OVERLAY_MTU),
        (ground.overlay_link, OVERLAY_MTU),
        (ground.overlay_link, OVERLAY_MTU),
        (small, 1400),
        (jumbo, 8950),
    ];
    let devices = Devices {
        overlays,
        ports: vec![PORT, SIBLING_PORT],
        underlay: UNDERLAY,
        ways: ways(ground.overlay_link, peer_addresses()),
    };
    let seen = ground
        .namespace
        .run(|| run(seed, packets as usize, &devices))
        .unwrap();

    for (what, count) in &seen {
        println!("{count:>9} {what}");
    }
    // A difference cannot be found in what never happens.
    if packets >= 100_000 {
        let missing: Vec<_> = everything_that_happens()
            .difference(&seen.keys().cloned().collect())
            .cloned()
            .collect();
        assert!(missing.is_empty(), "never seen: {missing:?}");
    }
}

/// Runs the packets and returns how often each program came to each verdict.
fn run(seed: u64, packets: usize, devices: &Devices) -> BTreeMap<String, u64> {
    let started = Instant::now();
    let per_look = match from_environment("QUILT_MESH_LOOK_EACH", 0) {
        0 => PER_NODE,
        _ => 1,
    };
    let mut random = Random::new(seed);
    let mut programs = Programs::load();
    let mut ledger = Ledger::default();
    let mut seen = BTreeMap::new();
    let mut number = 0;
    let mut current = node(&mut random, devices);
    while number < packets {
        if number.is_multiple_of(PER_NODE) {
            current = node(&mut random, devices);
            programs.show(&current);
        }
        let (_, heard_before) = programs.ledger();
        let mut heard_now = ledger.clone();
        heard_now.heard.clear();
        let since = coarse_now();
        let mut events = Vec::new();
        for _ in 0..per_look.min(packets - number) {
            number += 1;
            let generated = packet(&mut random, &current);
            let arrival = Arrival {
                segment_size: generated.segment_size,
                claims_anothers: generated.claims_anothers,
                ..Arrival::single(&generated.packet, generated.link)
            };
            let (outcome, difference) =
                compare(&mut programs, generated.program, &current, &arrival);
            if let Some(difference) = difference {
                panic!("QUILT_MESH_PACKET_SEED={seed}, packet {number}:\n{difference}");
            }
            events.extend(ledger.add(&outcome));
            heard_now.add(&outcome);
            *seen
                .entry((generated.program, kind(outcome.verdict)))
                .or_default() += 1;
        }
        let (counted, heard) = programs.ledger();
        assert!(
            counted == ledger,
            "QUILT_MESH_PACKET_SEED={seed}, packets up to {number}, program and model:
{}
\
             QUILT_MESH_LOOK_EACH=1 finds the packet",
            counted.differences(&ledger).join(
                "
"
            )
        );
        assert_eq!(
            programs.events(),
            events,
            "QUILT_MESH_PACKET_SEED={seed}, packets up to {number}"
        );
        for (index, time) in &heard {
            match heard_now.heard.contains(index) {
                true => assert!((since..=coarse_now()).contains(time), "peer {index}"),
                false => assert_eq!(Some(time), heard_before.get(index), "peer {index}"),
            }
        }
    }
    println!(
        "{number} packets in {:.1} s",
        started.elapsed().as_secs_f64()
    );
    seen.into_iter()
        .map(|((program, verdict), count)| (format!("{} {verdict}", program.name()), count))
        .collect()
}

fn kind(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Redirect(_) => "redirect",
        Verdict::Continue => "continue",
        Verdict::Pass(reason) => reason.name(),
        Verdict::Drop(reason) => reason.name(),
    }
}

fn everything_that_happens() -> BTreeSet<String> {
    use DropReason as D;
    use PassReason as P;
    let mut all = BTreeSet::new();
    let mut add = |program: Program, names: &[&str]| {
        all.extend(
            names
                .iter()
                .map(|name| format!("{} {name}", program.name())),
        );
    };
    for program in [
        Program::Encapsulate,
        Program::Decapsulate,
        Program::SafetyNet,
    ] {
        add(
            program,
            &[
                "redirect",
                P::TtlExpired.name(),
                P::Unreadable.name(),
                P::ForwardingOff.name(),
            ],
        );
    }
    add(Program::CatchAll, &["redirect", "continue"]);
    let guarded = [
        D::SpoofedAddress,
        D::GatewayClaimed,
        D::ContainerVxlan,
        D::RouterAdvert,
        D::DhcpAnswer,
        D::Malformed,
    ]
    .map(D::name);
    add(Program::Encapsulate, &guarded);
    add(Program::Encapsulate, &[D::SpoofedMac.name()]);
    add(Program::CatchAll, &guarded);
    add(Program::CountEgress, &["continue"]);
    add(
        Program::Encapsulate,
        &[
            P::NotRouted,
            P::NotPeer,
            P::SourceNotOurs,
            P::TooBig,
            P::NoNextHop,
            P::LeftToKernel,
        ]
        .map(P::name),
    );
    add(
        Program::Decapsulate,
        &[
            P::NotVxlan,
            P::OtherVni,
            P::OuterFragment,
            P::NoEndpoint,
            P::OuterChecksum,
            P::LeftToKernel,
        ]
        .map(P::name),
    );
    add(
        Program::SafetyNet,
        &[P::NoEndpoint, P::LeftToKernel].map(P::name),
    );
    let guards = [D::ForeignSource, D::ForeignTarget, D::Malformed, D::NotIpv4].map(D::name);
    add(Program::Decapsulate, &guards);
    add(
        Program::Decapsulate,
        &[D::UnknownVtep, D::CongestionUntold].map(D::name),
    );
    add(Program::SafetyNet, &guards);
    all
}
