//! A node says which subnet it holds, because the database may know less than it does.

use mesh_testbed::{Postgres, PostgresOptions};
use serde_json::{Value, json};

use crate::answer::{Answer, Api, keyed};
use crate::process::{ControlPlane, Setup};

/// A node of this name that says it holds the subnet 10.42.`third`.0/24.
fn claiming(name: &str, host: u8, third: u8) -> Value {
    let mut body = newcomer(name, host);
    body["subnet"] = json!(format!("10.42.{third}.0/24"));
    body
}

fn newcomer(name: &str, host: u8) -> Value {
    keyed(&format!("key-of-{name}"), name, &format!("192.0.2.{host}"))
}

/// The third octet of the subnet that a registration is answered with.
async fn third_octet(api: &Api, body: Value) -> u8 {
    let (_, subnet) = api.register(body).await.admitted();
    let octet = subnet.split('.').nth(2);
    octet.and_then(|octet| octet.parse().ok()).unwrap()
}

#[tokio::test]
async fn a_node_younger_than_the_restored_backup_gets_its_subnet_back() {
    let setup = Setup::new();
    let control_plane = setup.start();
    let api = Api::of(&control_plane);
    assert_eq!(third_octet(&api, newcomer("alpha", 1)).await, 1);
    assert_eq!(third_octet(&api, newcomer("beta", 2)).await, 2);
    let backup = setup.folder().join("backup.db");
    let mut database = setup.database().await;
    sqlx::query("VACUUM INTO $1")
        .bind(backup.to_str().unwrap())
        .execute(&mut database)
        .await
        .unwrap();
    drop(database);
    assert_eq!(third_octet(&api, newcomer("gamma", 3)).await, 3);
    assert!(control_plane.stop().success());
    std::fs::copy(&backup, setup.db_path()).unwrap();
    for log in ["control.db-wal", "control.db-shm"] {
        // Gone already when the control plane was the last to have the file open.
        std::fs::remove_file(setup.folder().join(log)).ok();
    }

    let control_plane = setup.start();
    let api = Api::of(&control_plane);
    assert_eq!(third_octet(&api, claiming("gamma", 3, 3)).await, 3);
    assert_eq!(third_octet(&api, newcomer("delta", 4)).await, 4);
    // Who was in the backup is unmoved, whatever it says.
    assert_eq!(third_octet(&api, claiming("alpha", 1, 9)).await, 1);
    assert_eq!(third_octet(&api, claiming("beta", 2, 2)).await, 2);
    assert_eq!(third_octet(&api, newcomer("epsilon", 5)).await, 5);
}

/// On a database without leases, at each control plane in turn: every replica, or the only one.
async fn claims_leave_the_order_as_it_was(running: &[ControlPlane]) {
    let apis: Vec<Api> = running.iter().map(Api::of).collect();
    let at = |n: usize| &apis[n % apis.len()];
    assert_eq!(third_octet(at(0), claiming("g", 7, 7)).await, 7);
    assert_eq!(third_octet(at(1), claiming("c", 3, 3)).await, 3);
    // Another one's, one of another cluster, and one of no size that this cluster has.
    assert_eq!(third_octet(at(2), claiming("thief", 1, 7)).await, 1);
    let mut foreign = newcomer("foreign", 2);
    foreign["subnet"] = json!("10.99.7.0/24");
    assert_eq!(third_octet(at(0), foreign).await, 2);
    let mut narrow = newcomer("narrow", 4);
    narrow["subnet"] = json!("10.42.5.0/25");
    assert_eq!(third_octet(at(1), narrow).await, 4);
    // A reserved one, which stays so.
    let reserve = at(2)
        .post("/api/subnets/reserve")
        .json(&json!({"cidr": "10.42.6.0/24"}));
    assert_eq!(Answer::to(reserve).await.status, 200);
    assert_eq!(third_octet(at(0), claiming("reserved", 5, 6)).await, 5);
    assert_eq!(third_octet(at(1), newcomer("next", 8)).await, 8);
    // One that was released: its node comes back before anybody else needed it.
    let body = claiming("c", 3, 3);
    let (node_id, subnet) = at(2).register(body.clone()).await.admitted();
    assert_eq!(at(0).deregister(&node_id).await.status, 200);
    let release = at(1)
        .post("/api/subnets/release")
        .json(&json!({"subnet": subnet}));
    assert_eq!(Answer::to(release).await.status, 200);
    assert_eq!(third_octet(at(2), body).await, 3);
    assert_eq!(third_octet(at(0), newcomer("last", 9)).await, 9);
}

#[tokio::test]
async fn subnets_that_nodes_claim_are_theirs_and_the_rest_is_handed_out_in_order() {
    claims_leave_the_order_as_it_was(&[Setup::new().start()]).await;
}

#[tokio::test]
async fn three_replicas_on_postgresql_hold_to_claims_as_one_does() {
    let postgres = Postgres::new(&PostgresOptions::new()).await.unwrap();
    let setup = Setup::new().on(&postgres.create_database().unwrap());
    let running: Vec<_> = (0..3).map(|_| setup.start()).collect();
    claims_leave_the_order_as_it_was(&running).await;
}

#[tokio::test]
async fn of_many_that_claim_one_subnet_at_once_one_gets_it_and_none_shares() {
    let control_plane = Setup::new().start();
    let api = Api::of(&control_plane);
    let registrations: Vec<_> = (1..=20)
        .map(|n| {
            let api = api.clone();
            tokio::spawn(async move { third_octet(&api, claiming(&format!("n{n}"), n, 7)).await })
        })
        .collect();
    let mut given = Vec::new();
    for registration in registrations {
        given.push(registration.await.unwrap());
    }
    given.sort_unstable();
    assert_eq!(given, (1..=20).collect::<Vec<u8>>());
}
