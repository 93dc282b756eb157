//! Within one host, and with what is outside the mesh.

use std::net::Ipv4Addr;

use mesh_client::{
    Client,
    mesh::{AttachEndpointRequest, Owner, PublishedPort},
};
use mesh_runtime::trace::Verdict::{Drops, NotEvaluated, Passes};
use mesh_testbed::NetNs;

use crate::scene::{Packet, Scene, end, nft, run};

#[tokio::test(flavor = "multi_thread")]
async fn between_containers_of_one_node_the_bridge_and_its_rules_decide() {
    let scene = Scene::start(&[]).await;
    let sibling = scene.a().add_container().await.unwrap();
    scene.pair.wait_endpoint(scene.a(), &sibling).await;
    let scene = scene.without_runtimes().await;
    let one = &scene.pair.a;
    let packet = Packet::new(
        (one.netns(), one.address()),
        (sibling.netns(), sibling.address()),
    );
    let trace = scene.compare_here("nothing is wrong", &packet, Passes);
    assert_eq!((trace.path, trace.other_node.as_str()), ("", ""));
    let a = scene.a().netns();
    nft(
        a,
        "add table bridge f; add chain bridge f c { type filter hook forward priority 0; policy drop; }",
    );
    let trace = scene.compare_here("somebody else's rules of the bridge", &packet, NotEvaluated);
    assert!(
        end(&trace).contains("table bridge f, chain c"),
        "{trace:#?}"
    );
    assert!(!packet.arrives_at(packet.port));
    nft(a, "delete table bridge f");
    run(a, &format!("ip link set {} down", sibling.host_interface()));
    scene.compare_here("a port that is down", &packet, Drops);
    let nobody = Packet {
        destination: Ipv4Addr::new(10, 42, 1, 200),
        ..packet
    };
    scene.compare_here("an address that nobody has", &nobody, NotEvaluated);
    assert!(!nobody.arrives_at(nobody.port));
}

#[tokio::test(flavor = "multi_thread")]
async fn out_of_the_mesh_and_into_it_routes_and_our_rules_decide() {
    let scene = Scene::start(&[]).await;
    // One that is published, of an engine of its own.
    let web = NetNs::new("web").await.unwrap();
    let mut client = Client::connect(&scene.a().runtime_socket()).await.unwrap();
    let attached = client
        .attach(AttachEndpointRequest {
            owner: Some(Owner {
                engine: "test".to_owned(),
                network: "quilt".to_owned(),
                container: "web".to_owned(),
                interface: "eth0".to_owned(),
            }),
            network_namespace: web.path().display().to_string(),
            default_route: true,
            ports: vec![PublishedPort {
                protocol: "udp".to_owned(),
                host_address: String::new(),
                host_port: 8080,
                container_port: 80,
                count: 1,
            }],
            ..AttachEndpointRequest::default()
        })
        .await
        .unwrap();
    let address: Ipv4Addr = attached
        .inside
        .address
        .split('/')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let stranger = scene.pair.stranger();
    let outside = (stranger.netns(), stranger.address());
    let by_port = Packet {
        port: 8080,
        ..Packet::new(outside, (&web, scene.a().address()))
    };
    let trace = scene.compare_arriving("a published port", &by_port, 80, Passes);
    let led = |hop: &mesh_runtime::trace::Hop| hop.decision == format!("led to {address}:80");
    assert!(trace.hops.iter().any(led), "{trace:#?}");
    let from_here = Packet {
        port: 8080,
        ..Packet::new(
            (scene.a().netns(), scene.a().address()),
            (&web, scene.a().address()),
        )
    };
    scene.compare_arriving("a published port, from its host", &from_here, 80, Passes);

    run(
        stranger.netns(),
        &format!("ip route add 10.42.1.0/24 via {}", scene.a().address()),
    );
    let one = &scene.pair.a;
    let straight = Packet::new(outside, (one.netns(), one.address()));
    let trace = scene.compare_here("a container's own address", &straight, Drops);
    assert!(end(&trace).contains("inet quilt_mesh routed"), "{trace:#?}");
    let host = (scene.a().netns(), scene.a().address());
    scene.compare_here("this host", &Packet::new(outside, host), Passes);
    let gateway = (scene.a().netns(), Ipv4Addr::new(10, 42, 1, 1));
    let inside = (one.netns(), one.address());
    scene.compare_here(
        "from this host to a container",
        &Packet::new(gateway, inside),
        Passes,
    );
    scene.compare_here(
        "from a container to this host",
        &Packet::new(inside, host),
        Passes,
    );
    scene.compare_here(
        "from a container to its gateway",
        &Packet::new(inside, gateway),
        Passes,
    );
    let trace = scene.compare_here("out of the mesh", &Packet::new(inside, outside), Passes);
    let under = |hop: &mesh_runtime::trace::Hop| hop.decision.contains("under this host's address");
    assert!(trace.hops.iter().any(under), "{trace:#?}");
    let there = &scene.pair.b;
    let host_to_peer = Packet::new(gateway, (there.netns(), there.address()));
    let trace = scene.compare_between(
        "from this host to another node's container",
        &host_to_peer,
        Passes,
    );
    assert_eq!(trace.path, "kernel");
    let nowhere = Packet {
        destination: Ipv4Addr::new(198, 51, 100, 1),
        ..Packet::new(inside, outside)
    };
    let trace = scene.compare_here("where no route leads", &nowhere, Drops);
    assert!(end(&trace).contains("no route"), "{trace:#?}");
    let vxlan = Packet {
        port: 4789,
        ..Packet::new(inside, outside)
    };
    scene.compare_here("VXLAN's port, without a header of ours", &vxlan, Passes);
}
