//! Every verdict of every program, on packets made for it. Needs root.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "functions of tests, which may panic like tests"
)]

use std::collections::{BTreeMap, BTreeSet};

use mesh_layout::{DropReason, PassReason};
use mesh_model::{Arrival, Ledger, Program, Verdict};

mod cases;
mod harness;

use cases::Case;
use harness::{Ground, Programs, compare, hex};

/// Reasons that no packet in BPF_PROG_TEST_RUN can provoke, and why.
const NOT_PROVOKED: &[(Program, DropReason, &str)] = &[
    (
        Program::Encapsulate,
        DropReason::RewriteFailed,
        "the headers just added would have to be out of reach",
    ),
    (
        Program::CatchAll,
        DropReason::RewriteFailed,
        "the headers just added would have to be out of reach",
    ),
    (
        Program::Decapsulate,
        DropReason::RewriteFailed,
        "the headers just read would have to be out of reach",
    ),
];

/// The reasons each program has, from the documentation of its hook.
fn passes_of(program: Program) -> &'static [PassReason] {
    use PassReason as P;
    match program {
        Program::Encapsulate => &[
            P::NotRouted,
            P::NotPeer,
            P::SourceNotOurs,
            P::TtlExpired,
            P::TooBig,
            P::NoNextHop,
            P::LeftToKernel,
            P::Unreadable,
            P::ForwardingOff,
        ],
        Program::Decapsulate => &[
            P::TtlExpired,
            P::NotVxlan,
            P::OtherVni,
            P::OuterFragment,
            P::NoEndpoint,
            P::OuterChecksum,
            P::LeftToKernel,
            P::Unreadable,
            P::ForwardingOff,
        ],
        Program::SafetyNet => &[
            P::TtlExpired,
            P::NoEndpoint,
            P::LeftToKernel,
            P::Unreadable,
            P::ForwardingOff,
        ],
        // What it leaves alone, the port's program has counted.
        Program::CatchAll | Program::CountEgress => &[],
    }
}

fn drops_of(program: Program) -> &'static [DropReason] {
    use DropReason as D;
    match program {
        // On the bridge a MAC address is another's where the packet filter says so.
        Program::Encapsulate | Program::CatchAll => &[
            D::RewriteFailed,
            D::Malformed,
            D::SpoofedAddress,
            D::SpoofedMac,
            D::GatewayClaimed,
            D::ContainerVxlan,
            D::RouterAdvert,
            D::DhcpAnswer,
        ],
        Program::Decapsulate => &[
            D::UnknownVtep,
            D::ForeignSource,
            D::ForeignTarget,
            D::Malformed,
            D::NotIpv4,
            D::RewriteFailed,
            D::CongestionUntold,
        ],
        Program::SafetyNet => &[D::ForeignSource, D::ForeignTarget, D::Malformed, D::NotIpv4],
        Program::CountEgress => &[],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_named_case_has_its_verdict_in_the_kernel_and_in_the_model() {
    let ground = Ground::new("verdicts").await;
    let cases = cases::all(ground.overlay_link);
    let wrong = ground
        .namespace
        .run(|| {
            let mut programs = Programs::load();
            let mut ledger = Ledger::default();
            cases
                .iter()
                .filter_map(|case| check(&mut programs, &mut ledger, case))
                .collect::<Vec<_>>()
        })
        .unwrap();
    assert!(
        wrong.is_empty(),
        "{} of {} cases went wrong:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

/// Runs a case; returns what is wrong about it, if anything is.
fn check(programs: &mut Programs, ledger: &mut Ledger, case: &Case) -> Option<String> {
    programs.show(&case.node);
    let arrival = Arrival {
        segment_size: case.segment_size,
        claims_anothers: case.claims_anothers,
        ..Arrival::single(&case.packet, case.link)
    };
    let (outcome, difference) = compare(programs, case.program, &case.node, &arrival);
    let mut wrong: Vec<String> = difference.into_iter().collect();
    if outcome.verdict != case.verdict {
        wrong.push(format!(
            "the model says {:?}, and the case {:?}",
            outcome.verdict, case.verdict
        ));
    }
    let event = ledger.add(&outcome);
    let (counted, _) = programs.ledger();
    if counted != *ledger {
        wrong.push(format!(
            "program and model: {}",
            counted.differences(ledger).join("\n  ")
        ));
        *ledger = counted;
    }
    let events = programs.events();
    if events != Vec::from_iter(event) {
        wrong.push(format!("program: {events:?}\n  model: {event:?}"));
    }
    (!wrong.is_empty()).then(|| format!("- {}:\n  {}", case.name, wrong.join("\n  ")))
}

#[test]
fn every_reason_of_every_program_has_a_case_or_a_declared_exception() {
    let cases = cases::all(1);
    for program in Program::ALL {
        let verdicts: Vec<Verdict> = cases
            .iter()
            .filter(|case| case.program == program)
            .map(|case| case.verdict)
            .collect();
        let passed: BTreeSet<PassReason> = verdicts
            .iter()
            .filter_map(|verdict| match verdict {
                Verdict::Pass(reason) => Some(*reason),
                _ => None,
            })
            .collect();
        assert_eq!(
            passed,
            passes_of(program).iter().copied().collect(),
            "{program:?}"
        );
        let excepted = NOT_PROVOKED
            .iter()
            .filter(|(it, ..)| *it == program)
            .map(|(_, reason, _)| *reason);
        let mut dropped: BTreeSet<DropReason> = verdicts
            .iter()
            .filter_map(|verdict| match verdict {
                Verdict::Drop(reason) => Some(*reason),
                _ => None,
            })
            .collect();
        for reason in excepted {
            assert!(dropped.insert(reason), "{reason:?} is provoked after all");
        }
        assert_eq!(
            dropped,
            drops_of(program).iter().copied().collect(),
            "{program:?}"
        );
    }

    let everywhere = |reason: &PassReason| {
        Program::ALL
            .iter()
            .any(|it| passes_of(*it).contains(reason))
    };
    assert!(
        PassReason::ALL.iter().all(everywhere),
        "a reason nobody has"
    );
}

#[test]
fn every_case_has_a_name_of_its_own() {
    let mut names = BTreeMap::new();
    for case in cases::all(1) {
        let before = names.insert(case.name.clone(), hex(&case.packet));
        assert_eq!(before, None, "{}", case.name);
    }
}
