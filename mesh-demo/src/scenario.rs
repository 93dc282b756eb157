//! The run itself: each step does something to the cluster and notes what it saw.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow};
use ipnet::Ipv4Net;
use mesh_client::{Client, mesh::ListAddressesRequest};
use mesh_proto::mesh::PeerStatus;
use mesh_rest::status::Status;
use mesh_testbed::{
    Container, Daemon, DaemonOptions, Host, PingOptions, Testbed, ping, transfer, wait_reachable,
    wait_until,
};

use crate::{
    kept, maps,
    progress::Progress,
    report::{
        self, Addresses, Carried, LostHost, Node, PeerTraffic, PeersMap, Ping, Report,
        ReturnedHost, Transfer, Witness,
    },
};

/// The content of the transfer in bytes.
pub(crate) const TRANSFER_BYTES: usize = 100_000_000;

const CONTAINERS_PER_HOST: usize = 2;
/// Reachability must come within this; seconds are normal, the rest is for slow machines.
const PATIENCE: Duration = Duration::from_secs(30);
/// A lost node is down after 30 s of silence; its peers act on that within a sync or two.
const LOSS_PATIENCE: Duration = Duration::from_secs(75);

const ECHOES: PingOptions = PingOptions {
    count: 3,
    interval: Duration::from_millis(5),
    timeout: Duration::from_secs(2),
    payload: 56,
};

/// Runs all steps, filling the report as far as it gets.
pub(crate) async fn run(
    nodes: u8,
    keep: bool,
    progress: &Progress,
    report: &mut Report,
) -> anyhow::Result<()> {
    let testbed = Testbed::builder().hosts(nodes.into()).build().await?;
    progress.step(format!(
        "{nodes} hosts and a control plane, as network namespaces {}-*",
        testbed.name()
    ));
    testbed
        .start()
        .await
        .context("the cluster does not come up")?;
    progress.step(format!(
        "{nodes} runtimes and {nodes} agents run, which have joined over TLS; every node has its peers"
    ));

    let mut containers = Vec::new();
    let walked = walk(&testbed, &mut containers, progress, report).await;
    if keep {
        // Also after a failure: that is when somebody wants to look.
        report.kept = Some(kept::keep(&testbed, &containers)?);
    }
    walked
}

async fn walk(
    testbed: &Testbed,
    containers: &mut Vec<Container>,
    progress: &Progress,
    report: &mut Report,
) -> anyhow::Result<()> {
    let hosts = testbed.hosts();
    for host in hosts {
        for _ in 0..CONTAINERS_PER_HOST {
            containers.push(host.attach_container().await?);
        }
    }
    let containers = &containers[..];
    report.containers = containers
        .iter()
        .enumerate()
        .map(|(index, container)| report::Container {
            name: container.name().to_owned(),
            host: hosts[index / CONTAINERS_PER_HOST].name().to_owned(),
            address: container.address(),
        })
        .collect();
    report.nodes = nodes(testbed).await?;
    report.security = Some(testbed.control().told(&["security"])?);
    await_endpoints(hosts, containers).await?;
    await_reachability(containers, containers).await?;
    progress.step(format!("{} containers are reachable", containers.len()));

    report.pings = ping_pairs(containers, containers).await?;
    progress.step(format!(
        "{} pairs of containers have pinged each other",
        report.pings.len()
    ));

    report.transfer = Some(transfer_between(hosts, containers).await?);
    progress.step("100 MB of TCP have gone from the first host to the second");

    report.peers = peer_traffic(hosts).await?;
    report.peers_map = Some(dump_peers(&hosts[0])?);
    for host in hosts {
        report.addresses.push(addresses(host).await?);
    }

    let (lost, others) = hosts.split_last().ok_or_else(|| anyhow!("no hosts"))?;
    let subnet = subnet_of(report, lost)?;
    let (on_others, on_lost) = containers.split_at(others.len() * CONTAINERS_PER_HOST);
    report.lost_host = Some(lose(testbed, lost, subnet, others, on_others, progress).await?);

    let returned = bring_back(testbed, lost, subnet, progress).await?;
    let returned = report.returned_host.insert(returned);
    await_reachability(on_lost, on_others).await?;
    await_reachability(on_others, on_lost).await?;
    let before = peer_traffic(hosts).await?;
    returned.pings = ping_pairs(on_lost, on_others).await?;
    returned.pings.extend(ping_pairs(on_others, on_lost).await?);
    returned.peers = growth(&before, peer_traffic(hosts).await?)
        .into_iter()
        .filter(|traffic| traffic.node == lost.name() || traffic.peer == lost.name())
        .collect();
    progress.step(format!("{}'s containers are reachable again", lost.name()));
    Ok(())
}

async fn nodes(testbed: &Testbed) -> anyhow::Result<Vec<Node>> {
    let registered = testbed.control().nodes().await?;
    let mut nodes = Vec::new();
    for host in testbed.hosts() {
        let status = host.status().await?;
        let fast_path = status.fast_path.clone().unwrap_or_default();
        let node = registered
            .iter()
            .find(|node| node.hostname == host.name())
            .ok_or_else(|| anyhow!("the control plane does not list {}", host.name()))?;
        nodes.push(Node {
            name: node.hostname.to_string(),
            address: node.host_ip().context("a host_ip that is none")?,
            subnet: node.subnet().context("a subnet that is none")?,
            status: node.status.to_string(),
            fast_path: fast_path.state().as_str_name().to_owned(),
            fast_path_reason: fast_path.reason,
            attach_mode: fast_path.attach_mode,
            problems: status.problems(),
        });
    }
    Ok(nodes)
}

/// Waits until each runtime has noticed its containers, so that the pings that follow show
/// the fast path and not how quickly it was attached. The checks judge it, not this.
async fn await_endpoints(hosts: &[Host], containers: &[Container]) -> anyhow::Result<()> {
    for (host, containers) in hosts.iter().zip(containers.chunks(CONTAINERS_PER_HOST)) {
        let what = format!("attachment to the containers on {}", host.name());
        let noticed = wait_until(&what, Duration::from_secs(10), async || {
            let attachments = match host.status().await {
                Ok(status) => status.fast_path.unwrap_or_default().attachments,
                Err(error) => return Err(error.to_string()),
            };
            let has = |container: &Container| {
                let prefix = format!("{}:", container.host_interface());
                attachments
                    .iter()
                    .any(|attachment| attachment.starts_with(&prefix))
            };
            match containers.iter().all(has) {
                true => Ok(()),
                false => Err(format!("attached are {attachments:?}")),
            }
        });
        // Without fast path there is nothing to wait for, and the run shall go on.
        if let Err(error) = noticed.await {
            eprintln!("           {error}");
            return Ok(());
        }
    }
    Ok(())
}

async fn await_reachability(from: &[Container], to: &[Container]) -> anyhow::Result<()> {
    for container in from {
        for target in to {
            wait_reachable(container.netns(), target.address(), PATIENCE).await?;
        }
    }
    Ok(())
}

async fn ping_pairs(from: &[Container], to: &[Container]) -> anyhow::Result<Vec<Ping>> {
    let mut pings = Vec::new();
    for source in from {
        for target in to.iter().filter(|target| target.name() != source.name()) {
            let result = ping(source.netns(), target.address(), ECHOES).await?;
            pings.push(Ping {
                from: source.name().to_owned(),
                to: target.name().to_owned(),
                sent: result.echoes.len(),
                received: result.received(),
                median_us: result.median().map(|median| median.as_secs_f64() * 1e6),
            });
        }
    }
    Ok(pings)
}

async fn transfer_between(hosts: &[Host], containers: &[Container]) -> anyhow::Result<Transfer> {
    let (sender, receiver) = (&hosts[0], &hosts[1]);
    let (from, to) = (&containers[0], &containers[CONTAINERS_PER_HOST]);
    let before = (
        carried(sender, receiver).await?,
        carried(receiver, sender).await?,
    );
    let done = transfer(
        from.netns(),
        to.netns(),
        to.address(),
        TRANSFER_BYTES,
        Duration::from_secs(120),
    )
    .await?;
    let after = (
        carried(sender, receiver).await?,
        carried(receiver, sender).await?,
    );
    Ok(Transfer {
        from: from.name().to_owned(),
        to: to.name().to_owned(),
        bytes: done.bytes,
        seconds: done.elapsed.as_secs_f64(),
        gigabits_per_second: done.bits_per_second() / 1e9,
        sent_sha256: done.sent_sha256,
        received_sha256: done.received_sha256,
        sender: after.0.since(before.0),
        receiver: after.1.since(before.1),
    })
}

/// What was carried between a host and one other, as the host's runtime counts it.
async fn carried(host: &Host, peer: &Host) -> anyhow::Result<Carried> {
    let list = host.peers().await?;
    list.peers
        .into_iter()
        .find(|status| address_of(status) == peer.address().to_string())
        .map(|status| carried_of(&status))
        .ok_or_else(|| anyhow!("{} does not list {} as its peer", host.name(), peer.name()))
}

fn address_of(status: &PeerStatus) -> &str {
    status.peer.as_ref().map_or("", |peer| &peer.host_address)
}

fn carried_of(status: &PeerStatus) -> Carried {
    Carried {
        fast_path: status.fast_path.unwrap_or_default().into(),
        kernel_path: status.kernel_path.unwrap_or_default().into(),
    }
}

async fn peer_traffic(hosts: &[Host]) -> anyhow::Result<Vec<PeerTraffic>> {
    let mut traffic = Vec::new();
    for host in hosts {
        for status in host.peers().await?.peers {
            let peer = status.peer.clone().unwrap_or_default();
            let known = hosts
                .iter()
                .find(|host| host.address().to_string() == peer.host_address);
            traffic.push(PeerTraffic {
                node: host.name().to_owned(),
                peer: known.map_or(peer.host_address, |host| host.name().to_owned()),
                subnet: peer.subnet,
                carried: carried_of(&status),
                dropped_packets: status.dropped_packets,
            });
        }
    }
    Ok(traffic)
}

/// How the counters have grown; a peer that was not there before started at nothing, and so did one that was made anew
/// meanwhile, whose counters are less than they were.
fn growth(before: &[PeerTraffic], after: Vec<PeerTraffic>) -> Vec<PeerTraffic> {
    after
        .into_iter()
        .map(|mut now| {
            let earlier = before
                .iter()
                .find(|then| then.node == now.node && then.peer == now.peer);
            if let Some(earlier) = earlier.filter(|it| now.carried.goes_on_from(it.carried)) {
                now.carried = now.carried.since(earlier.carried);
            }
            now
        })
        .collect()
}

fn dump_peers(host: &Host) -> anyhow::Result<PeersMap> {
    let output = host.bpftool_dump("peers")?;
    Ok(PeersMap {
        node: host.name().to_owned(),
        command: host.bpftool_dump_command("peers").join(" "),
        subnets: maps::subnets(&output).map_err(|error| anyhow!("bpftool's output is {error}"))?,
        output,
    })
}

/// What the runtime says it has leased, and what the kernel delivers to.
async fn addresses(host: &Host) -> anyhow::Result<Addresses> {
    let mut client = Client::connect(&host.runtime_socket()).await?;
    let list = client.addresses(ListAddressesRequest::default()).await?;
    let mut listed = BTreeMap::new();
    for lease in list.leases {
        let mac = lease.endpoint.map_or_else(String::new, |it| it.mac);
        listed.insert(lease.address.parse()?, mac);
    }
    let output = host.bpftool_dump("endpoints")?;
    let mut in_the_map =
        maps::endpoints(&output).map_err(|error| anyhow!("bpftool's output is {error}"))?;
    // The node's own, which is leased to nobody.
    if let Ok(probes) = list.probe_address.parse() {
        in_the_map.remove(&probes);
    }
    Ok(Addresses {
        node: host.name().to_owned(),
        listed,
        in_the_map,
    })
}

fn subnet_of(report: &Report, host: &Host) -> anyhow::Result<Ipv4Net> {
    report
        .nodes
        .iter()
        .find(|node| node.name == host.name())
        .map(|node| node.subnet)
        .ok_or_else(|| anyhow!("{} has no subnet", host.name()))
}

async fn lose(
    testbed: &Testbed,
    lost: &Host,
    subnet: Ipv4Net,
    others: &[Host],
    containers: &[Container],
    progress: &Progress,
) -> anyhow::Result<LostHost> {
    testbed.underlay_cut(lost).await?;
    lost.kill_all();
    let started = Instant::now();
    progress.step(format!(
        "{} is unplugged and its processes are killed",
        lost.name()
    ));

    // One ping of each pair now, while the loss has not been noticed by anybody.
    let pings_among_others = ping_pairs_of_hosts(containers).await?;
    let mut witnesses: Vec<Witness> = others
        .iter()
        .map(|host| Witness {
            name: host.name().to_owned(),
            route_gone_after: None,
            map_entry_gone_after: None,
        })
        .collect();
    let is_open = |witness: &Witness| {
        witness.route_gone_after.is_none() || witness.map_entry_gone_after.is_none()
    };
    while witnesses.iter().any(is_open) && started.elapsed() < LOSS_PATIENCE {
        tokio::time::sleep(Duration::from_millis(200)).await;
        for (witness, host) in witnesses.iter_mut().zip(others) {
            observe(witness, host, subnet, started).await?;
        }
        progress.waiting(format!(
            "waiting for {} to time out: {:.0} s",
            lost.name(),
            started.elapsed().as_secs_f64()
        ));
    }
    for witness in &witnesses {
        progress.step(match witness.route_gone_after {
            Some(seconds) => format!(
                "{} has no route to {subnet} any more, after {seconds:.1} s",
                witness.name
            ),
            None => format!("{} still has its route to {subnet}", witness.name),
        });
    }
    Ok(LostHost {
        name: lost.name().to_owned(),
        subnet,
        witnesses,
        pings_among_others,
    })
}

/// Pings between the first containers of the hosts.
async fn ping_pairs_of_hosts(containers: &[Container]) -> anyhow::Result<Vec<Ping>> {
    let mut pings = Vec::new();
    for (index, from) in containers.chunks(CONTAINERS_PER_HOST).enumerate() {
        for (other, to) in containers.chunks(CONTAINERS_PER_HOST).enumerate() {
            if index != other {
                pings.extend(ping_pairs(&from[..1], &to[..1]).await?);
            }
        }
    }
    Ok(pings)
}

async fn observe(
    witness: &mut Witness,
    host: &Host,
    subnet: Ipv4Net,
    started: Instant,
) -> anyhow::Result<()> {
    if witness.route_gone_after.is_none() && !host.has_route(subnet).await? {
        witness.route_gone_after = Some(started.elapsed().as_secs_f64());
    }
    if witness.map_entry_gone_after.is_none()
        && !dump_peers(host)?.subnets.contains(&subnet.network())
    {
        witness.map_entry_gone_after = Some(started.elapsed().as_secs_f64());
    }
    Ok(())
}

async fn bring_back(
    testbed: &Testbed,
    lost: &Host,
    subnet: Ipv4Net,
    progress: &Progress,
) -> anyhow::Result<ReturnedHost> {
    let started = Instant::now();
    testbed.underlay_restore(lost).await?;
    lost.start_runtime(&DaemonOptions::default()).await?;
    lost.spawn(Daemon::Agent, &DaemonOptions::default())?;
    lost.wait_joined(PATIENCE).await?;
    testbed.wait_converged(PATIENCE).await?;
    let node = testbed
        .control()
        .wait_status(lost.name(), Status::Up, PATIENCE)
        .await?;
    progress.step(format!("{} is back with {}", lost.name(), node.subnet));
    Ok(ReturnedHost {
        name: lost.name().to_owned(),
        subnet_before: subnet,
        subnet_after: node.subnet().context("a subnet that is none")?,
        seconds: started.elapsed().as_secs_f64(),
        pings: Vec::new(),
        peers: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Carried, Counters};

    fn traffic(tx_packets: u64) -> PeerTraffic {
        PeerTraffic {
            node: "host3".to_owned(),
            peer: "host1".to_owned(),
            subnet: "10.42.1.0/24".to_owned(),
            carried: Carried {
                fast_path: Counters {
                    tx_packets,
                    ..Counters::default()
                },
                ..Carried::default()
            },
            dropped_packets: 0,
        }
    }

    #[test]
    fn counters_grow_from_what_they_were_and_those_that_began_anew_from_nothing() {
        let grown = |before: &[PeerTraffic], now| growth(before, vec![traffic(now)])[0].carried;
        let packets = |before: &[PeerTraffic], now| grown(before, now).fast_path.tx_packets;
        assert_eq!(packets(&[], 24), 24);
        assert_eq!(packets(&[traffic(40)], 64), 24);
        assert_eq!(packets(&[traffic(40)], 24), 24);
    }
}
