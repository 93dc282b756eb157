//! What a ping tells a person.

use std::time::Duration;

use mesh_client::mesh::{CarriedBy, PathFinding, PathLeg, PathResult, PathSubject, Pong, Underlay};

use super::{Millis, answered, round_trips};

/// Whom it is about: `host2 (10.42.2.254)`.
fn name(subject: &PathSubject) -> String {
    match subject.hostname.as_str() {
        "" => subject.address.clone(),
        hostname => format!("{hostname} ({})", subject.address),
    }
}

/// What became of one question.
pub(super) fn line(subject: &PathSubject, pong: &Pong, timeout: Millis) -> String {
    let name = name(subject);
    if !pong.error.is_empty() {
        return format!("cannot ask {name}: {}", pong.error);
    }
    match pong.answered {
        true => format!(
            "pong from {name} by {} in {}",
            way(pong.out(), pong.r#in()),
            time(pong.round_trip_ns)
        ),
        false => format!(
            "nothing from {name} within {} s",
            Duration::from_millis(timeout.0.into()).as_secs_f64()
        ),
    }
}

/// What carried question and answer.
fn way(out: CarriedBy, back: CarriedBy) -> String {
    match out == back {
        true => path(out).to_owned(),
        false => format!("{} and back by {}", path(out), path(back)),
    }
}

fn path(carried_by: CarriedBy) -> &'static str {
    match carried_by {
        CarriedBy::Unknown => "a way that is not known",
        CarriedBy::FastPath => "the fast path",
        CarriedBy::KernelPath => "the kernel path",
        CarriedBy::Both => "both paths",
        CarriedBy::Bridge => "this node's bridge",
    }
}

fn time(nanoseconds: u64) -> String {
    // Exact to the nanosecond for the next hundred days.
    format!("{:.2} ms", nanoseconds as f64 / 1e6)
}

/// What came of all.
pub(super) fn summary(subject: &PathSubject, pongs: &[Pong], result: &PathResult) -> String {
    let answered = answered(pongs);
    let mut lines = vec![String::new()];
    let times = round_trips(pongs).map_or_else(String::new, |[min, median, max]| {
        format!(
            ", min {}, median {}, max {}",
            time(min),
            time(median),
            time(max)
        )
    });
    lines.push(format!(
        "{} of {} answered ({} % lost){times}",
        answered.len(),
        pongs.len(),
        (pongs.len() - answered.len()) * 100 / pongs.len().max(1),
    ));
    let local = subject.subnet.is_empty();
    let container = result.container.clone().unwrap_or_default();
    let kernel = result.kernel.clone().unwrap_or_default();
    let legs = match local {
        true => vec![("this node", &container)],
        false => vec![("as containers", &container), ("kernel path", &kernel)],
    };
    lines.extend(
        legs.into_iter()
            .map(|(name, leg)| format!("  {name:<14}{}", about(leg))),
    );
    if let Some(underlay) = &result.underlay {
        lines.push(format!(
            "  {:<14}{}",
            "underlay",
            about_underlay(subject, underlay)
        ));
    }
    if !local {
        lines.push(format!("  {:<14}{}", "overlay MTU", mtu(result)));
    }
    let findings = result.findings.iter();
    lines.extend(findings.map(|it| format!("{}: {}", it.severity, told(it))));
    lines.join("\n")
}

fn told(finding: &PathFinding) -> String {
    format!(
        "{}: {}; {}",
        finding.observed, finding.breaks, finding.remedy
    )
}

fn about(leg: &PathLeg) -> String {
    if !leg.error.is_empty() {
        return format!("not asked: {}", leg.error);
    }
    if leg.answered == 0 {
        return "no answer".to_owned();
    }
    let largest = match leg.largest {
        0 => "no large packet passes with DF".to_owned(),
        bytes => format!("up to {bytes} bytes pass with DF"),
    };
    format!(
        "answers by {} in {}, {largest}",
        path(leg.carried_by()),
        time(leg.round_trip_median_ns)
    )
}

fn about_underlay(subject: &PathSubject, underlay: &Underlay) -> String {
    let host = &subject.host_address;
    let over = match underlay.interface.as_str() {
        "" => String::new(),
        interface => format!(" over {interface}"),
    };
    if !underlay.error.is_empty() && !underlay.answered {
        return format!("{host}{over} not asked: {}", underlay.error);
    }
    if !underlay.answered {
        return format!("{host}{over} does not answer");
    }
    let largest = match underlay.largest {
        0 => String::new(),
        bytes => format!(", up to {bytes} bytes pass with DF"),
    };
    format!(
        "{host}{over} answers in {}{largest}",
        time(underlay.round_trip_ns)
    )
}

fn mtu(result: &PathResult) -> String {
    match result.peer_mtu {
        0 => format!("{} here, the peer has not told", result.mtu),
        peer => format!("{} here, {peer} there", result.mtu),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ping::tests::pong;

    fn subject() -> PathSubject {
        PathSubject {
            target: "host2".to_owned(),
            address: "10.42.2.254".to_owned(),
            subnet: "10.42.2.0/24".to_owned(),
            hostname: "host2".to_owned(),
            host_address: "192.0.2.2".to_owned(),
            source: "10.42.1.254".to_owned(),
            probe_endpoint: true,
        }
    }

    #[test]
    fn each_answer_is_a_line_that_tells_path_and_time() {
        let line = |pong: &Pong| line(&subject(), pong, Millis(1000));
        let fast = pong(CarriedBy::FastPath, CarriedBy::FastPath, 210_000);
        assert_eq!(
            line(&fast),
            "pong from host2 (10.42.2.254) by the fast path in 0.21 ms"
        );
        let mixed = pong(CarriedBy::FastPath, CarriedBy::KernelPath, 1_000_000);
        assert_eq!(
            line(&mixed),
            "pong from host2 (10.42.2.254) by the fast path and back by the kernel path in 1.00 ms"
        );
        assert_eq!(
            line(&Pong::default()),
            "nothing from host2 (10.42.2.254) within 1 s"
        );
        let error = Pong {
            error: "Network is unreachable".to_owned(),
            ..Pong::default()
        };
        assert_eq!(
            line(&error),
            "cannot ask host2 (10.42.2.254): Network is unreachable"
        );
    }
}
