//! How long what somebody did to the node's kernel state lasts.
//!
//! The clock starts before the tool that does the damage, and a tool looks whether it is
//! repaired: a few milliseconds of each figure are theirs.

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use mesh_testbed::{Host, wait_until};

use crate::{
    figure::{Figure, milliseconds, quantile},
    node::{Node, PEERS, peers},
};

/// Damage that lasts longer is none that the runtime finds by itself.
const GIVE_UP: Duration = Duration::from_secs(20);

/// One way to harm a node.
struct Fault {
    name: &'static str,
    /// What does it.
    damage: Damage,
    /// What shows that it is repaired.
    whole: &'static [Sign],
}

enum Damage {
    /// A tool with its arguments.
    Run(&'static str, &'static str),
    /// Arguments of `ip` that delete again and again until nothing is left. It fails where it meets the
    /// repair of what it has deleted.
    Flush(&'static str),
    /// A sysctl and the value it gets.
    Sysctl(&'static str, &'static str),
    /// The entry of the first peer is deleted from `peers`.
    DeleteEntry,
    /// Every entry is deleted from `peers`.
    EmptyMap,
    /// The pin directory is removed.
    RemovePins,
}

enum Sign {
    /// A tool prints as many lines as there are peers.
    LinePerPeer(&'static str, &'static str),
    /// A tool prints something with this in it.
    Prints(&'static str, &'static str, &'static str),
    /// `net.ipv4.ip_forward` is set.
    Forwarding,
    /// `peers` holds every peer.
    MapFilled,
}

const ROUTES: Sign = Sign::LinePerPeer("ip", "route show proto 81");
const FORWARDING: Sign = Sign::LinePerPeer("bridge", "fdb show dev vxlan100");
const NEIGHBOURS: Sign = Sign::LinePerPeer("ip", "neighbour show dev vxlan100");
const OVERLAY: &str = "-details link show vxlan100";

const FAULTS: [Fault; 14] = [
    Fault {
        name: "vxlan100 deleted",
        damage: Damage::Run("ip", "link del vxlan100"),
        whole: &[ROUTES, FORWARDING, NEIGHBOURS],
    },
    Fault {
        name: "vxlan100 set down",
        damage: Damage::Run("ip", "link set vxlan100 down"),
        whole: &[ROUTES],
    },
    Fault {
        name: "vxlan100's MAC rewritten",
        damage: Damage::Run("ip", "link set vxlan100 address 02:00:00:00:00:07"),
        whole: &[Sign::Prints("ip", OVERLAY, "02:51:0a:2a:01:00")],
    },
    Fault {
        name: "vxlan100's MTU changed",
        damage: Damage::Run("ip", "link set vxlan100 mtu 1400"),
        whole: &[Sign::Prints("ip", OVERLAY, "mtu 1450")],
    },
    Fault {
        name: "quilt0 deleted",
        damage: Damage::Run("ip", "link del quilt0"),
        whole: &[
            Sign::Prints("ip", "address show quilt0", "10.42.1.1/24"),
            ROUTES,
        ],
    },
    Fault {
        name: "one route deleted",
        damage: Damage::Run("ip", "route del 10.42.2.0/24 proto 81"),
        whole: &[ROUTES],
    },
    Fault {
        name: "routes flushed",
        damage: Damage::Flush("route flush proto 81"),
        whole: &[ROUTES],
    },
    Fault {
        name: "one forwarding entry deleted",
        damage: Damage::Run("bridge", "fdb del 02:51:0a:2a:02:00 dev vxlan100 self"),
        whole: &[FORWARDING],
    },
    Fault {
        name: "one neighbour deleted",
        damage: Damage::Run("ip", "neighbour del 10.42.2.0 dev vxlan100"),
        whole: &[NEIGHBOURS],
    },
    Fault {
        name: "neighbours flushed",
        damage: Damage::Flush("neighbour flush dev vxlan100 nud permanent"),
        whole: &[NEIGHBOURS],
    },
    Fault {
        name: "ip_forward cleared",
        damage: Damage::Sysctl("net/ipv4/ip_forward", "0"),
        whole: &[Sign::Forwarding],
    },
    Fault {
        name: "one map entry deleted",
        damage: Damage::DeleteEntry,
        whole: &[Sign::MapFilled],
    },
    Fault {
        name: "map emptied",
        damage: Damage::EmptyMap,
        whole: &[Sign::MapFilled],
    },
    Fault {
        name: "pins removed",
        damage: Damage::RemovePins,
        whole: &[Sign::MapFilled],
    },
];

/// Harms a node with all its peers in every way, `rounds` times each.
pub(crate) async fn measure(rounds: u16) -> anyhow::Result<Vec<Figure>> {
    let node = Node::start().await?;
    node.sync(1, peers()).await?;
    let host = node.host();
    wait_until("an active fast path", GIVE_UP, || async {
        is_filled(host).map_err(|error| error.to_string())
    })
    .await?;
    let mut figures = Vec::new();
    for fault in &FAULTS {
        let mut samples = Vec::with_capacity(rounds.into());
        for _ in 0..rounds {
            let lasted = lasts(host, fault)
                .await
                .with_context(|| format!("{} is not repaired", fault.name))?;
            samples.push(milliseconds(lasted));
        }
        figures.push(quantile(
            format!("repair, {PEERS} peers, {}, p99", fault.name),
            "ms",
            Some(100.0),
            &samples,
            99,
        )?);
    }
    Ok(figures)
}

/// Does the damage and waits until nothing is seen of it.
async fn lasts(host: &Host, fault: &Fault) -> anyhow::Result<Duration> {
    // So that the damage does not meet the round for the one before, nor always the same
    // moment between two looks.
    let pause = u64::from(std::process::id()) % 7 + 40;
    tokio::time::sleep(Duration::from_millis(pause)).await;
    let started = Instant::now();
    harm(host, &fault.damage)?;
    loop {
        let mut missing = None;
        for sign in fault.whole {
            if let Err(seen) = shows(host, sign) {
                missing = Some(seen);
                break;
            }
        }
        let Some(missing) = missing else {
            return Ok(started.elapsed());
        };
        if started.elapsed() > GIVE_UP {
            bail!("{missing:#}\n{}", host.describe());
        }
    }
}

fn harm(host: &Host, damage: &Damage) -> anyhow::Result<()> {
    match damage {
        Damage::Run(program, words) => run(host, program, words).map(drop),
        Damage::Flush(words) => {
            let mut ip: Command = host.netns().command("ip");
            let flushed = ip.args(words.split_whitespace()).output();
            flushed.map(drop).context("ip is needed")
        }
        Damage::Sysctl(key, value) => Ok(host.netns().sysctl(key, value)?),
        Damage::DeleteEntry => delete_entries(host, 1),
        Damage::EmptyMap => delete_entries(host, PEERS),
        Damage::RemovePins => {
            let gone = host.bpffs_dir().join("gone");
            // At once: a directory that is emptied name by name is mended name by name meanwhile.
            fs::rename(host.bpffs_dir().join("quilt-mesh"), &gone)
                .and_then(|()| fs::remove_dir_all(&gone))
                .context("cannot remove pins")
        }
    }
}

fn delete_entries(host: &Host, count: u8) -> anyhow::Result<()> {
    let pin = host.bpffs_dir().join("quilt-mesh/peers");
    let batch: String = (1..=count)
        .map(|number| {
            format!(
                "map delete pinned {} key 10 42 {} 0\n",
                pin.display(),
                number + 1
            )
        })
        .collect();
    let file = host.dir().join("batch");
    fs::write(&file, batch)?;
    run(
        host,
        &bpftool(host),
        &format!("batch file {}", file.display()),
    )
    .map(drop)
}

fn shows(host: &Host, sign: &Sign) -> anyhow::Result<()> {
    match sign {
        Sign::LinePerPeer(program, words) => {
            let lines = run(host, program, words)?.lines().count();
            if lines != usize::from(PEERS) {
                bail!("{program} {words} prints {lines} lines");
            }
        }
        Sign::Prints(program, words, part) => {
            let text = run(host, program, words)?;
            if !text.contains(part) {
                bail!("{program} {words} prints {text}");
            }
        }
        Sign::Forwarding => {
            let read = || fs::read_to_string("/proc/sys/net/ipv4/ip_forward");
            if host.netns().run(read)??.trim() != "1" {
                bail!("net.ipv4.ip_forward is 0");
            }
        }
        Sign::MapFilled => is_filled(host)?,
    }
    Ok(())
}

fn is_filled(host: &Host) -> anyhow::Result<()> {
    let dump: serde_json::Value = serde_json::from_str(&host.bpftool_dump("peers")?)?;
    let entries = dump.as_array().map_or(0, Vec::len);
    if entries != usize::from(PEERS) {
        bail!("the map peers has {entries} entries");
    }
    Ok(())
}

/// Where bpftool is: the directory is not in every user's path.
fn bpftool(host: &Host) -> String {
    let fallback = || host.bpftool_dump_command("peers").swap_remove(0);
    ["/usr/sbin/bpftool", "/sbin/bpftool", "/usr/bin/bpftool"]
        .into_iter()
        .find(|path| fs::exists(path).unwrap_or(false))
        .map_or_else(fallback, str::to_owned)
}

fn run(host: &Host, program: &str, words: &str) -> anyhow::Result<String> {
    let mut command: Command = host.netns().command(program);
    let output = command
        .args(words.split_whitespace())
        .output()
        .with_context(|| format!("{program} is needed"))?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("{program} {words}: {}", error.trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}
