//! The checks.

mod attaching;
mod faults;
mod forged;
mod guards;
mod kernel_path;
mod policed;
mod shaped;
mod strangers;
mod underlays;

use std::{fs, time::Duration};

use anyhow::{Context as _, ensure};
use mesh_proto::mesh::{FastPathStatus, fast_path_status::State};
use mesh_testbed::{
    CONTAINER_MTU, Daemon, DaemonOptions, Host, Links, PingOptions, Signal, UdpFlow,
    UdpFlowOptions, ping, transfer, wait_until,
};
use mesh_vm::Check;

pub(crate) use self::attaching::has_fast_path;
use self::attaching::{attach_variable, attached_as_expected, filters};
use crate::{
    counters::{Carried, Packets},
    pair::{PATIENCE, Pair},
    progress::step,
};

/// Bytes of each transfer: enough for windows to open and segments to be merged.
const TRANSFER: usize = 4_000_000;
/// Requests of one size in one direction.
const ECHOES: u16 = 5;
/// ICMP payloads: the usual one, and the largest that a container may send.
const PAYLOADS: [usize; 2] = [56, CONTAINER_MTU as usize - 28];
/// The program by which the kernel loads modules (sysctl kernel.modprobe).
const MODULE_LOADER: &str = "/proc/sys/kernel/modprobe";
/// Packets that [`ping_both_ways`] sends in each direction: requests, and answers to those of
/// the other side.
const PINGED: u64 = 2 * ECHOES as u64 * PAYLOADS.len() as u64;

/// Runs one check.
pub(crate) async fn run(check: Check, pair: &mut Pair) -> anyhow::Result<()> {
    match check {
        Check::TheProgramsLoadAndAttach => wait_attached(pair).await,
        Check::ItAttachesTheWayTheKernelOffers => attach_mode(pair).await,
        Check::TheNodeSaysWhyItHasNoFastPath => kernel_path::says_why(pair).await,
        Check::TheKernelPathCarriesAlone => kernel_path::carries(pair).await,
        Check::NoStrangerSpeaksToTheKernelPath => kernel_path::strangers(pair).await,
        Check::ThePacketFilterHoldsItsTables => guards::tables(pair).await,
        Check::ContainersPingOverTheFastPath => ping_fast(pair).await,
        Check::TcpArrivesIntactOverTheFastPath => transfer_fast(pair).await,
        Check::AKilledRuntimeAndItsSuccessorLoseNoPacket => survive_kill(pair).await,
        Check::NoContainerSpeaksAsAnother => guards::hold(pair).await,
        Check::NorWhileNoRuntimeRuns => guards::hold_without_a_runtime(pair).await,
        Check::NorWhenItJustCame => guards::hold_when_new(pair).await,
        Check::AContainerThatJustCameCanBePoliced => policed::one_that_just_came(pair).await,
        Check::AContainerOfBandwidthIsHeldBack => shaped::held_back(pair).await,
        Check::WithoutTheFastPathTheKernelPathCarries => fall_back(pair).await,
        Check::NorWithoutTheFastPath => guards::hold(pair).await,
        Check::NorBehindTagsThatTheBridgeTakesOff => guards::hold_behind_tags(pair).await,
        Check::WhatCannotBeAttachedIsDoneWithout => do_without(pair).await,
        Check::TheFastPathComesBack => come_back(pair).await,
        Check::AVlanCarriesTheFastPath => underlays::vlan(pair).await,
        Check::NoStrangerSpeaksOverAVlan => underlays::strangers_on_vlans(pair).await,
        Check::ABondCarriesTheFastPathOverWhicheverCardIsLeft => underlays::bond(pair).await,
        Check::CleaningUpLeavesNothing => clean_up(pair).await,
        Check::DelayAndReorderingLoseNothing => faults::one("delay-and-reordering").await,
    }
}

/// Waits until either host has all its programs in place and knows its container, which it
/// does from the container's first packet on.
async fn wait_attached(pair: &Pair) -> anyhow::Result<()> {
    wait_attached_to(pair, "eth0").await
}

/// The same with another underlay interface.
async fn wait_attached_to(pair: &Pair, underlay: &str) -> anyhow::Result<()> {
    wait_pings(pair).await?;
    wait_programs(pair, underlay, State::Active).await
}

/// Waits until either host's fast path is in that state and all its programs in place.
async fn wait_programs(pair: &Pair, underlay: &str, state: State) -> anyhow::Result<()> {
    step(format!(
        "programs on {underlay}, the fast path {}",
        state.as_str_name()
    ));
    for (host, container) in pair.hosts().into_iter().zip(pair.containers()) {
        let address = container.address().to_string();
        let wanted = [
            format!("{underlay}: decapsulate"),
            "vxlan100: safety_net".to_owned(),
            format!("{}: encapsulate", container.host_interface()),
        ];
        wait_until("the programs' attachment", PATIENCE, async || {
            let status = host.status().await.map_err(|error| error.to_string())?;
            let fast_path = status.fast_path.clone().unwrap_or_default();
            let attached = wanted.iter().all(|it| fast_path.attachments.contains(it));
            let known = status.endpoints.iter().any(|it| it.address == address);
            match fast_path.state() == state && attached && known {
                true => Ok(()),
                false => Err(format!(
                    "{} shows {fast_path:?}, endpoints {:?}, problems {:?}",
                    host.name(),
                    status.endpoints,
                    status.problems()
                )),
            }
        })
        .await?;
    }
    Ok(())
}

/// Waits until a packet comes back; a first one may be lost to address resolution. Long enough
/// for each answer that none arrives later and disturbs the counting.
async fn wait_pings(pair: &Pair) -> anyhow::Result<()> {
    step("an answer between the containers");
    let [a, b] = pair.containers();
    for (from, to) in [(a, b), (b, a)] {
        let once = PingOptions {
            count: 1,
            timeout: Duration::from_secs(5),
            ..PingOptions::default()
        };
        wait_until("an answer between the containers", PATIENCE, async || {
            let report = ping(from.netns(), to.address(), once)
                .await
                .map_err(|error| error.to_string())?;
            match report.is_complete() {
                true => Ok(()),
                false => Err(format!("{:?}", report.echoes)),
            }
        })
        .await?;
    }
    Ok(())
}

/// The runtime says how it attached, and the kernel shows it: the module behind clsact's
/// filters is loaded when one is added, and tcx does without.
async fn attach_mode(pair: &Pair) -> anyhow::Result<()> {
    let expected = attach_variable()?;
    for host in pair.hosts() {
        let mode = fast_path(host).await?.attach_mode;
        ensure!(mode == expected, "{} uses {mode:?}", host.name());
    }
    attached_as_expected()
}

async fn ping_fast(pair: &Pair) -> anyhow::Result<()> {
    let before = carried(pair).await?;
    ping_both_ways(pair).await?;
    let after = carried(pair).await?;
    let all_fast = Carried {
        fast_path: packets(PINGED),
        kernel_path: packets(0),
    };
    expect(pair, before, after, all_fast)
}

/// The same over the kernel path.
async fn ping_slow(pair: &Pair) -> anyhow::Result<()> {
    let before = carried(pair).await?;
    ping_both_ways(pair).await?;
    let after = carried(pair).await?;
    let all_kernel = Carried {
        fast_path: packets(0),
        kernel_path: packets(PINGED),
    };
    expect(pair, before, after, all_kernel)
}

async fn transfer_fast(pair: &Pair) -> anyhow::Result<()> {
    let before = carried(pair).await?;
    transfer_both_ways(pair).await?;
    let after = carried(pair).await?;
    let [a, b] = [after[0].since(before[0]), after[1].since(before[1])];
    ensure!(
        a.kernel_path.is_or_with_questions(packets(0))
            && b.kernel_path.is_or_with_questions(packets(0)),
        "the VXLAN device carried some of it: {a:?}, {b:?}"
    );
    ensure!(
        (a.fast_path.sent, a.fast_path.received) == (b.fast_path.received, b.fast_path.sent),
        "what one side sent the other did not receive: {a:?}, {b:?}"
    );
    let least = (TRANSFER / CONTAINER_MTU as usize) as u64;
    ensure!(
        a.fast_path.sent >= least && b.fast_path.sent >= least,
        "{TRANSFER} bytes each way in too few packets: {a:?}, {b:?}"
    );
    Ok(())
}

async fn survive_kill(pair: &mut Pair) -> anyhow::Result<()> {
    let flow = start_flow(pair)?;
    pair.restart(Signal::SIGKILL, &DaemonOptions::new()).await?;
    if !has_fast_path()? {
        kernel_path::wait(pair).await?;
        lossless(flow).await?;
        return ping_slow(pair).await;
    }
    wait_attached(pair).await?;
    lossless(flow).await?;
    ping_fast(pair).await
}

/// Ceasing to forward takes nothing from a flow, and then the VXLAN device carries every packet.
/// The programs stay attached, for they guard.
async fn fall_back(pair: &mut Pair) -> anyhow::Result<()> {
    let flow = start_flow(pair)?;
    let off = DaemonOptions::new().args(["--fast-path", "off"]);
    pair.restart(Signal::SIGTERM, &off).await?;
    wait_guarding(pair).await?;
    lossless(flow).await?;
    attached_as_expected()?;
    ping_slow(pair).await?;
    transfer_both_ways(pair).await
}

/// Waits until either host has switched the fast path off, and its programs in place.
async fn wait_guarding(pair: &Pair) -> anyhow::Result<()> {
    wait_programs(pair, "eth0", State::Off).await
}

/// Each kernel is asked for what it does not have: 6.1 for tcx, and newer ones for clsact, whose
/// module cannot be loaded meanwhile (they attach by tcx and have not asked for it before).
async fn do_without(pair: &mut Pair) -> anyhow::Result<()> {
    let mode = match attach_variable()?.as_str() {
        "tcx" => "clsact",
        _ => "tcx",
    };
    let loader = fs::read_to_string(MODULE_LOADER).context("cannot read the module loader")?;
    fs::write(MODULE_LOADER, "/bin/false").context("cannot replace the module loader")?;
    let outcome = done_without(pair, mode).await;
    fs::write(MODULE_LOADER, loader.trim()).context("cannot restore the module loader")?;
    outcome
}

async fn done_without(pair: &mut Pair, mode: &str) -> anyhow::Result<()> {
    let logged = pair.hosts().map(|host| words_on_attaching(host).len());
    let flow = start_flow(pair)?;
    let options = DaemonOptions::new().args(["--fast-path", "auto", "--attach", mode]);
    pair.restart(Signal::SIGTERM, &options).await?;
    wait_pings(pair).await?;
    step(format!("an unavailable fast path, for want of {mode}"));
    for (host, before) in pair.hosts().into_iter().zip(logged) {
        wait_until("a fast path that is unavailable", PATIENCE, async || {
            let fast_path = fast_path(host).await.map_err(|error| error.to_string())?;
            match fast_path.state() {
                State::Unavailable if fast_path.reason.contains(mode) => Ok(()),
                _ => Err(format!("{} shows {fast_path:?}", host.name())),
            }
        })
        .await?;
        let words = words_on_attaching(host).split_off(before);
        println!("{} says {words:?}", host.name());
        ensure!(words.len() == 1, "{} says {words:?}", host.name());
    }
    lossless(flow).await?;
    ping_slow(pair).await
}

/// Lines of a runtime's log that say that programs cannot be attached.
fn words_on_attaching(host: &Host) -> Vec<String> {
    let log = fs::read_to_string(host.log(Daemon::Runtime)).unwrap_or_default();
    let words = log.lines().filter(|line| line.contains("cannot attach"));
    words.map(str::to_owned).collect()
}

async fn come_back(pair: &mut Pair) -> anyhow::Result<()> {
    let flow = start_flow(pair)?;
    pair.restart(Signal::SIGTERM, &DaemonOptions::new()).await?;
    wait_attached(pair).await?;
    lossless(flow).await?;
    ping_fast(pair).await
}

async fn clean_up(pair: &mut Pair) -> anyhow::Result<()> {
    pair.clean_up().await?;
    ensure!(filters()? == 0, "filters are left");
    for host in pair.hosts() {
        let links = Links::of(host.netns())?;
        ensure!(
            links.get("vxlan100").await?.is_none(),
            "{} still has vxlan100",
            host.name()
        );
        let pins = host.bpffs_dir().join("quilt-mesh");
        ensure!(!pins.exists(), "{} is left", pins.display());
    }
    Ok(())
}

async fn fast_path(host: &Host) -> anyhow::Result<FastPathStatus> {
    let status = host.status().await?;
    status
        .fast_path
        .with_context(|| format!("{} has no word on its fast path", host.name()))
}

async fn carried(pair: &Pair) -> anyhow::Result<[Carried; 2]> {
    let [a, b] = pair.hosts();
    Ok([Carried::by(a).await?, Carried::by(b).await?])
}

fn packets(each_way: u64) -> Packets {
    Packets {
        sent: each_way,
        received: each_way,
    }
}

fn expect(
    pair: &Pair,
    before: [Carried; 2],
    after: [Carried; 2],
    expected: Carried,
) -> anyhow::Result<()> {
    for ((host, before), after) in pair.hosts().into_iter().zip(before).zip(after) {
        let seen = after.since(before);
        ensure!(
            seen.fast_path == expected.fast_path
                && seen.kernel_path.is_or_with_questions(expected.kernel_path),
            "{} carried {seen:?}, and should have {expected:?}",
            host.name()
        );
    }
    Ok(())
}

async fn ping_both_ways(pair: &Pair) -> anyhow::Result<()> {
    step("pings both ways");
    let [a, b] = pair.containers();
    for (from, to) in [(a, b), (b, a)] {
        for payload in PAYLOADS {
            let options = PingOptions {
                count: ECHOES,
                timeout: PATIENCE,
                payload,
                ..PingOptions::default()
            };
            let report = ping(from.netns(), to.address(), options).await?;
            ensure!(
                report.is_complete(),
                "{} pings {} with {payload} bytes: {report:?}",
                from.name(),
                to.name()
            );
        }
    }
    Ok(())
}

async fn transfer_both_ways(pair: &Pair) -> anyhow::Result<()> {
    step("a transfer each way");
    let [a, b] = pair.containers();
    for (from, to) in [(a, b), (b, a)] {
        let copy = transfer(from.netns(), to.netns(), to.address(), TRANSFER, PATIENCE).await?;
        ensure!(copy.is_intact(), "it arrived damaged: {copy:?}");
    }
    Ok(())
}

fn start_flow(pair: &Pair) -> anyhow::Result<UdpFlow> {
    let [a, b] = pair.containers();
    let options = UdpFlowOptions {
        rate: 200,
        drain: Duration::from_secs(3),
        ..UdpFlowOptions::default()
    };
    Ok(UdpFlow::start(a.netns(), b.netns(), b.address(), options)?)
}

async fn lossless(flow: UdpFlow) -> anyhow::Result<()> {
    // However quick that was for which it ran.
    wait_until("a flow of some length", PATIENCE, async || {
        let sent = flow.sent();
        match sent > 100 {
            true => Ok(()),
            false => Err(format!("{sent} packets are sent")),
        }
    })
    .await?;
    let report = flow.stop().await?;
    ensure!(
        report.lost() == 0 && report.refused == 0 && report.corrupted == 0,
        "a flow lost packets: {report:?}"
    );
    Ok(())
}
