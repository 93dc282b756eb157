//! The daemons' pages as they are served without any options.

use std::time::SystemTime;

use mesh_testbed::{Daemon, DaemonOptions, Signal, wait_until};

use crate::{
    cluster::{Cluster, DEADLINE, NODES},
    page::{AGENT, CONTROL, RUNTIME, get, page, told, value},
};

#[tokio::test]
async fn every_page_passes_promtool_and_tells_what_the_cluster_does() {
    let cluster = Cluster::start(Cluster::bed().await, |_| DaemonOptions::new()).await;
    let (host, control) = (&cluster.nodes()[0], cluster.testbed.control().netns());
    for (namespace, port) in [
        (host.netns(), RUNTIME),
        (host.netns(), AGENT),
        (control, CONTROL),
    ] {
        let page = page(namespace, port);
        let checked = told("promtool", &["check", "metrics"], &page);
        assert_eq!(checked.as_deref(), Ok(""), "port {port}: {page}");
        for path in ["/livez", "/readyz"] {
            let answer = get(namespace, port, path).unwrap();
            assert_eq!(answer, (200, "ok\n".to_owned()), "{path} of port {port}");
        }
    }

    // Both peers are reached, by the fast path, and packets go to and fro.
    wait_until("packets of both peers", DEADLINE, async || {
        let page = page(host.netns(), RUNTIME);
        let counted = ["host2", "host3"].map(|peer| {
            let packets = |way: &str| {
                let series =
                    format!("quilt_mesh_peer_{way}_packets_total{{peer=\"{peer}\",path=\"fast\"}}");
                value(&page, &series).unwrap_or_default()
            };
            let up = value(&page, &format!("quilt_mesh_peer_up{{peer=\"{peer}\"}}"));
            up == Some(1.0) && packets("transmit") > 100.0 && packets("receive") > 100.0
        });
        match counted {
            [true, true] => Ok(()),
            _ => Err(page),
        }
    })
    .await
    .unwrap();
    let of_runtime = page(host.netns(), RUNTIME);
    assert_eq!(value(&of_runtime, "quilt_mesh_peers"), Some(2.0));
    assert_eq!(value(&of_runtime, "quilt_mesh_endpoints"), Some(1.0));
    assert_eq!(
        value(&of_runtime, "quilt_mesh_overlay_mtu_bytes"),
        Some(1450.0)
    );
    assert_eq!(value(&of_runtime, "quilt_mesh_pool_addresses"), Some(253.0));
    // No address of a container is in it.
    assert!(!of_runtime.contains("10.42."), "{of_runtime}");

    let of_agent = page(host.netns(), AGENT);
    assert_eq!(value(&of_agent, "quilt_mesh_agent_registered"), Some(1.0));
    assert_eq!(
        value(&of_agent, "quilt_mesh_agent_peers{state=\"up\"}"),
        Some(2.0)
    );
    let lag = value(&of_agent, "quilt_mesh_agent_feed_lag_seconds").unwrap();
    assert!(lag < DEADLINE.as_secs_f64(), "{lag}");
    let expiry = "quilt_mesh_agent_certificate_expiry_timestamp_seconds";
    let days = |expiry: f64| {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
        (expiry - now) / 86_400.0
    };
    let left = days(value(&of_agent, expiry).unwrap());
    assert!((6.0..7.1).contains(&left), "{left}");

    let of_control = page(control, CONTROL);
    let nodes = "quilt_mesh_control_nodes{state=\"up\"}";
    assert_eq!(
        value(&of_control, nodes),
        Some(f64::from(u8::try_from(NODES).unwrap()))
    );
    let leased = "quilt_mesh_control_subnets{state=\"leased\"}";
    assert_eq!(value(&of_control, leased), Some(3.0));
    assert_eq!(
        value(&of_control, "quilt_mesh_control_database_up"),
        Some(1.0)
    );
    let expiry = "quilt_mesh_control_certificate_expiry_timestamp_seconds{certificate=\"mesh\"}";
    let left = days(value(&of_control, expiry).unwrap());
    assert!((29.0..30.1).contains(&left), "{left}");
}

#[tokio::test]
async fn what_the_runtime_puts_right_by_itself_is_counted_and_what_is_asked_of_it_is_not() {
    let cluster = Cluster::start(Cluster::bed().await, |_| DaemonOptions::new()).await;
    let host = &cluster.nodes()[0];
    let repairs = |what: &str| {
        let series = format!("quilt_mesh_repairs_total{{what=\"{what}\"}}");
        value(&page(host.netns(), RUNTIME), &series).unwrap()
    };
    // Three nodes have joined since it started, and a container came.
    for what in [
        "route",
        "neighbour",
        "forwarding_entry",
        "device",
        "firewall",
    ] {
        assert_eq!(
            repairs(what),
            0.0,
            "{what}: {}",
            page(host.netns(), RUNTIME)
        );
    }
    for (what, command) in [
        ("route", &["ip", "route", "delete", "10.42.2.0/24"][..]),
        ("device", &["ip", "link", "set", "vxlan100", "mtu", "1400"]),
        ("firewall", &["nft", "flush", "table", "inet", "quilt_mesh"]),
    ] {
        let status = host
            .netns()
            .command(command[0])
            .args(&command[1..])
            .status();
        assert!(status.unwrap().success(), "{command:?}");
        wait_until(what, DEADLINE, async || match repairs(what) {
            0.0 => Err(page(host.netns(), RUNTIME)),
            _ => Ok(()),
        })
        .await
        .unwrap();
    }
}

#[tokio::test]
async fn an_agent_is_not_ready_while_its_runtime_is_away_and_a_taken_port_stops_nobody() {
    let cluster = Cluster::start(Cluster::bed().await, |_| DaemonOptions::new()).await;
    let host = &cluster.nodes()[0];
    host.stop(Daemon::Runtime, Signal::SIGTERM, DEADLINE)
        .await
        .unwrap();
    wait_until("an agent that is not ready", DEADLINE, async || {
        match get(host.netns(), AGENT, "/readyz") {
            Ok((503, words)) if words.contains("the runtime has not taken the peers") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .unwrap();
    assert_eq!(get(host.netns(), AGENT, "/livez").unwrap().0, 200);

    let options = DaemonOptions::new().args(["--metrics-addr", "127.0.0.1:9472"]);
    host.start_runtime(&options).await.unwrap();
    let log = std::fs::read_to_string(host.log(Daemon::Runtime)).unwrap();
    assert!(
        log.contains("127.0.0.1:9472 is taken by another process"),
        "{log}"
    );
    wait_until(
        "an agent that is ready again",
        DEADLINE,
        async || match get(host.netns(), AGENT, "/readyz") {
            Ok((200, _)) => Ok(()),
            other => Err(format!("{other:?}")),
        },
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn an_address_beyond_loopback_is_refused_with_what_to_do() {
    let testbed = Cluster::bed().await;
    let host = &testbed.hosts()[0];
    for daemon in [Daemon::Runtime, Daemon::Agent] {
        let options = DaemonOptions::new().args(["--metrics-addr", "0.0.0.0:9400"]);
        host.spawn(daemon, &options).unwrap();
        let ended = wait_until("its end", DEADLINE, async || {
            let ended = host.exit_status(daemon).unwrap();
            ended.ok_or_else(|| "it runs".to_owned())
        });
        assert!(!ended.await.unwrap().success());
        let log = std::fs::read_to_string(host.log(daemon)).unwrap();
        assert!(log.contains("--metrics-token-file"), "{log}");
    }
}

#[tokio::test]
async fn a_control_plane_counts_what_it_finds_wrong_with_the_cluster() {
    let cluster = Cluster::start(Cluster::bed().await, |_| DaemonOptions::new()).await;
    let control = cluster.testbed.control().netns();
    let series = "quilt_mesh_problems{code=\"nodes-stopped\",severity=\"notice\"}";
    assert_eq!(value(&page(control, CONTROL), series), None);
    cluster.nodes()[1]
        .stop(Daemon::Agent, Signal::SIGTERM, DEADLINE)
        .await
        .unwrap();
    wait_until("a node that was stopped", DEADLINE, async || {
        let page = page(control, CONTROL);
        match value(&page, series) {
            Some(1.0) => Ok(()),
            _ => Err(page),
        }
    })
    .await
    .unwrap();
}
