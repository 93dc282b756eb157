//! `meshctl monitor`: what is told of packets while somebody looks, and that nothing is while nobody does. Needs root, nft
//! and bpftool.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    time::Duration,
};

use mesh_layout::VXLAN_PORT;
use mesh_testbed::{Daemon, DaemonOptions, Host, NetNs, PingOptions, Signal, ping, wait_until};
use nix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

mod pair;
use pair::{
    Forged, Pair, SOON,
    meshctl::{Running, has, output},
};

async fn once(from: &NetNs, to: Ipv4Addr) {
    let options = PingOptions {
        count: 3,
        ..PingOptions::default()
    };
    ping(from, to, options).await.unwrap();
}

/// Sends UDP from a host or container.
fn send(from: &NetNs, to: SocketAddrV4, payload: &[u8]) {
    let socket = from.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)));
    socket.unwrap().unwrap().send_to(payload, to).unwrap();
}

/// The entry of one of the maps, as bpftool shows it.
fn entry(host: &Host, map: &str) -> Value {
    let dump: Value = serde_json::from_str(&host.bpftool_dump(map).unwrap()).unwrap();
    dump[0].clone()
}

/// Until when the programs of a host tell, by its monotonic clock in nanoseconds.
fn told_until(host: &Host) -> u64 {
    let entry = entry(host, "watch");
    let value = entry["formatted"]["value"]["until_ns"].as_u64();
    value
        .or(entry["value"]["until_ns"].as_u64())
        .unwrap_or_else(|| panic!("{entry}"))
}

/// What the programs of a host have counted of what they told.
fn told(host: &Host) -> String {
    entry(host, "watch_stats").to_string()
}

async fn monitor(host: &Host, words: &str) -> Running {
    let running = Running::start(host, &format!("monitor --json {words}"));
    wait_until("the programs to tell", SOON, || async {
        match told_until(host) {
            0 => Err("nobody looks".to_owned()),
            _ => Ok(()),
        }
    })
    .await
    .unwrap();
    running
}

async fn wait_switched_off(host: &Host) {
    wait_until("the programs to tell no more", SOON, || async {
        match told_until(host) {
            0 => Ok(()),
            until => Err(format!("until {until}")),
        }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_programs_carry_leave_and_drop_is_told_with_its_reason_in_either_mode() {
    for mode in ["tcx", "clsact"] {
        let options = DaemonOptions::new().args(["--attach", mode]);
        let pair = Pair::start(&options).await;
        pair.wait_fast().await;
        let monitor = monitor(pair.host_a(), "-f").await;
        once(pair.a.netns(), pair.b.address()).await;
        let (a, b) = (pair.a.address().to_string(), pair.b.address().to_string());
        let host_b = pair.host_b();
        let peer = json!({"peer": "10.42.2.0/24", "peer_name": host_b.name()});
        let outer = [pair.host_a().address(), host_b.address()].map(|it| it.to_string());
        let sent = json!({
            "verdict": "forwarded", "path": "fast", "reason": "", "program": "encapsulate", "source": a,
            "destination": b, "protocol": "icmp", "length": 84, "vni": 100, "outer_source": outer[0],
            "outer_destination": outer[1], "interface": pair.a.host_interface(),
        });
        assert!(has(&monitor.wait_for(sent).await, &peer));
        let received = json!({
            "verdict": "delivered", "path": "fast", "reason": "", "program": "decapsulate", "source": b,
            "destination": a, "protocol": "icmp", "length": 84, "vni": 100, "outer_source": outer[1],
            "outer_destination": outer[0], "interface": "eth0",
        });
        assert!(has(&monitor.wait_for(received).await, &peer));

        // To its own host: the kernel's.
        send(
            pair.a.netns(),
            SocketAddrV4::new([10, 42, 1, 1].into(), 53),
            b"?",
        );
        let left = json!({
            "verdict": "passed", "path": "kernel", "reason": "not_peer", "source": a, "destination": "10.42.1.1",
            "destination_port": 53, "protocol": "udp", "peer": "",
        });
        monitor.wait_for(left).await;

        let forged = Forged::proper(pair.b.address(), pair.a.address(), 7777, b"forged").bytes();
        let target = SocketAddrV4::new(pair.host_a().address(), VXLAN_PORT);
        send(pair.stranger().netns(), target, &forged);
        let dropped = json!({
            "verdict": "dropped", "path": "fast", "reason": "unknown_vtep", "source": b, "destination": a,
            "destination_port": 7777, "source_port": 4444, "protocol": "udp",
            "outer_source": pair.stranger().address().to_string(), "peer": "",
        });
        monitor.wait_for(dropped).await;
        let (code, said) = monitor.end_by(Some(Signal::SIGINT)).await;
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("none was missed"), "{said}");
        wait_switched_off(pair.host_a()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_kernel_path_carries_is_told_as_such() {
    let options = DaemonOptions::new().args(["--fast-path", "off"]);
    let pair = Pair::start(&options).await;
    pair.wait_fast().await;
    let monitor = monitor(pair.host_a(), "-f").await;
    once(pair.a.netns(), pair.b.address()).await;
    let (a, b) = (pair.a.address().to_string(), pair.b.address().to_string());
    for event in [
        json!({"verdict": "passed", "reason": "forwarding_off", "program": "encapsulate", "source": a}),
        json!({"verdict": "forwarded", "path": "kernel", "program": "count_egress", "source": a, "destination": b}),
        json!({"verdict": "passed", "reason": "forwarding_off", "program": "decapsulate", "source": b, "destination": a}),
        json!({"verdict": "passed", "reason": "forwarding_off", "program": "safety_net", "source": b, "destination": a}),
    ] {
        monitor.wait_for(event).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_rule_of_ours_drops_is_told_with_the_rule_and_the_number() {
    let pair = Pair::start(&DaemonOptions::new()).await;
    pair.wait_fast().await;
    let stranger = pair.stranger().netns();
    let gateway = pair.host_a().address().to_string();
    let route = format!("route add 10.42.1.0/24 via {gateway}");
    let routed = stranger.command("ip").args(route.split(' ')).status();
    assert!(routed.unwrap().success());
    let monitor = monitor(pair.host_a(), "-f --drops").await;
    for _ in 0..3 {
        send(stranger, SocketAddrV4::new(pair.a.address(), 9), b"?");
    }
    let dropped = json!({"verdict": "dropped", "path": "kernel", "reason": "rule", "program": "inet quilt_mesh routed"});
    let event = monitor.wait_for(dropped).await;
    assert_eq!(event["rule"], "everything else", "{event}");
    assert!(event["packets"].as_u64().unwrap() > 0, "{event}");
    // One who claims to be of the mesh, by an earlier rule of that chain or before it.
    let address = "address add 10.42.7.7/32 dev lo";
    assert!(
        stranger
            .command("ip")
            .args(address.split(' '))
            .status()
            .unwrap()
            .success()
    );
    let socket = stranger.run(|| UdpSocket::bind((Ipv4Addr::new(10, 42, 7, 7), 0)));
    socket
        .unwrap()
        .unwrap()
        .send_to(b"?", SocketAddrV4::new(pair.a.address(), 9))
        .unwrap();
    monitor
        .wait_for(json!({"reason": "rule", "rule": "ip saddr 10.42.0.0/16"}))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_sees_what_it_asks_for_and_ends_by_itself_or_with_the_runtime() {
    let pair = Pair::start(&DaemonOptions::new()).await;
    pair.wait_fast().await;
    let host = pair.host_a();
    let of_peer = monitor(host, &format!("-f --peer {}", pair.host_b().name())).await;
    let drops = monitor(host, "-f --drops").await;
    let all = monitor(host, "-f").await;
    let last = monitor(host, "-f --peer 10.42.2.0/24").await;
    // There is room for four.
    let refused = output(host, "monitor");
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("4 look already"), "{said}");
    drop(last);

    send(
        pair.a.netns(),
        SocketAddrV4::new([10, 42, 1, 1].into(), 53),
        b"?",
    );
    all.wait_for(json!({"reason": "not_peer", "destination_port": 53}))
        .await;
    once(pair.a.netns(), pair.b.address()).await;
    of_peer.wait_for(json!({"verdict": "forwarded"})).await;
    send(
        pair.a.netns(),
        SocketAddrV4::new([10, 42, 1, 1].into(), VXLAN_PORT),
        &{ Forged::proper(pair.a.address(), pair.b.address(), 1, b"!").bytes() },
    );
    drops.wait_for(json!({"reason": "container_vxlan"})).await;
    all.wait_for(json!({"reason": "container_vxlan"})).await;
    let others = of_peer
        .documents()
        .into_iter()
        .filter(|it| it["peer"] != "10.42.2.0/24");
    assert_eq!(others.count(), 0);
    let others = drops
        .documents()
        .into_iter()
        .filter(|it| it["verdict"] != "dropped");
    assert_eq!(others.count(), 0);

    let nobody = output(host, "monitor --peer host9");
    let said = String::from_utf8(nobody.stderr).unwrap();
    assert_eq!(nobody.status.code(), Some(1), "{said}");
    assert!(said.contains("host9"), "{said}");

    // Whoever asks for no more than a moment is not held up by others, nor holds them up.
    drop(drops);
    let short = output(host, "monitor --seconds 0.5");
    assert_eq!(short.status.code(), Some(0), "{short:?}");
    let table = String::from_utf8(short.stdout).unwrap();
    let header: Vec<_> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(
        header,
        [
            "TIME", "(UTC)", "VERDICT", "SRC", "DST", "PROTO", "LEN", "PATH", "REASON"
        ]
    );

    host.stop(Daemon::Runtime, Signal::SIGTERM, SOON)
        .await
        .unwrap();
    for running in [of_peer, all] {
        let (code, said) = running.end_by(None).await;
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("the runtime ends"), "{said}");
    }
    assert_eq!(told_until(host), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_that_dies_leaves_programs_behind_that_soon_tell_no_more() {
    let pair = Pair::start(&DaemonOptions::new()).await;
    pair.wait_fast().await;
    let host = pair.host_a();
    let _monitor = monitor(host, "-f").await;
    host.kill(Daemon::Runtime, Signal::SIGKILL).unwrap();
    let until = Duration::from_nanos(told_until(host));
    assert_ne!(until, Duration::ZERO, "nobody was there to switch it off");
    wait_until("the end of what was asked for", SOON, || async {
        let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap());
        // The programs' clock goes by the kernel's ticks.
        match now > until + Duration::from_millis(50) {
            true => Ok(()),
            false => Err(format!("{now:?} of {until:?}")),
        }
    })
    .await
    .unwrap();
    let before = told(host);
    once(pair.a.netns(), pair.b.address()).await;
    assert_eq!(told(host), before, "told, although nobody looks");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_flood_a_bounded_part_is_told_and_the_rest_is_counted() {
    const PACKETS: u64 = 20_000;
    let pair = Pair::start(&DaemonOptions::new()).await;
    pair.wait_fast().await;
    let running = monitor(pair.host_a(), "-f").await;
    let to = SocketAddrV4::new(pair.b.address(), 9);
    let flood = pair.a.netns().run_blocking(move || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        (0..PACKETS)
            .filter(|_| socket.send_to(b"flood", to).is_ok())
            .count() as u64
    });
    let sent = flood.await.unwrap();
    // A mark at the end: what came before is counted by then. It is a drop, which no flood of others hides.
    let forged = Forged::proper(pair.b.address(), pair.a.address(), 7777, b"forged").bytes();
    let target = SocketAddrV4::new(pair.host_a().address(), VXLAN_PORT);
    send(pair.stranger().netns(), target, &forged);
    running.wait_for(json!({"reason": "unknown_vtep"})).await;
    let flooded = json!({"verdict": "forwarded", "destination_port": 9});
    let told_of =
        |documents: &[Value]| documents.iter().filter(|it| has(it, &flooded)).count() as u64;
    wait_until(
        "all that were sent to be told of or counted",
        SOON,
        || async {
            let documents = running.documents();
            let untold = documents
                .iter()
                .filter_map(|it| it["not_sampled"].as_u64())
                .max();
            match told_of(&documents) + untold.unwrap_or_default() {
                all if all >= sent => Ok(()),
                all => Err(format!("{all} of {sent}")),
            }
        },
    )
    .await
    .unwrap();
    let told = told_of(&running.documents());
    let (_, said) = running.end_by(Some(Signal::SIGINT)).await;
    assert!(
        said.contains("more packets were seen and not told of"),
        "{said}"
    );
    assert!(told > 0 && told < sent / 2, "{told} of {sent}: {said}");
}
