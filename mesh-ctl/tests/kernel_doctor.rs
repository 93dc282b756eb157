//! `meshctl doctor` against real daemons on real kernels: each ailment is planted, and expected to be found alone; a healthy
//! node has nothing. What it prints is shown with `--nocapture`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "functions of tests, which may panic like tests"
)]

use std::{
    fs::{self, Permissions},
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{JoinHandle, sleep, spawn},
    time::{Duration, Instant},
};

use mesh_proto::{
    mesh::{
        AgentStatus, AgentStatusRequest, Peer, SyncPeersRequest,
        mesh_agent_server::{MeshAgent, MeshAgentServer},
        mesh_dataplane_client::MeshDataplaneClient,
    },
    quilt::{ConfigureNodeSubnetRequest, quilt_runtime_client::QuiltRuntimeClient},
};
use mesh_testbed::{
    Daemon, DaemonOptions, Host, Signal, Testbed, stepped_clock::SteppedClock, wait_until,
};
use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;

const SOON: Duration = Duration::from_secs(60);

/// Nobody that has a file here.
const STRANGER: &str = "65534";

/// A mesh of two nodes, each with a container.
async fn mesh() -> Testbed {
    let testbed = Testbed::builder().hosts(2).build().await.unwrap();
    testbed
        .control()
        .start(&DaemonOptions::new())
        .await
        .unwrap();
    for host in testbed.hosts() {
        host.start_runtime(&DaemonOptions::new()).await.unwrap();
        host.start_agent(&DaemonOptions::new()).await.unwrap();
    }
    testbed.wait_converged(SOON).await.unwrap();
    for host in testbed.hosts() {
        wait_for(host, &[]).await;
    }
    testbed
}

fn asked<'a>(command: &'a mut Command, host: &Host, words: &str) -> &'a mut Command {
    command
        .arg("--socket")
        .arg(host.runtime_socket())
        .arg("--agent-socket")
        .arg(host.agent_socket())
        .args(words.split_whitespace())
}

fn meshctl(host: &Host, words: &str) -> Output {
    let mut command = host.netns().command(env!("CARGO_BIN_EXE_meshctl"));
    asked(&mut command, host, words).output().unwrap()
}

/// What it prints, and its exit code.
fn shows(host: &Host) -> (String, i32) {
    let output = meshctl(host, "doctor");
    let text = String::from_utf8(output.stdout).unwrap();
    println!(
        "# meshctl doctor\n{text}# echo $?\n{}\n",
        output.status.code().unwrap()
    );
    assert!(output.stderr.is_empty(), "{:?}", output.stderr);
    (text, output.status.code().unwrap())
}

fn document(host: &Host) -> Value {
    let output = meshctl(host, "doctor --json");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// Waits until it finds this and nothing else.
async fn wait_for(host: &Host, expected: &[&str]) {
    wait_until(
        &format!("{expected:?} and nothing else"),
        SOON,
        async || {
            let document = document(host);
            let findings = document["findings"].as_array().unwrap();
            let codes: Vec<_> = findings
                .iter()
                .map(|it| it["code"].as_str().unwrap())
                .collect();
            match codes == expected {
                true => Ok(()),
                false => Err(format!("{document:#}")),
            }
        },
    )
    .await
    .unwrap();
}

/// Runs commands in a host's network, one a line.
fn run(host: &Host, commands: &str) {
    for words in commands.lines().map(str::trim).filter(|it| !it.is_empty()) {
        let mut words = words.split_whitespace();
        let mut command = host.netns().command(words.next().unwrap());
        let output = command.args(words.clone()).output().unwrap();
        assert!(output.status.success(), "{commands}: {output:?}");
    }
}

/// Plants an ailment, expects it to be found alone, and with these words, and takes it away again.
async fn ails(host: &Host, plant: &str, code: &str, words: &str, mend: &str) {
    run(host, plant);
    wait_for(host, &[code]).await;
    let (text, exit) = shows(host);
    assert!(text.contains(words), "{words}: {text}");
    let grave = text.starts_with("error");
    assert_eq!(exit, i32::from(grave), "{text}");
    run(host, mend);
    wait_for(host, &[]).await;
}

/// Something that is in nobody's way.
async fn is_harmless(host: &Host, plant: &str, mend: &str) {
    run(host, plant);
    let (text, exit) = shows(host);
    assert!(text.contains("Findings         none"), "{plant}: {text}");
    assert_eq!(exit, 0, "{text}");
    run(host, mend);
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_and_rules_that_lead_elsewhere_are_found_and_others_are_not() {
    let testbed = mesh().await;
    let [home, away] = testbed.hosts() else {
        panic!("two hosts are needed");
    };
    let subnet = away.status().await.unwrap().subnet;
    let address = away.address();
    shows(home);
    let vpn = "ip link add wg0 type veth peer name wg1
        ip address add 198.51.100.1/24 dev wg0
        ip link set wg1 up
        ip link set wg0 up";
    run(home, vpn);

    // A route in the place of ours, as a VPN brings.
    ails(
        home,
        &format!("ip route replace {subnet} dev wg0 proto static"),
        "foreign-route",
        &format!("ip route delete {subnet}"),
        &format!("ip route delete {subnet} dev wg0"),
    )
    .await;
    let part = subnet.replace("/24", "/25");
    ails(
        home,
        &format!("ip route add {part} dev wg0"),
        "foreign-route-to-part",
        &part,
        &format!("ip route delete {part} dev wg0"),
    )
    .await;
    // A policy rule before our routes.
    ails(
        home,
        "ip route add default dev wg0 table 51820
         ip rule add priority 100 to 10.42.0.0/16 lookup 51820",
        "policy-rule",
        "lookup main",
        "ip rule delete priority 100
         ip route flush table 51820",
    )
    .await;
    // One that takes VXLAN itself.
    ails(
        home,
        &format!(
            "ip route add default dev wg0 table 51820
             ip rule add priority 100 to {address} ipproto udp dport 4789 lookup 51820"
        ),
        "underlay-diverted",
        &format!("VXLAN to {address} leaves over wg0, by a route of table 51820"),
        "ip rule delete priority 100
         ip route flush table 51820",
    )
    .await;
    // The way to the peer's host over the overlay device itself.
    ails(
        home,
        &format!("ip route add {address}/32 dev vxlan100"),
        "underlay-over-overlay",
        &format!("VXLAN to {address} leaves over vxlan100"),
        &format!("ip route delete {address}/32 dev vxlan100"),
    )
    .await;

    // What VPNs and other container networks do without being in the way.
    is_harmless(
        home,
        "ip route add 10.0.0.0/8 dev wg0
         ip route add 10.42.0.0/16 dev wg0
         ip route add default dev wg0 table 52
         ip rule add priority 5270 lookup 52 suppress_prefixlength 32
         ip rule add priority 5280 fwmark 0x80000 lookup 52
         ip rule add priority 5290 from 198.51.100.1 lookup 52",
        "ip rule delete priority 5270
         ip rule delete priority 5280
         ip rule delete priority 5290
         ip route flush table 52
         ip route delete 10.42.0.0/16 dev wg0
         ip route delete 10.0.0.0/8 dev wg0",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_forwarding_and_ipsec_in_the_way_are_found() {
    let testbed = mesh().await;
    let [home, away] = testbed.hosts() else {
        panic!("two hosts are needed");
    };
    let subnet = away.status().await.unwrap().subnet;
    let (own, address) = (home.address(), away.address());
    ails(
        home,
        &format!("ip address add {own}/32 dev vxlan100"),
        "host-address-on-overlay",
        &format!("ip address delete {own}/32 dev vxlan100"),
        &format!("ip address delete {own}/32 dev vxlan100"),
    )
    .await;
    ails(
        home,
        "ip link add other0 type bridge
         ip link set other0 up
         ip address add 10.42.77.1/24 dev other0",
        "foreign-address",
        "10.42.77.1/24",
        "ip link delete other0",
    )
    .await;
    ails(
        home,
        "sysctl -qw net.ipv4.conf.eth0.forwarding=0",
        "forwarding-off",
        "sysctl -w net.ipv4.conf.eth0.forwarding=1",
        "sysctl -qw net.ipv4.conf.eth0.forwarding=1",
    )
    .await;
    // A VPN between the hosts, and one between the containers.
    let policy = |direction: &str, from: &str, to: &str| {
        format!(
            "ip xfrm policy add src {from} dst {to} dir {direction} tmpl src {own} dst {address} proto esp mode tunnel"
        )
    };
    ails(
        home,
        &policy("out", &own.to_string(), &address.to_string()),
        "ipsec-policy",
        &address.to_string(),
        "ip xfrm policy flush",
    )
    .await;
    ails(
        home,
        &policy("out", "10.42.0.0/16", &subnet),
        "ipsec-overlay",
        &subnet,
        "ip xfrm policy flush",
    )
    .await;
    is_harmless(
        home,
        &policy("out", &own.to_string(), "198.51.100.0/24"),
        "ip xfrm policy flush",
    )
    .await;
}

/// What firewalld 1.3 writes for a host whose zone lets VXLAN in, as far as IPv4 is concerned.
const FIREWALLD: &str = r#"table inet firewalld {
    chain filter_INPUT {
        type filter hook input priority filter + 10; policy accept;
        ct state { established, related } accept
        ct status dnat accept
        iifname "lo" accept
        ct state invalid drop
        jump filter_INPUT_ZONES
        reject with icmpx type admin-prohibited
    }
    chain filter_FORWARD {
        type filter hook forward priority filter + 10; policy accept;
        ct state { established, related } accept
        ct status dnat accept
        iifname "lo" accept
        ct state invalid drop
        jump filter_FORWARD_ZONES
        reject with icmpx type admin-prohibited
    }
    chain filter_INPUT_ZONES {
        iifname "eth0" goto filter_IN_public
        goto filter_IN_public
    }
    chain filter_FORWARD_ZONES {
        iifname "eth0" goto filter_FWD_public
        goto filter_FWD_public
    }
    chain filter_IN_public {
        jump filter_IN_public_allow
        meta l4proto { icmp, ipv6-icmp } accept
    }
    chain filter_IN_public_allow {
        tcp dport 22 ct state { new, untracked } accept
        udp dport 4789 ct state { new, untracked } accept
    }
    chain filter_FWD_public {
        oifname "eth0" meta mark 0x1 accept
    }
}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn filters_and_traffic_control_in_the_way_are_found_and_dockers_own_are_not() {
    let testbed = mesh().await;
    let [home, away] = testbed.hosts() else {
        panic!("two hosts are needed");
    };
    // A way out, as every host has.
    run(
        home,
        &format!("ip route add default via {}", away.address()),
    );
    ails(
        home,
        "iptables -P FORWARD DROP",
        "filter-would-drop",
        "chain FORWARD of table ip filter would drop",
        "iptables -P FORWARD ACCEPT",
    )
    .await;
    // Docker's, with what is to be said beside it, and its raw rules; a firewall of the host itself that knows VXLAN.
    is_harmless(
        home,
        "iptables -P FORWARD DROP
         iptables -N DOCKER-USER
         iptables -A FORWARD -j DOCKER-USER
         iptables -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
         iptables -A FORWARD -i docker0 ! -o docker0 -j ACCEPT
         iptables -t raw -A PREROUTING -d 172.17.0.2/32 ! -i docker0 -j DROP
         iptables -A DOCKER-USER -i quilt0 -j ACCEPT
         iptables -A DOCKER-USER -o quilt0 -j ACCEPT
         iptables -P INPUT DROP
         iptables -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
         iptables -A INPUT -p icmp -j ACCEPT
         iptables -A INPUT -i lo -j ACCEPT
         iptables -A INPUT -p udp --dport 4789 -j ACCEPT",
        "nft delete table ip filter
         nft delete table ip raw",
    )
    .await;
    // firewalld's, in which our devices are in no zone that forwards.
    let rules = tempfile::NamedTempFile::new().unwrap();
    fs::write(rules.path(), FIREWALLD).unwrap();
    ails(
        home,
        &format!("nft -f {}", rules.path().display()),
        "filter-would-drop",
        "chain filter_FORWARD of table inet firewalld would drop",
        "nft delete table inet firewalld",
    )
    .await;
    // One that drops VXLAN: the runtime sees it by the packets that do not come through.
    ails(
        home,
        "iptables -A INPUT -p udp --dport 4789 -j DROP",
        "foreign-firewall",
        "open its port",
        "nft delete table ip filter",
    )
    .await;

    // Filters that take packets where they come in.
    let ingress = |interface: &str| {
        format!("tc qdisc add dev {interface} clsact\ntc filter add dev {interface} ingress")
    };
    let mend = |interface: &str| format!("tc qdisc delete dev {interface} clsact");
    ails(
        home,
        &format!(
            "{} protocol ip u32 match ip protocol 17 0xff match ip dport 4789 0xffff action mirred egress redirect dev lo",
            ingress("eth0")
        ),
        "packets-taken",
        "a filter of tc on eth0 leads to lo VXLAN where it comes in",
        &mend("eth0"),
    )
    .await;
    ails(
        home,
        &format!(
            "{} protocol ip u32 match u32 0 0 action mirred egress redirect dev lo",
            ingress("vxlan100")
        ),
        "packets-taken",
        "a filter of tc on vxlan100 leads to lo what peers' containers exchange with ours",
        &mend("vxlan100"),
    )
    .await;
    is_harmless(
        home,
        &format!(
            "{} protocol ip u32 match ip protocol 17 0xff match ip dport 53 0xffff action mirred egress redirect dev lo
             tc qdisc add dev eth0 root tbf rate 1gbit burst 1mb latency 50ms",
            ingress("eth0")
        ),
        "tc qdisc delete dev eth0 root
         tc qdisc delete dev eth0 clsact",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twins_wrong_checksums_stale_entries_and_strict_filtering_are_found() {
    let testbed = mesh().await;
    let [home, away] = testbed.hosts() else {
        panic!("two hosts are needed");
    };
    let (own, address) = (home.address(), away.address());
    ails(
        home,
        "ip route add 10.42.99.0/24 dev vxlan100 proto static",
        "stale-entries",
        "ip route delete 10.42.99.0/24 dev vxlan100",
        "ip route delete 10.42.99.0/24 dev vxlan100",
    )
    .await;
    // What a DHCP client leaves that takes every interface for its own.
    ails(
        home,
        "ip address add 169.254.7.9/16 dev quilt0",
        "device-managed",
        "quilt0 has the address 169.254.7.9/16",
        "ip address delete 169.254.7.9/16 dev quilt0",
    )
    .await;
    // Two ways to a peer, and packets that come by the other one.
    ails(
        home,
        &format!(
            "ip link add other0 type veth peer name other1
             ip link set other1 up
             ip link set other0 up
             sysctl -qw net.ipv4.conf.eth0.rp_filter=1
             ip route add {address}/32 dev other0"
        ),
        "strict-filtering",
        "sysctl -w net.ipv4.conf.eth0.rp_filter=2",
        &format!(
            "ip route delete {address}/32 dev other0
             sysctl -qw net.ipv4.conf.eth0.rp_filter=0
             ip link delete other0"
        ),
    )
    .await;
    // A card somewhere that computes checksums wrongly.
    let spoiled = Spoiled::send(away, own);
    wait_for(home, &["checksums-wrong"]).await;
    shows(home);
    drop(spoiled);
    wait_for(home, &[]).await;

    // A second card on the same link, which answers for the first one's address.
    testbed.add_card(home, "eth1", 1500).await.unwrap();
    is_harmless(home, "ip link set eth1 up", "ip link delete eth1").await;

    // Clones of this host: one that has its address, and one that has its MAC address.
    let mac = |host: &Host| {
        let output = host
            .netns()
            .command("ip")
            .args(["-j", "link", "show", "eth0"])
            .output();
        let links: Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
        links[0]["address"].as_str().unwrap().to_owned()
    };
    run(away, &format!("ip address add {own}/32 dev eth0"));
    wait_for(home, &["address-elsewhere"]).await;
    let (text, exit) = shows(home);
    assert!(text.contains(&mac(away)) && exit == 1, "{text}");
    run(away, &format!("ip address delete {own}/32 dev eth0"));
    wait_for(home, &[]).await;
    // As it is known to the kernel where the other end has taken our address: nothing gets there any more.
    let (ours, theirs) = (mac(home), mac(away));
    ails(
        home,
        &format!("ip neighbour replace {address} lladdr {ours} dev eth0 nud permanent"),
        "mac-of-peer",
        &format!("has the MAC address {ours}, as this host's eth0 has"),
        &format!("ip neighbour replace {address} lladdr {theirs} dev eth0 nud reachable"),
    )
    .await;
}

/// Datagrams with a wrong checksum, as long as it lives.
struct Spoiled(Arc<AtomicBool>, Option<JoinHandle<()>>);

impl Spoiled {
    fn send(from: &Host, to: Ipv4Addr) -> Self {
        let open = || {
            let udp = Some(Protocol::UDP);
            Socket::new(Domain::IPV4, Type::RAW, udp).unwrap()
        };
        let socket = from.netns().run(open).unwrap();
        let ends = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ends);
        let sends = spawn(move || {
            // Source and destination port, length, and a checksum that is none.
            let datagram = [0x9c, 0x40, 0x9c, 0x41, 0, 12, 0xab, 0xcd, 1, 2, 3, 4];
            let to = SocketAddr::from((to, 0)).into();
            while !end.load(Ordering::Relaxed) {
                socket.send_to(&datagram, &to).unwrap();
                sleep(Duration::from_millis(20));
            }
        });
        Self(ends, Some(sends))
    }
}

impl Drop for Spoiled {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        if let Some(sends) = self.1.take() {
            sends.join().unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_daemons_find_is_told_once_with_what_the_host_shows_beside_it() {
    let testbed = mesh().await;
    let [home, away] = testbed.hosts() else {
        panic!("two hosts are needed");
    };
    // Something between the hosts drops what is large.
    let switch = |words: &str| {
        let output = testbed.switch().command("nft").arg(words).output().unwrap();
        assert!(output.status.success(), "nft {words}: {output:?}");
    };
    switch("add table bridge hypervisor");
    switch("add chain bridge hypervisor swallows { type filter hook forward priority 0 ; }");
    switch("add rule bridge hypervisor swallows udp dport 4789 meta length > 1400 drop");
    wait_for(home, &["path-mtu-small"]).await;
    shows(home);
    switch("delete table bridge hypervisor");
    wait_for(home, &[]).await;

    let folder = tempfile::tempdir().unwrap();

    // A clock that is wrong.
    let clock = SteppedClock::new().unwrap();
    home.stop(Daemon::Agent, Signal::SIGTERM, SOON)
        .await
        .unwrap();
    clock.step(3600).unwrap();
    let options = clock
        .environment()
        .into_iter()
        .fold(DaemonOptions::new(), |options, (name, value)| {
            options.env(name, value)
        });
    home.start_agent(&options).await.unwrap();
    wait_for(home, &["clocks-differ"]).await;
    home.stop(Daemon::Agent, Signal::SIGTERM, SOON)
        .await
        .unwrap();
    home.start_agent(&DaemonOptions::new()).await.unwrap();
    wait_for(home, &[]).await;

    // A copy of another machine, with its agent's files.
    home.stop(Daemon::Agent, Signal::SIGTERM, SOON)
        .await
        .unwrap();
    let kept = folder.path().join("agent");
    fs::rename(home.state_dir(), &kept).unwrap();
    let copied = Command::new("cp")
        .arg("-a")
        .arg(away.state_dir())
        .arg(home.state_dir())
        .status();
    assert!(copied.unwrap().success());
    home.spawn(Daemon::Agent, &DaemonOptions::new()).unwrap();
    wait_for(home, &["not-registered"]).await;
    let (text, _) = shows(home);
    assert!(
        text.contains("if this host's disk is a copy of that one's"),
        "{text}"
    );
    home.stop(Daemon::Agent, Signal::SIGTERM, SOON)
        .await
        .unwrap();
    fs::remove_dir_all(home.state_dir()).unwrap();
    fs::rename(&kept, home.state_dir()).unwrap();
    home.start_agent(&DaemonOptions::new()).await.unwrap();
    wait_for(home, &[]).await;

    // A runtime that may not load programs, as on a kernel that has none.
    home.stop(Daemon::Runtime, Signal::SIGTERM, SOON)
        .await
        .unwrap();
    run(
        home,
        &format!("rm -rf {}", home.bpffs_dir().join("quilt-mesh").display()),
    );
    let runtime = folder.path().join("quilt-runtime");
    let real = Path::new(env!("CARGO_BIN_EXE_meshctl")).with_file_name("quilt-runtime");
    let script = format!(
        "#!/bin/sh\nexec setpriv --bounding-set -cap_21,-cap_38,-cap_39 {} \"$@\"\n",
        real.display()
    );
    fs::write(&runtime, script).unwrap();
    fs::set_permissions(&runtime, Permissions::from_mode(0o755)).unwrap();
    home.start_runtime(&DaemonOptions::new().binary(&runtime))
        .await
        .unwrap();
    wait_for(home, &["no-guard-programs"]).await;
    shows(home);
    home.stop(Daemon::Runtime, Signal::SIGTERM, SOON)
        .await
        .unwrap();
    home.start_runtime(&DaemonOptions::new()).await.unwrap();
    wait_for(home, &[]).await;

    // One whose operator wants no fast path.
    home.stop(Daemon::Runtime, Signal::SIGTERM, SOON)
        .await
        .unwrap();
    let off = DaemonOptions::new().args(["--fast-path", "off"]);
    home.start_runtime(&off).await.unwrap();
    wait_for(home, &[]).await;

    // Entries of nobody, while no runtime takes them away.
    home.stop(Daemon::Runtime, Signal::SIGTERM, SOON)
        .await
        .unwrap();
    run(
        home,
        &format!(
            "ip neighbour add 10.42.9.0 lladdr 02:51:0a:2a:09:00 dev vxlan100 nud permanent
             bridge fdb append 02:51:0a:2a:09:00 dev vxlan100 dst {} self permanent",
            away.address()
        ),
    );
    wait_for(home, &["runtime-down", "stale-entries"]).await;
    let (text, _) = shows(home);
    assert!(
        text.contains("ip neighbour delete 10.42.9.0 dev vxlan100, bridge fdb delete 02:51:"),
        "{text}"
    );
    run(
        home,
        "ip neighbour delete 10.42.9.0 dev vxlan100
         bridge fdb delete 02:51:0a:2a:09:00 dev vxlan100 self",
    );
    // What a policy for MAC addresses does to devices.
    run(home, "ip link set vxlan100 address 3e:01:02:03:04:05");
    wait_for(home, &["runtime-down", "mac-changed"]).await;
    shows(home);

    // Somebody else has the port of VXLAN.
    run(home, "ip link delete vxlan100");
    let taken = home
        .netns()
        .run(|| UdpSocket::bind("0.0.0.0:4789").unwrap())
        .unwrap();
    home.start_runtime(&DaemonOptions::new()).await.unwrap();
    wait_for(home, &["kernel-refuses"]).await;
    let (text, exit) = shows(home);
    let who = format!("(pid {})", std::process::id());
    assert!(text.contains(&who) && exit == 1, "{text}");
    drop(taken);
    wait_for(home, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_other_versions_and_network_managers_are_found() {
    let testbed = mesh().await;
    let home = &testbed.hosts()[0];
    // An agent of a later version, which tells nothing else.
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let serves = tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(MeshAgentServer::new(Later))
            .serve_with_incoming(UnixListenerStream::new(listener)),
    );
    let output = home
        .netns()
        .command(env!("CARGO_BIN_EXE_meshctl"))
        .arg("--socket")
        .arg(home.runtime_socket())
        .arg("--agent-socket")
        .arg(&socket)
        .arg("doctor")
        .output()
        .unwrap();
    serves.abort();
    let text = String::from_utf8(output.stdout).unwrap();
    println!("# meshctl doctor\n{text}");
    assert!(text.contains("(host-versions-differ)"), "{text}");
    assert!(
        text.contains("quilt-mesh-agent 9.9.9") && text.ends_with("1 notice\n"),
        "{text}"
    );
    assert_eq!(
        output.status.code(),
        Some(0),
        "a notice is nothing wrong: {text}"
    );

    // systemd-networkd, by what it says below /run of itself: in mounts of this process's own.
    let output = home
        .netns()
        .command("ip")
        .args(["-j", "link", "show", "vxlan100"])
        .output();
    let links: Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
    let index = links[0]["ifindex"].as_u64().unwrap();
    let said = |state: &str| {
        let script = format!(
            "mount --bind {0} {0} && mount --make-private {0} && mkdir -p {0}/run {0}/kept && mount --rbind /run {0}/kept && \
             mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/netif/links /run/quilt-mesh-testbed && \
             mount --rbind {0}/kept/quilt-mesh-testbed /run/quilt-mesh-testbed && \
             echo ADMIN_STATE={state} > /run/systemd/netif/links/{index} && exec \"$@\"",
            folder.path().display()
        );
        let mut command = home.netns().command("unshare");
        command.args([
            "--mount",
            "sh",
            "-ec",
            &script,
            "sh",
            env!("CARGO_BIN_EXE_meshctl"),
        ]);
        let output = asked(&mut command, home, "doctor").output().unwrap();
        println!("{}", String::from_utf8_lossy(&output.stdout));
        assert!(output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let managed = said("configured");
    assert!(
        managed.contains("systemd-networkd manages vxlan100"),
        "{managed}"
    );
    assert!(managed.ends_with("1 warning\n"), "{managed}");
    let unmanaged = said("unmanaged");
    assert!(unmanaged.ends_with("none\n"), "{unmanaged}");
}

/// An agent of a later version.
struct Later;

#[tonic::async_trait]
impl MeshAgent for Later {
    async fn get_status(
        &self,
        _: tonic::Request<AgentStatusRequest>,
    ) -> Result<tonic::Response<AgentStatus>, tonic::Status> {
        Ok(tonic::Response::new(AgentStatus {
            version: "9.9.9".to_owned(),
            hostname: "host1".to_owned(),
            ..AgentStatus::default()
        }))
    }
}

/// The worst of it: none of the peers answers. What it takes is printed, and not asserted.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_254_peers_of_which_none_answers_is_looked_at_as_any_other() {
    let testbed = Testbed::builder().hosts(1).build().await.unwrap();
    let home = &testbed.hosts()[0];
    home.start_runtime(&DaemonOptions::new()).await.unwrap();
    let subnet = "10.42.255.0/24".to_owned();
    QuiltRuntimeClient::new(home.runtime_channel().await.unwrap())
        .configure_node_subnet(ConfigureNodeSubnetRequest { subnet })
        .await
        .unwrap();
    let peer = |number: u8| Peer {
        subnet: format!("10.42.{number}.0/24"),
        host_address: format!("198.51.100.{number}"),
        hostname: format!("node{number}"),
        mtu: 1450,
        ..Peer::default()
    };
    let sync = SyncPeersRequest {
        generation: 1,
        host_address: home.address().to_string(),
        peers: (1..=254).map(peer).collect(),
        ..SyncPeersRequest::default()
    };
    run(home, "ip route add 198.51.100.0/24 dev eth0");
    let channel = home.runtime_channel().await.unwrap();
    let answer = MeshDataplaneClient::new(channel).sync_peers(sync).await;
    assert!(answer.unwrap().into_inner().success);
    let begin = Instant::now();
    let (text, exit) = shows(home);
    println!(
        "with 254 silent peers: {:.2} s",
        begin.elapsed().as_secs_f64()
    );
    assert!(text.contains("of 254, the others were not asked"), "{text}");
    assert!(
        text.contains("(peer-host-silent)") && text.contains("(agent-down)"),
        "{text}"
    );
    assert_eq!(exit, 1, "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn daemons_that_do_not_run_are_told_and_who_has_no_rights_is_told_what_was_not_looked_at() {
    let testbed = mesh().await;
    let home = &testbed.hosts()[0];
    let stranger = || {
        let mut command = home.netns().command("setpriv");
        command.args(["--reuid", STRANGER, "--regid", STRANGER, "--clear-groups"]);
        asked(command.arg(env!("CARGO_BIN_EXE_meshctl")), home, "doctor")
            .output()
            .unwrap()
    };
    let output = stranger();
    let text = String::from_utf8(output.stdout).unwrap();
    println!("$ meshctl doctor\n{text}");
    assert_eq!(output.status.code(), Some(2), "{text}");
    for area in ["ipsec", "packet filter", "twins", "ways to peers"] {
        let words = format!("{area:<16} not looked at: needs root");
        assert!(text.contains(&words), "{words}: {text}");
    }
    run(home, "sysctl -qw net.ipv4.conf.eth0.forwarding=0");
    assert_eq!(stranger().status.code(), Some(1));
    run(home, "sysctl -qw net.ipv4.conf.eth0.forwarding=1");

    home.stop(Daemon::Agent, Signal::SIGTERM, SOON)
        .await
        .unwrap();
    wait_for(home, &["agent-down"]).await;
    home.stop(Daemon::Runtime, Signal::SIGTERM, SOON)
        .await
        .unwrap();
    wait_for(home, &["runtime-down", "agent-down"]).await;
    let (text, exit) = shows(home);
    assert_eq!(exit, 1, "{text}");
}
