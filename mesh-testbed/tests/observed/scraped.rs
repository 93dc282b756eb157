//! A real Prometheus on a host of its own scrapes a cluster over TLS, and what dashboard and alerts ask for is there.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use mesh_testbed::{DaemonOptions, Testbed};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::Value;

use crate::{
    cluster::{Cluster, NODES},
    page::{AGENT, CONTROL, RUNTIME, get_at, told},
    prometheus::{Prometheus, number},
};

/// The files of the product.
fn deploy(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy")
        .join(path)
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// An authority, a certificate of it for all the cluster's addresses, and a token, in a directory.
fn make_credentials(directory: &Path, testbed: &Testbed) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let hosts = testbed.hosts().iter().map(|host| host.address());
    let addresses = hosts.chain([testbed.control().address()]);
    let names: Vec<String> = addresses.map(|address| address.to_string()).collect();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(names)
        .unwrap()
        .signed_by(&key, &authority);
    write(&directory.join("ca.pem"), &authority.pem());
    write(&directory.join("cert.pem"), &certificate.unwrap().pem());
    write(&directory.join("key.pem"), &key.serialize_pem());
    write(
        &directory.join("token"),
        "a-token-that-is-for-this-test-alone\n",
    );
}

/// A daemon that serves its metrics to whoever has the token.
fn options(directory: &Path, port: u16) -> DaemonOptions {
    let file = |name: &str| directory.join(name).into_os_string();
    DaemonOptions::new()
        .args(["--metrics-addr".to_owned(), format!("0.0.0.0:{port}")])
        .args(["--metrics-tls-cert".into(), file("cert.pem")])
        .args(["--metrics-tls-key".into(), file("key.pem")])
        .args(["--metrics-token-file".into(), file("token")])
}

/// As the example has it, but for the targets, the places of the files, and the pace.
fn configuration(directory: &Path, testbed: &Testbed) -> String {
    let example = fs::read_to_string(deploy("prometheus/prometheus.yml")).unwrap();
    let targets = |port: u16| {
        let hosts = testbed.hosts()[..NODES].iter();
        let targets = hosts.map(|host| format!("\"{}:{port}\"", host.address()));
        targets.collect::<Vec<_>>().join(", ")
    };
    let mut text = example
        .replace(
            "scrape_interval: 15s",
            "scrape_interval: 1s\n  evaluation_interval: 1s",
        )
        .replace(
            "- alerts.yml",
            &format!("- {}", deploy("prometheus/alerts.yml").display()),
        )
        .replace(
            "/etc/prometheus/quilt-mesh-ca.pem",
            &directory.join("ca.pem").display().to_string(),
        )
        .replace(
            "/etc/prometheus/quilt-mesh-token",
            &directory.join("token").display().to_string(),
        );
    for (port, targets) in [
        (RUNTIME, targets(RUNTIME)),
        (AGENT, targets(AGENT)),
        (
            CONTROL,
            format!("\"{}:{CONTROL}\"", testbed.control().address()),
        ),
    ] {
        let lines = text.lines().map(|line| {
            let is_of_port = line.contains("targets:") && line.contains(&format!(":{port}\""));
            match is_of_port {
                true => format!("      - targets: [{targets}]"),
                false => line.to_owned(),
            }
        });
        text = lines.collect::<Vec<_>>().join("\n");
    }
    text
}

/// Every expression of a dashboard, with what Grafana puts in the place of its variables.
fn expressions(dashboard: &Value) -> Vec<String> {
    let mut found = Vec::new();
    match dashboard {
        Value::Object(fields) => {
            for (name, value) in fields {
                match (name.as_str(), value) {
                    ("expr", Value::String(text)) => found.push(
                        text.replace("$__rate_interval", "1m")
                            .replace("$node", ".*"),
                    ),
                    (_, value) => found.extend(expressions(value)),
                }
            }
        }
        Value::Array(values) => found.extend(values.iter().flat_map(expressions)),
        _ => {}
    }
    found
}

#[tokio::test]
async fn prometheus_scrapes_a_cluster_and_everything_that_the_dashboard_asks_for_is_there() {
    let testbed = Cluster::bed().await;
    let directory = testbed.dir().to_owned();
    make_credentials(&directory, &testbed);
    let cluster = Cluster::start(testbed, |port| options(&directory, port)).await;
    let configuration = configuration(&directory, &cluster.testbed);
    let beside = cluster.beside();
    let prometheus = Prometheus::start(beside.netns(), &directory, &configuration).await;

    // All seven daemons are scraped.
    let all = format!("count(up == 1) == {}", 2 * NODES + 1);
    prometheus.wait(&all, |series| !series.is_empty()).await;

    // What a healthy cluster does not have: a problem, a repair, and somebody who is refused.
    let host = cluster.nodes()[0].netns();
    for words in [
        ["ip", "address", "add", "10.42.200.1/32", "dev", "lo"].as_slice(),
        &["ip", "route", "delete", "10.42.2.0/24"],
    ] {
        let done = host.command(words[0]).args(&words[1..]).status().unwrap();
        assert!(done.success(), "{words:?}");
    }
    let api = (cluster.testbed.control().address(), 8080).into();
    let (status, words) = get_at(beside.netns(), api, "/api/nodes").unwrap();
    assert!((400..500).contains(&status), "{status} {words}");

    let dashboard = fs::read_to_string(deploy("grafana/quilt-mesh.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let expressions = expressions(&dashboard);
    assert!(expressions.len() > 30, "{expressions:?}");
    for expression in &expressions {
        let is_there = |series: &[Value]| series.iter().any(|it| number(it).is_finite());
        prometheus.wait(expression, is_there).await;
    }

    // What Prometheus makes of it is what happened.
    let repaired = "sum(quilt_mesh_repairs_total{what=\"route\"}) > 0";
    prometheus.wait(repaired, |series| !series.is_empty()).await;
    let sent = "min(sum by (instance, peer) (rate(quilt_mesh_peer_transmit_packets_total{path=\"fast\"}[20s]))) > 20";
    prometheus.wait(sent, |series| !series.is_empty()).await;
    let problem = "quilt_mesh_problems{code=\"foreign-address\",severity=\"error\"} == 1";
    prometheus.wait(problem, |series| series.len() == 1).await;
    let alert = "ALERTS{alertname=\"QuiltMeshProblem\",code=\"foreign-address\"}";
    prometheus.wait(alert, |series| series.len() == 1).await;
    // And nothing else is wrong.
    let others = "ALERTS{severity=\"critical\",alertname!=\"QuiltMeshProblem\"}";
    assert_eq!(prometheus.query(others), Ok(Vec::new()));

    // A stranger without the token, and one who speaks no TLS.
    let target = (cluster.nodes()[0].address(), RUNTIME).into();
    assert!(get_at(beside.netns(), target, "/metrics").is_err());
}

#[test]
fn rules_and_example_pass_promtools_checks() {
    let path = |name: &str| deploy(name).display().to_string();
    let (alerts, example) = (
        path("prometheus/alerts.yml"),
        path("prometheus/prometheus.yml"),
    );
    told("promtool", &["check", "rules", "--lint-fatal", &alerts], "").unwrap();
    told(
        "promtool",
        &["check", "config", "--syntax-only", &example],
        "",
    )
    .unwrap();
    told(
        "promtool",
        &["test", "rules", &path("prometheus/alerts_test.yml")],
        "",
    )
    .unwrap();
}
