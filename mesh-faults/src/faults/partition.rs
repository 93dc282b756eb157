//! Packets between hosts that go nowhere, without anybody's interface noticing: rules of
//! nftables on the underlay's switch.

use std::time::Duration;

use super::SOON;
use crate::{
    fault::{Fault, Loss, Promise},
    mesh::NODE_TIMEOUT,
    scene::{Scene, run_in},
    traffic::Fates,
};

/// Longer than a node may be silent.
const LONG: Duration = Duration::from_secs(NODE_TIMEOUT.as_secs() * 2 + 1);

/// Datagrams of each flow that are sent while packets are delayed.
const DELAYED: u64 = 500;

/// How many of the host's are overtaken at least: it sends two flows, of which every tenth is
/// not delayed.
const OVERTAKEN: u64 = 2 * DELAYED / 50;

/// Frames from the port on the left to the port on the right are dropped.
type Cut = (&'static str, &'static str);

/// The control plane says that the peer is up, so its route stays whatever arrives.
const ROUTES_STAY: Promise = Promise {
    loss: Loss::Victim,
    flowing_within: Duration::from_millis(1500),
    keeps_routes: true,
};

pub(super) const FAULTS: &[Fault] = &[
    Fault::scene(
        "partition-outbound",
        "what one host sends to another goes nowhere, for longer than the node timeout",
        ROUTES_STAY,
        |scene| Box::pin(cut(scene, &[("host1", "host2")])),
    )
    .in_ci(),
    Fault::scene(
        "partition-inbound",
        "what one host should get from another goes nowhere, for longer than the node timeout",
        ROUTES_STAY,
        |scene| Box::pin(cut(scene, &[("host2", "host1")])),
    ),
    Fault::scene(
        "partition-both",
        "two hosts are cut off from each other, for longer than the node timeout",
        ROUTES_STAY,
        |scene| Box::pin(cut(scene, &[("host1", "host2"), ("host2", "host1")])),
    ),
    Fault::scene(
        "cut-off-from-control",
        "a host is cut off from the control plane alone, which calls it down",
        Promise::LOSSLESS,
        |scene| Box::pin(cut(scene, &[("host1", "control"), ("control", "host1")])),
    )
    .in_ci(),
    Fault::scene(
        "control-with-minority",
        "the control plane and one host are cut off from the others, which go on",
        Promise::recovers_within(5000),
        |scene| {
            Box::pin(cut(
                scene,
                &[
                    ("host1", "host2"),
                    ("host2", "host1"),
                    ("host1", "host3"),
                    ("host3", "host1"),
                    ("control", "host2"),
                    ("host2", "control"),
                    ("control", "host3"),
                    ("host3", "control"),
                ],
            ))
        },
    )
    .in_ci(),
    Fault::scene(
        "packet-loss",
        "one in ten of a host's packets is lost, in both directions",
        ROUTES_STAY,
        |scene| Box::pin(lossy(scene)),
    )
    .in_ci(),
    Fault {
        lacking: Some(|_| lacking_netem()),
        any_pace: true,
        // Whoever puts a queueing discipline on an interface or takes it off switches it off for
        // a moment (dev_deactivate in net/sched/sch_generic.c), and loses what waits in it.
        prepared: &["tc qdisc add dev eth0 root netem limit 100000"],
        put_away: &["tc qdisc del dev eth0 root"],
        shows: Some(reordering),
        ..Fault::scene(
            "delay-and-reordering",
            "a host's packets are delayed by 20 ms, give or take 10, and every tenth overtakes",
            Promise::LOSSLESS,
            |scene| Box::pin(reordered(scene)),
        )
        .in_ci()
    },
];

async fn cut(scene: &mut Scene, cuts: &[Cut]) -> anyhow::Result<()> {
    let rules: Vec<String> = cuts
        .iter()
        .map(|(from, to)| format!("iifname {from} oifname {to} drop"))
        .collect();
    under_rules(scene, &rules, LONG).await
}

async fn lossy(scene: &mut Scene) -> anyhow::Result<()> {
    let rules = ["iifname host1", "oifname host1"]
        .map(|frames| format!("{frames} numgen random mod 10 0 drop"));
    under_rules(scene, &rules, Duration::from_secs(3)).await
}

/// The switch forwards by these rules for a while.
async fn under_rules(scene: &mut Scene, rules: &[String], time: Duration) -> anyhow::Result<()> {
    let switch = scene.mesh.testbed.switch();
    let table = "table bridge faults";
    let chain = format!(
        "{table} {{ chain cut {{ type filter hook forward priority 0; {}; }}; }}",
        rules.join("; ")
    );
    run_in(switch, &format!("nft '{chain}'"))?;
    scene.strike();
    tokio::time::sleep(time).await;
    run_in(scene.mesh.testbed.switch(), &format!("nft delete {table}"))?;
    scene.cause_removed();
    Ok(())
}

async fn reordered(scene: &mut Scene) -> anyhow::Result<()> {
    scene.strike();
    scene.run("tc qdisc change dev eth0 root netem limit 100000 delay 20ms 10ms reorder 10%")?;
    let patience = scene.settings.pace.time(SOON);
    scene.traffic.sent_more(DELAYED, patience).await?;
    // What is delayed already keeps its time.
    scene.run("tc qdisc change dev eth0 root netem limit 100000 delay 0ms")?;
    scene.cause_removed();
    Ok(())
}

/// Whether datagrams of the host overtook each other, and those of nobody else.
fn reordering(fates: &Fates) -> Result<String, String> {
    let count = |of_victim| -> u64 {
        let flows = fates.flows.iter();
        let flows = flows.filter(|flow| flow.pair.of_victim == of_victim);
        flows.map(|flow| flow.reordered).sum()
    };
    let (overtaken, others) = (count(true), count(false));
    let seen = format!("{overtaken} datagrams were overtaken, {others} between the other hosts");
    // A processor that a sender moves to may be quicker than the one it left: a few overtake
    // each other by themselves. Those that are sent at once overtake one in two of those before.
    match overtaken >= OVERTAKEN && overtaken > 2 * others {
        true => Ok(seen),
        false => Err(seen),
    }
}

fn lacking_netem() -> Option<String> {
    let tried = std::process::Command::new("unshare")
        .args(["--net", "tc", "qdisc", "add", "dev", "lo", "root"])
        .args(["netem", "delay", "1ms"])
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .output();
    let why = match tried {
        Ok(output) if output.status.success() => return None,
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => format!("unshare: {error}"),
    };
    Some(format!(
        "this kernel has no netem (CONFIG_NET_SCH_NETEM): {why}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::{FlowFate, Pair};

    #[test]
    fn packets_of_other_hosts_that_overtake_each_other_do_not_pass_for_the_fault() {
        let flow = |of_victim, reordered| FlowFate {
            pair: Pair {
                names: "a → b".into(),
                of_victim,
            },
            sent: 100,
            outages: Vec::new(),
            corrupted: 0,
            reordered,
            duplicates: 0,
        };
        let fates = |flows: Vec<FlowFate>| Fates {
            flows,
            connections: Vec::new(),
        };
        for (of_victim, of_others) in [(0, 0), (7, 8), (70, 80)] {
            let fates = fates(vec![flow(true, of_victim), flow(false, of_others)]);
            assert!(reordering(&fates).is_err(), "{of_victim} {of_others}");
        }
        let seen = reordering(&fates(vec![flow(true, 30), flow(true, 40), flow(false, 8)]));
        assert!(seen.is_ok_and(|note| note.starts_with("70 datagrams")));
    }
}
