//! What came of asking along a way, as the REST interface tells it.

use ipnet::Ipv4Net;
use mesh_rest::check::{MOST_FINDINGS, WayChecked, WayFinding};

use crate::mesh::{CarriedBy, PathResult};

/// The way to one peer; `None`, if the result does not say to which.
#[must_use]
pub fn checked(result: &PathResult) -> Option<WayChecked> {
    let subject = result.subject.clone().unwrap_or_default();
    // Of one that could not be asked there is the target alone, which is the subnet where all were asked.
    let subnet = [&subject.subnet, &subject.target]
        .into_iter()
        .find_map(|text| text.parse::<Ipv4Net>().ok())?;
    let [container, kernel] =
        [&result.container, &result.kernel].map(|leg| leg.clone().unwrap_or_default());
    let underlay = result.underlay.clone().unwrap_or_default();
    let carried_by = match container.carried_by() {
        CarriedBy::FastPath => Some("fast"),
        CarriedBy::KernelPath => Some("kernel"),
        CarriedBy::Both => Some("mixed"),
        CarriedBy::Unknown | CarriedBy::Bridge => None,
    };
    let findings = result.findings.iter().take(MOST_FINDINGS);
    let largest = container.largest.max(kernel.largest);
    Some(WayChecked {
        subnet,
        error: (!result.error.is_empty()).then(|| result.error.clone()),
        containers_us: micros(container.answered > 0, container.round_trip_median_ns),
        carried_by: carried_by.map(str::to_owned),
        kernel_us: micros(kernel.answered > 0, kernel.round_trip_median_ns),
        underlay_us: micros(underlay.answered, underlay.round_trip_ns),
        largest: (largest > 0).then_some(largest),
        heard_ms: None,
        findings: findings
            .map(|finding| WayFinding {
                code: finding.code.clone(),
                severity: finding.severity.clone(),
                observed: finding.observed.clone(),
            })
            .collect(),
    })
}

fn micros(answered: bool, nanoseconds: u64) -> Option<u32> {
    answered.then(|| u32::try_from(nanoseconds.div_ceil(1000)).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::{PathLeg, PathSubject, Underlay};

    #[test]
    fn what_was_not_answered_has_no_time_and_what_was_is_rounded_up() {
        let mut leg = PathLeg {
            answered: 1,
            round_trip_median_ns: 210_001,
            largest: 1450,
            ..PathLeg::default()
        };
        leg.set_carried_by(CarriedBy::FastPath);
        let result = PathResult {
            subject: Some(PathSubject {
                subnet: "10.42.2.0/24".to_owned(),
                ..PathSubject::default()
            }),
            container: Some(leg),
            kernel: Some(PathLeg::default()),
            underlay: Some(Underlay::default()),
            ..PathResult::default()
        };
        let way = checked(&result).unwrap();
        assert_eq!(way.subnet, "10.42.2.0/24".parse().unwrap());
        assert_eq!(
            (way.containers_us, way.kernel_us, way.underlay_us),
            (Some(211), None, None)
        );
        assert_eq!(way.carried_by.as_deref(), Some("fast"));
        assert_eq!((way.largest, way.error), (Some(1450), None));
    }

    #[test]
    fn one_that_was_not_asked_is_named_by_what_was_asked_for() {
        let result = PathResult {
            subject: Some(PathSubject {
                target: "10.42.9.0/24".to_owned(),
                ..PathSubject::default()
            }),
            error: "not asked".to_owned(),
            ..PathResult::default()
        };
        let way = checked(&result).unwrap();
        assert_eq!(way.subnet, "10.42.9.0/24".parse().unwrap());
        assert_eq!(way.error.as_deref(), Some("not asked"));
        assert_eq!(checked(&PathResult::default()), None);
    }
}
