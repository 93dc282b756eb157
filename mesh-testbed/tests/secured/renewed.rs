//! Certificates are renewed: the days that it takes pass on a clock that all daemons share.

use mesh_testbed::{DaemonOptions, stepped_clock::SteppedClock};

use crate::mesh::{Mesh, agent_options, control_options};

const DAY: i64 = 24 * 60 * 60;

const RENEWED: &str = "the certificate was renewed";

fn of(clock: &SteppedClock, options: DaemonOptions) -> DaemonOptions {
    let environment = clock.environment().into_iter();
    environment.fold(options, |options, (name, path)| options.env(name, path))
}

#[tokio::test]
async fn certificates_are_renewed_and_one_that_has_expired_is_made_anew_without_losing_a_packet() {
    let clock = SteppedClock::new().unwrap();
    let mesh = Mesh::start(
        3,
        &of(&clock, control_options()),
        &of(&clock, agent_options()),
    )
    .await;
    let before = mesh.up(3).await;
    // Of seven days two thirds have passed, once and again; then more than all of them.
    for (times, days) in [(1, 5), (2, 10), (3, 20)] {
        // The latest that a host takes its time to is 5.01 days after the certificate before.
        let later = i64::try_from(times).unwrap() * DAY / 12;
        clock.step(days * DAY + later).unwrap();
        mesh.each_said(RENEWED, times).await;
        assert_eq!(mesh.up(3).await, before);
        mesh.flowing(200).await;
    }
    mesh.outlast_timeouts().await;
    assert_eq!(mesh.up(3).await, before);
    mesh.lost_nothing().await;
}
