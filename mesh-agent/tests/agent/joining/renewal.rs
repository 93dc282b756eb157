//! Certificates made anew.

use mesh_testbed::stepped_clock::SteppedClock;

use super::*;

/// The certificate that the last call of a node was made with expires at least so many days from now.
fn shows_days(control: &FakeControlPlane, days: i64) -> bool {
    control
        .mesh()
        .shown
        .last()
        .is_some_and(|expiry| *expiry > now() + days * DAY)
}

#[test]
fn a_certificate_is_renewed_after_two_thirds_of_its_life_and_no_call_fails_because_of_it() {
    let (control, host) = (FakeControlPlane::with_authority(), Host::new());
    control.add_peer(2);
    // At 4.66 days of 7 it is time, and for 0.35 days more a host may take its time.
    control.mesh().signed_ago.push_back(5 * DAY + DAY / 24);
    let agent = host.joined(&control);
    agent.until_logged("the certificate was renewed");
    agent.until("the new one is shown", || shows_days(&control, 6));
    let (beats, shown) = (control.heartbeats(), control.mesh().shown.len());
    agent.until("more calls", || control.heartbeats() > beats + 5);
    agent.until("questions as well", || {
        control.mesh().shown.len() > shown + 15
    });
    assert_eq!(control.mesh().renewals, 1);
    assert_eq!(control.registrations(), 1);
    assert_eq!(host.runtime.routes(), [2]);
    without_a_gap(&control, &agent);
}

/// Time goes on for a host and its control plane while the agent runs.
struct Time<'a> {
    host: SteppedClock,
    control: &'a FakeControlPlane,
}

impl Time<'_> {
    fn is(&self, seconds: i64) {
        // Both at once, or nearly: that they differ for a moment is noticed, and judged by the control plane's.
        self.control.mesh().clock_ahead = seconds;
        self.host.step(seconds).unwrap();
    }
}

#[test]
fn days_pass_for_an_agent_that_runs_and_for_one_that_slept_past_the_end_of_its_certificate() {
    let (control, host) = (FakeControlPlane::with_authority(), Host::new());
    let token = control.mesh().token(1);
    let time = Time {
        host: SteppedClock::new().unwrap(),
        control: &control,
    };
    let mut command = host.command(&control, &["--join", &token]);
    command.envs(time.host.environment());
    let agent = Agent::spawn(command);
    agent.until("its subnet", || host.runtime.state().subnet == subnet(1));
    time.is(4 * DAY);
    let beats = control.heartbeats();
    agent.until("heartbeats", || control.heartbeats() > beats + 5);
    assert_eq!(control.mesh().renewals, 0);
    time.is(5 * DAY + DAY / 24);
    agent.until("a renewal", || control.mesh().renewals == 1);
    agent.until("the new one is shown", || shows_days(&control, 11));
    assert_eq!(control.mesh().refusals, 0, "{:#?}", agent.log());
    for failure in ["heartbeat failed", "no node list", "cannot", " ERROR "] {
        assert_eq!(agent.logged(failure), 0, "{failure}: {:#?}", agent.log());
    }
    // Nobody renewed anything in those two weeks; the next question is refused, and that is why it is renewed.
    time.is(20 * DAY);
    agent.until("another renewal", || control.mesh().renewals == 2);
    agent.until("the newest is shown", || shows_days(&control, 26));
    let beats = control.heartbeats();
    agent.until("heartbeats", || control.heartbeats() > beats + 5);
    assert_eq!(control.mesh().joins.len(), 1);
}

#[test]
fn a_certificate_that_has_a_third_of_its_life_left_is_not_renewed_yet() {
    let (control, host) = (FakeControlPlane::with_authority(), Host::new());
    control.mesh().signed_ago.push_back(4 * DAY);
    let agent = host.joined(&control);
    let beats = control.heartbeats();
    agent.until("calls", || control.heartbeats() > beats + 10);
    assert_eq!(control.mesh().renewals, 0);
    without_a_gap(&control, &agent);
}

#[test]
fn other_authorities_are_learnt_of_at_once_and_one_takes_the_place_of_another_without_a_gap() {
    let (control, host) = (FakeControlPlane::with_authority(), Host::new());
    let agent = host.joined(&control);
    let first = host.read("node.pem");
    let authorities = || host.read("ca.pem").matches("BEGIN").count();
    assert_eq!(authorities(), 1);

    control.mesh().add_authority();
    agent.until("both are trusted", || authorities() == 2);
    control.mesh().signs = 1;
    let signs = control.mesh().signing().trusted().presented.name.clone();
    agent.until("the next one signed", || control.mesh().renewals >= 2);
    control.mesh().authorities.remove(0);
    control.mesh().signs = 0;
    agent.until("the first one is forgotten", || authorities() == 1);
    assert_ne!(host.read("node.pem"), first);
    assert_eq!(control.mesh().signing().trusted().presented.name, signs);
    let beats = control.heartbeats();
    agent.until("more heartbeats", || control.heartbeats() > beats + 5);
    assert_eq!(control.mesh().renewals, 3);
    without_a_gap(&control, &agent);
    // The token that it joined with may still stand in its unit file.
    drop(agent);
    let token = control.mesh().joins[0].token.clone();
    let (agent, before) = (
        host.agent(&control, &["--join", &token]),
        control.registrations(),
    );
    agent.until("a registration", || control.registrations() > before);
    assert_eq!(control.mesh().renewals, 3, "it knows this set");
}

#[test]
fn authorities_that_changed_while_the_agent_was_away_are_learnt_of_when_it_is_back() {
    let (control, host) = (FakeControlPlane::with_authority(), Host::new());
    drop(host.joined(&control));
    control.mesh().add_authority();
    let agent = host.agent(&control, &[]);
    agent.until_logged("the mesh has other authorities");
    agent.until_logged("the certificate was renewed");
    assert_eq!(host.read("ca.pem").matches("BEGIN").count(), 2);
    without_a_gap(&control, &agent);
}

#[test]
fn a_host_that_was_off_past_the_end_of_its_certificate_renews_it_before_anything_else() {
    let (control, host) = (FakeControlPlane::with_authority(), Host::new());
    drop(host.joined(&control));
    host.age(&control, 20);
    let (agent, before) = (host.agent(&control, &[]), control.registrations());
    agent.until_logged("has expired; it is made anew before anything else");
    agent.until("a registration", || control.registrations() > before);
    assert_eq!(control.mesh().renewals, 1);
    assert_eq!(control.mesh().joins.len(), 1);
    without_a_gap(&control, &agent);
    assert!(shows_days(&control, 6));
}

#[test]
fn a_host_that_was_off_for_longer_says_that_it_needs_a_token_and_is_its_node_again_with_one() {
    let (control, host) = (FakeControlPlane::with_authority(), Host::new());
    drop(host.joined(&control));
    host.age(&control, 38);
    let registered = control.registrations();
    let agent = host.agent(&control, &[]);
    agent.until_logged("quilt-mesh-control token create --node node1");
    assert_eq!(control.registrations(), registered);
    drop(agent);
    // The old token stands there still, and is refused.
    let used = control.mesh().joins[0].token.clone();
    let agent = host.agent(&control, &["--join", &used]);
    agent.until_logged("was used already");
    drop(agent);
    let token = control.mesh().token(1);
    let agent = host.agent(&control, &["--join", &token]);
    agent.until("a registration", || control.registrations() > registered);
    agent.until_logged("joined the mesh node_id=\"own-1\"");
    assert_eq!(control.mesh().refusals, 0);
}

#[test]
fn renewals_that_fail_are_said_once_the_louder_the_less_is_left() {
    for (signed_hours, said) in [
        (
            5 * 24,
            "WARN cannot-renew-certificate: cannot renew the certificate; trying",
        ),
        (
            6 * 24 + 12,
            "ERROR cannot-renew-certificate-expires-within: cannot renew the certificate, which expires within",
        ),
    ] {
        let (control, host) = (FakeControlPlane::with_authority(), Host::new());
        drop(host.joined(&control));
        host.age(&control, 0);
        control.mesh().renewals_refused = Some(Kind::DatabaseUnavailable);
        let key = NodeKeyPair::read(&host.path("node.key")).unwrap().unwrap();
        let request = Request::read(&key.request().unwrap()).unwrap();
        let signed = now() - signed_hours * 3600;
        let certificate = control
            .mesh()
            .signing()
            .sign_node(&request, "own-1", signed);
        fs::write(host.path("node.pem"), certificate.unwrap()).unwrap();
        let agent = host.agent(&control, &[]);
        agent.until("attempts", || control.mesh().renewals >= 4);
        assert_eq!(
            agent.logged("cannot renew the certificate"),
            1,
            "{:#?}",
            agent.log()
        );
        assert_eq!(agent.logged(said), 1, "{:#?}", agent.log());
        control.mesh().renewals_refused = None;
        agent.until_logged("the certificate was renewed");
        assert_eq!(control.mesh().refusals, 0);
    }
}
