//! Tables of the kernel that are nearly full.

use super::*;

/// Ports of one address to which something is sent.
const PORTS: u64 = 60_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_connections_that_is_nearly_full_is_found() {
    let testbed = Testbed::builder().hosts(1).build().await.unwrap();
    let home = &testbed.hosts()[0];
    let limit = fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max").unwrap();
    let limit: u64 = limit.trim().parse().unwrap();
    // Connections are followed where a rule asks for them; no daemon is needed for that.
    run(
        home,
        "iptables -A OUTPUT -m conntrack --ctstate NEW -j ACCEPT",
    );
    // A card behind which nobody answers.
    run(
        home,
        "ip link add flood0 type veth peer name flood1
         ip link set flood1 up
         ip link set flood0 up
         ip address add 198.51.100.254/24 dev flood0",
    );
    let addresses = (limit * 93 / 100 / PORTS + 1).min(250);
    for last in 1..=addresses {
        run(
            home,
            &format!("ip neighbour add 198.51.100.{last} lladdr 02:00:00:00:00:99 dev flood0"),
        );
    }
    let socket = home
        .netns()
        .run(|| UdpSocket::bind("0.0.0.0:0").unwrap())
        .unwrap();
    for number in 0..limit * 93 / 100 {
        let last = u8::try_from(number / PORTS + 1).unwrap();
        let port = u16::try_from(1 + number % PORTS).unwrap();
        let to = SocketAddr::from((Ipv4Addr::new(198, 51, 100, last), port));
        socket.send_to(&[0], to).unwrap();
    }
    let document = document(home);
    let findings = document["findings"].as_array().unwrap();
    assert_eq!(findings.len(), 3, "and no daemon runs: {document:#}");
    let full = findings.iter().find(|it| it["code"] == "connections-full");
    let observed = full.unwrap_or_else(|| panic!("{document:#}"))["observed"].as_str();
    println!("{}", observed.unwrap());
    assert!(
        observed.unwrap().ends_with(&format!("of at most {limit}")),
        "{document:#}"
    );
}
