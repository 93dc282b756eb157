//! What others have: containers, processes and nodes.

use std::net::{Ipv4Addr, TcpListener};

use mesh_client::Maintenance;
use serde_json::{Value, json};

use crate::{
    bad_input::assert_says,
    container::{Container, Step},
    docker::{mac, port_binding},
    driver::Driver,
    mesh::{five_of_five, leases, mesh_of},
    remains::Remains,
};

#[tokio::test(flavor = "multi_thread")]
async fn what_another_container_has_stays_its_own() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let driver = Driver::on(host).await;
    let docker = driver.docker();
    let network = docker.create_network().await.unwrap();
    let mut web = network.container("web").await.publishing(8080, 80);
    docker.run(host, &mut web).await.unwrap();
    let before = Remains::of(host).await;
    let held = leases(host).await;
    let refused = async |mut container: Container, words: &[&str]| {
        let said = docker.run_or_undo(host, &mut container).await.unwrap_err();
        for word in words {
            assert!(said.0.contains(word), "{word:?} in {said}");
        }
        before.wait_again(host).await;
        five_of_five(&web.namespace, network.gateway).await;
        assert_eq!(leases(host).await, held);
    };
    // Its MAC address, and its address.
    let mut other = network.container("other").await;
    other.mac.clone_from(&web.mac);
    refused(
        other,
        &[&web.mac, &web.address().to_string(), "--mac-address"],
    )
    .await;
    let mut other = network.container("other").await;
    other.wished = Some(web.address());
    refused(other, &[&web.address().to_string()]).await;
    // An endpoint without a lease, with another's, and with another MAC address than that of its lease.
    for (address, mac) in [
        (Ipv4Addr::new(10, 42, 1, 77), mac()),
        (web.address(), mac()),
        (web.address(), web.mac.clone()),
    ] {
        let mut other = network.container("other").await;
        other.mac = mac;
        other.given = Some(format!("{address}/24").parse().unwrap());
        let said = docker
            .step(host, &mut other, Step::Endpoint)
            .await
            .unwrap_err();
        assert!(said.0.contains(&address.to_string()), "{said}");
        // As libnetwork does after that.
        docker.step(host, &mut other, Step::Release).await.unwrap();
        before.wait_again(host).await;
        five_of_five(&web.namespace, network.gateway).await;
    }
    // A second network of the same mesh.
    let second = docker.create_network().await.unwrap();
    let before_second = Remains::of(host).await;
    let mut again = second.container("again").await;
    again.sandbox.clone_from(&web.sandbox);
    let said = docker.run_or_undo(host, &mut again).await.unwrap_err();
    assert!(said.0.contains("names of one mesh"), "{said}");
    before_second.wait_again(host).await;
    docker.delete_network(&second).await.unwrap();
    // Endpoints that nobody knows.
    let unknown = network.container("unknown").await;
    for step in [Step::Join, Step::Publish] {
        let said = docker
            .call(step.call(), &unknown.request(step))
            .await
            .unwrap_err();
        assert!(said.0.contains("start it again"), "{said}");
    }
    for step in [Step::Revoke, Step::Leave, Step::Delete] {
        docker
            .call(step.call(), &unknown.request(step))
            .await
            .unwrap();
    }
    before.wait_again(host).await;
    docker.stop(host, &mut web).await.unwrap();
    assert!(leases(host).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_that_cannot_be_published_are_refused_and_nothing_is_left() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let driver = Driver::on(host).await;
    let docker = driver.docker();
    let network = docker.create_network().await.unwrap();
    let mut web = network.container("web").await.publishing(8080, 80);
    docker.run(host, &mut web).await.unwrap();
    let taken = host.netns().run(|| TcpListener::bind("0.0.0.0:8443"));
    let _taken = taken.unwrap().unwrap();
    let before = Remains::of(host).await;
    let binding = |change: Value| {
        let mut binding = port_binding(8081, 80);
        for (name, value) in change.as_object().unwrap() {
            binding[name] = value.clone();
        }
        binding
    };
    for (change, words) in [
        (
            json!({ "HostPort": 8080, "HostPortEnd": 8080 }),
            &["8080"][..],
        ),
        (json!({ "HostPort": 8443, "HostPortEnd": 8443 }), &["8443"]),
        (
            json!({ "HostPort": 0, "HostPortEnd": 0 }),
            &["--publish 8080:80"],
        ),
        (json!({ "HostPortEnd": 8090 }), &["8081-8090"]),
        (json!({ "Proto": 132 }), &["132"]),
        (json!({ "HostIP": "::1" }), &["IPv6"]),
        (json!({ "HostIP": "here" }), &["here"]),
        (json!({ "HostPort": 99_999 }), &["HostPort"]),
        (json!({ "HostPort": -1 }), &["HostPort"]),
        (json!({ "Port": 0 }), &["port"]),
        (json!({ "Port": null }), &["Port"]),
        (json!({ "Proto": "tcp" }), &["Proto"]),
    ] {
        let mut other = network.container("other").await;
        other.ports = vec![port_binding(8082, 82), binding(change.clone())];
        let said = docker.run_or_undo(host, &mut other).await;
        let said = said.expect_err(&change.to_string());
        for word in words {
            assert!(said.0.contains(word), "{change}: {word:?} in {said}");
        }
        before.wait_again(host).await;
    }
    let mut other = network.container("other").await;
    for step in [Step::Address, Step::Endpoint, Step::Join] {
        docker.step(host, &mut other, step).await.unwrap();
    }
    for ports in [json!({}), json!("8080:80"), json!([7]), json!([[]])] {
        let mut bad = other.request(Step::Publish);
        bad["Options"]["com.docker.network.portmap"] = ports;
        assert_says(&docker, Step::Publish.call(), &bad, &["portmap"]).await;
    }
    // What there is to publish may be left out.
    for options in [Value::Null, json!({})] {
        let mut none = other.request(Step::Publish);
        none["Options"] = options;
        docker.call(Step::Publish.call(), &none).await.unwrap();
    }
    docker.step(host, &mut other, Step::In).await.unwrap();
    docker.stop(host, &mut other).await.unwrap();
    before.wait_again(host).await;
    docker.stop(host, &mut web).await.unwrap();
    assert!(leases(host).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_drained_node_no_container_starts_and_those_that_run_go_on_and_end() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let driver = Driver::on(host).await;
    let docker = driver.docker();
    let network = docker.create_network().await.unwrap();
    let mut web = network.container("web").await;
    docker.run(host, &mut web).await.unwrap();
    let socket = host.runtime_socket();
    let mut maintenance = Maintenance::connect(&socket).await.unwrap();
    maintenance.drain(Some(true)).await.unwrap();
    // With the mark of a drained node.
    let before = Remains::of(host).await;
    let mut late = network.container("late").await;
    let said = docker.run_or_undo(host, &mut late).await.unwrap_err();
    assert!(said.0.contains("meshctl drain --undo"), "{said}");
    before.wait_again(host).await;
    five_of_five(&web.namespace, network.gateway).await;
    docker.stop(host, &mut web).await.unwrap();
    assert!(leases(host).await.is_empty());
    maintenance.drain(Some(false)).await.unwrap();
    let mut late = network.container("late").await;
    docker.run(host, &mut late).await.unwrap();
    docker.stop(host, &mut late).await.unwrap();
}
