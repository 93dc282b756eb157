//! What no engine should ask, and some do.

use std::{fs, time::Duration};

use mesh_testbed::{CniError, CniFailure, Host, NetNs};
use serde_json::{Value, json};

use crate::{
    engine::{assert_says, engine, failure, quilt},
    mesh::{leases, links, mesh_of, namespace},
};

/// Calls the plugin itself, with variables and an input of one's own.
async fn call(host: &Host, variables: &[(&str, &str)], input: &[u8]) -> Result<Value, CniError> {
    engine(host).exec("quilt-cni", variables, input).await
}

/// The variables of an ADD, some of them with another value; an empty one leaves it out.
fn variables<'a>(netns: &'a str, other: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let usual = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "web"),
        ("CNI_NETNS", netns),
        ("CNI_IFNAME", "eth0"),
    ];
    let named = |name: &str| other.iter().find(|(other, _)| *other == name);
    let mut all: Vec<_> = usual
        .into_iter()
        .map(|(name, value)| (name, named(name).map_or(value, |(_, value)| *value)))
        .collect();
    let more = other
        .iter()
        .filter(|(name, _)| !usual.iter().any(|(it, _)| it == name));
    all.extend(more.copied());
    all.retain(|(_, value)| !value.is_empty());
    all
}

fn config(host: &Host) -> Value {
    let mut config = quilt(host, "podman");
    config["cniVersion"] = json!("1.1.0");
    config["name"] = json!("quilt");
    config
}

async fn refused(host: &Host, netns: &NetNs, input: &[u8]) -> CniFailure {
    let path = netns.path().display().to_string();
    let failed = failure(call(host, &variables(&path, &[]), input).await);
    assert_eq!(links(netns), ["lo"]);
    assert!(
        failed.msg.len() < 500,
        "a sentence, not the input: {failed}"
    );
    failed
}

#[tokio::test(flavor = "multi_thread")]
async fn input_that_is_no_configuration_is_code_6_and_says_where() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let web = namespace("web").await;
    let good = config(host).to_string();
    let inputs: [&[u8]; 8] = [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\"quilt\"",
        b"{\"cniVersion\": 1}",
        b"\xff\xfe{}",
        &good.as_bytes()[..good.len() - 1],
    ];
    for input in inputs {
        let failed = refused(host, &web, input).await;
        assert_eq!(failed.code, 6, "{failed}");
    }
    let failed = refused(host, &web, b"{\n\"cniVersion\": \"1.1.0\",,}").await;
    assert_says(&failed, 6, &["line 2"]);
    assert!(leases(host).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_megabytes_of_hostile_input_are_refused_at_once_with_a_sentence() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let web = namespace("web").await;
    let size = 10 << 20;
    let prefix = r#"{"cniVersion": "1.1.0", "name": "quilt", "type": "quilt-cni", "prevResult": "#;
    let keys: String = (0..size / 10).map(|it| format!("\"k{it}\":0,")).collect();
    let hostile = [
        "[".repeat(size),
        format!("{prefix}{}", "[".repeat(size)),
        format!("{prefix}{}", "{\"a\":".repeat(size / 5)),
        format!("{{{keys}\"end\":0}}"),
        format!("{prefix}\"{}\"}}", "x".repeat(size)),
        format!("{prefix}[{}0]}}", "0,".repeat(size / 2)),
        format!("{prefix}{}}}", "1".repeat(size)),
        format!("{}{}", " ".repeat(size), config(host)),
    ];
    for input in &hostile {
        let refused = refused(host, &web, input.as_bytes());
        let refused = tokio::time::timeout(Duration::from_secs(20), refused).await;
        let failed = refused.expect("an answer at all");
        assert_eq!(failed.code, 6, "{failed}");
    }
    assert!(leases(host).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_not_spoken_is_code_1_and_names_those_that_are() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let web = namespace("web").await;
    for version in ["0.1.0", "0.2.0", "0.3.2", "1.2.0", "2.0.0", "", "one"] {
        let mut config = config(host);
        config["cniVersion"] = json!(version);
        let failed = refused(host, &web, config.to_string().as_bytes()).await;
        assert_says(&failed, 1, &[version, "0.4.0", "1.1.0"]);
    }
    let path = web.path().display().to_string();
    for (command, version) in [("CHECK", "0.3.1"), ("GC", "1.0.0"), ("STATUS", "1.0.0")] {
        let mut config = config(host);
        config["cniVersion"] = json!(version);
        let variables = variables(&path, &[("CNI_COMMAND", command)]);
        let failed = failure(call(host, &variables, config.to_string().as_bytes()).await);
        assert_says(&failed, 1, &[command, version]);
        assert_eq!(failed.cni_version, version);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn variables_that_are_missing_are_all_named() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let web = namespace("web").await;
    let path = web.path().display().to_string();
    let config = config(host).to_string();
    let [id, netns, name] = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"];
    for (command, missing) in [
        ("ADD", vec![id, netns, name]),
        ("CHECK", vec![id, netns, name]),
        ("DEL", vec![id, name]),
        ("ADD", vec![netns]),
        ("ADD", vec![id, name]),
    ] {
        let mut other: Vec<_> = missing.iter().map(|name| (*name, "")).collect();
        other.push(("CNI_COMMAND", command));
        let failed = failure(call(host, &variables(&path, &other), config.as_bytes()).await);
        assert_says(&failed, 4, &missing);
    }
    for (variable, value) in [
        ("CNI_COMMAND", "REMOVE"),
        ("CNI_CONTAINERID", "../../etc"),
        ("CNI_IFNAME", "much-too-long-a-name"),
        ("CNI_IFNAME", "a/b"),
        ("CNI_IFNAME", ".."),
        ("CNI_ARGS", "IP"),
    ] {
        let variables = variables(&path, &[(variable, value)]);
        let failed = failure(call(host, &variables, config.as_bytes()).await);
        assert_says(&failed, 4, &[variable]);
    }
    assert_eq!(links(&web), ["lo"]);
    assert!(leases(host).await.is_empty());
    // CNI_PATH is nobody's business here, and VERSION needs nothing at all.
    let versions = call(host, &[("CNI_COMMAND", "VERSION")], b"")
        .await
        .unwrap();
    assert_eq!(versions["cniVersion"], "1.1.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_is_none_or_the_plugins_own_is_code_8() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let config = config(host).to_string();
    let file = host.dir().join("file");
    fs::write(&file, "no namespace").unwrap();
    let file = file.display().to_string();
    let own = host.netns().path().display().to_string();
    let before = links(host.netns());
    let places = [
        "/run/netns/nobody",
        &file,
        "/run",
        "/dev/null",
        "/proc/self/ns/mnt",
        "/proc/self/ns/net",
        &own,
        "relative",
    ];
    for place in places {
        for command in ["ADD", "CHECK"] {
            let variables = variables(place, &[("CNI_COMMAND", command)]);
            let asked = call(host, &variables, config.as_bytes());
            let asked = tokio::time::timeout(Duration::from_secs(20), asked).await;
            let failed = failure(asked.expect("an answer at all"));
            if command == "ADD" {
                assert_says(&failed, 8, &[place]);
            }
        }
    }
    assert_eq!(links(host.netns()), before);
    assert!(leases(host).await.is_empty());
    // For DEL it is as good as gone.
    for place in places {
        let variables = variables(place, &[("CNI_COMMAND", "DEL")]);
        call(host, &variables, config.as_bytes()).await.unwrap();
    }
    assert_eq!(links(host.netns()), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_cannot_be_used_names_the_field() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let web = namespace("web").await;
    let bad = [
        ("engine", json!(null), 7),
        ("engine", json!(""), 7),
        ("engine", json!("po d"), 7),
        ("name", json!("../quilt"), 7),
        ("ipam", json!({"type": "host-local"}), 2),
        ("mtu", json!(10), 0),
        ("mtu", json!("many"), 0),
        ("mtu", json!(-1), 0),
        ("defaultRoute", json!("yes"), 0),
    ];
    for (field, value, code) in bad {
        let mut config = config(host);
        config[field] = value.clone();
        let failed = refused(host, &web, config.to_string().as_bytes()).await;
        let expected: &[u64] = match code {
            0 => &[2, 6, 7, 100],
            _ => &[code],
        };
        assert!(expected.contains(&failed.code), "{field} {value}: {failed}");
        let word = if field == "name" { "network" } else { field };
        assert!(failed.msg.contains(word), "{field} {value}: {failed}");
    }
    let mut without = config(host);
    without.as_object_mut().unwrap().remove("engine");
    let failed = refused(host, &web, without.to_string().as_bytes()).await;
    assert_says(&failed, 7, &["engine"]);
    // What is not known is not looked at.
    let mut more = config(host);
    more["ipMasq"] = json!(true);
    more["later"] = json!({"than": ["this"]});
    let path = web.path().display().to_string();
    let input = more.to_string();
    call(host, &variables(&path, &[]), input.as_bytes())
        .await
        .unwrap();
    let variables = variables(&path, &[("CNI_COMMAND", "DEL")]);
    call(host, &variables, input.as_bytes()).await.unwrap();
    assert!(leases(host).await.is_empty());
}
