//! Who carried what: the programs' own counters, and those of the VXLAN device, which the
//! kernel keeps and the fast path passes by.

use std::fs;

use anyhow::{Context as _, ensure};
use mesh_testbed::Host;

/// The overlay's device, through which the kernel path goes.
const OVERLAY_INTERFACE: &str = "vxlan100";

/// Packets, one way and the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Packets {
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

/// What a host has carried since some beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Carried {
    /// By the eBPF programs.
    pub(crate) fast_path: Packets,
    /// By the VXLAN device.
    pub(crate) kernel_path: Packets,
}

/// Packets by which runtimes may ask each other whether VXLAN gets through while something is measured, each way: two
/// hosts, twice each, with an answer.
const QUESTIONS: u64 = 8;

impl Packets {
    /// Whether these are so many, or as many and the runtimes' questions besides.
    pub(crate) fn is_or_with_questions(self, expected: Self) -> bool {
        let fits = |seen: u64, expected: u64| (expected..=expected + QUESTIONS).contains(&seen);
        fits(self.sent, expected.sent) && fits(self.received, expected.received)
    }

    fn since(self, before: Self) -> Self {
        Self {
            sent: self.sent.saturating_sub(before.sent),
            received: self.received.saturating_sub(before.received),
        }
    }
}

impl Carried {
    /// Reads both.
    pub(crate) async fn by(host: &Host) -> anyhow::Result<Self> {
        let peers = host.peers().await?.peers;
        ensure!(peers.len() == 1, "{} has peers {peers:?}", host.name());
        let counted = peers[0].fast_path.unwrap_or_default();
        let devices = host
            .netns()
            .run(|| fs::read_to_string("/proc/thread-self/net/dev"))?
            .context("cannot read the devices' counters")?;
        Ok(Self {
            fast_path: Packets {
                sent: counted.tx_packets,
                received: counted.rx_packets,
            },
            kernel_path: parse(&devices, OVERLAY_INTERFACE)
                .with_context(|| format!("{} has no {OVERLAY_INTERFACE}", host.name()))?,
        })
    }

    /// What was carried after `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            fast_path: self.fast_path.since(before.fast_path),
            kernel_path: self.kernel_path.since(before.kernel_path),
        }
    }
}

/// A device's packets in the table of proc_net_dev(5): eight columns received, eight sent,
/// packets in the second of each.
fn parse(table: &str, device: &str) -> Option<Packets> {
    let columns = table
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.trim() == device)?
        .1;
    let column = |index| columns.split_whitespace().nth(index)?.parse().ok();
    Some(Packets {
        received: column(1)?,
        sent: column(9)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_devices_packets_are_found_however_the_columns_run_together() {
        let table = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 1 2 0 0 0 0 0 0 1 3 0 0 0 0 0 0
vxlan1001:9 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9
vxlan100:4200 17 0 0 0 0 0 0 99 18 0 0 0 0 0 0
";
        assert_eq!(
            parse(table, "vxlan100"),
            Some(Packets {
                sent: 18,
                received: 17
            })
        );
        assert_eq!(parse(table, "vxlan10"), None);
    }
}
