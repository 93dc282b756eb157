//! Other machines that take this one's place, and what comes spoilt.

use super::*;

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
