//! Several interfaces, several networks, several calls.

use mesh_testbed::CniAttachment;
use serde_json::json;

use crate::{
    engine::{address, alone, assert_says, engine, failure, list, quilt},
    mesh::{five_of_five, ip, leases, links, mesh_of, namespace, needed, owner_of, wait_leases},
    remains::Remains,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_second_interface_has_an_address_of_its_own_and_takes_nothing_from_the_first() {
    let testbed = mesh_of(2).await;
    let [host, other] = testbed.hosts() else {
        unreachable!()
    };
    let engine = engine(host);
    let before = Remains::of(host).await;
    let web = namespace("web").await;
    let one = CniAttachment::new("web", &web);
    let two = CniAttachment::new("web", &web).named("eth1");
    let first = engine.add(&alone(host), &one).await.unwrap();
    let second = engine.add(&alone(host), &two).await.unwrap();
    assert_ne!(address(&first, 0), address(&second, 0));
    assert_eq!(links(&web), ["eth0", "eth1", "lo"]);
    let routes = ip(&web, "route show default");
    assert_eq!(routes.lines().count(), 1, "{routes}");
    assert!(routes.contains("dev eth0"), "{routes}");
    let routes = second["routes"].as_array();
    let to_anywhere = |route: &serde_json::Value| route["dst"] == "0.0.0.0/0";
    assert!(
        !routes.is_some_and(|it| it.iter().any(to_anywhere)),
        "{second}"
    );
    let sibling = namespace("sibling").await;
    let sibling_is = CniAttachment::new("sibling", &sibling);
    let beside = engine.add(&alone(host), &sibling_is).await.unwrap();
    let far = needed(other.attach_container().await);
    for attachment in [&one, &two] {
        engine.check(&alone(host), attachment).await.unwrap();
    }
    // Each answers whoever asks for its address, and the container asks by itself.
    for from in [&sibling, far.netns(), host.netns()] {
        five_of_five(from, address(&first, 0)).await;
        five_of_five(from, address(&second, 0)).await;
    }
    for to in [address(&beside, 0), far.address()] {
        five_of_five(&web, to).await;
    }
    let status = host.status().await.unwrap();
    assert_eq!(status.problems(), [""; 0]);

    // Each goes for itself.
    engine.del(&alone(host), &two).await.unwrap();
    assert_eq!(links(&web), ["eth0", "lo"]);
    engine.check(&alone(host), &one).await.unwrap();
    five_of_five(far.netns(), address(&first, 0)).await;
    engine.add(&alone(host), &two).await.unwrap();
    engine.del(&alone(host), &one).await.unwrap();
    assert_eq!(links(&web), ["eth1", "lo"]);
    engine.check(&alone(host), &two).await.unwrap();
    engine.del(&alone(host), &two).await.unwrap();
    engine.del(&alone(host), &sibling_is).await.unwrap();
    before.wait_again(host).await;
}

/// Beside an interface that is none of ours the mesh is reached by ours.
#[tokio::test(flavor = "multi_thread")]
async fn an_interface_beside_another_networks_reaches_the_mesh_and_leaves_the_rest_to_it() {
    let testbed = mesh_of(2).await;
    let [host, other] = testbed.hosts() else {
        unreachable!()
    };
    let engine = engine(host);
    let web = namespace("web").await;
    ip(&web, "link add eth9 type veth peer name eth8");
    ip(&web, "link set eth9 up");
    ip(&web, "address add 192.0.2.200/24 dev eth9");
    ip(&web, "route add default via 192.0.2.201 dev eth9");
    let attachment = CniAttachment::new("web", &web);
    let result = engine.add(&alone(host), &attachment).await.unwrap();
    assert_eq!(result["routes"][0]["dst"], "10.42.0.0/16");
    let routes = ip(&web, "route show default");
    assert_eq!(routes.trim(), "default via 192.0.2.201 dev eth9 linkdown");
    let far = needed(other.attach_container().await);
    five_of_five(&web, far.address()).await;
    five_of_five(far.netns(), address(&result, 0)).await;
    engine.check(&alone(host), &attachment).await.unwrap();
    engine.del(&alone(host), &attachment).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_may_leave_the_default_route_out() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let engine = engine(host);
    let shop = namespace("shop").await;
    let mut plugin = quilt(host, "podman");
    plugin["defaultRoute"] = json!(false);
    let without = list("quilt", "1.1.0", [plugin]);
    let attachment = CniAttachment::new("shop", &shop);
    engine.add(&without, &attachment).await.unwrap();
    assert_eq!(ip(&shop, "route show default"), "");
    engine.check(&without, &attachment).await.unwrap();
    engine.del(&without, &attachment).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_of_one_network_is_refused_another_one_and_keeps_what_it_has() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let engine = engine(host);
    let web = namespace("web").await;
    let attachment = CniAttachment::new("web", &web);
    let result = engine.add(&alone(host), &attachment).await.unwrap();
    let other = list("shop", "1.1.0", [quilt(host, "podman")]);
    let second = attachment.clone().named("eth1");
    let failed = failure(engine.add(&other, &second).await);
    assert_says(&failed, 7, &["quilt", "shop"]);
    assert_eq!(links(&web), ["eth0", "lo"]);
    let all = leases(host).await;
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!(owner_of(&all[0]), "podman/quilt/web/eth0");
    engine.check(&alone(host), &attachment).await.unwrap();
    five_of_five(&web, "10.42.1.1".parse().unwrap()).await;

    // Another container may be in the other one: it is the same flat network.
    let shop = namespace("shop").await;
    let shop_is = CniAttachment::new("shop", &shop);
    engine.add(&other, &shop_is).await.unwrap();
    five_of_five(&shop, address(&result, 0)).await;
    // And once the first one has gone, this one too.
    engine.del(&alone(host), &attachment).await.unwrap();
    engine.add(&other, &second).await.unwrap();
    engine.del(&other, &second).await.unwrap();
    engine.del(&other, &shop_is).await.unwrap();
    wait_leases(host, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_calls_for_one_interface_at_once_one_succeeds_and_the_other_takes_nothing_from_it() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let engine = engine(host);
    let before = Remains::of(host).await;
    for round in 0..10 {
        let web = namespace("web").await;
        let attachment = CniAttachment::new("web", &web);
        let list = alone(host);
        let (one, other) = tokio::join!(
            engine.add(&list, &attachment),
            engine.add(&list, &attachment)
        );
        let (result, failed) = match (one, other) {
            (Ok(result), Err(failed)) | (Err(failed), Ok(result)) => (result, failed),
            others => panic!("round {round}: {others:?}"),
        };
        let failed = failed
            .failure()
            .unwrap_or_else(|| panic!("{failed}"))
            .clone();
        assert_says(&failed, 101, &["eth0"]);
        let leases = leases(host).await;
        assert_eq!(leases.len(), 1, "{leases:?}");
        assert_eq!(leases[0].address, address(&result, 0).to_string());
        engine.check(&list, &attachment).await.unwrap();
        five_of_five(&web, "10.42.1.1".parse().unwrap()).await;
        engine.del(&list, &attachment).await.unwrap();
    }
    before.wait_again(host).await;
}
