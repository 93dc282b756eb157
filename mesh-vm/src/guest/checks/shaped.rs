//! Debian's CNI plugin `bandwidth` after ours, chained as engines do it.

use std::{collections::BTreeSet, fs, net::Ipv4Addr, time::Duration};

use anyhow::{Context as _, ensure};
use mesh_client::{Client, mesh::ListAddressesRequest};
use mesh_testbed::{
    Cni, CniAttachment, Container, Host, NetNs, PingOptions, ping, transfer, wait_until,
};
use serde_json::{Value, json};

use super::{
    ECHOES, has_fast_path, packets, ping_fast, ping_slow,
    policed::{tc, wait_program},
};
use crate::{
    counters::{Carried, Packets},
    pair::{PATIENCE, Pair},
    progress::step,
};

/// Where this guest has quilt-cni, and Debian's plugins.
const PLUGINS: [&str; 2] = ["/usr/bin", "/usr/lib/cni"];

/// Bits a second in each direction: less than the slowest emulation carries, so that packets have to wait.
const RATE: u64 = 8_000_000;
/// Bits that may come at once.
const BURST: u64 = 1_000_000;
/// Packets that [`are_delivered_by_the_kernel`] sends in each direction: requests, and answers to those of the other side.
const PINGED: u64 = 2 * ECHOES as u64;
/// How long a first request may take, which address resolution may lose.
const FIRST: Duration = Duration::from_secs(5);
/// Bytes of each transfer: several times what may come at once.
const TRANSFER: usize = 1_000_000;

/// A container of its own on the first host, which is gone at the end.
pub(super) async fn held_back(pair: &Pair) -> anyhow::Result<()> {
    let ([host, _], [near, far]) = (pair.hosts(), pair.containers());
    let before = Remains::with_one(host, near.address()).await?;
    let engine = Cni::on(host, PLUGINS);
    let list = json!({"cniVersion": "1.0.0", "name": "quilt", "plugins": [
        {"type": "quilt-cni", "engine": "podman", "socket": host.runtime_socket()},
        {"type": "bandwidth", "ingressRate": RATE, "ingressBurst": BURST, "egressRate": RATE, "egressBurst": BURST},
    ]});
    let container = NetNs::new("shaped").await?;
    let attachment = CniAttachment::new("shaped", &container);

    step("ADD of quilt-cni, then of bandwidth");
    let result = engine.add(&list, &attachment).await?;
    let address = address(&result)?;
    let port = interface(&result, "qm")?;
    let device = interface(&result, "bwp")?;
    let made = tc(host, &format!("qdisc show dev {port}"))?;
    ensure!(
        made.contains("qdisc tbf") && made.contains("qdisc ingress") && !made.contains("clsact"),
        "{port} has {made}"
    );
    wait_left_to_the_kernel(host, &address.to_string()).await?;

    step("pings both ways");
    for (from, to) in [(&container, far.address()), (far.netns(), address)] {
        wait_until("an answer", PATIENCE, async || {
            pinged(from, to, 1, FIRST)
                .await
                .map_err(|error| format!("{error:#}"))
        })
        .await?;
    }
    are_delivered_by_the_kernel(host, &container, address, far).await?;
    are_held_back(host, &container, address, far, [port, device]).await?;

    if has_fast_path()? {
        step("the program at its port, beside what bandwidth made");
        wait_program(host, port).await?;
        are_delivered_by_the_kernel(host, &container, address, far).await?;
        are_held_back(host, &container, address, far, [port, device]).await?;
        let shown = tc(host, &format!("qdisc show dev {port}"))?;
        ensure!(shown == made, "{port} has {shown} and had {made}");
    }

    step("CHECK, and another container's path");
    engine.check(&list, &attachment).await?;
    match has_fast_path()? {
        true => ping_fast(pair).await?,
        false => ping_slow(pair).await?,
    }

    step("DEL of bandwidth, then of quilt-cni");
    engine.del(&list, &attachment).await?;
    let left = links(&container)?;
    ensure!(
        left == BTreeSet::from(["lo".to_owned()]),
        "{left:?} are left inside"
    );
    before.wait_again(host).await
}

/// Sees that the fast path delivers nothing to a container past its port's queue. What the container sends the
/// bridge's program carries, where there are any, behind the device at which it was held back.
async fn are_delivered_by_the_kernel(
    host: &Host,
    container: &NetNs,
    address: Ipv4Addr,
    far: &Container,
) -> anyhow::Result<()> {
    let before = Carried::by(host).await?;
    pinged(container, far.address(), ECHOES, PATIENCE).await?;
    pinged(far.netns(), address, ECHOES, PATIENCE).await?;
    let seen = Carried::by(host).await?.since(before);
    let in_all = Packets {
        sent: seen.fast_path.sent + seen.kernel_path.sent,
        received: seen.kernel_path.received,
    };
    ensure!(
        seen.fast_path.received == 0 && in_all.is_or_with_questions(packets(PINGED)),
        "{} carried {seen:?}",
        host.name()
    );
    Ok(())
}

/// Sees that what a container gets waits at its port, and what it sends at a device of the plugin's.
async fn are_held_back(
    host: &Host,
    container: &NetNs,
    address: Ipv4Addr,
    far: &Container,
    [port, device]: [&str; 2],
) -> anyhow::Result<()> {
    for (from, to, to_address, held_at) in [
        (far.netns(), container, address, port),
        (container, far.netns(), far.address(), device),
    ] {
        step(format!("a transfer that is held back at {held_at}"));
        let before = Queue::of(host, held_at)?;
        let copy = transfer(from, to, to_address, TRANSFER, PATIENCE).await?;
        let after = Queue::of(host, held_at)?;
        println!("{held_at}: {before:?} to {after:?} in {:?}", copy.elapsed);
        ensure!(copy.is_intact(), "it arrived damaged: {copy:?}");
        ensure!(
            after.bytes - before.bytes >= TRANSFER as u64 && after.waits > before.waits,
            "{held_at} held nothing back: {before:?} to {after:?}"
        );
    }
    Ok(())
}

/// Sees that each of so many requests is answered.
async fn pinged(from: &NetNs, to: Ipv4Addr, count: u16, timeout: Duration) -> anyhow::Result<()> {
    let options = PingOptions {
        count,
        timeout,
        ..PingOptions::default()
    };
    let report = ping(from, to, options).await?;
    ensure!(
        report.is_complete(),
        "{} pings {to}: {report:?}",
        from.name()
    );
    Ok(())
}

/// Where programs carry: waits until the container is listed as left to the kernel path for what tc has at its port.
async fn wait_left_to_the_kernel(host: &Host, address: &str) -> anyhow::Result<()> {
    let left = match has_fast_path()? {
        true => "tc",
        false => "",
    };
    wait_until("what the status says of it", PATIENCE, async || {
        let status = host.status().await.map_err(|error| error.to_string())?;
        let endpoint = status.endpoints.iter().find(|it| it.address == address);
        match endpoint {
            Some(it) if it.kernel_path.contains(left) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    Ok(())
}

/// The address that a result names first.
fn address(result: &Value) -> anyhow::Result<Ipv4Addr> {
    let address = result["ips"][0]["address"].as_str();
    let address = address.and_then(|it| it.parse::<ipnet::Ipv4Net>().ok());
    Ok(address
        .with_context(|| format!("no address in {result}"))?
        .addr())
}

/// The interface of a result whose name begins like this.
fn interface<'a>(result: &'a Value, beginning: &str) -> anyhow::Result<&'a str> {
    let mut names = result["interfaces"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|it| it["name"].as_str());
    names
        .find(|name| name.starts_with(beginning))
        .with_context(|| format!("no interface {beginning}… in {result}"))
}

/// What the first queueing discipline of a device has counted.
#[derive(Clone, Copy, Debug)]
struct Queue {
    bytes: u64,
    /// How often a packet was due later.
    waits: u64,
}

impl Queue {
    fn of(host: &Host, device: &str) -> anyhow::Result<Self> {
        let shown = tc(host, &format!("-statistics qdisc show dev {device} root"))?;
        Self::parse(&shown).with_context(|| format!("no tbf with its counts in {shown}"))
    }

    /// Reads tc's ` Sent 98 bytes 1 pkt (dropped 0, overlimits 0 requeues 0)` below a token bucket filter.
    fn parse(shown: &str) -> Option<Self> {
        let (_, shown) = shown.split_once("qdisc tbf")?;
        let number_after = |word: &str| {
            let (_, rest) = shown.split_once(word)?;
            rest.split_whitespace().next()?.parse().ok()
        };
        Some(Self {
            bytes: number_after(" Sent ")?,
            waits: number_after("overlimits ")?,
        })
    }
}

/// What the host has of containers.
#[derive(Debug, PartialEq, Eq)]
struct Remains {
    links: BTreeSet<String>,
    qdiscs: BTreeSet<String>,
    leases: Vec<String>,
    endpoints: BTreeSet<String>,
}

impl Remains {
    async fn of(host: &Host) -> anyhow::Result<Self> {
        let mut client = Client::connect(&host.runtime_socket()).await?;
        let listed = client.addresses(ListAddressesRequest::default()).await?;
        let endpoints = host.status().await?.endpoints;
        let qdiscs = tc(host, "qdisc show")?;
        Ok(Self {
            links: links(host.netns())?,
            qdiscs: qdiscs.lines().map(|line| line.trim().to_owned()).collect(),
            leases: listed.leases.iter().map(|it| format!("{it:?}")).collect(),
            endpoints: endpoints.into_iter().map(|it| it.address).collect(),
        })
    }

    /// What a host has whose one container has that address. Of an earlier check's, something may be there for a moment
    /// longer.
    async fn with_one(host: &Host, address: Ipv4Addr) -> anyhow::Result<Self> {
        let one = BTreeSet::from([address.to_string()]);
        let remains = wait_until(
            "its own container alone",
            PATIENCE,
            async || match Self::of(host).await {
                Ok(now) if now.endpoints == one => Ok(now),
                Ok(now) => Err(format!("{:?}", now.endpoints)),
                Err(error) => Err(format!("{error:#}")),
            },
        );
        Ok(remains.await?)
    }

    /// Some of it follows a moment later.
    async fn wait_again(&self, host: &Host) -> anyhow::Result<()> {
        wait_until("nothing that is left", PATIENCE, async || {
            match Self::of(host).await {
                Ok(now) if now == *self => Ok(()),
                Ok(now) => Err(format!("there is {now:#?}, and was {self:#?}")),
                Err(error) => Err(format!("{error:#}")),
            }
        })
        .await?;
        Ok(())
    }
}

/// Names of a namespace's interfaces, in the table of proc_net_dev(5).
fn links(namespace: &NetNs) -> anyhow::Result<BTreeSet<String>> {
    let table = namespace
        .run(|| fs::read_to_string("/proc/thread-self/net/dev"))?
        .context("cannot read the interfaces")?;
    let names = table.lines().filter_map(|line| line.split_once(':'));
    Ok(names.map(|(name, _)| name.trim().to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_token_bucket_filter_counted_is_read_and_no_other_disciplines_counts() {
        let shown = "\
qdisc tbf 1: root refcnt 3 rate 8Mbit burst 125000b lat 25ms
 Sent 1063208 bytes 741 pkt (dropped 12, overlimits 402 requeues 0)
 backlog 0b 0p requeues 0
";
        let queue = Queue::parse(shown).unwrap();
        assert_eq!((queue.bytes, queue.waits), (1_063_208, 402));
        let other = "qdisc noqueue 0: root refcnt 2\n Sent 0 bytes 0 pkt (dropped 0, overlimits 0 requeues 0)\n";
        assert!(Queue::parse(other).is_none());
    }
}
