//! A database that holds nodes and was made by the version before there were credentials, with that version's own
//! migrations: the control plane starts on it, goes on as before and says so, and is secured node by node.

use std::borrow::Cow;
use std::path::Path;

use mesh_testbed::{Postgres, PostgresOptions};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::AnyPool;
use sqlx::migrate::Migrator;

use crate::answer::{Answer, Api, keyed, node};
use crate::joining::{Host, token, told};
use crate::process::{ControlPlane, Setup};

/// What came with credentials.
const CREDENTIALS: i64 = 10;

/// What the version before wrote for two nodes that are up and one that is down, a subnet that was given back, a range
/// that is reserved, a report, and a lease that is remembered.
const WRITTEN: &str = "
    INSERT INTO cluster (id, cluster_cidr, node_prefix, revision, database_id)
    VALUES (1, '10.42.0.0/16', 24, 9, '5f0c2a3e-6f7d-4f55-9d8f-0f1a8f6f3a10');
    INSERT INTO nodes (node_id, node_key, hostname, host_ip, cpu_cores, ram_mb, status, must_register, registered_at,
                       last_heartbeat, revision, overlay_mtu)
    VALUES ('00000000-0000-4000-8000-00000000000a', 'key-of-alpha', 'alpha', '192.0.2.1', 4, 8192, 'up', 0, 1, 2, 3, 1450),
           ('00000000-0000-4000-8000-00000000000b', NULL, 'beta', '192.0.2.2', NULL, NULL, 'up', 0, 1, 2, 5, NULL),
           ('00000000-0000-4000-8000-00000000000c', 'key-of-gamma', 'gamma', '192.0.2.3', 2, 2048, 'down', 1, 1, 2, 7, NULL);
    INSERT INTO leases (subnet_index, node_id, leased_at, released_revision)
    VALUES (1, '00000000-0000-4000-8000-00000000000a', 1, NULL),
           (2, '00000000-0000-4000-8000-00000000000b', 1, NULL),
           (3, '00000000-0000-4000-8000-00000000000c', 1, NULL),
           (4, NULL, 1, 8);
    INSERT INTO reserved_ranges (first_index, last_index, cidr, reason, reserved_at)
    VALUES (5, 5, '10.42.5.0/24', 'a router', 1);
    INSERT INTO history (revision, mark) VALUES (9, 4711);
    INSERT INTO removed_nodes (node_id, revision) VALUES ('00000000-0000-4000-8000-00000000000d', 9);
    INSERT INTO reports (node_id, reported_at, counted_at, digest, data_plane, flow_count, left_out, flows)
    VALUES ('00000000-0000-4000-8000-00000000000a', 1, 1, 1, NULL, 0, 0, EMPTY);
    INSERT INTO remembered_leases (subnet_index, node_id, node_key, hostname, host_ip, until)
    VALUES (4, '00000000-0000-4000-8000-00000000000e', 'key-of-epsilon', 'epsilon', '192.0.2.5', 32503680000)";

/// Makes such a database at `url`, where a blob without bytes is written so.
async fn make(url: &str, empty: &str) {
    sqlx::any::install_default_drivers();
    let pool = AnyPool::connect(url).await.unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let all = Migrator::new(folder).await.unwrap();
    let before = all.iter().filter(|it| it.version < CREDENTIALS).cloned();
    let before = Migrator {
        migrations: Cow::Owned(before.collect()),
        ..Migrator::DEFAULT
    };
    before.run(&pool).await.unwrap();
    let statements = sqlx::AssertSqlSafe(WRITTEN.replace("EMPTY", empty));
    sqlx::raw_sql(statements).execute(&pool).await.unwrap();
    pool.close().await;
}

/// What stands of each node.
async fn listed(api: &Api) -> Vec<(String, String, String, String)> {
    let nodes = api.nodes().await;
    let text = |node: &Value, member: &str| node[member].as_str().unwrap().to_owned();
    let mut nodes: Vec<_> = nodes
        .iter()
        .map(|node| {
            (
                text(node, "hostname"),
                text(node, "host_ip"),
                text(node, "subnet"),
                text(node, "status"),
            )
        })
        .collect();
    nodes.sort();
    nodes
}

fn is_loud(control: &ControlPlane) {
    let log = control.log();
    let said = log
        .iter()
        .filter(|line| line.contains("WARN") && line.contains("is not secure"));
    assert_eq!(said.count(), 1, "{log:#?}");
}

async fn goes_on_open_and_is_secured(setup: &Setup) {
    let id = |letter: char| format!("00000000-0000-4000-8000-00000000000{letter}");
    let control = setup.start();
    is_loud(&control);
    let plain = Api::of(&control);
    let entry = |name: &str, ip: &str, subnet: &str, status: &str| {
        let subnet = format!("10.42.{subnet}.0/24");
        (name.to_owned(), ip.to_owned(), subnet, status.to_owned())
    };
    let before = [
        entry("alpha", "192.0.2.1", "1", "up"),
        entry("beta", "192.0.2.2", "2", "up"),
        entry("gamma", "192.0.2.3", "3", "down"),
    ];
    assert_eq!(listed(&plain).await, before);
    let said = told(setup, &["security"]).unwrap();
    assert!(
        said.contains("open") && said.contains("without: 3"),
        "{said}"
    );
    // Every answer says it, and nodes do what they did: with a key, and without one.
    let answer = plain
        .request(Method::GET, "/api/nodes")
        .send()
        .await
        .unwrap();
    assert!(answer.headers().contains_key("quilt-mesh-insecure"));
    for letter in ['a', 'b'] {
        assert_eq!(plain.heartbeat(&id(letter)).await.status, 200);
    }
    let again = plain.register(keyed("key-of-alpha", "alpha", "192.0.2.1"));
    assert_eq!(again.await.admitted(), (id('a'), "10.42.1.0/24".to_owned()));
    // A new one gets the lowest that was never used: what is reserved, remembered or was given back is none.
    let (delta, subnet) = plain.register(node("delta", "192.0.2.4")).await.admitted();
    assert_eq!(subnet, "10.42.6.0/24");
    let subnets = Answer::to(plain.request(Method::GET, "/api/subnets")).await;
    assert_eq!(
        (&subnets.body["leased"], &subnets.body["reserved"]),
        (&json!(4), &json!(1)),
        "{}",
        subnets.body
    );

    let said = told(setup, &["secure"]).unwrap();
    assert!(said.contains("moving"), "{said}");
    assert_eq!(plain.heartbeat(&id('b')).await.status, 200);
    let error = told(setup, &["secure", "--finish"]).unwrap_err();
    for name in ["alpha", "beta", "delta"] {
        assert!(error.contains(name), "{error}");
    }
    // Whoever shows its key is who it was; whoever had none is by its name.
    let with_key = Host::join_with_key(&control, &token(setup, &[]), "key-of-alpha").await;
    let beta = Host::join(&control, &token(setup, &["--node", "beta"])).await;
    let new = Host::join(&control, &token(setup, &["--node", "delta"])).await;
    let moved = [
        (&with_key, "alpha", "192.0.2.1", id('a'), "10.42.1.0/24"),
        (&beta, "beta", "192.0.2.2", id('b'), "10.42.2.0/24"),
        (&new, "delta", "192.0.2.4", delta, "10.42.6.0/24"),
    ];
    for (host, name, ip, node_id, subnet) in &moved {
        assert_eq!(host.node_id(), node_id);
        assert_eq!(host.register(&control, name, ip).await, *subnet);
    }
    let said = told(setup, &["secure", "--finish"]).unwrap();
    assert!(said.contains("secured"), "{said}");
    assert_eq!(plain.heartbeat(&id('b')).await.status, 401);

    // So it stays after a start, which has nothing to warn of.
    assert!(control.stop().success());
    let control = setup.start();
    let log = control.log().join("\n");
    assert!(!log.contains("is not secure"), "{log}");
    for (host, ..) in &moved {
        assert_eq!(host.beat(&control).await.status, 200);
    }
    // One that was down meanwhile comes back as the node that it was.
    let gamma = Host::join_with_key(&control, &token(setup, &[]), "key-of-gamma").await;
    assert_eq!(gamma.node_id(), id('c'));
    assert_eq!(
        gamma.register(&control, "gamma", "192.0.2.3").await,
        "10.42.3.0/24"
    );
}

#[tokio::test]
async fn an_sqlite_database_from_before_credentials_goes_on_open_and_is_secured() {
    let setup = Setup::new();
    make(
        &format!("sqlite:{}?mode=rwc", setup.db_path().display()),
        "X''",
    )
    .await;
    goes_on_open_and_is_secured(&setup).await;
}

#[tokio::test]
async fn a_postgresql_database_from_before_credentials_goes_on_open_and_is_secured() {
    let postgres = Postgres::new(&PostgresOptions::new()).await.unwrap();
    let url = postgres.create_database().unwrap();
    make(&url, "''").await;
    goes_on_open_and_is_secured(&Setup::new().on(&url)).await;
}

/// Two replicas of the version of now are started on it at once: one of them migrates.
#[tokio::test]
async fn replicas_that_start_at_once_on_a_database_from_before_credentials_both_go_on_open() {
    let postgres = Postgres::new(&PostgresOptions::new()).await.unwrap();
    let url = postgres.create_database().unwrap();
    make(&url, "''").await;
    let setups = [(); 2].map(|()| Setup::new().on(&url));
    for control in Setup::start_all(&setups) {
        is_loud(&control);
        assert_eq!(listed(&Api::of(&control)).await.len(), 3);
    }
}
