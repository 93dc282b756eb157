//! What no Docker says, and what it says that cannot be.

use serde_json::{Value, json};

use crate::{
    container::{Network, Step},
    docker::{Docker, id, read},
    driver::Driver,
    mesh::{five_of_five, leases, mesh_of},
    remains::Remains,
};

/// Every call that reads something.
const CALLS: [&str; 12] = [
    "IpamDriver.RequestPool",
    "IpamDriver.RequestAddress",
    "IpamDriver.ReleaseAddress",
    "NetworkDriver.CreateNetwork",
    "NetworkDriver.DeleteNetwork",
    "NetworkDriver.CreateEndpoint",
    "NetworkDriver.DeleteEndpoint",
    "NetworkDriver.Join",
    "NetworkDriver.Leave",
    "NetworkDriver.ProgramExternalConnectivity",
    "NetworkDriver.RevokeExternalConnectivity",
    "NetworkDriver.EndpointOperInfo",
];

/// Those that have nothing to read in what they are sent.
const DEAF: [&str; 2] = ["NetworkDriver.Leave", "NetworkDriver.EndpointOperInfo"];

/// What the driver says of a request, which has to be refused: a sentence, and no more than that.
async fn said(docker: &Docker, call: &str, body: &[u8]) -> String {
    let answer = docker.post(call, body).await.unwrap();
    let said = read(call, answer).unwrap_err().0;
    assert!(
        (10..600).contains(&said.len()) && !said.contains('\n'),
        "{call}: {said}"
    );
    said
}

/// Sees that a request is refused with these words.
pub(crate) async fn assert_says(docker: &Docker, call: &str, request: &Value, words: &[&str]) {
    let said = said(docker, call, request.to_string().as_bytes()).await;
    for word in words {
        assert!(said.contains(word), "{call} {request}: {word:?} in {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_is_refused_with_a_sentence_and_the_driver_goes_on() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let mut driver = Driver::on(host).await;
    let docker = driver.docker();
    let network = docker.create_network().await.unwrap();
    let before = Remains::of(host).await;
    let huge = format!("{{\"NetworkID\":\"{}\"}}", "x".repeat(2 << 20));
    let deep = format!("{{\"NetworkID\":{}", "[".repeat(1 << 19));
    let trailing = r#"{"NetworkID":"a","EndpointID":"b"} {}"#;
    let bodies: [(&str, &[u8]); 9] = [
        ("nothing", b""),
        ("no JSON", b"mesh"),
        ("null", b"null"),
        ("a list", b"[]"),
        ("a number", b"7"),
        ("half of it", b"{\"NetworkID\":\"a"),
        ("no text", b"{\"NetworkID\":\"\xff\xfe\"}"),
        ("depth", deep.as_bytes()),
        ("two", trailing.as_bytes()),
    ];
    for call in CALLS.into_iter().filter(|it| !DEAF.contains(it)) {
        for (what, body) in bodies {
            let said = said(&docker, call, body).await;
            assert!(said.contains("request cannot be read"), "{what}: {said}");
        }
    }
    for call in CALLS {
        let said = said(&docker, call, huge.as_bytes()).await;
        assert!(said.contains("cannot be read"), "{call}: {said}");
    }
    for call in DEAF {
        for (_, body) in bodies {
            let answer = docker.post(call, body).await.unwrap();
            let _ = read(call, answer);
        }
    }
    for call in [
        "",
        "Plugin",
        "NetworkDriver.AllocateNetwork",
        "../etc/passwd",
        "IpamDriver.%00",
    ] {
        let (status, _) = docker.post(call, b"{}").await.unwrap();
        assert_eq!(status, 404, "{call}");
    }
    for method in ["GET", "PUT", "DELETE", "PATCH"] {
        let (status, _) = docker
            .request(method, "IpamDriver.RequestPool", b"{}")
            .await
            .unwrap();
        assert_eq!(status, 405, "{method}");
    }
    driver.assert_runs();
    before.wait_again(host).await;
    lives(&docker, host, &network).await;
}

/// Sees that a container lives.
async fn lives(docker: &Docker, host: &mesh_testbed::Host, network: &Network) {
    let mut web = network.container("web").await;
    docker.run(host, &mut web).await.unwrap();
    five_of_five(&web.namespace, network.gateway).await;
    docker.stop(host, &mut web).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_that_is_missing_or_wrong_is_named_and_nothing_is_left() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let driver = Driver::on(host).await;
    let docker = driver.docker();
    let network = docker.create_network().await.unwrap();
    let before = Remains::of(host).await;
    let mut web = network.container("web").await;
    for step in [Step::Address, Step::Endpoint] {
        docker.step(host, &mut web, step).await.unwrap();
    }
    let held = leases(host).await;
    let long = "f".repeat(1000);
    let ids = [
        "",
        "../../etc/cron.d/x",
        "a/b",
        ".",
        "..",
        "a.json",
        "a\0b",
        "ä",
        " ",
        long.as_str(),
    ];
    for field in ["NetworkID", "EndpointID"] {
        for step in [
            Step::Endpoint,
            Step::Join,
            Step::Publish,
            Step::Revoke,
            Step::Delete,
        ] {
            for id in ids {
                let mut bad = web.request(step);
                bad[field] = json!(id);
                assert_says(&docker, step.call(), &bad, &[field]).await;
            }
            for wrong in [Value::Null, json!(7), json!([]), json!({})] {
                let mut bad = web.request(step);
                bad[field] = wrong;
                assert_says(&docker, step.call(), &bad, &[field]).await;
            }
            let mut bad = web.request(step);
            bad.as_object_mut().unwrap().remove(field);
            assert_says(&docker, step.call(), &bad, &[field]).await;
        }
    }
    for call in ["NetworkDriver.CreateNetwork", "NetworkDriver.DeleteNetwork"] {
        for id in ids {
            let mut bad = network.creation(&json!({}));
            bad["NetworkID"] = json!(id);
            assert_says(&docker, call, &bad, &["NetworkID"]).await;
        }
    }
    let endpoint = web.request(Step::Endpoint);
    for (pointer, value, word) in [
        ("/Interface", Value::Null, "Interface"),
        ("/Interface", json!([]), "Interface"),
        ("/Interface", json!("eth0"), "Interface"),
        ("/Interface/Address", json!(""), "Address"),
        ("/Interface/Address", json!("10.42.1.2"), "prefix"),
        ("/Interface/Address", json!("fd00::1/64"), "Address"),
        ("/Interface/Address", json!(7), "Address"),
        ("/Interface/MacAddress", json!(""), "MacAddress"),
        ("/Interface/MacAddress", json!("02:42"), "MacAddress"),
        (
            "/Interface/MacAddress",
            json!("../../../../x"),
            "MacAddress",
        ),
        ("/Options", json!([]), "Options"),
    ] {
        let mut bad = endpoint.clone();
        *bad.pointer_mut(pointer).unwrap() = value;
        assert_says(&docker, Step::Endpoint.call(), &bad, &[word]).await;
    }
    for key in [
        json!(""),
        json!("netns"),
        Value::Null,
        json!(long.repeat(5)),
    ] {
        let mut bad = web.request(Step::Join);
        bad["SandboxKey"] = key;
        assert_says(&docker, Step::Join.call(), &bad, &["SandboxKey"]).await;
    }
    let address = web.request(Step::Address);
    let mac = "com.docker.network.endpoint.macaddress";
    for (name, value, word) in [
        ("PoolID", json!(""), "PoolID"),
        ("PoolID", json!("LocalDefault/172.20.0.0/16"), "PoolID"),
        ("PoolID", Value::Null, "PoolID"),
        ("PoolID", json!("quilt/172.20.0.0/16"), "PoolID"),
        ("Address", json!("fd00::1"), "IPv4"),
        ("Address", json!("10.42.1"), "IPv4"),
        ("Address", json!(7), "Address"),
        ("Address", json!("10.42.2.9"), "10.42.2.9"),
        ("Address", json!("192.0.2.9"), "192.0.2.9"),
        ("Address", json!("10.42.1.0"), "10.42.1.0"),
        ("Address", json!("10.42.1.1"), "10.42.1.1"),
        ("Address", json!("10.42.1.255"), "10.42.1.255"),
        ("Options", json!({ mac: "02:42" }), "MacAddress"),
        ("Options", json!({ mac: "../../../x" }), "MacAddress"),
        ("Options", json!({ mac: 7 }), "Options"),
        ("Options", json!([]), "Options"),
    ] {
        let mut bad = address.clone();
        if name == "Address" {
            bad["Options"][mac] = json!(crate::docker::mac());
        }
        bad[name] = value;
        assert_says(&docker, Step::Address.call(), &bad, &[word]).await;
    }
    for address in [json!(""), json!("web"), Value::Null] {
        let bad = json!({ "PoolID": network.pool_id, "Address": address });
        assert_says(&docker, Step::Release.call(), &bad, &["Address"]).await;
    }
    assert_eq!(leases(host).await, held);
    for step in [Step::Join, Step::Publish, Step::In] {
        docker.step(host, &mut web, step).await.unwrap();
    }
    five_of_five(&web.namespace, network.gateway).await;
    docker.stop(host, &mut web).await.unwrap();
    before.wait_again(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_or_a_network_that_cannot_be_is_refused_with_what_helps() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let driver = Driver::on(host).await;
    let docker = driver.docker();
    let network = docker.create_network().await.unwrap();
    let before = Remains::of(host).await;
    for (change, words) in [
        (
            json!({ "Pool": "172.20.0.0/16" }),
            &["172.20.0.0/16", "10.42.0.0/16", "--subnet"][..],
        ),
        (json!({ "Pool": "10.42.2.0/24" }), &["10.42.2.0/24"]),
        (json!({ "Pool": "10.42.1.1/24" }), &["10.42.1.1/24"]),
        (json!({ "Pool": "mesh" }), &["mesh"]),
        (json!({ "Pool": "x".repeat(100_000) }), &["xxx"]),
        (json!({ "V6": true }), &["IPv4", "--ipv6"]),
        (json!({ "V6": "true" }), &["V6"]),
        (
            json!({ "SubPool": "10.42.1.128/25" }),
            &["--ip-range 10.42.1.128/25"],
        ),
        (json!({ "Options": { "size": "7" } }), &["--ipam-opt size"]),
        (json!({ "Options": { "size": 7 } }), &["Options"]),
        (json!({ "Pool": null }), &["Pool"]),
    ] {
        let mut bad = json!({ "AddressSpace": "quilt", "Pool": "", "SubPool": "", "Options": {}, "V6": false });
        for (name, value) in change.as_object().unwrap() {
            bad[name] = value.clone();
        }
        assert_says(&docker, "IpamDriver.RequestPool", &bad, words).await;
    }
    for gateway in ["10.42.1.254", "10.42.2.1", "172.20.0.1"] {
        let bad = json!({
            "PoolID": network.pool_id, "Address": gateway,
            "Options": { "RequestAddressType": "com.docker.network.gateway" },
        });
        assert_says(
            &docker,
            "IpamDriver.RequestAddress",
            &bad,
            &[gateway, "10.42.1.1"],
        )
        .await;
    }
    let mut created = network.clone();
    created.id = id();
    let option = "com.docker.network.generic";
    for (options, words) in [
        (
            json!({ option: { "com.docker.network.bridge.name": "br0" } }),
            &["bridge.name"][..],
        ),
        (
            json!({ option: { "com.docker.network.driver.mtu": "big" } }),
            &["mtu", "big"],
        ),
        (
            json!({ option: { "com.docker.network.driver.mtu": "-1" } }),
            &["mtu", "-1"],
        ),
        (
            json!({ "com.docker.network.enable_ipv6": true }),
            &["--ipv6"],
        ),
        (
            json!({ "com.docker.network.internal": true }),
            &["--internal"],
        ),
        (json!([]), &["Options"]),
    ] {
        let bad = created.creation(&options);
        assert_says(&docker, "NetworkDriver.CreateNetwork", &bad, words).await;
    }
    let mut others = created.creation(&json!({}));
    others["IPv4Data"][0]["AddressSpace"] = json!("LocalDefault");
    assert_says(
        &docker,
        "NetworkDriver.CreateNetwork",
        &others,
        &["--ipam-driver quilt"],
    )
    .await;
    let mut sixth = created.creation(&json!({}));
    sixth["IPv6Data"] = sixth["IPv4Data"].clone();
    assert_says(&docker, "NetworkDriver.CreateNetwork", &sixth, &["--ipv6"]).await;
    for pools in [json!([]), Value::Null] {
        let mut none = created.creation(&json!({}));
        none["IPv4Data"] = pools;
        assert_says(
            &docker,
            "NetworkDriver.CreateNetwork",
            &none,
            &["--ipam-driver quilt"],
        )
        .await;
    }
    before.wait_again(host).await;
    lives(&docker, host, &network).await;
    before.wait_again(host).await;
}
