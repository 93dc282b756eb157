//! What happens to `vxlan100`: network managers, flapping links, and people with `ip`.

use crate::{
    fault::{Fault, Promise},
    scene::Scene,
};

/// Packets that are under way through a device when it vanishes go with it; after that the
/// fast path carries on, or the device is back.
const SOON: Promise = Promise::recovers_within(500);

pub(super) const FAULTS: &[Fault] = &[
    Fault::damage(
        "overlay-deleted",
        "`vxlan100` is deleted, and its routes, neighbours and forwarding entries with it",
        SOON,
        &["ip link delete vxlan100"],
    ),
    Fault::scene(
        "overlay-recreated",
        "`vxlan100` is deleted and made anew by somebody else, with another port and MAC address",
        SOON,
        |scene| Box::pin(recreated(scene)),
    )
    .in_ci()
    .quick(),
    Fault::damage(
        "overlay-mac",
        "the MAC address of `vxlan100` is rewritten",
        SOON,
        &["ip link set vxlan100 address 02:00:00:00:00:07"],
    ),
    Fault::damage(
        "overlay-down",
        "`vxlan100` is set down",
        SOON,
        &["ip link set vxlan100 down"],
    ),
    Fault::damage(
        "overlay-mtu",
        "the MTU of `vxlan100` is set to 1280",
        SOON,
        &["ip link set vxlan100 mtu 1280"],
    ),
];

async fn recreated(scene: &mut Scene) -> anyhow::Result<()> {
    scene
        .damage_unseen(&[
            "ip link delete vxlan100",
            "ip link add vxlan100 address 02:00:00:00:00:07 type vxlan id 100 dstport 8472 dev eth0",
        ])
        .await
}
