//! Tells everything once: what several found is told by who knows it best, and what only follows from something else is
//! left to its cause. Pure.

use mesh_problems::{
    Finding, Kind,
    catalog::{
        agent::{OWN_ADDRESS_CLAIMED, PEERS_REFUSED, RUNTIME_LOST, SUBNET_REFUSED},
        dataplane::{
            DEVICE_NAME_TAKEN, FOREIGN_FIREWALL, FOREIGN_ROUTE, FOREIGN_ROUTE_TO_PART,
            HOST_ADDRESS_NOT_HERE, IPSEC_POLICY, KERNEL_REFUSES, NO_GUARD_PROGRAMS,
            NO_HOST_ADDRESS, NO_ROUTE_TO_PEERS, POLICY_RULE, UNDERLAY_NOT_ETHERNET,
            VXLAN_SWALLOWED, VXLAN_TAKEN,
        },
        host::{
            ADDRESS_ELSEWHERE, CHECKSUMS_WRONG, FILTER_WOULD_DROP, HOST_ADDRESS_ON_OVERLAY,
            IPSEC_OVERLAY, MAC_CHANGED, MAC_OF_PEER, OWN_SUBNET_DIVERTED, PACKETS_IMPAIRED,
            PACKETS_TAKEN, STRICT_FILTERING, UNDERLAY_DIVERTED, UNDERLAY_OVER_OVERLAY,
        },
        local::RUNTIME_DOWN,
        path::{
            FAST_PATH_SILENT, KERNEL_PATH_SILENT, NO_PROBE_ENDPOINT, PATH_LOSSY, PATH_NOT_FAST,
            PEER_HOST_SILENT, PEER_NOT_SET_UP, VXLAN_NOT_THROUGH,
        },
    },
};

/// What a way to a peer shows when something on this host keeps its packets.
const SILENT: &[&Kind] = &[
    &PEER_HOST_SILENT,
    &VXLAN_NOT_THROUGH,
    &FAST_PATH_SILENT,
    &KERNEL_PATH_SILENT,
    &PATH_LOSSY,
    &VXLAN_SWALLOWED,
];
/// What it shows when this node has no way there.
const NOT_SET_UP: &[&Kind] = &[&PEER_NOT_SET_UP];
/// The same of the fast path.
const NOT_FAST: &[&Kind] = &[&PATH_NOT_FAST];

/// What the agent says when the runtime cannot do what it asks.
const REFUSED: &[&Kind] = &[&SUBNET_REFUSED, &PEERS_REFUSED];

/// Causes, and what is told of each when it is there.
const FOLLOW: &[(&Kind, &[&[&Kind]])] = &[
    (&FOREIGN_ROUTE, &[NOT_SET_UP, SILENT, NOT_FAST]),
    (&FOREIGN_ROUTE_TO_PART, &[SILENT]),
    // A rule for the whole cluster is mended by one command.
    (&POLICY_RULE, &[SILENT, NOT_SET_UP, &[&OWN_SUBNET_DIVERTED]]),
    (&DEVICE_NAME_TAKEN, &[NOT_SET_UP, SILENT, NOT_FAST, REFUSED]),
    (&VXLAN_TAKEN, &[NOT_SET_UP, SILENT, NOT_FAST, REFUSED]),
    (&KERNEL_REFUSES, &[NOT_SET_UP, SILENT, NOT_FAST, REFUSED]),
    (&NO_HOST_ADDRESS, &[NOT_SET_UP, SILENT, NOT_FAST]),
    (&HOST_ADDRESS_NOT_HERE, &[NOT_SET_UP, SILENT, NOT_FAST]),
    (&NO_ROUTE_TO_PEERS, &[NOT_SET_UP, SILENT, NOT_FAST]),
    (
        &UNDERLAY_DIVERTED,
        &[SILENT, NOT_FAST, &[&UNDERLAY_NOT_ETHERNET]],
    ),
    (
        &UNDERLAY_OVER_OVERLAY,
        &[SILENT, NOT_FAST, NOT_SET_UP, &[&STRICT_FILTERING]],
    ),
    (&HOST_ADDRESS_ON_OVERLAY, &[SILENT, NOT_FAST]),
    (&IPSEC_POLICY, &[SILENT, NOT_FAST]),
    (&IPSEC_OVERLAY, &[SILENT]),
    (&STRICT_FILTERING, &[SILENT]),
    (&FOREIGN_FIREWALL, &[SILENT]),
    (&FILTER_WOULD_DROP, &[SILENT]),
    (&PACKETS_TAKEN, &[SILENT]),
    (&PACKETS_IMPAIRED, &[SILENT]),
    (&MAC_CHANGED, &[SILENT]),
    (&MAC_OF_PEER, &[SILENT]),
    (&ADDRESS_ELSEWHERE, &[SILENT, &[&MAC_OF_PEER]]),
    (&CHECKSUMS_WRONG, &[SILENT]),
    (&OWN_ADDRESS_CLAIMED, &[SILENT]),
    (
        &VXLAN_SWALLOWED,
        &[&[&VXLAN_NOT_THROUGH, &FAST_PATH_SILENT, &KERNEL_PATH_SILENT]],
    ),
    (&UNDERLAY_NOT_ETHERNET, &[NOT_FAST]),
    (&NO_GUARD_PROGRAMS, &[NOT_FAST, &[&NO_PROBE_ENDPOINT]]),
    (&RUNTIME_DOWN, &[&[&RUNTIME_LOST]]),
];

/// What is found here, and what the runtime says of the same thing more closely.
const SAME: &[(&Kind, &Kind)] = &[
    (&FOREIGN_ROUTE, &FOREIGN_ROUTE_TO_PART),
    (&FILTER_WOULD_DROP, &FOREIGN_FIREWALL),
];

/// One list of what daemons told and what was found beside them.
pub(super) fn once(told: Vec<Finding>, found: Vec<Finding>) -> Vec<Finding> {
    let is_told = |code: &str| told.iter().any(|it| it.code == code);
    // The runtime has looked longer, and knows since when.
    let known = |code: &str| {
        let mut same = SAME.iter().filter(|(it, _)| it.code == code);
        is_told(code) || same.any(|(_, closer)| is_told(closer.code))
    };
    let news: Vec<Finding> = found.into_iter().filter(|it| !known(&it.code)).collect();
    let mut all = told;
    for finding in news {
        if !all.contains(&finding) {
            all.push(finding);
        }
    }
    let there: Vec<String> = all.iter().map(|it| it.code.clone()).collect();
    let follows = |code: &str| {
        let causes = FOLLOW.iter().filter(|(cause, effects)| {
            effects
                .iter()
                .any(|effects| effects.iter().any(|effect| effect.code == code))
                && cause.code != code
        });
        causes
            .into_iter()
            .any(|(cause, _)| there.iter().any(|it| it == cause.code))
    };
    let (hidden, mut all): (Vec<Finding>, Vec<Finding>) =
        all.into_iter().partition(|finding| follows(&finding.code));
    // What is left to its cause is as grave there: of something that may do harm it shows that it does.
    for cause in &mut all {
        let effects = FOLLOW.iter().find(|(it, _)| it.code == cause.code);
        let effects = effects.map(|(_, effects)| effects.concat());
        let effects = effects.unwrap_or_default();
        let followed = hidden
            .iter()
            .filter(|it| effects.iter().any(|effect| effect.code == it.code));
        let gravest = followed.map(|it| it.severity).max();
        cause.severity = gravest.map_or(cause.severity, |it| it.max(cause.severity));
    }
    all
}

#[cfg(test)]
mod tests {
    use mesh_problems::Problem;

    use super::*;

    fn finding(kind: &'static Kind, since: u64) -> Finding {
        Finding::of(&Problem::new(kind, ""), since)
    }

    fn codes(findings: &[Finding]) -> Vec<&str> {
        findings.iter().map(|it| it.code.as_str()).collect()
    }

    #[test]
    fn what_the_runtime_told_is_not_told_again() {
        let told = vec![finding(&POLICY_RULE, 100)];
        let all = once(told, vec![finding(&POLICY_RULE, 500)]);
        assert_eq!((codes(&all), all[0].since), (vec!["policy-rule"], 100));
        let told = vec![finding(&FOREIGN_ROUTE_TO_PART, 100)];
        let all = once(told, vec![finding(&FOREIGN_ROUTE, 500)]);
        assert_eq!(codes(&all), ["foreign-route-to-part"]);
    }

    #[test]
    fn of_several_of_one_kind_each_is_told() {
        let [one, other] = ["of eth0", "of eth1"]
            .map(|observed| Finding::of(&Problem::new(&PACKETS_TAKEN, observed), 0));
        let all = once(Vec::new(), vec![one.clone(), one, other]);
        assert_eq!(codes(&all), ["packets-taken", "packets-taken"]);
    }

    #[test]
    fn what_follows_from_something_else_is_left_to_its_cause() {
        let found = vec![
            finding(&PEER_HOST_SILENT, 500),
            finding(&PACKETS_TAKEN, 500),
        ];
        assert_eq!(codes(&once(Vec::new(), found)), ["packets-taken"]);
        let alone = vec![finding(&PEER_HOST_SILENT, 500)];
        assert_eq!(codes(&once(Vec::new(), alone)), ["peer-host-silent"]);
    }

    #[test]
    fn a_cause_is_as_grave_as_what_follows_from_it() {
        let found = vec![
            finding(&PEER_HOST_SILENT, 500),
            finding(&STRICT_FILTERING, 500),
        ];
        let all = once(Vec::new(), found);
        assert_eq!(codes(&all), ["strict-filtering"]);
        assert_eq!(all[0].severity, PEER_HOST_SILENT.severity);
        let alone = once(Vec::new(), vec![finding(&STRICT_FILTERING, 500)]);
        assert_eq!(alone[0].severity, STRICT_FILTERING.severity);
    }

    #[test]
    fn no_two_follow_from_each_other() {
        for (cause, effects) in FOLLOW {
            for effect in effects.iter().copied().flatten() {
                let back = FOLLOW.iter().find(|(it, _)| it == effect);
                let back = back.is_some_and(|(_, effects)| {
                    effects.iter().copied().flatten().any(|it| it == cause)
                });
                assert!(!back, "{} and {}", cause.code, effect.code);
            }
        }
    }
}
