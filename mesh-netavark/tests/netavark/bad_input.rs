//! What no Podman says.

use mesh_testbed::NetavarkContainer;
use serde_json::{Value, json};

use crate::{
    engine::{assert_says, engine, network, said},
    mesh::{leases, links, mesh_of, namespace},
    remains::Remains,
};

#[tokio::test(flavor = "multi_thread")]
async fn hostile_input_is_refused_with_a_sentence_and_nothing_is_left() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let engine = engine(host);
    let before = Remains::of(host).await;
    let web = namespace("web").await;
    let path = web.path().display().to_string();
    let long = format!("{{\"name\":\"{}\"}}", "x".repeat(10 << 20));
    let inputs: [(&str, &[u8]); 8] = [
        ("nothing", b""),
        ("no JSON", b"mesh"),
        ("null", b"null"),
        ("a list", b"[]"),
        ("an empty object", b"{}"),
        ("bytes", &[0xff; 4096]),
        ("10 MB of a name", long.as_bytes()),
        ("depth", &[b'['; 1 << 20]),
    ];
    for (what, input) in inputs {
        for call in [&["create"][..], &["setup", &path], &["teardown", &path]] {
            let said = said(engine.exec(call, input).await);
            assert!(said.contains("standard input"), "{what} {call:?}: {said}");
            assert!(said.len() < 1000, "{what} {call:?}: {} bytes", said.len());
        }
    }
    for call in [&["setup"][..], &["teardown", ""]] {
        assert_says(engine.exec(call, b"{}").await, &["path", "missing"]);
    }
    assert_eq!(links(&web), ["lo"]);
    before.wait_again(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_or_wrong_field_is_named() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let engine = engine(host);
    let web = namespace("web").await;
    let path = web.path().display().to_string();
    let good = NetavarkContainer::new("web", &web, &network(host, "mesh").await).input();
    let wrong: [(&str, Value); 12] = [
        ("/container_id", Value::Null),
        ("/container_id", json!("../etc")),
        ("/container_id", json!("c".repeat(129))),
        ("/network", Value::Null),
        ("/network/name", json!(7)),
        ("/network/options/mtu", json!("-1")),
        ("/network_options", json!([])),
        ("/network_options/interface_name", Value::Null),
        ("/network_options/interface_name", json!("a/b")),
        ("/network_options/static_ips", json!("10.42.1.9")),
        ("/network_options/static_mac", json!("02:00")),
        ("/port_mappings", json!([{ "host_port": 99999 }])),
    ];
    for (pointer, value) in wrong {
        let mut bad = good.clone();
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        bad.pointer_mut(parent).unwrap()[field] = value.clone();
        let bad = bad.to_string();
        let said = said(engine.exec(&["setup", &path], bad.as_bytes()).await);
        let word = field
            .trim_start_matches("container_")
            .split('_')
            .next_back()
            .unwrap();
        let words = [field, word, "interface", "container", "MAC"];
        assert!(
            words.iter().any(|it| said.contains(it)),
            "{pointer} {value}: {said}"
        );
        assert_eq!(links(&web), ["lo"]);
    }
    assert!(leases(host).await.is_empty());
    // What is not known is not looked at.
    let mut more = good.clone();
    more["later"] = json!({ "than": ["this"] });
    let input = more.to_string();
    engine
        .exec(&["setup", &path], input.as_bytes())
        .await
        .unwrap();
    engine
        .exec(&["teardown", &path], input.as_bytes())
        .await
        .unwrap();
    assert!(leases(host).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_namespace_of_a_container_is_refused() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let made = network(host, "mesh").await;
    for (path, words) in [
        ("/run/netns/there/is/none", "cannot be opened"),
        ("/etc/passwd", "no namespace"),
        ("/proc/self/ns/uts", "not one of networks"),
        ("/proc/self/ns/net", "the host's"),
        ("netns", "absolute"),
    ] {
        let web = NetavarkContainer::by_path("web", path, &made);
        assert_says(engine(host).setup(&web).await, &[path, words]);
    }
    assert!(leases(host).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn podman_without_root_is_told_to_be_run_as_root() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let plugin = engine(host).plugin().display().to_string();
    let made = network(host, "mesh").await;
    // Another user of a namespace of its own, as `podman unshare` has.
    for (call, fails) in [("create", true), ("teardown /run/netns/web", false)] {
        let container = NetavarkContainer::by_path("web", "/run/netns/web", &made).input();
        let input = if fails { &made } else { &container };
        let mut unshare = host.netns().command("unshare");
        let script = format!("echo '{input}' | {plugin} {call}");
        unshare.args(["--user", "--map-user=1000", "sh", "-c", &script]);
        let ran = unshare.output().unwrap();
        let said = String::from_utf8_lossy(&ran.stdout);
        assert_eq!(said.contains("without root"), fails, "{ran:?}");
        assert_eq!(ran.status.success(), !fails, "{ran:?}");
    }
    // Nor from another network namespace, which would get an interface of ours.
    let elsewhere = namespace("elsewhere").await;
    let mut command = elsewhere.command("sh");
    let script = format!("echo '{made}' | {plugin} create");
    let ran = command.args(["-c", &script]).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(said.contains("another network namespace"), "{said}");
}
