//! What Nomad does: three times ADD without DEL, arguments of its own, CHECK when its client restarts.

use std::time::Duration;

use mesh_testbed::{CniAttachment, Daemon, DaemonOptions, NetNs, Signal};
use serde_json::{Value, json};

use crate::{
    engine::{address, assert_says, engine, failure, list, quilt},
    mesh::{SOON, five_of_five, links, mesh_of, namespace, only_lease, owner_of},
    remains::Remains,
};

const ALLOCATION: &str = "5b3f5cfe-6d6c-3f2f-9a2b-8f1cf1dd0a01";

/// The first wait between two of its tries.
const WAIT: Duration = Duration::from_secs(1);

/// As Nomad asks: an allocation's id, `eth0`, and what it says of the job.
fn allocation(netns: &NetNs) -> CniAttachment {
    let ports = ["tcp", "udp"].map(|protocol| {
        json!({"hostPort": 25_001, "containerPort": 80, "protocol": protocol, "hostIP": ""})
    });
    CniAttachment::new(ALLOCATION, netns)
        .arg("IgnoreUnknown", "true")
        .arg("NOMAD_REGION", "global")
        .arg("NOMAD_NAMESPACE", "default")
        .arg("NOMAD_JOB_ID", "web")
        .arg("NOMAD_GROUP_NAME", "front")
        .arg("NOMAD_ALLOC_ID", ALLOCATION)
        .capability("portMappings", json!(ports))
}

/// The address that Nomad advertises: of its result's interfaces in a sandbox the first one by name that has one.
fn advertised(result: &Value) -> (String, String) {
    let interfaces = result["interfaces"].as_array().unwrap();
    let mut named: Vec<(String, usize)> = Vec::new();
    for (index, interface) in interfaces.iter().enumerate() {
        if interface["sandbox"]
            .as_str()
            .is_some_and(|it| !it.is_empty())
        {
            named.push((interface["name"].as_str().unwrap().to_owned(), index));
        }
    }
    named.sort();
    let of = |index: usize| {
        let ips = result["ips"].as_array().unwrap().iter();
        let mut of_it = ips.filter(|it| it["interface"] == index);
        of_it.next()
    };
    let mut found = named
        .into_iter()
        .filter_map(|(name, index)| Some((name, of(index)?)));
    let (name, its) = found.next().unwrap();
    (name, its["address"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_third_of_its_tries_succeeds_once_the_runtime_is_back_and_nothing_of_the_others_is_in_the_way()
 {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let nomad = engine(host).speaking("1.0.0").unwrap();
    let before = Remains::of(host).await;
    let portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}, "snat": true});
    // CHECK of portmap 1.1.1 fails wherever there are tables of IPv6.
    let checked = list("mesh", "1.0.0", [quilt(host, "nomad")]);
    let list = list("mesh", "1.0.0", [quilt(host, "nomad"), portmap]);
    let netns = namespace("allocation").await;
    let allocation = allocation(&netns);
    host.stop(Daemon::Runtime, Signal::SIGTERM, SOON)
        .await
        .unwrap();
    for _ in 0..2 {
        let failed = failure(nomad.add(&list, &allocation).await);
        assert_says(&failed, 11, &["runtime"]);
        tokio::time::sleep(WAIT).await;
    }
    host.start_runtime(&DaemonOptions::new()).await.unwrap();
    host.wait_joined(SOON).await.unwrap();
    let result = nomad.add(&list, &allocation).await.unwrap();
    let net = result["ips"][0]["address"].as_str().unwrap();
    assert_eq!(advertised(&result), ("eth0".to_owned(), net.to_owned()));
    let lease = only_lease(host).await;
    assert_eq!(owner_of(&lease), format!("nomad/mesh/{ALLOCATION}/eth0"));
    for (key, value) in [
        ("NOMAD_REGION", "global"),
        ("NOMAD_NAMESPACE", "default"),
        ("NOMAD_JOB_ID", "web"),
        ("NOMAD_GROUP_NAME", "front"),
        ("NOMAD_ALLOC_ID", ALLOCATION),
    ] {
        assert_eq!(
            lease.labels.get(key).map(String::as_str),
            Some(value),
            "{lease:?}"
        );
    }

    // Its client restarts, and the runtime too.
    nomad.check(&checked, &allocation).await.unwrap();
    host.restart(Daemon::Runtime).unwrap();
    host.wait_joined(SOON).await.unwrap();
    nomad.check(&checked, &allocation).await.unwrap();
    five_of_five(&netns, "10.42.1.1".parse().unwrap()).await;
    assert_eq!(
        only_lease(host).await.address,
        address(&result, 0).to_string()
    );

    nomad.del(&list, &allocation).await.unwrap();
    assert_eq!(links(&netns), ["lo"]);
    // The stock plugin's own chains stay, without a rule of the container's.
    before.wait_but_for_rules(host, address(&result, 0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_the_same_at_each_of_its_three_tries() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let nomad = engine(host).speaking("1.0.0").unwrap();
    let before = Remains::of(host).await;
    let list = list("mesh", "1.0.0", [quilt(host, "nomad")]);
    let netns = namespace("allocation").await;
    let allocation = allocation(&netns).arg("IP", "10.42.9.9");
    for _ in 0..3 {
        let failed = failure(nomad.add(&list, &allocation).await);
        assert_says(&failed, 100, &["10.42.9.9"]);
        assert_eq!(links(&netns), ["lo"]);
    }
    before.wait_again(host).await;
    // Nomad gives up, and deletes what never was.
    nomad.del(&list, &allocation).await.unwrap();
    before.wait_again(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_names_what_is_not_as_it_was_left() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let nomad = engine(host);
    let list = list("mesh", "1.1.0", [quilt(host, "nomad")]);
    let netns = namespace("allocation").await;
    let allocation = allocation(&netns);
    let result = nomad.add(&list, &allocation).await.unwrap();
    let net = result["ips"][0]["address"].as_str().unwrap();
    let port = crate::engine::port(&result);
    let steps = [
        (
            true,
            format!("address del {net} dev eth0"),
            format!("address add {net} dev eth0"),
        ),
        (
            true,
            "link set eth0 down".to_owned(),
            "link set eth0 up".to_owned(),
        ),
        (
            false,
            format!("link set {port} down"),
            format!("link set {port} up"),
        ),
    ];
    for (inside, harm, cure) in steps {
        let place = if inside { &netns } else { host.netns() };
        crate::mesh::ip(place, &harm);
        let checked = nomad.check(&list, &allocation).await;
        assert!(checked.is_err(), "{harm}");
        let failed = failure(checked);
        assert!(failed.code >= 100, "{harm}: {failed}");
        let named = ["eth0", port, net]
            .into_iter()
            .any(|it| failed.msg.contains(it));
        assert!(named, "{harm}: {failed}");
        crate::mesh::ip(place, &cure);
        for (destination, metric) in [("default", ""), ("10.42.0.0/16", " metric 1024")] {
            let routes = crate::mesh::ip(&netns, &format!("route show {destination}"));
            if routes.is_empty() {
                // It went with the address, or with the interface.
                let failed = failure(nomad.check(&list, &allocation).await);
                assert!(failed.code >= 100, "{harm}: {failed}");
                let route = format!("route add {destination} via 10.42.1.1{metric}");
                crate::mesh::ip(&netns, &route);
            }
        }
        nomad.check(&list, &allocation).await.unwrap();
    }
    // Nobody may disable what others enabled.
    let mut off = list.clone();
    off["disableCheck"] = json!(true);
    crate::mesh::ip(&netns, "link del eth0");
    nomad.check(&off, &allocation).await.unwrap();
    let failed = failure(nomad.check(&list, &allocation).await);
    assert!(failed.code >= 100, "{failed}");
    nomad.del(&list, &allocation).await.unwrap();
}
