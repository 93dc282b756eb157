//! Whether what arrives has right checksums. Pure.

use mesh_problems::{
    Problem,
    catalog::host::{CHECKSUMS_WRONG, OFFLOAD_DOUBTFUL},
};

/// Single ones come from anywhere, as broken packets do on any network.
const FEW: u64 = 3;

/// Of how many UDP datagrams the host has found a wrong checksum, before and after a while.
pub(crate) fn judge(before: Option<u64>, after: Option<u64>) -> Option<Problem> {
    let more = after?.saturating_sub(before?);
    (more >= FEW).then(|| {
        Problem::new(
            &CHECKSUMS_WRONG,
            format!(
                "{more} UDP datagrams with a wrong checksum came while this host was looked at (InCsumErrors of /proc/net/snmp)"
            ),
        )
    })
}

/// What a card does for the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Card {
    /// Of the interface.
    pub(crate) name: String,
    pub(crate) driver: String,
    /// Names of the features that are on, as ethtool(8) has them.
    pub(crate) features: Vec<String>,
}

/// Drivers that have spoilt what they cut up or sum up inside of UDP: vmxnet3, from the version on that offloads tunnels
/// (projectcalico/calico#7040, deckhouse/deckhouse#10087; OpenShift's nodes on vSphere switch it off by
/// `99-vsphere-disable-tx-udp-tnl`).
const DOUBTFUL: [&str; 1] = ["vmxnet3"];
/// Cutting up UDP tunnels, without and with an outer checksum (`NETIF_F_GSO_UDP_TUNNEL`, `…_CSUM`).
const CUTS: [&str; 2] = ["tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation"];

/// Cards that are known to have done it wrongly, as they are set now.
pub(crate) fn doubtful(cards: &[Card]) -> Vec<Problem> {
    let doubtful = cards.iter().filter(|card| {
        let cuts = |feature: &String| CUTS.contains(&feature.as_str());
        DOUBTFUL.contains(&card.driver.as_str()) && card.features.iter().any(cuts)
    });
    doubtful
        .map(|Card { name, driver, .. }| {
            Problem::new(
                &OFFLOAD_DOUBTFUL,
                format!("{name} is driven by {driver}, and cuts up VXLAN itself (tx-udp_tnl-segmentation)"),
            )
            .remedied_by(format!(
                "if connections between containers hang, switch it off (ethtool -K {name} tx-udp_tnl-segmentation off \
                 tx-udp_tnl-csum-segmentation off; and if that is not enough, tx-checksum-ip-generic off)"
            ))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_is_doubtful_by_its_driver_as_long_as_it_cuts_up_vxlan() {
        let card = |driver: &str, feature: &str| Card {
            name: "ens192".to_owned(),
            driver: driver.to_owned(),
            features: vec!["rx-gro".to_owned(), feature.to_owned()],
        };
        assert_eq!(doubtful(&[card("vmxnet3", CUTS[0])]).len(), 1);
        assert_eq!(doubtful(&[card("vmxnet3", "tx-generic-segmentation")]), []);
        assert_eq!(doubtful(&[card("ixgbe", CUTS[0])]), []);
    }

    #[test]
    fn wrong_checksums_that_keep_coming_are_told_and_those_of_the_past_are_not() {
        assert_eq!(judge(Some(1000), Some(1002)), None);
        assert!(judge(Some(1000), Some(1003)).is_some());
        assert_eq!(judge(None, Some(1003)), None);
    }
}
