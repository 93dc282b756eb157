//! A host that routes 127.0.0.0/8 (`route_localnet`), as the runtime publishes ports and others do: its loopback,
//! where the runtime listens, is still nobody's but its own.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddrV4, TcpListener},
};

use mesh_testbed::{BRIDGE, Container, Daemon, DaemonOptions, NetNs, Signal};
use mesh_testbed::{wait_reachable, wait_until};

use crate::{
    frames::{self, IPV4},
    inside::{datagram, mac, run},
    nft_program::Programs,
    packet_socket::PacketSocket,
    pair::{Pair, SOON},
    port::bind,
    rules::cleanup,
    scene::{LOADING, MODES, Mode, Plan, Scene, in_modes, kill},
    tables::listed,
    web::{Web, port},
    witness::{FORGED, Listener, PORT, TIMES, sees, sees_no},
};

const RUNTIME: u16 = 50_051;

fn route_localnet(netns: &NetNs, interface: &str) {
    let key = format!("net/ipv4/conf/{interface}/route_localnet");
    netns.sysctl(&key, "1").unwrap();
}

/// Whether the bridge routes loopback, by its own setting.
fn routes(netns: &NetNs) -> bool {
    let path = format!("/proc/sys/net/ipv4/conf/{BRIDGE}/route_localnet");
    let value = netns.run(|| fs::read_to_string(&path)).unwrap();
    // A bridge that is gone routes nothing.
    value.is_ok_and(|value| value.trim() != "0")
}

async fn wait_routes(netns: &NetNs, routed: bool, when: &str) {
    let what = format!("a bridge that routes loopback ({routed}) {when}");
    wait_until(&what, SOON, || async {
        (routes(netns) == routed).then_some(()).ok_or("not yet")
    })
    .await
    .unwrap();
}

/// A frame of a container to the bridge.
fn frame_of(scene: &Scene, container: &Container, packet: &[u8]) -> Vec<u8> {
    let own = mac(container.netns(), "eth0");
    frames::ethernet(scene.gateway_mac(), own, IPV4, packet)
}

fn frame(scene: &Scene, packet: &[u8]) -> Vec<u8> {
    frame_of(scene, &scene.attacker, packet)
}

/// Whoever listens on the runtime's port does not answer a container.
async fn no_answer(interface: &'static str) {
    in_modes(MODES, Plan::default(), async |scene| {
        let home = scene.home().netns();
        route_localnet(home, interface);
        let (attacker, address) = (scene.attacker.netns(), scene.attacker.address());
        let _listener = match scene.mode {
            Mode::Fast | Mode::Off | Mode::New | Mode::Loading => None,
            // The runtime is dead, and its port free.
            Mode::Killed | Mode::MadeWhileDead => Some(bind(home, || {
                TcpListener::bind((Ipv4Addr::LOCALHOST, RUNTIME))
            })),
        };
        // The host knows whom it would answer.
        wait_reachable(home, address, SOON).await.unwrap();
        let socket = PacketSocket::open(attacker, "eth0");
        let syn = |to| frame(scene, &frames::tcp_syn((address, 4321), (to, RUNTIME)));
        let answer = |from: Ipv4Addr| [from.octets(), address.octets()].concat();
        let marker = Scene::marker(home, address);
        socket.send(attacker, &vec![syn(Ipv4Addr::LOCALHOST); TIMES]);
        sees_no(&answer(Ipv4Addr::LOCALHOST), &socket, &marker);
        // The gateway, where nobody listens, refuses: the frames are as they should be.
        sees(&answer(scene.gateway()), &socket, |_| {
            socket.send(attacker, &[syn(scene.gateway())]);
        });
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_gets_no_answer_from_its_hosts_loopback_where_the_bridge_routes_it() {
    no_answer(BRIDGE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_gets_no_answer_from_its_hosts_loopback_where_all_interfaces_route_it() {
    no_answer("all").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_sends_nothing_to_its_hosts_loopback() {
    in_modes(MODES, Plan::default(), async |scene| {
        let home = scene.home().netns();
        route_localnet(home, BRIDGE);
        let attacker = scene.attacker.netns();
        let own = (scene.attacker.address(), 4444);
        let listener = Listener::on(home);
        let socket = PacketSocket::open(attacker, "eth0");
        for last in [1, 53] {
            let to = (Ipv4Addr::new(127, 0, 0, last), PORT);
            let frame = frame(scene, &frames::udp_packet(own, to, FORGED));
            socket.send(attacker, &vec![frame; TIMES]);
        }
        let marker = Scene::marker(attacker, scene.gateway());
        sees_no(FORGED, &listener, marker);
    })
    .await;
}

/// A forged datagram in two fragments.
fn in_fragments(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), identification: usize) -> [Vec<u8>; 2] {
    let identification = u16::try_from(identification).unwrap();
    let datagram = frames::udp(from.1, to.1, FORGED);
    let (first, last) = datagram.split_at(16);
    [(first, 0x2000), (last, 2)].map(|(part, place)| {
        frames::fragment(frames::ipv4(from.0, to.0, 17, part), identification, place)
    })
}

/// Nothing of what a container sends to its host's loopback arrives, and nobody there answers it.
async fn is_kept_out(scene: &Scene, container: &Container, when: &str) {
    println!("{:?} {when}", scene.mode);
    let home = scene.home().netns();
    assert!(routes(home), "{when}");
    let (netns, address) = (container.netns(), container.address());
    wait_reachable(home, address, SOON).await.unwrap();
    let listener = Listener::on(home);
    let listening = bind(home, || TcpListener::bind((Ipv4Addr::LOCALHOST, 4711)));
    let socket = PacketSocket::open(netns, "eth0");
    for last in [1, 53] {
        let to = Ipv4Addr::new(127, 0, 0, last);
        for (from, port) in [
            (address, 8080),
            (address, PORT),
            (Ipv4Addr::LOCALHOST, PORT),
        ] {
            let packet = frames::udp_packet((from, 4444), (to, port), FORGED);
            socket.send(netns, &vec![frame_of(scene, container, &packet); TIMES]);
            for identification in 1..=TIMES {
                let parts = in_fragments((from, 4444), (to, port), identification);
                socket.send(netns, &parts.map(|part| frame_of(scene, container, &part)));
            }
        }
    }
    sees_no(FORGED, &listener, Scene::marker(netns, scene.gateway()));
    for number in [4711, RUNTIME, 8080] {
        let syn = frames::tcp_syn((address, 4321), (Ipv4Addr::LOCALHOST, number));
        socket.send(netns, &vec![frame_of(scene, container, &syn); TIMES]);
    }
    let answer = [Ipv4Addr::LOCALHOST.octets(), address.octets()].concat();
    sees_no(&answer, &socket, Scene::marker(home, address));
    drop(listening);
}

/// In each state of the programs; then with the runtime dead, from a port that is made then; and with the rules flushed
/// besides, when programs guard alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_reaches_nothing_of_loopback_while_the_runtime_has_the_bridge_route_it() {
    in_modes(
        &[Mode::Fast, Mode::Off, Mode::New],
        Plan::default(),
        async |scene| {
            let home = scene.home();
            assert!(!routes(home.netns()), "before a port is published");
            let web =
                Web::attach(home, &[port("tcp", 8080, 80, 1), port("udp", 8080, 80, 1)]).await;
            is_kept_out(scene, &scene.attacker, "alive").await;
            if scene.mode == Mode::New {
                return;
            }
            kill(&scene.pair).await;
            is_kept_out(scene, &scene.attacker, "killed").await;
            // The testbed does not know which address is leased: the first one's is.
            let _leased = home.add_container().await.unwrap();
            let late = home.add_container().await.unwrap();
            is_kept_out(scene, &late, "made while dead").await;
            run(home.netns(), "nft", "delete table inet quilt_mesh");
            is_kept_out(scene, &scene.attacker, "killed, without the host's rules").await;
            is_kept_out(scene, &late, "made while dead, without the host's rules").await;
            run(home.netns(), "nft", "flush ruleset");
            is_kept_out(scene, &scene.attacker, "killed and flushed").await;
            is_kept_out(scene, &late, "made while dead, and flushed").await;
            drop(web);
        },
    )
    .await;
}

/// Nothing can be attached then; but what was published before a restart is.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_reaches_nothing_of_loopback_by_rules_alone() {
    in_modes(LOADING, Plan::default(), async |scene| {
        route_localnet(scene.home().netns(), BRIDGE);
        is_kept_out(scene, &scene.attacker, "without programs yet").await;
        scene.go_on_loading();
    })
    .await;
    let plan = Plan {
        without_programs: true,
        ..Plan::default()
    };
    in_modes(&[Mode::Fast], plan, async |scene| {
        let _web = Web::attach(scene.home(), &[port("udp", 8080, 80, 1)]).await;
        is_kept_out(scene, &scene.attacker, "without programs").await;
        kill(&scene.pair).await;
        is_kept_out(scene, &scene.attacker, "without programs, killed").await;
    })
    .await;
}

/// A machine on the underlay, which knows the host's MAC address.
#[tokio::test(flavor = "multi_thread")]
async fn the_underlay_reaches_nothing_of_loopback_while_a_port_is_published() {
    in_modes(&[Mode::Fast, Mode::Off], Plan::default(), async |scene| {
        let home = scene.home();
        let web = Web::attach(home, &[port("udp", PORT, 80, 1)]).await;
        assert!(routes(home.netns()));
        let inside = Listener::on_port(web.netns(), 80);
        let stranger = scene.pair.stranger();
        let socket = PacketSocket::open(stranger.netns(), "eth0");
        let (own, to) = (mac(stranger.netns(), "eth0"), mac(home.netns(), "eth0"));
        let send = |from: Ipv4Addr, number: u16| {
            let packet = frames::udp_packet((from, 4444), (Ipv4Addr::LOCALHOST, number), FORGED);
            let frame = frames::ethernet(to, own, IPV4, &packet);
            socket.send(stranger.netns(), &vec![frame; TIMES]);
        };
        for from in [stranger.address(), Ipv4Addr::LOCALHOST] {
            send(from, PORT);
        }
        let door = SocketAddrV4::new(home.address(), PORT);
        let marker = |payload: &[u8]| datagram(stranger.netns(), door, payload);
        sees_no(FORGED, &inside, marker);
    })
    .await;
}

/// The rules come first, and when they go, the bridge routes loopback no more until they are back.
#[tokio::test(flavor = "multi_thread")]
async fn the_bridge_routes_loopback_while_the_rules_stand_and_a_port_needs_it() {
    let programs = Programs::holdable();
    let options = DaemonOptions::new().env("PATH", programs.path());
    let pair = Pair::start(&options).await;
    pair.wait_fast().await;
    let (host, netns) = (pair.host_a(), pair.host_a().netns());
    assert!(!routes(netns));
    let web = Web::attach(host, &[port("tcp", 8080, 80, 1)]).await;
    wait_routes(netns, true, "once a port is published").await;
    // While they are being written anew.
    fs::write(programs.held(), "").unwrap();
    run(netns, "nft", "flush ruleset");
    // Sooner than the runtime gives that program up.
    let flushed = wait_until("a bridge that routes nothing", SOON / 4, || async {
        (!routes(netns)).then_some(()).ok_or("not yet")
    });
    flushed.await.unwrap();
    fs::remove_file(programs.held()).unwrap();
    rules_first(netns).await;
    // And where they cannot be.
    for dead in [false, true] {
        if dead {
            host.stop(Daemon::Runtime, Signal::SIGKILL, SOON)
                .await
                .unwrap();
        }
        programs.allow(false);
        run(netns, "nft", "flush ruleset");
        if dead {
            host.restart(Daemon::Runtime).unwrap();
        }
        wait_routes(netns, false, "with the rules flushed").await;
        programs.allow(true);
        rules_first(netns).await;
    }
    // Somebody hardens the host, or makes the bridge anew.
    let off = || netns.sysctl(&format!("net/ipv4/conf/{BRIDGE}/route_localnet"), "0");
    off().unwrap();
    wait_routes(netns, true, "after somebody took it away").await;
    run(netns, "ip", &format!("link delete {BRIDGE}"));
    wait_routes(netns, true, "with a bridge made anew").await;
    web.publish(host, &[]).await.unwrap();
    wait_routes(netns, false, "once no port is published").await;
    // What somebody else wants, as CNI's portmap, stays.
    route_localnet(netns, BRIDGE);
    web.publish(host, &[port("tcp", 8080, 80, 1)])
        .await
        .unwrap();
    web.publish(host, &[]).await.unwrap();
    assert!(routes(netns), "somebody else wanted it");
}

/// Waits until the bridge routes loopback, and sees that it never does before the rules are there.
async fn rules_first(netns: &NetNs) {
    wait_until("a bridge that routes loopback again", SOON, || async {
        if !routes(netns) {
            return Err("not yet");
        }
        // Looked at afterwards: nobody takes them away meanwhile.
        let rules = listed(netns, "inet quilt_mesh").unwrap_or_default();
        assert!(rules.contains("ip daddr 127.0.0.0/8 counter"), "{rules}");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_routes_loopback_no_more_once_the_last_container_has_ended_without_a_runtime() {
    let pair = Pair::start(&DaemonOptions::new()).await;
    let (host, netns) = (pair.host_a(), pair.host_a().netns());
    let web = Web::attach(host, &[port("tcp", 8080, 80, 1)]).await;
    wait_routes(netns, true, "once a port is published").await;
    host.stop(Daemon::Runtime, Signal::SIGKILL, SOON)
        .await
        .unwrap();
    drop(web);
    assert!(routes(netns), "nobody is there to take it away");
    host.restart(Daemon::Runtime).unwrap();
    wait_routes(netns, false, "with nobody published any more").await;
}

/// Cleaning up leaves a bridge that has ports, and takes the rules away.
#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_that_cleaning_up_leaves_routes_loopback_no_more() {
    let pair = Pair::start(&DaemonOptions::new()).await;
    let host = pair.host_a();
    let _web = Web::attach(host, &[port("tcp", 8080, 80, 1)]).await;
    wait_routes(host.netns(), true, "once a port is published").await;
    host.stop(Daemon::Runtime, Signal::SIGTERM, SOON)
        .await
        .unwrap();
    assert!(routes(host.netns()), "it goes on without the runtime");
    cleanup(host);
    let bridge = run(host.netns(), "ip", &format!("link show {BRIDGE}"));
    drop(bridge);
    assert!(!routes(host.netns()), "after --cleanup");
}
