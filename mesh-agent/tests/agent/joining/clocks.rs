//! Clocks that are wrong are named.

use super::*;

#[test]
fn a_clock_that_is_too_far_off_for_tls_is_named_both_ways_and_once() {
    for (ahead, host_is) in [(40 * DAY, "behind"), (-40 * DAY, "ahead")] {
        let (control, host) = (FakeControlPlane::with_authority(), Host::new());
        let token = control.mesh().token(1);
        control.mesh().clock_ahead = ahead;
        let agent = host.agent(&control, &["--join", &token]);
        agent.until_logged("and this host's clock shows");
        assert_eq!(agent.logged("its certificate holds from"), 1, "{host_is}");
        control.mesh().clock_ahead = 0;
        agent.until("its subnet", || host.runtime.state().subnet == subnet(1));
        assert_eq!(
            agent.logged("its certificate holds from"),
            1,
            "{host_is}: {:#?}",
            agent.log()
        );
        assert!(agent.logged("set the clock") == 1, "{:#?}", agent.log());
    }
}

#[test]
fn clocks_that_differ_are_named_once_and_once_more_when_they_agree_again() {
    let (control, host) = (FakeControlPlane::with_authority(), Host::new());
    let agent = host.joined(&control);
    for ahead in [600, -600] {
        let said = agent.logged("show different times");
        let agreed = agent.logged("show the same time again");
        control.mesh().clock_ahead = ahead;
        agent.until("the difference is said", || {
            agent.logged("show different times") > said
        });
        let beats = control.heartbeats();
        agent.until("more heartbeats", || control.heartbeats() > beats + 5);
        assert_eq!(agent.logged("show different times"), said + 1);
        control.mesh().clock_ahead = 0;
        agent.until("agreement", || {
            agent.logged("show the same time again") == agreed + 1
        });
    }
    let named = |log: &str| {
        log.contains("ours=\"20") && log.contains("theirs=\"20") && log.contains("difference_s=")
    };
    let log = agent.log();
    assert!(
        log.iter()
            .any(|line| line.contains("different times") && named(line)),
        "{log:#?}"
    );
}

#[test]
fn a_certificate_is_judged_by_the_control_planes_clock_and_not_renewed_again_and_again() {
    let (control, host) = (FakeControlPlane::with_authority(), Host::new());
    drop(host.joined(&control));
    // By the host's clock it has six hours left; by the control plane's, three days.
    host.age(&control, 4);
    control.mesh().clock_ahead = -DAY / 48;
    let agent = host.agent(&control, &[]);
    agent.until_logged("show different times");
    let beats = control.heartbeats();
    agent.until("more heartbeats", || control.heartbeats() > beats + 10);
    assert_eq!(control.mesh().renewals, 0, "{:#?}", agent.log());
}
