//! What the agent finds wrong with its membership, and what it tells of its certificate.

use mesh_problems::catalog::agent::{
    CANNOT_JOIN, CERTIFICATE_ENDS_SOON, CERTIFICATE_EXPIRED, CERTIFICATE_NOT_RENEWED,
    CERTIFICATE_REFUSED, CLOCKS_DIFFER, JOIN_TOKEN_REFUSED,
};
use mesh_testbed::stepped_clock::SteppedClock;
use prost::Message as _;

use super::*;

#[test]
fn a_member_tells_its_certificate_and_no_secret() {
    let (control, host) = (FakeControlPlane::with_authority(), Host::new());
    let token = control.mesh().token(1);
    let file = host.path("token");
    fs::write(&file, &token).unwrap();
    let agent = host.agent(&control, &["--join-file", file.to_str().unwrap()]);
    agent.until("a certificate", || {
        agent
            .status()
            .certificate
            .is_some_and(|it| it.source == "mesh")
    });
    agent.until("a heartbeat", || control.heartbeats() > 0);
    // As much as can be wrong at once, with what was answered to it.
    control.state().tokens = Some(0);
    control.mesh().nodes.insert("own-1".to_owned(), None);
    agent.until_found(&CERTIFICATE_REFUSED);
    let status = agent.status();
    let certificate = status.certificate.clone().unwrap();
    let mesh = control.mesh();
    assert_eq!(status.mesh_id, mesh.signing().mesh().to_string());
    let authority = mesh.signing().trusted().key();
    assert_eq!(certificate.authorities, [authority.short()]);
    let end = now() + 7 * DAY;
    assert!((end - 600..=end).contains(&certificate.not_after));
    let renewal = now() + 7 * DAY / 3 * 2;
    assert!((renewal - 600..renewal + DAY / 2).contains(&certificate.renewal_at));

    let told = status.encode_to_vec();
    let tells = |secret: &[u8]| told.windows(secret.len()).any(|window| window == secret);
    assert!(tells(status.node_id.as_bytes()), "it would be found");
    let mut secrets = vec![token.clone()];
    // The secret in the token, the node's key, and each line of its private key.
    secrets.extend(token.rsplit('.').next().map(str::to_owned));
    secrets.push(host.read("node-key").trim().to_owned());
    let pem = host.read("node.key");
    secrets.extend(
        pem.lines()
            .filter(|line| !line.starts_with('-'))
            .map(str::to_owned),
    );
    if let Ok(token) = fs::read_to_string(host.path("node-token")) {
        secrets.push(token.trim().to_owned());
    }
    for secret in secrets {
        assert!(secret.len() > 8 && !tells(secret.as_bytes()), "{secret}");
    }
}

#[test]
fn a_host_that_cannot_join_or_whose_token_is_refused_is_found_until_it_has_joined() {
    let (mut control, host) = (FakeControlPlane::with_authority(), Host::new());
    let used = control.mesh().token(0);
    let file = host.path("token");
    fs::write(&file, &used).unwrap();
    control.stop();
    let agent = host.agent(&control, &["--join-file", file.to_str().unwrap()]);
    agent.until_found(&CANNOT_JOIN);
    control.resume();
    let observed = agent.until_found(&JOIN_TOKEN_REFUSED);
    assert!(observed.contains("was used already"), "{observed}");
    agent.until_over(&CANNOT_JOIN);
    let token = control.mesh().token(1);
    fs::write(&file, token).unwrap();
    agent.until_over(&JOIN_TOKEN_REFUSED);
    agent.until("its subnet", || host.runtime.state().subnet == subnet(1));
}

#[test]
fn a_certificate_that_is_refused_is_found_with_what_to_do_until_it_is_taken_again() {
    let (control, host) = (FakeControlPlane::with_authority(), Host::new());
    let agent = host.joined(&control);
    let known = control.mesh().nodes["own-1"];
    control.mesh().nodes.insert("own-1".to_owned(), None);
    agent.until_found(&CERTIFICATE_REFUSED);
    let remedy = agent.findings().remove(CERTIFICATE_REFUSED.code).unwrap();
    assert!(remedy.remedy.contains("--node node1"), "{remedy}");
    assert!(!agent.status().control_plane.unwrap().connected);
    control.mesh().nodes.insert("own-1".to_owned(), known);
    agent.until_over(&CERTIFICATE_REFUSED);
}

#[test]
fn a_certificate_that_is_not_renewed_is_found_ever_more_gravely_until_it_is() {
    let (control, host) = (FakeControlPlane::with_authority(), Host::new());
    drop(host.joined(&control));
    control.mesh().renewals_refused = Some(Kind::SlowDown);
    // Its 7 days end in 2 days, in 12 hours, and ended a day ago.
    for (seconds, kind) in [
        (5 * DAY + DAY / 12, &CERTIFICATE_NOT_RENEWED),
        (6 * DAY + DAY / 2, &CERTIFICATE_ENDS_SOON),
        (8 * DAY, &CERTIFICATE_EXPIRED),
    ] {
        let clock = SteppedClock::new().unwrap();
        clock.step(seconds).unwrap();
        control.mesh().clock_ahead = seconds;
        let mut command = host.command(&control, &[]);
        command.envs(clock.environment());
        let agent = Agent::spawn(command);
        let observed = agent.until_found(kind);
        let beats = control.heartbeats();
        assert!(observed.contains("expire"), "{observed}");
        let of_it = agent.findings();
        let of_it = of_it.keys().filter(|code| code.starts_with("certificate-"));
        assert_eq!(of_it.count(), 1);
        if kind == &CERTIFICATE_EXPIRED {
            control.mesh().renewals_refused = None;
            agent.until_over(kind);
            agent.until("a heartbeat", || control.heartbeats() > beats);
        }
    }
}

#[test]
fn clocks_that_differ_are_found_until_they_agree() {
    let (control, host) = (FakeControlPlane::with_authority(), Host::new());
    let agent = host.joined(&control);
    control.mesh().clock_ahead = 600;
    let observed = agent.until_found(&CLOCKS_DIFFER);
    assert!(
        observed.contains("which is 6") || observed.contains("which is 5"),
        "{observed}"
    );
    control.mesh().clock_ahead = 0;
    agent.until_over(&CLOCKS_DIFFER);
}
