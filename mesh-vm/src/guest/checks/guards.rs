//! What a container may not send, sent by one that has `CAP_NET_RAW`, as raw frames: the guard of
//! its port drops and counts it, and nobody hears of it. And where no program is, the packet
//! filter.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use mesh_model::tagged;
use mesh_testbed::{BRIDGE, Container, Host, Links, NetNs, PacketSocket, wait_until};
use mesh_vm::Standing;
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

use super::{
    forged::{FORGED, Forger},
    has_fast_path, kernel_path, wait_attached,
};
use crate::{
    pair::{PATIENCE, Pair},
    progress::{self, step},
};

/// Each marker empties one of the queues that a forged packet may take: the ports', the host's,
/// the overlay's.
const MARKERS: usize = 4;
/// The time after which a marker is sent once more.
const RESEND: Duration = Duration::from_secs(1);

/// The tag of the VLAN that a bridge's ports are in by default, untagged.
const UNTAGGED_VLAN: (u16, u16) = (0x8100, 1);

/// The program that guards nothing.
const COUNTS: &str = "count_egress";

/// Drops by reason.
type Drops = BTreeMap<String, u64>;

/// With the programs attached, whether they forward or not; or by the packet filter alone, which does
/// not count by reasons.
pub(super) async fn hold(pair: &Pair) -> anyhow::Result<()> {
    let [host, _] = pair.hosts();
    let scene = Scene::new(pair).await?;
    let before = drops(host).await?;
    scene.nothing_forged_arrives(pair)?;
    if !has_fast_path()? {
        return Ok(());
    }
    scene.is_counted(host, &before).await
}

/// The same after the runtime was killed; what was dropped meanwhile its successor tells. And what
/// the container of a port says that nobody has attached a program to, the packet filter keeps from
/// its siblings and the bridge's own program from the host.
pub(super) async fn hold_without_a_runtime(pair: &mut Pair) -> anyhow::Result<()> {
    let [host, _] = pair.hosts();
    let scene = Scene::new(pair).await?;
    let mut before = drops(host).await?;
    step("a killed runtime");
    pair.kill_first().await?;
    scene.nothing_forged_arrives(pair)?;

    step("a port that no runtime has seen");
    scene.no_new_port_is_a_router(host).await?;
    // No sibling heard them, by the packet filter's doing. The bridge itself did, and its own program
    // dropped them.
    for reason in ["router_advert", "gateway_claimed"] {
        *before.entry(reason.to_owned()).or_default() += 1;
    }

    step("the killed runtime's successor");
    pair.start_first_again().await?;
    wait_attached(pair).await?;
    let [host, _] = pair.hosts();
    scene.is_counted(host, &before).await
}

/// The same of a container whose port came a moment ago. Who dropped it, a program or the packet filter, is not asked.
pub(super) async fn hold_when_new(pair: &Pair) -> anyhow::Result<()> {
    let [host, _] = pair.hosts();
    let scene = Scene::new(pair).await?;
    let newcomer = host.add_container().await?;
    wait_known(host, &newcomer).await?;
    let forger = Forger {
        mac: mac_of(newcomer.netns(), "eth0")?,
        address: newcomer.address(),
        ..scene.forger.clone()
    };
    for (name, frame, _) in forger.frames() {
        scene.is_not_heard(newcomer.netns(), &forger, name, &frame)?;
    }
    Ok(())
}

/// Waits until the runtime knows a container.
pub(super) async fn wait_known(host: &Host, container: &Container) -> anyhow::Result<()> {
    let address = container.address().to_string();
    wait_until("a container that is known", PATIENCE, async || {
        let status = host.status().await.map_err(|error| error.to_string())?;
        match status.endpoints.iter().any(|it| it.address == address) {
            true => Ok(()),
            false => Err(format!("{:?}", status.endpoints)),
        }
    })
    .await?;
    Ok(())
}

/// The same behind the tag of the VLAN that a bridge takes off where it filters VLANs, with the programs
/// and after the runtime was killed.
pub(super) async fn hold_behind_tags(pair: &mut Pair) -> anyhow::Result<()> {
    step("a bridge that filters VLANs");
    filter(pair, true).await?;
    let [host, _] = pair.hosts();
    let mut scene = Scene::new(pair).await?;
    scene.tag = Some(UNTAGGED_VLAN);
    let before = drops(host).await?;
    scene.nothing_forged_arrives(pair)?;
    scene.is_counted(host, &before).await?;

    step("a port that no runtime has seen");
    pair.kill_first().await?;
    let [host, _] = pair.hosts();
    scene.no_new_port_is_a_router(host).await?;
    drop(scene);
    pair.start_first_again().await?;
    filter(pair, false).await
}

/// Has the first host's bridge filter VLANs or not, and waits until the runtime has seen it.
async fn filter(pair: &Pair, on: bool) -> anyhow::Result<()> {
    let [host, _] = pair.hosts();
    Links::of(host.netns())?.filter_vlans(BRIDGE, on).await?;
    wait_until(
        "rules that know how the bridge treats VLANs",
        PATIENCE,
        async || {
            let shown = ruleset(host).map_err(|error| format!("{error:#}"))?;
            let exempt = shown.contains("vlan id");
            (exempt != on).then_some(()).ok_or(shown)
        },
    )
    .await?;
    Ok(())
}

/// Both tables are there, and the runtime has no word of complaint.
pub(super) async fn tables(pair: &Pair) -> anyhow::Result<()> {
    for host in pair.hosts() {
        step(format!("the tables of {}", host.name()));
        wait_until("the packet filter's tables", PATIENCE, async || {
            let shown = ruleset(host).map_err(|error| format!("{error:#}"))?;
            let wanted = ["table inet quilt_mesh", "table bridge quilt_mesh"];
            let missing = wanted.into_iter().find(|it| !shown.contains(it));
            let status = host.status().await.map_err(|error| error.to_string())?;
            match (missing, kernel_path::others(status)) {
                (None, problems) if problems.is_empty() => Ok(()),
                (missing, problems) => Err(format!("without {missing:?}, {problems:?}: {shown}")),
            }
        })
        .await?;
    }
    let [host, _] = pair.hosts();
    progress::tell_standing(&standing(host).await?)
}

/// What a host has on this kernel.
async fn standing(host: &Host) -> anyhow::Result<Standing> {
    let status = host.status().await?;
    let fast_path = status.fast_path.unwrap_or_default();
    let mut programs: Vec<_> = fast_path
        .attachments
        .iter()
        .filter_map(|it| Some(it.split_once(": ")?.1.to_owned()))
        .filter(|it| it != COUNTS)
        .collect();
    programs.sort_unstable();
    programs.dedup();
    let shown = ruleset(host)?;
    let tables = shown
        .lines()
        .filter_map(|line| line.strip_prefix("table ")?.strip_suffix(" {"))
        .map(str::to_owned);
    Ok(Standing {
        release: kernel_path::release()?,
        attach_mode: fast_path.attach_mode,
        programs,
        tables: tables.collect(),
        reason: fast_path.reason,
    })
}

/// The rules of a host's packet filter, as nft prints them.
fn ruleset(host: &Host) -> anyhow::Result<String> {
    let output = host
        .netns()
        .command("nft")
        .args(["list", "ruleset"])
        .output()
        .context("cannot run nft")?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "nft list ruleset: {error}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

async fn drops(host: &Host) -> anyhow::Result<Drops> {
    Ok(host.status().await?.drops.into_iter().collect())
}

/// Who forges, and who would hear of it.
struct Scene {
    forger: Forger,
    /// What each forged frame is tagged with.
    tag: Option<(u16, u16)>,
    witness: PacketSocket,
    /// Whose interface the witness is on.
    _sibling: Container,
}

impl Scene {
    /// The first host's container, and a sibling whose addresses the runtime knows.
    async fn new(pair: &Pair) -> anyhow::Result<Self> {
        let ([host, _], [container, remote]) = (pair.hosts(), pair.containers());
        step("a sibling whose addresses are held");
        let without_programs = !has_fast_path()?;
        let sibling = host.add_container().await?;
        let address = sibling.address().to_string();
        let port = format!("{}: encapsulate", sibling.host_interface());
        wait_until("a guarded sibling", PATIENCE, async || {
            let status = host.status().await.map_err(|error| error.to_string())?;
            let known = status.endpoints.iter().any(|it| it.address == address);
            let fast_path = status.fast_path.unwrap_or_default();
            match known && (fast_path.attachments.contains(&port) || without_programs) {
                true => Ok(()),
                false => Err(format!("{fast_path:?}, endpoints {:?}", status.endpoints)),
            }
        })
        .await?;
        let forger = Forger {
            mac: mac_of(container.netns(), "eth0")?,
            address: container.address(),
            sibling_mac: mac_of(sibling.netns(), "eth0")?,
            sibling: sibling.address(),
            gateway_mac: mac_of(host.netns(), BRIDGE)?,
            gateway: host.bridge_address(BRIDGE).await?.addr(),
            overlay_mac: mac_of(host.netns(), "vxlan100")?,
            remote: remote.address(),
        };
        Ok(Self {
            witness: PacketSocket::open(sibling.netns(), "eth0")?,
            forger,
            tag: None,
            _sibling: sibling,
        })
    }

    fn nothing_forged_arrives(&self, pair: &Pair) -> anyhow::Result<()> {
        let [container, _] = pair.containers();
        for (name, frame, _) in self.forger.frames() {
            self.is_not_heard(container.netns(), &self.forger, name, &frame)?;
        }
        Ok(())
    }

    /// A container that comes while no runtime runs says that it is the gateway, and goes again.
    async fn no_new_port_is_a_router(&self, host: &Host) -> anyhow::Result<()> {
        let newcomer = host.add_container().await?;
        let forger = Forger {
            mac: mac_of(newcomer.netns(), "eth0")?,
            address: newcomer.address(),
            ..self.forger.clone()
        };
        for (name, frame) in forger.claims_of_a_router() {
            self.is_not_heard(newcomer.netns(), &forger, name, &frame)?;
        }
        Ok(())
    }

    /// Has a container send a forged frame, and markers after it, of which each must come before
    /// anything forged.
    fn is_not_heard(
        &self,
        container: &NetNs,
        forger: &Forger,
        name: &str,
        frame: &[u8],
    ) -> anyhow::Result<()> {
        step(format!("{name} is not heard"));
        let frame = match self.tag {
            Some(tag) => tagged(frame, &[tag]),
            None => frame.to_vec(),
        };
        let socket = PacketSocket::open(container, "eth0")?;
        let heard = container.run(|| {
            // What one processor sends the same way arrives in order. This thread is nobody else's.
            let mut one = CpuSet::new();
            one.set(0)?;
            sched_setaffinity(Pid::from_raw(0), &one)?;
            socket.send(&frame)?;
            (0..MARKERS).try_for_each(|number| {
                let marker = format!("marker {number} after {name}");
                self.comes_first(&socket, &forger.honest(marker.as_bytes()))
            })
        })?;
        heard.with_context(|| format!("{name} from {}", forger.address))
    }

    /// Sends a marker until it has arrived; nothing forged may arrive before.
    fn comes_first(&self, socket: &PacketSocket, marker: &[u8]) -> anyhow::Result<()> {
        let until = Instant::now() + PATIENCE;
        let is_forged = |frame: &[u8]| frame.windows(FORGED.len()).any(|part| part == FORGED);
        while Instant::now() < until {
            socket.send(marker)?;
            let wanted = |frame: &[u8]| is_forged(frame) || frame == marker;
            if let Some(frame) = self.witness.receive(RESEND, wanted)? {
                ensure!(!is_forged(&frame), "it was heard: {frame:02x?}");
                return Ok(());
            }
        }
        anyhow::bail!("what may be sent does not arrive either")
    }

    /// What was dropped since `before` is what was forged, each frame for its reason.
    async fn is_counted(&self, host: &Host, before: &Drops) -> anyhow::Result<()> {
        let mut expected = before.clone();
        for (_, frame, reason) in self.forger.frames() {
            // A tag below another hides what is behind it.
            let below = self.tag.is_some() && frame[12..14] == [0x81, 0];
            let reason = if below { "malformed" } else { reason };
            *expected.entry(reason.to_owned()).or_default() += 1;
        }
        wait_until("the drops' counters", PATIENCE, async || {
            let counted = drops(host).await.map_err(|error| error.to_string())?;
            match counted == expected {
                true => Ok(()),
                false => Err(format!("{counted:?} instead of {expected:?}")),
            }
        })
        .await?;
        Ok(())
    }
}

/// The MAC address of a namespace's interface.
pub(super) fn mac_of(namespace: &NetNs, interface: &str) -> anyhow::Result<[u8; 6]> {
    let mac = namespace.run(|| {
        let mut addresses = nix::ifaddrs::getifaddrs()?.filter(|it| it.interface_name == interface);
        anyhow::Ok(addresses.find_map(|it| it.address?.as_link_addr()?.addr()))
    })??;
    mac.with_context(|| format!("{interface} in {} has no MAC address", namespace.name()))
}
