//! Between two nodes: what is missing, foreign or forged there. Nobody repairs it, because the runtimes were killed.

use std::net::Ipv4Addr;

use mesh_runtime::trace::{
    Hop, Trace,
    Verdict::{Drops, NotEvaluated, Passes},
};
use mesh_testbed::wait_until;

use crate::{
    pair::SOON,
    scene::{Packet, Scene, end, forget, nft, run},
};

const A: Ipv4Addr = Ipv4Addr::new(10, 42, 1, 0);
const B: Ipv4Addr = Ipv4Addr::new(10, 42, 2, 0);

#[tokio::test(flavor = "multi_thread")]
async fn what_programs_carry_is_said_to_pass_by_the_fast_path_whatever_the_routes_are() {
    for mode in ["tcx", "clsact"] {
        let scene = Scene::start(&["--attach", mode])
            .await
            .without_runtimes()
            .await;
        let trace = scene.compare_between("nothing is wrong", &scene.there(), Passes);
        assert_eq!(trace.path, "fast", "{trace:#?}");
        assert_eq!(trace.other_node, scene.b().name());
        run(scene.a().netns(), "ip route del 10.42.2.0/24");
        let trace =
            scene.compare_between("no route, which no program needs", &scene.there(), Passes);
        assert_eq!(trace.path, "fast");
        let drop_all = "add table ip f; add chain ip f c { type filter hook forward priority 0; policy drop; }";
        for host in [scene.a(), scene.b()] {
            nft(host.netns(), drop_all);
        }
        scene.compare_between(
            "a forward chain, which no program passes",
            &scene.there(),
            Passes,
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_on_the_way_out_is_said_to_drop_the_packet_where_it_does() {
    let scene = Scene::start(&[]).await.without_runtimes().await;
    let a = scene.a().netns();
    forget(scene.a(), "peers", B);
    let trace = scene.compare_between("a peer that programs do not know", &scene.there(), Passes);
    assert_eq!(trace.path, "kernel", "{trace:#?}");

    let fdb = "dev vxlan100 02:51:0a:2a:02:00 dst";
    let there = scene.b().address();
    run(a, &format!("bridge fdb del {fdb} {there}"));
    let trace = scene.compare_between("no forwarding entry", &scene.there(), Drops);
    assert!(
        end(&trace).contains("no forwarding entry for 02:51:0a:2a:02:00"),
        "{trace:#?}"
    );
    let elsewhere = scene.pair.stranger().address();
    run(
        a,
        &format!("bridge fdb add {fdb} {elsewhere} self permanent"),
    );
    let trace = scene.compare_between("one that leads elsewhere", &scene.there(), NotEvaluated);
    assert!(!scene.there().arrives_at(crate::scene::PORT));
    assert!(
        end(&trace).contains(&format!("leads to {elsewhere}")),
        "{trace:#?}"
    );
    run(
        a,
        &format!("bridge fdb replace {fdb} {there} self permanent"),
    );
    scene.compare_between("the right one again", &scene.there(), Passes);

    run(a, "ip neigh del 10.42.2.0 dev vxlan100");
    let trace = scene.compare_between("no neighbour", &scene.there(), Drops);
    assert!(
        end(&trace).contains("no neighbour entry for 10.42.2.0"),
        "{trace:#?}"
    );
    run(
        a,
        "ip neigh replace 10.42.2.0 lladdr 02:51:0a:2a:02:00 dev vxlan100 nud permanent",
    );

    run(a, "ip rule add to 10.42.2.0/24 prohibit priority 100");
    let trace = scene.compare_between("a policy rule that prohibits", &scene.there(), Drops);
    assert!(end(&trace).contains("prohibits"), "{trace:#?}");
    run(a, "ip rule del priority 100");

    run(a, "ip link set vxlan100 down");
    // The kernel forgets the routes of a device that goes down.
    scene.compare_between("a device that is down", &scene.there(), Drops);
    run(a, "ip link set vxlan100 up");
    let trace = scene.compare_between("no route", &scene.there(), Drops);
    assert!(end(&trace).contains("no route"), "{trace:#?}");

    run(a, &format!("ip route add 10.42.2.0/24 via {elsewhere}"));
    let trace = scene.compare_between("somebody else's route", &scene.there(), NotEvaluated);
    assert!(!scene.there().arrives_at(crate::scene::PORT));
    assert!(end(&trace).contains("past vxlan100"), "{trace:#?}");
    run(a, "ip route del 10.42.2.0/24");
    run(
        a,
        "ip route add 10.42.2.0/24 via 10.42.2.0 dev vxlan100 onlink proto 81 src 10.42.1.1",
    );
    run(
        a,
        "ip neigh replace 10.42.2.0 lladdr 02:51:0a:2a:02:00 dev vxlan100 nud permanent",
    );
    scene.compare_between("all as it was", &scene.there(), Passes);

    a.sysctl("net/ipv4/ip_forward", "0").unwrap();
    let trace = scene.compare_between("a host that does not forward", &scene.there(), Drops);
    assert!(end(&trace).contains("forwarding is off"), "{trace:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_or_forged_on_the_way_in_is_said_to_drop_the_packet_where_it_does() {
    let scene = Scene::start(&[]).await.without_runtimes().await;
    forget(scene.b(), "endpoints", scene.pair.b.address());
    scene.compare_between(
        "a container that programs do not know",
        &scene.there(),
        Passes,
    );
    let trace = scene.trace_on(scene.b(), &scene.there());
    let left = |it: &&Hop| it.decision.contains("no_endpoint");
    assert_eq!(trace.hops.iter().filter(left).count(), 2, "{trace:#?}");

    forget(scene.b(), "peers", A);
    scene.compare_between("a sender that programs do not know", &scene.there(), Drops);
    let trace = scene.trace_on(scene.b(), &scene.there());
    assert!(end(&trace).contains("foreign_source"), "{trace:#?}");
    forget(scene.b(), "vteps", scene.a().address());
    let trace = scene.trace_on(scene.b(), &scene.there());
    assert!(end(&trace).contains("unknown_vtep"), "{trace:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_speaks_from_anothers_address_is_said_to_be_dropped_at_its_port() {
    let scene = Scene::start(&[]).await;
    let thief = scene.a().add_container().await.unwrap();
    scene.pair.wait_endpoint(scene.a(), &thief).await;
    let scene = scene.without_runtimes().await;
    let victim = scene.pair.a.address();
    run(thief.netns(), &format!("ip address add {victim}/32 dev lo"));
    let forged = Packet {
        from: thief.netns(),
        from_interface: thief.host_interface().to_owned(),
        ..scene.there()
    };
    let trace = scene.trace_on(scene.a(), &forged);
    assert!(end(&trace).contains("spoofed_address"), "{trace:#?}");
    assert_eq!(trace.verdict(), Drops);
    assert!(!forged.arrives_at(forged.port));
    // From its own it may speak, and from one that nobody has.
    let own = Packet {
        source: thief.address(),
        from: thief.netns(),
        ..scene.there()
    };
    scene.compare_between("its own address", &own, Passes);
    run(thief.netns(), "ip address add 10.42.1.99/32 dev lo");
    let free = Packet {
        source: Ipv4Addr::new(10, 42, 1, 99),
        from: thief.netns(),
        from_interface: thief.host_interface().to_owned(),
        ..scene.there()
    };
    let trace = scene.trace_on(scene.a(), &free);
    assert_eq!(trace.verdict(), Passes, "{trace:#?}");
    assert!(free.arrives_at(free.port));
    run(thief.netns(), "ip address add 10.42.2.99/32 dev lo");
    let foreign = Packet {
        source: Ipv4Addr::new(10, 42, 2, 99),
        ..free
    };
    // By the address alone it is another node's; by the port it is not.
    assert!(!foreign.arrives_at(foreign.port));
}

#[tokio::test(flavor = "multi_thread")]
async fn lengths_decide_by_what_the_way_and_the_overlay_take() {
    let scene = Scene::start(&[]).await.without_runtimes().await;
    for container in [&scene.pair.a, &scene.pair.b] {
        run(container.netns(), "ip link set eth0 mtu 1500");
    }
    let of = |length, may_be_fragmented| Packet {
        length,
        may_be_fragmented,
        ..scene.there()
    };
    scene.compare_between("as long as may be", &of(1450, false), Passes);
    let trace = scene.compare_between("a byte too long", &of(1451, false), Drops);
    assert!(
        end(&trace).contains("1451 bytes, and 1450 is the most"),
        "{trace:#?}"
    );
    let trace = scene.compare_between("the same, if it may be cut up", &of(1451, true), Passes);
    assert_eq!(trace.path, "kernel");

    let there = scene.b().address();
    run(
        scene.a().netns(),
        &format!("ip route add {there} dev eth0 mtu 1200"),
    );
    // What the programs remember of the way is out of date in milliseconds.
    let narrow = of(1300, false);
    let trace = scene.compare_between("longer than the underlay's route takes", &narrow, Passes);
    assert_eq!(trace.path, "kernel", "{trace:#?}");
    let small = scene.compare_between("one that fits", &of(1150, false), Passes);
    assert_eq!(small.path, "fast");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_by_a_port_that_somebody_shapes_is_said_to_be_left_to_the_kernel_there() {
    let scene = Scene::start(&[]).await;
    let port = scene.pair.a.host_interface();
    let shape = format!("tc qdisc add dev {port} root tbf rate 100mbit burst 32kbit latency 400ms");
    run(scene.a().netns(), &shape);
    let is_left = |trace: &Trace| {
        let left = |hop: &Hop| hop.decision == "left to the kernel path: left_to_kernel";
        trace.hops.iter().any(left)
    };
    wait_until("the port to be left to the kernel", SOON, || async {
        let trace = scene.trace_on(scene.a(), &scene.there());
        match is_left(&trace) {
            true => Ok(()),
            false => Err(format!("{trace:#?}")),
        }
    })
    .await
    .unwrap();
    let trace = scene.compare_between("a shaped port", &scene.there(), Passes);
    // What its container sends the bridge's program has, once it is past the port.
    let carried =
        |hop: &Hop| hop.place == "quilt0, program catch_all" && hop.decision.contains("fast path");
    assert!(
        is_left(&trace) && trace.hops.iter().any(carried),
        "{trace:#?}"
    );
    let (a, b) = (&scene.pair.a, &scene.pair.b);
    let back = Packet::new((b.netns(), b.address()), (a.netns(), a.address()));
    scene.compare_between("the way back", &back, Passes);
    let trace = scene.trace_on(scene.a(), &back);
    assert_eq!(
        (trace.path, is_left(&trace)),
        ("kernel", true),
        "{trace:#?}"
    );
}
