//! `meshctl capture`, read with tcpdump: both directions, on either path and however programs are attached. Needs root, nft
//! and tcpdump.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "functions of tests, which may panic like tests"
)]

use std::{
    fs::File,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
};

use mesh_testbed::{DaemonOptions, NetNs, PingOptions, Signal, ping, wait_until};

mod pair;
use pair::{
    Pair, SOON,
    meshctl::{Running, meshctl, output},
};

/// What tcpdump says of a file.
fn tcpdump(file: &Path) -> String {
    let output = Command::new("tcpdump")
        .args(["-nn", "-r"])
        .arg(file)
        .output();
    let output =
        output.unwrap_or_else(|error| panic!("tcpdump is not there ({error}): cargo xtask setup"));
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Waits until whoever captures has said that it does: the file has its header then.
async fn wait_begun(file: &Path) {
    wait_until("the file of the capture", SOON, || async {
        match file.metadata() {
            Ok(metadata) if metadata.len() >= 24 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .unwrap();
}

async fn pings(from: &NetNs, to: Ipv4Addr, count: u16) {
    let options = PingOptions {
        count,
        ..PingOptions::default()
    };
    let report = ping(from, to, options).await.unwrap();
    assert!(report.is_complete(), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn both_directions_of_a_peers_traffic_are_captured_on_either_path_and_in_either_mode() {
    for options in [
        ["--attach", "tcx"],
        ["--attach", "clsact"],
        ["--fast-path", "off"],
    ] {
        let pair = Pair::start(&DaemonOptions::new().args(options)).await;
        pair.wait_fast().await;
        let host = pair.host_a();
        let before = pair::counters(host).await;
        let file = host.dir().join("capture.pcap");
        let words = format!(
            "capture {} --count 6 -w {}",
            pair.host_b().name(),
            file.display()
        );
        let running = Running::start(host, &words);
        wait_begun(&file).await;
        pings(pair.a.netns(), pair.b.address(), 3).await;
        let (code, said) = running.end_by(None).await;
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("6 packets captured, 0 lost"), "{said}");
        let after = pair::counters(host).await;
        let [before, after] = [before, after].map(|it| it.fast_path.unwrap_or_default());
        let carried = options[0] == "--attach";
        assert_eq!(after.tx_packets > before.tx_packets, carried, "{options:?}");
        assert_eq!(after.rx_packets > before.rx_packets, carried, "{options:?}");

        let shown = tcpdump(&file);
        let (a, b) = (pair.a.address(), pair.b.address());
        let [here, there] = [host, pair.host_b()].map(|host| host.address());
        for (from, to, inner_from, inner_to, what) in
            [(here, there, a, b, "request"), (there, here, b, a, "reply")]
        {
            let outer = format!(" {from}.");
            let into = format!(" > {to}.4789: VXLAN, flags [I] (0x08), vni 100");
            let inner = format!("IP {inner_from} > {inner_to}: ICMP echo {what}");
            let outers = shown
                .lines()
                .filter(|line| line.contains(&outer) && line.contains(&into));
            let inners = shown.lines().filter(|line| line.contains(&inner));
            assert_eq!(
                (outers.count(), inners.count()),
                (3, 3),
                "{options:?}: {shown}"
            );
        }
        // Of this peer alone, and for nobody else.
        assert_eq!(shown.matches("VXLAN").count(), 6, "{shown}");
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_inside_is_captured_alone_and_a_pipe_is_fed_as_it_comes() {
    let pair = Pair::start(&DaemonOptions::new()).await;
    pair.wait_fast().await;
    let host = pair.host_a();
    let (a, b) = (pair.a.address(), pair.b.address());
    let file = host.dir().join("inner.pcap");
    let words = format!("capture {b} --decap -f -w {}", file.display());
    let inner = Running::start(host, &words);
    wait_begun(&file).await;

    let text = host.dir().join("tcpdump.txt");
    let mut piped = meshctl(host, "capture 10.42.2.0/24 -f -w -")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut reader = Command::new("tcpdump")
        .args(["-nn", "-l", "-r", "-"])
        .stdin(piped.stdout.take().unwrap())
        .stdout(File::create(&text).unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // One that was begun a moment later captures a later packet.
    let request = format!("IP {a} > {b}: ICMP echo request");
    let read = wait_until("what goes through the pipe", SOON, || async {
        pings(pair.a.netns(), b, 1).await;
        let shown = std::fs::read_to_string(&text).unwrap();
        match shown.contains(&request) && shown.contains("VXLAN") {
            true => Ok(()),
            false => Err(shown),
        }
    })
    .await;
    // Whoever reads no more ends it.
    reader.kill().unwrap();
    reader.wait().unwrap();
    read.unwrap();
    let ended = std::sync::Mutex::new(&mut piped);
    let status = wait_until("the end of the capture", SOON, || async {
        pings(pair.a.netns(), b, 1).await;
        match ended.lock().unwrap().try_wait().unwrap() {
            Some(status) => Ok(status),
            None => Err("it goes on".to_owned()),
        }
    })
    .await;
    let _ = piped.kill();
    assert_eq!(status.unwrap().code(), Some(0));

    let (code, said) = inner.end_by(Some(Signal::SIGINT)).await;
    assert_eq!(code, Some(0), "{said}");
    let shown = tcpdump(&file);
    assert!(shown.contains(&request), "{shown}");
    assert!(
        shown.contains(&format!("IP {b} > {a}: ICMP echo reply")),
        "{shown}"
    );
    assert!(!shown.contains("VXLAN"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_packets_are_captured_whole_and_others_traffic_is_not() {
    let pair = Pair::start(&DaemonOptions::new()).await;
    pair.wait_fast().await;
    let host = pair.host_a();
    let file = host.dir().join("large.pcap");
    let words = format!(
        "capture {} -f -w {}",
        pair.host_b().address(),
        file.display()
    );
    let running = Running::start(host, &words);
    wait_begun(&file).await;
    // Another's VXLAN, and the peer's other traffic.
    let to = SocketAddrV4::new(host.address(), 4789);
    for (from, port) in [(pair.stranger(), 4789), (pair.host_b(), 4790)] {
        let socket = from
            .netns()
            .run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)));
        let to = SocketAddrV4::new(*to.ip(), port);
        socket.unwrap().unwrap().send_to(&[8; 32], to).unwrap();
    }
    // Cut up by the container, and put together by nobody on the way.
    let large = PingOptions {
        count: 1,
        payload: 5000,
        ..PingOptions::default()
    };
    assert!(
        ping(pair.a.netns(), pair.b.address(), large)
            .await
            .unwrap()
            .is_complete()
    );
    let (code, said) = running.end_by(Some(Signal::SIGINT)).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(", 0 lost"), "{said}");
    let shown = tcpdump(&file);
    assert!(
        !shown.contains(&pair.stranger().address().to_string()),
        "{shown}"
    );
    assert!(!shown.contains("4790"), "{shown}");
    // Four fragments each way.
    assert_eq!(shown.matches("vni 100").count(), 8, "{shown}");
    assert_eq!(shown.matches("ip-proto-1").count(), 6, "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_captured_is_said() {
    let pair = Pair::start(&DaemonOptions::new()).await;
    for (words, expected) in [
        ("capture host9 -w -", "is no peer"),
        (
            "capture 10.42.2.0/24 -w - -i nothing0",
            "no interface nothing0",
        ),
        (
            "capture 10.42.2.0/24 -w /proc/nothing",
            "cannot write /proc/nothing",
        ),
    ] {
        let output = output(pair.host_a(), words);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{words}: {said}");
        assert!(said.contains(expected), "{words}: {said}");
        assert!(output.stdout.is_empty());
    }
    // Nobody without the privilege.
    let mut unprivileged = pair.host_a().netns().command("setpriv");
    let output = unprivileged
        .args(["--bounding-set", "-net_raw", "--inh-caps", "-net_raw", "--"])
        .arg(pair::meshctl::program())
        .arg("--socket")
        .arg(pair.host_a().runtime_socket())
        .args(["capture", "10.42.2.0/24", "-w", "-"])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("CAP_NET_RAW"), "{said}");
}
