//! The wall clock of a running control plane is set back and forward by an hour.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::answer::{Answer, Api, keyed, node};
use crate::process::Setup;
use crate::replicas::Replicas;
use crate::stepped_clock::{SteppedClock, machine_seconds};
use crate::traffic::{matrix, report};

const HOUR: i64 = 3600;

/// Long enough that a heart on a busy machine does not stop for so long, see [`Heart`].
const NODE_TIMEOUT: Duration = Duration::from_secs(6);

/// A node that sends heartbeats, to each of the replicas in turn.
struct Heart(JoinHandle<()>);

impl Heart {
    fn of(node_id: &str, apis: &[Api]) -> Self {
        let (node_id, apis) = (node_id.to_owned(), apis.to_vec());
        Self(tokio::spawn(async move {
            let mut last = Instant::now();
            for api in apis.iter().cycle() {
                let sent = Instant::now();
                assert_eq!(api.heartbeat(&node_id).await.status, 200);
                // It may rightly have been called down then.
                assert!(last.elapsed() < NODE_TIMEOUT, "this machine is too slow");
                last = sent;
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }))
    }

    /// It beats still, and was never too slow.
    fn beats(&self) -> bool {
        !self.0.is_finished()
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Waits until a node's last heartbeat is shown as of now by a clock so many seconds from the machine's: that clock
/// was stepped, and the time that is shown is sane.
async fn last_heartbeat_is_of_now(api: &Api, node_id: &str, step: i64) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let last = api.node(node_id).await["last_heartbeat"].as_i64().unwrap();
        if (last - (machine_seconds() + step)).abs() <= 5 {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{last} with the clock {step} s off"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The nodes with what an operator relies on, and the revision.
async fn leases(api: &Api) -> (Value, Vec<(String, String)>) {
    let list = api.list().await;
    let nodes = list["nodes"].as_array().unwrap();
    let text = |node: &Value, member: &str| node[member].as_str().unwrap().to_owned();
    let leases = nodes
        .iter()
        .map(|node| (text(node, "node_id"), text(node, "subnet")))
        .collect();
    (list["revision"].clone(), leases)
}

#[tokio::test]
async fn a_step_of_the_clock_turns_nobody_down_and_keeps_nobody_up() {
    let clock = SteppedClock::new();
    let setup = clock.of(Setup::new().with("--node-timeout", "6s"));
    let control_plane = setup.start();
    let api = Api::of(&control_plane);
    let (beating, _) = api
        .register(keyed("k-1", "a", "192.0.2.1"))
        .await
        .admitted();
    let heart = Heart::of(&beating, std::slice::from_ref(&api));
    let (silent, _) = api
        .register(keyed("k-2", "b", "192.0.2.2"))
        .await
        .admitted();
    for step in [-HOUR, HOUR, 0] {
        let last = Instant::now();
        assert_eq!(api.heartbeat(&silent).await.status, 200);
        let (revision, before) = leases(&api).await;
        clock.step(step);
        last_heartbeat_is_of_now(&api, &beating, step).await;
        // Not before its time, and not an hour after it.
        api.wait_for(&silent, "down").await;
        assert!(
            last.elapsed() >= NODE_TIMEOUT,
            "down after {:?}",
            last.elapsed()
        );
        assert_eq!(api.status(&beating).await, "up");
        assert!(heart.beats());
        // Nothing else has changed: it was not down in between, and no subnet has another holder.
        let query = format!("/api/nodes?since={revision}&wait=60");
        let news = Answer::to(api.request(Method::GET, &query)).await.body;
        assert_eq!(news["nodes"].as_array().unwrap().len(), 1, "{news}");
        assert_eq!(news["nodes"][0]["node_id"], silent.as_str());
        assert_eq!(leases(&api).await.1, before);
        // Who registers again is who it was.
        for (key, hostname, host_ip, node_id) in [
            ("k-1", "a", "192.0.2.1", &beating),
            ("k-2", "b", "192.0.2.2", &silent),
        ] {
            let again = api.register(keyed(key, hostname, host_ip)).await.admitted();
            assert_eq!(&again.0, node_id);
        }
        assert_eq!(leases(&api).await.1, before);
    }
    drop(heart);
    api.wait_for(&beating, "down").await;
}

#[tokio::test]
async fn a_restart_with_a_clock_that_is_off_gives_everybody_a_full_timeout_and_no_more() {
    let clock = SteppedClock::new();
    let setup = clock.of(Setup::new().with("--node-timeout", "6s"));
    let control_plane = setup.start();
    let (node_id, _) = Api::of(&control_plane)
        .register(node("a", "192.0.2.1"))
        .await
        .admitted();
    control_plane.kill();
    for step in [HOUR, -HOUR] {
        clock.step(step);
        let began = Instant::now();
        let control_plane = setup.start();
        let api = Api::of(&control_plane);
        api.wait_for(&node_id, "down").await;
        assert!(
            began.elapsed() >= NODE_TIMEOUT,
            "down after {:?}",
            began.elapsed()
        );
        // Up for the next start.
        assert_eq!(api.heartbeat(&node_id).await.status, 200);
        last_heartbeat_is_of_now(&api, &node_id, step).await;
        assert!(control_plane.stop().success());
    }
}

#[tokio::test]
async fn what_was_released_longest_ago_is_handed_out_first_whatever_the_clock_said() {
    let clock = SteppedClock::new();
    let setup = clock.of(Setup::new().with("--cluster-cidr", "10.42.0.0/22"));
    let control_plane = setup.start();
    let api = Api::of(&control_plane);
    let mut held = Vec::new();
    for host in 1..=3 {
        let body = node(&format!("host-{host}"), &format!("192.0.2.{host}"));
        held.push(api.register(body).await.admitted());
    }
    for (position, step) in [(1, 0), (0, -HOUR), (2, HOUR)] {
        clock.step(step);
        let (node_id, subnet) = &held[position];
        assert_eq!(api.deregister(node_id).await.status, 200);
        let release = api
            .post("/api/subnets/release")
            .json(&json!({"subnet": subnet}));
        assert_eq!(Answer::to(release).await.status, 200);
    }
    clock.step(-HOUR);
    let mut next = Vec::new();
    for host in 4..=6 {
        let body = node(&format!("host-{host}"), &format!("192.0.2.{host}"));
        next.push(api.register(body).await.admitted().1);
    }
    assert_eq!(
        next,
        [&held[1].1, &held[0].1, &held[2].1].map(String::clone)
    );
    // Times that are shown are of this clock; it is an hour slow.
    let subnets = Answer::to(api.request(Method::GET, "/api/subnets"))
        .await
        .body;
    for subnet in subnets["subnets"].as_array().unwrap() {
        let off = subnet["leased_at"].as_i64().unwrap() - (machine_seconds() - HOUR);
        assert!(off.abs() <= 60, "{subnet}");
    }
}

#[tokio::test]
async fn one_replica_of_three_whose_clock_is_off_does_no_harm() {
    let clock = SteppedClock::new();
    let mut replicas = Replicas::start(2, "6s").await;
    let off = clock.of(Setup::new().on(&replicas.url).with("--node-timeout", "6s"));
    clock.step(-HOUR);
    replicas.running.push(off.start());
    let apis = replicas.apis();
    let (beating, _) = apis[0].register(node("a", "192.0.2.1")).await.admitted();
    let heart = Heart::of(&beating, &apis);
    let (silent, _) = apis[2].register(node("b", "192.0.2.2")).await.admitted();
    for step in [-HOUR, HOUR, 0] {
        let last = Instant::now();
        assert_eq!(apis[2].heartbeat(&silent).await.status, 200);
        let told = json!({"data_plane": {"generation": step + 2 * HOUR}});
        assert_eq!(report(&apis[2], &silent, &told).await.status, 200);
        let (revision, before) = leases(&apis[0]).await;
        clock.step(step);
        // Each shows times by its own clock, also of heartbeats that another one received.
        last_heartbeat_is_of_now(&apis[0], &beating, 0).await;
        last_heartbeat_is_of_now(&apis[1], &beating, 0).await;
        last_heartbeat_is_of_now(&apis[2], &beating, step).await;
        for api in &apis {
            api.wait_for(&silent, "down").await;
            assert!(
                last.elapsed() >= NODE_TIMEOUT,
                "down after {:?}",
                last.elapsed()
            );
            assert_eq!(api.status(&beating).await, "up");
        }
        assert!(heart.beats());
        for api in &apis {
            assert_eq!(leases(api).await.1, before);
        }
        let query = format!("/api/nodes?since={revision}&wait=60");
        let news = Answer::to(apis[1].request(Method::GET, &query)).await.body;
        assert_eq!(news["nodes"].as_array().unwrap().len(), 1, "{news}");
        assert_eq!(news["nodes"][0]["node_id"], silent.as_str());
        what_was_told_is_shown_with_its_age(&apis[1], &silent, step + 2 * HOUR, last).await;
        // Up again for the next round.
        assert_eq!(apis[1].heartbeat(&silent).await.status, 200);
        for api in &apis {
            api.wait_for(&silent, "up").await;
        }
    }
}

/// What a replica was told whose clock is off, another one shows, as old as it is and not an hour older.
async fn what_was_told_is_shown_with_its_age(
    api: &Api,
    node_id: &str,
    generation: i64,
    told: Instant,
) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let matrix = matrix(api).await;
        let nodes = matrix["nodes"].as_array().unwrap();
        let line = nodes
            .iter()
            .find(|node| node["node_id"] == node_id)
            .unwrap();
        if line["data_plane"]["generation"] == generation {
            let age = Duration::from_millis(line["report_age_ms"].as_u64().unwrap());
            assert!(age <= told.elapsed() + Duration::from_secs(5), "{line}");
            let reported_at = line["reported_at"].as_i64().unwrap();
            assert!((machine_seconds() - reported_at).abs() <= 120, "{line}");
            return;
        }
        assert!(Instant::now() < deadline, "it does not show: {matrix}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
