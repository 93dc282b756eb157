//! Whatever becomes of it, it comes back, and nobody else notices.

use mesh_proto::mesh::GetStatusResponse;
use mesh_testbed::{
    Daemon, DaemonOptions, NetNs, Signal, UdpFlow, UdpFlowOptions, wait_reachable, wait_until,
};

use crate::{
    pair::{Pair, SOON, start_runtimes},
    scene::{PROBES_A, index, inside, knows, run, status_where, wait_gone, wait_probes},
};

#[tokio::test(flavor = "multi_thread")]
async fn whatever_somebody_does_to_it_it_comes_back() {
    let testbed = start_runtimes(&DaemonOptions::new(), &DaemonOptions::new()).await;
    let a = &testbed.hosts()[0];
    for change in [
        "ip link delete quilt-probe",
        "ip link set quilt-probe nomaster",
        "ip link set quilt-probe down",
    ] {
        wait_probes(a, PROBES_A).await;
        let before = index(a).unwrap();
        run(a.netns(), change);
        wait_until(change, SOON, || async {
            let now = index(a);
            let status = a.status().await.map_err(|error| error.to_string())?;
            match now.is_some_and(|it| it != before) && knows(&status, PROBES_A) {
                true => Ok(()),
                false => Err(format!("{before} {now:?} {:?}", status.probe_endpoint)),
            }
        })
        .await
        .unwrap();
        wait_reachable(a.netns(), PROBES_A, SOON).await.unwrap();
    }
    wait_probes(a, PROBES_A).await;
    let before = index(a).unwrap();
    inside(a, "ip address flush dev probe0");
    wait_until("its address", SOON, || async {
        let now = index(a);
        now.filter(|&it| it != before)
            .map(|_| ())
            .ok_or(format!("{now:?}"))
    })
    .await
    .unwrap();
    wait_reachable(a.netns(), PROBES_A, SOON).await.unwrap();
}

/// The namespace ends with the process, and with it the interface: nobody else is to notice.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_runtime_takes_it_away_and_brings_it_back_and_nobody_loses_a_packet() {
    let pair = Pair::start(&DaemonOptions::new()).await;
    pair.wait_fast().await;
    let (a, b) = (pair.host_a(), pair.host_b());
    wait_probes(a, PROBES_A).await;
    let routes = || run(a.netns(), "ip route show");
    let before = (routes(), index(a).unwrap());
    let options = UdpFlowOptions::default();
    let there = UdpFlow::start(pair.a.netns(), pair.b.netns(), pair.b.address(), options).unwrap();
    let back = UdpFlow::start(pair.b.netns(), pair.a.netns(), pair.a.address(), options).unwrap();
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        a.stop(Daemon::Runtime, signal, SOON).await.unwrap();
        wait_gone(a).await;
        assert_eq!(routes(), before.0);
        a.restart(Daemon::Runtime).unwrap();
        a.wait_ready(SOON).await.unwrap();
        wait_probes(a, PROBES_A).await;
    }
    for flow in [there, back] {
        let report = flow.stop().await.unwrap();
        assert!(report.outages.is_empty(), "{report:?}");
    }
    assert_eq!(routes(), before.0);
    assert_ne!(index(a).unwrap(), before.1);
    wait_reachable(b.netns(), PROBES_A, SOON).await.unwrap();
    assert_eq!(a.status().await.unwrap().problems(), Vec::<String>::new());
}

/// A runtime that comes before the kernel has taken the namespace away finds the interface still there.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_an_earlier_process_left_is_replaced() {
    let testbed = start_runtimes(&DaemonOptions::new(), &DaemonOptions::new()).await;
    let a = &testbed.hosts()[0];
    wait_probes(a, PROBES_A).await;
    a.stop(Daemon::Runtime, Signal::SIGKILL, SOON)
        .await
        .unwrap();
    wait_gone(a).await;
    let left = NetNs::new("left").await.unwrap();
    let path = left.path().display().to_string();
    let netns = path.rsplit('/').next().unwrap();
    run(
        a.netns(),
        "ip link add quilt-probe address fe:51:00:00:00:01 type veth peer name other",
    );
    run(a.netns(), "ip link set quilt-probe master quilt0 up");
    run(a.netns(), &format!("ip link set other netns {netns}"));
    let before = index(a).unwrap();
    a.restart(Daemon::Runtime).unwrap();
    a.wait_ready(SOON).await.unwrap();
    wait_probes(a, PROBES_A).await;
    assert_ne!(index(a), Some(before));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interface_of_its_name_that_somebody_else_made_is_left_alone_and_told() {
    let testbed = start_runtimes(&DaemonOptions::new(), &DaemonOptions::new()).await;
    let a = &testbed.hosts()[0];
    wait_probes(a, PROBES_A).await;
    a.stop(Daemon::Runtime, Signal::SIGKILL, SOON)
        .await
        .unwrap();
    wait_gone(a).await;
    run(
        a.netns(),
        "ip link add quilt-probe type veth peer name other",
    );
    let before = index(a).unwrap();
    a.restart(Daemon::Runtime).unwrap();
    a.wait_ready(SOON).await.unwrap();
    let told = |status: &GetStatusResponse| {
        let problems = status.problems();
        let mut problems = problems.iter();
        problems.any(|it| it.contains("no endpoint for probes (quilt-probe is a veth device"))
    };
    status_where(a, "the problem", told).await;
    assert_eq!(index(a), Some(before));
    run(a.netns(), "ip link delete quilt-probe");
    wait_probes(a, PROBES_A).await;
    status_where(a, "no problem", |status| status.problems().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cleaning_up_leaves_nothing_of_it() {
    let testbed = start_runtimes(&DaemonOptions::new(), &DaemonOptions::new()).await;
    let a = &testbed.hosts()[0];
    wait_probes(a, PROBES_A).await;
    a.stop(Daemon::Runtime, Signal::SIGKILL, SOON)
        .await
        .unwrap();
    // At once, whether the kernel has taken the namespace away by now or not.
    let mut command = a.netns().command(env!("CARGO_BIN_EXE_quilt-runtime"));
    let state = a.runtime_state_dir();
    let cleaned = command
        .arg("--cleanup")
        .args(["--bpffs".as_ref(), a.bpffs_dir().as_os_str()])
        .args(["--state-dir".as_ref(), state.as_os_str()])
        .args(["--socket".as_ref(), a.runtime_socket().as_os_str()])
        .output()
        .unwrap();
    assert!(cleaned.status.success(), "{cleaned:?}");
    let links = run(a.netns(), "ip -oneline link show");
    assert!(!links.contains("quilt"), "{links}");
}
