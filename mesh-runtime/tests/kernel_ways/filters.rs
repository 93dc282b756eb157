//! Other packet filters of the host, which drop what ours lets through: a problem that names their own door,
//! and what is reached once it is open.

use std::net::SocketAddrV4;

use mesh_testbed::{Host, NetNs, wait_reachable, wait_until};

use crate::{
    conversation::{Server, client},
    inside::{filter_bridges, run},
    pair::SOON,
    scene::{Mode, Plan, in_modes},
    tables::nft,
    web::{Web, port},
};

/// As Docker 20.10 leaves it where it had to enable forwarding.
fn drop_what_is_forwarded(netns: &NetNs) {
    for words in [
        "-P FORWARD DROP",
        "-N DOCKER-USER",
        "-A DOCKER-USER -j RETURN",
        "-A FORWARD -j DOCKER-USER",
        "-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    ] {
        run(netns, "iptables-nft", words);
    }
}

/// Sends to `to` until the host names a problem with `words`, and returns it.
async fn problem(host: &Host, from: &NetNs, to: SocketAddrV4, words: &str) -> String {
    wait_until(&format!("a problem with {words:?}"), SOON, || async {
        let client = client(from);
        for _ in 0..3 {
            // A firewall that says no is one.
            let _ = client.send_to(b"anybody?", to);
        }
        let problems = host.status().await.unwrap().problems();
        let named = problems.iter().find(|problem| problem.contains(words));
        named.cloned().ok_or(format!("{problems:?}"))
    })
    .await
    .unwrap()
}

/// Runs the commands that a problem names, of those for `chain`.
fn open_the_door(host: &Host, problem: &str, chain: &str) {
    let begin = format!("iptables -I {chain} ");
    let alternatives = problem
        .replace(['(', ')'], ";")
        .replace("beside Docker", "");
    let commands: Vec<&str> = alternatives
        .split(';')
        .map(|words| words.trim().trim_start_matches("let it through:").trim())
        .filter_map(|words| words.find(&begin).map(|at| &words[at..]))
        .collect();
    assert!(!commands.is_empty(), "{problem}");
    for command in commands {
        let words = command.strip_prefix("iptables ").unwrap();
        run(host.netns(), "iptables-nft", words);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_dockers_policy_drops_what_comes_from_other_nodes_the_problem_names_the_door() {
    in_modes(&[Mode::Off], Plan::default(), async |scene| {
        let (home, far) = (scene.home(), scene.far());
        drop_what_is_forwarded(home.netns());
        let to = SocketAddrV4::new(scene.attacker.address(), 9);
        let words = "from other nodes to containers by the kernel path";
        let problem = problem(home, far.netns(), to, words).await;
        open_the_door(home, &problem, "DOCKER-USER");
        wait_reachable(far.netns(), scene.attacker.address(), SOON)
            .await
            .unwrap();
        wait_reachable(scene.attacker.netns(), far.address(), SOON)
            .await
            .unwrap();
        gone(home).await;
    })
    .await;
}

/// Once something passes, nothing is said any more.
async fn gone(host: &Host) {
    wait_until("no problem", SOON, || async {
        let problems = host.status().await.unwrap().problems();
        problems.is_empty().then_some(()).ok_or(problems.join("; "))
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_port_of_vxlan_is_closed_the_problem_says_how_it_is_opened() {
    in_modes(&[Mode::Off], Plan::default(), async |scene| {
        let (home, far) = (scene.home(), scene.far());
        run(
            home.netns(),
            "iptables-nft",
            "-A INPUT -p udp --dport 4789 -j DROP",
        );
        let to = SocketAddrV4::new(scene.attacker.address(), 9);
        let words = "by VXLAN from other nodes";
        let problem = problem(home, far.netns(), to, words).await;
        let command = "iptables -I INPUT -p udp --dport 4789 -j ACCEPT";
        assert!(problem.contains(command), "{problem}");
        let words = command.strip_prefix("iptables ").unwrap();
        run(home.netns(), "iptables-nft", words);
        wait_reachable(far.netns(), scene.attacker.address(), SOON)
            .await
            .unwrap();
        gone(home).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_what_goes_out_is_dropped_the_problem_names_the_door() {
    in_modes(&[Mode::Fast], Plan::default(), async |scene| {
        let home = scene.home();
        drop_what_is_forwarded(home.netns());
        let stranger = scene.pair.stranger();
        let from = scene.attacker.netns();
        let to = SocketAddrV4::new(stranger.address(), 9);
        let problem = problem(home, from, to, "from containers to the outside").await;
        open_the_door(home, &problem, "FORWARD");
        let server = Server::on(stranger.netns(), 8000);
        let seen = server.sees(from, stranger.address(), 8000).await;
        assert_eq!(seen, home.address());
        gone(home).await;
    })
    .await;
}

/// What the bridge carries is forwarded, for a host that filters its bridges.
#[tokio::test(flavor = "multi_thread")]
async fn where_a_filter_of_bridges_drops_between_siblings_the_problem_names_the_door() {
    in_modes(&[Mode::Fast], Plan::default(), async |scene| {
        let home = scene.home();
        filter_bridges(home.netns(), true);
        drop_what_is_forwarded(home.netns());
        let from = scene.attacker.netns();
        let to = SocketAddrV4::new(scene.sibling().address(), 9);
        let words = "between containers of this node";
        let problem = problem(home, from, to, words).await;
        open_the_door(home, &problem, "FORWARD");
        wait_reachable(from, scene.sibling().address(), SOON)
            .await
            .unwrap();
        gone(home).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_published_port_is_dropped_the_problem_names_the_door() {
    in_modes(&[Mode::Fast], Plan::default(), async |scene| {
        let home = scene.home();
        let ports = [port("udp", 8080, 80, 1), port("tcp", 8080, 80, 1)];
        let web = Web::attach(home, &ports).await;
        drop_what_is_forwarded(home.netns());
        let stranger = scene.pair.stranger();
        let to = SocketAddrV4::new(home.address(), 8080);
        let words = "from elsewhere to published ports";
        let problem = problem(home, stranger.netns(), to, words).await;
        open_the_door(home, &problem, "DOCKER-USER");
        let server = Server::on(web.netns(), 80);
        let seen = server.sees(stranger.netns(), home.address(), 8080).await;
        assert_eq!(seen, stranger.address());
        gone(home).await;
    })
    .await;
}

/// As Docker 28 keeps others from a container past its bridge.
#[tokio::test(flavor = "multi_thread")]
async fn where_a_raw_rule_keeps_other_nodes_from_a_container_the_problem_names_the_door() {
    in_modes(&[Mode::Off], Plan::default(), async |scene| {
        let (home, far) = (scene.home(), scene.far());
        let address = scene.attacker.address();
        let rule = format!("-t raw -A PREROUTING -d {address} ! -i quilt0 -j DROP");
        run(home.netns(), "iptables-nft", &rule);
        let to = SocketAddrV4::new(address, 9);
        let door = "iptables -t raw -I PREROUTING -i vxlan100 -d 10.42.1.0/24 -j ACCEPT";
        problem(home, far.netns(), to, door).await;
        run(
            home.netns(),
            "iptables-nft",
            door.strip_prefix("iptables ").unwrap(),
        );
        wait_reachable(far.netns(), address, SOON).await.unwrap();
        gone(home).await;
    })
    .await;
}

/// Its door is opened over a message bus, which is not here: what it does is imitated, and the door is not
/// opened.
#[tokio::test(flavor = "multi_thread")]
async fn where_firewalld_rejects_what_is_forwarded_the_problem_names_its_zone() {
    in_modes(&[Mode::Fast], Plan::default(), async |scene| {
        let home = scene.home();
        nft(
            home.netns(),
            "table inet firewalld {
                chain filter_FORWARD {
                    type filter hook forward priority filter + 10
                    ct state established,related accept
                    ct status dnat accept
                    reject with icmpx admin-prohibited
                }
            }",
        );
        let from = scene.attacker.netns();
        let to = SocketAddrV4::new(scene.pair.stranger().address(), 9);
        let words = "--zone=trusted --add-interface=quilt0 --add-interface=vxlan100";
        problem(home, from, to, words).await;
    })
    .await;
}

/// A filter that lets some through is meant.
#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_lets_some_through_is_no_problem() {
    in_modes(&[Mode::Fast], Plan::default(), async |scene| {
        let home = scene.home();
        drop_what_is_forwarded(home.netns());
        for words in [
            "-A FORWARD -p tcp --dport 8000 -j ACCEPT",
            "-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT",
        ] {
            run(home.netns(), "iptables-nft", words);
        }
        let (from, stranger) = (scene.attacker.netns(), scene.pair.stranger());
        let server = Server::on(stranger.netns(), 8000);
        let refused = client(from);
        for _ in 0..5 {
            for _ in 0..3 {
                let to = SocketAddrV4::new(stranger.address(), 9);
                refused.send_to(b"refused", to).unwrap();
            }
            server.sees(from, stranger.address(), 8000).await;
        }
        assert_eq!(home.status().await.unwrap().problems(), [""; 0]);
    })
    .await;
}
