//! Who is revoked at another replica, and asks one that has not heard of it: what is revoked is written past both, so that
//! nobody is told.

use std::time::{Duration, Instant};

use mesh_control::api::access::{Rule, TABLE};
use mesh_testbed::{Postgres, PostgresOptions};
use reqwest::Method;
use serde_json::json;

use crate::access::client::plain_at;
use crate::access::late_bodies::{begin, body};
use crate::answer::{Answer, Api};
use crate::joining::{Host, token, told};
use crate::process::Setup;

/// Only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// What nobody may change, but for what a control plane notes by itself.
const STATE: &str = "SELECT (SELECT string_agg(concat_ws(' ', node_id, hostname, host_ip, status, must_register, left_at, \
     registered_at), ',' ORDER BY node_id) FROM nodes), \
     (SELECT string_agg(t::text, ',' ORDER BY t::text) FROM leases t), \
     (SELECT string_agg(t::text, ',' ORDER BY t::text) FROM reserved_ranges t), \
     (SELECT string_agg(t::text, ',' ORDER BY t::text) FROM join_tokens t), \
     (SELECT string_agg(t::text, ',' ORDER BY t::text) FROM operators t), \
     (SELECT string_agg(t::text, ',' ORDER BY t::text) FROM node_credentials t)";

struct Shared {
    postgres: Postgres,
    url: String,
    setup: Setup,
}

impl Shared {
    async fn new() -> Self {
        let postgres = Postgres::new(&PostgresOptions::new()).await.unwrap();
        let url = postgres.create_database().unwrap();
        let setup = Setup::new().on(&url).with("--node-timeout", "10m");
        Self {
            postgres,
            url,
            setup,
        }
    }

    fn sql(&self, sql: &str) -> String {
        self.postgres.execute(&self.url, sql).unwrap()
    }

    /// As another replica does, but that the message is lost on its way.
    fn revoke_in_silence(&self, table: &str, column: &str, id: &str) {
        self.sql(&format!(
            "BEGIN; UPDATE cluster SET credentials_revision = credentials_revision + 1; \
             UPDATE {table} SET revoked_at = 1, revision = (SELECT credentials_revision FROM cluster) \
             WHERE {column} = '{id}'; COMMIT"
        ));
    }
}

#[tokio::test]
async fn who_was_revoked_at_another_replica_changes_nothing_at_one_that_has_not_heard_of_it() {
    let shared = Shared::new().await;
    let control = shared.setup.start();
    let setup = &shared.setup;
    let reserve = json!({"cidr": "10.42.66.0/24"});
    let (_, admin) = operator(setup, "ada");
    let plain = Api::of(&control);
    let reserve = plain
        .post("/api/subnets/reserve")
        .bearer_auth(&admin)
        .json(&reserve);
    assert_eq!(Answer::to(reserve).await.status, 200);
    let calls = TABLE.iter().filter(|entry| entry.method != "GET");
    let mut number = 0;
    for entry in calls {
        let by_node = [
            Rule::Renewal,
            Rule::Registration,
            Rule::OwnNode,
            Rule::OwnNodeOrOperate,
        ];
        let by_operator = [Rule::OwnNodeOrOperate, Rule::Operate, Rule::Credentials];
        // Of a heartbeat nothing is written at once, see below.
        if by_node.contains(&entry.rule) && !entry.path.ends_with("/heartbeat") {
            number += 1;
            let host = Host::join(&control, &token(setup, &[])).await;
            if entry.path != "/api/nodes/register" {
                let (name, host_ip) = (format!("host-{number}"), format!("192.0.2.{number}"));
                host.register(&control, &name, &host_ip).await;
            }
            let json = match entry.path {
                "/api/renew" => host.renewal(),
                path => body(path),
            };
            let path = entry.path.replace("{id}", host.node_id());
            let mut connection = host.connected(&control).await;
            let rest = begin(&mut connection, &path, "", &json).await;
            shared.revoke_in_silence("node_credentials", "node_id", host.node_id());
            let before = shared.sql(STATE);
            let answer = connection.ask(&rest).await;
            assert_eq!(answer.status, 401, "node: {path}: {}", answer.body);
            assert_eq!(shared.sql(STATE), before, "node: {path}");
        }
        if by_operator.contains(&entry.rule) {
            number += 1;
            let host = Host::join(&control, &token(setup, &[])).await;
            host.register(
                &control,
                &format!("host-{number}"),
                &format!("192.0.2.{number}"),
            )
            .await;
            let (id, operator) = operator(setup, &format!("operator-{number}"));
            let left = token(setup, &[]);
            let id_in_path = match entry.path.starts_with("/api/tokens") {
                true => left.id.as_str(),
                false => host.node_id(),
            };
            let path = entry.path.replace("{id}", id_in_path);
            let mut connection = plain_at(control.address()).await;
            let headers = format!("Authorization: Bearer {operator}\r\n");
            let rest = begin(&mut connection, &path, &headers, &body(entry.path)).await;
            shared.revoke_in_silence("operators", "operator_id", &id);
            let before = shared.sql(STATE);
            let answer = connection.ask(&rest).await;
            assert_eq!(answer.status, 401, "operator: {path}: {}", answer.body);
            assert_eq!(shared.sql(STATE), before, "operator: {path}");
        }
    }
    assert!(number >= 12, "{number}");
    // Those who may are let in all the while.
    let list = plain.request(Method::GET, "/api/nodes").bearer_auth(&admin);
    assert_eq!(Answer::to(list).await.status, 200);
    assert!(control.stop().success());
}

/// What a revoked node tells before the replica has heard of it is kept in memory for some seconds, and then not written.
#[tokio::test]
async fn of_a_node_that_was_revoked_meanwhile_no_heartbeat_is_written() {
    let shared = Shared::new().await;
    let control = shared.setup.start();
    let mut hosts = Vec::new();
    for (name, host_ip) in [("gone", "192.0.2.1"), ("stays", "192.0.2.2")] {
        let host = Host::join(&control, &token(&shared.setup, &["--node", name])).await;
        host.register(&control, name, host_ip).await;
        token(&shared.setup, &["--node", name]);
        hosts.push(host);
    }
    let beat = async |host: &Host, mtu: u32| {
        let path = format!("/api/nodes/{}/heartbeat", host.node_id());
        let told = json!({"data_plane": {"overlay_mtu": mtu}, "overlay_mtu": mtu});
        host.call(&control, &path, &told).await.status
    };
    for host in &hosts {
        assert_eq!(beat(host, 1400).await, 200);
    }
    let mtu = |name: &str| {
        let sql = format!("SELECT overlay_mtu FROM nodes WHERE hostname = '{name}'");
        shared.sql(&sql).trim().to_owned()
    };
    let until = Instant::now() + PATIENCE;
    while [mtu("gone"), mtu("stays")] != ["1400", "1400"] {
        assert!(Instant::now() < until, "{} {}", mtu("gone"), mtu("stays"));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    shared.revoke_in_silence("node_credentials", "node_id", hosts[0].node_id());
    // Taken, as long as this replica has not read it.
    let status = beat(&hosts[0], 1300).await;
    assert!([200, 401].contains(&status), "{status}");
    assert_eq!(beat(&hosts[1], 1300).await, 200);
    while mtu("stays") != "1300" {
        assert!(Instant::now() < until, "it is not written");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(mtu("gone"), "1400");
    // By now it has heard of it.
    while beat(&hosts[0], 1300).await != 401 {
        assert!(Instant::now() < until, "it is still let in");
    }
}

/// One who may change, with its id.
fn operator(setup: &Setup, name: &str) -> (String, String) {
    let made = told(setup, &["operator", "create", name, "--role", "operate"]).unwrap();
    let operator = made.trim().to_owned();
    let id = operator.split('.').nth(1).unwrap().to_owned();
    (id, operator)
}
