//! All faults, a file for each family.

mod bridge;
mod cluster;
mod containers;
mod control_plane;
mod daemons;
mod entries;
mod membership;
mod overlay_device;
mod partition;
mod programs;
mod random;
mod underlay;

use std::time::Duration;

use mesh_testbed::Deadline;

use crate::fault::Fault;
pub(crate) use membership::come_and_go_once;

/// How long a step that a fault consists of may take; every one is over within a second or two.
const SOON: Duration = Duration::from_secs(20);

/// The faults in the order in which they are done and documented.
pub(crate) fn all() -> Vec<Fault> {
    [
        overlay_device::FAULTS,
        bridge::FAULTS,
        entries::FAULTS,
        programs::FAULTS,
        underlay::FAULTS,
        partition::FAULTS,
        containers::FAULTS,
        daemons::FAULTS,
        cluster::FAULTS,
        control_plane::FAULTS,
        membership::FAULTS,
        random::FAULTS,
    ]
    .concat()
}

/// Waits until something is so.
async fn wait_for(
    what: &str,
    within: Duration,
    mut look: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let deadline = Deadline::after(within);
    while !look()? {
        if deadline.pause().await.is_err() {
            anyhow::bail!("no {what} within {} s", within.as_secs());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_fault_has_a_name_of_its_own_that_can_be_typed() {
        let all = all();
        let names: BTreeSet<&str> = all.iter().map(|fault| fault.name).collect();
        assert_eq!(names.len(), all.len());
        for name in names {
            let typed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(name.chars().all(typed), "{name}");
        }
    }
}
