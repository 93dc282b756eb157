//! What was wanted survives the daemon and the host, and a file that was damaged does no harm.

use std::{fs, process::Command, time::Duration};

use mesh_proto::mesh::{ListPeersRequest, ListPeersResponse, Peer, SyncPeersRequest};
use mesh_testbed::Signal;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tokio::time::Instant;

use crate::host::{ADDRESS, DEADLINE, Daemon, Host};

const PEERS: &[(&str, &str)] = &[("10.42.2.0/24", "192.0.2.2"), ("10.42.3.0/24", "192.0.2.3")];

const ROUTES: &[&str] = &[
    "10.42.2.0/24 via 10.42.2.0 dev vxlan100 src 10.42.1.1 onlink",
    "10.42.3.0/24 via 10.42.3.0 dev vxlan100 src 10.42.1.1 onlink",
    "10.42.9.0/24 via 10.42.9.0 dev vxlan100 src 10.42.1.1 onlink",
];

/// A daemon with two peers and one injected route, ended by `signal`.
async fn node(label: &str, signal: Signal) -> Host {
    let host = Host::new(label).await;
    let mut daemon = host.start().await;
    set_up(&daemon).await;
    daemon.end(signal).await;
    host
}

async fn set_up(daemon: &Daemon) {
    daemon.configure("10.42.1.0/24").await.unwrap();
    assert!(daemon.sync(7, PEERS).await.success);
    daemon.inject("10.42.9.0/24", "vxlan100").await.unwrap();
}

async fn peers(daemon: &Daemon) -> ListPeersResponse {
    let mut client = daemon.dataplane().await;
    let answer = client.list_peers(ListPeersRequest {}).await;
    answer.unwrap().into_inner()
}

/// Waits until the file has what the mark says.
async fn written(host: &Host) {
    let lock = host.state_dir().join("lock");
    host.eventually("the state on disk", |_| {
        fs::read_to_string(&lock).is_ok_and(|mark| mark.starts_with("behind=0"))
    })
    .await;
}

fn damaged(host: &Host) -> Vec<String> {
    let entries = fs::read_dir(host.state_dir()).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("damaged"))
        .collect()
}

fn damage(host: &Host) {
    let path = host.state_dir().join("state");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn after_a_reboot_everything_is_there_before_the_agent_has_spoken() {
    let mut host = node("reboot", Signal::SIGTERM).await;
    host.reboot().await;
    assert!(host.own_routes().is_empty());
    let daemon = host.start().await;
    host.eventually("the routes", |host| host.own_routes() == ROUTES)
        .await;
    let status = daemon.status().await;
    assert_eq!(status.subnet, "10.42.1.0/24");
    assert_eq!((status.peers, status.routes), (2, 3));
    assert_eq!(status.generation, 7);
    assert_eq!(status.problems(), [""; 0]);
    let forwarding = host.bridge("fdb show dev vxlan100");
    assert!(
        forwarding.contains("02:51:0a:2a:03:00 dst 192.0.2.3"),
        "{forwarding}"
    );
}

#[tokio::test]
async fn a_host_that_lost_power_after_a_moment_has_it_all_as_well() {
    let mut host = Host::new("power").await;
    let mut daemon = host.start().await;
    set_up(&daemon).await;
    written(&host).await;
    daemon.end(Signal::SIGKILL).await;
    host.reboot().await;
    let _daemon = host.start().await;
    host.eventually("the routes", |host| host.own_routes() == ROUTES)
        .await;
}

#[tokio::test]
async fn after_a_reboot_the_fast_path_knows_the_peers_before_the_agent_has_spoken() {
    let mut host = Host::new("maps").await;
    let mut daemon = host.start_with("required", &[]).await;
    set_up(&daemon).await;
    daemon.end(Signal::SIGTERM).await;
    host.reboot().await;
    let daemon = host.start_with("required", &[]).await;
    let list = peers(&daemon).await;
    assert_eq!(list.generation, 7);
    let ready: Vec<(String, bool)> = list
        .peers
        .into_iter()
        .map(|peer| (peer.peer.unwrap_or_default().subnet, peer.fast_path_ready))
        .collect();
    let expected = PEERS.iter().map(|(subnet, _)| ((*subnet).to_owned(), true));
    assert_eq!(ready, expected.collect::<Vec<_>>());
}

#[tokio::test]
async fn what_was_called_in_the_last_moment_before_a_kill_is_not_lost() {
    for attempt in 0..5 {
        let host = node(&format!("moment{attempt}"), Signal::SIGKILL).await;
        let mut daemon = host.start().await;
        assert_eq!(host.own_routes(), ROUTES);
        written(&host).await;
        daemon.remove("10.42.9.0/24").await.unwrap();
        daemon.inject("10.42.8.0/24", "vxlan100").await.unwrap();
        daemon.end(Signal::SIGKILL).await;
        let daemon = host.start().await;
        assert_eq!(daemon.status().await.routes, 3);
        let routes = host.own_routes().concat();
        assert!(routes.contains("10.42.8.0/24"), "{routes}");
        assert!(!routes.contains("10.42.9.0/24"), "{routes}");
    }
}

#[tokio::test]
async fn what_others_did_while_no_daemon_was_there_is_undone() {
    is_undone(node("away", Signal::SIGTERM).await).await;
}

#[tokio::test]
async fn a_bridge_is_known_again_by_more_than_the_address_that_others_rewrote() {
    let host = node("rewritten", Signal::SIGTERM).await;
    host.ip("link set quilt0 address 02:00:00:00:00:07");
    is_undone(host).await;
}

async fn is_undone(host: Host) {
    host.ip("route flush proto 81");
    host.ip("route add 10.42.77.0/24 via 10.42.2.0 dev vxlan100 onlink proto 81");
    host.bridge("fdb replace 02:51:0a:2a:03:00 dst 192.0.2.99 dev vxlan100 self");
    let _daemon = host.start().await;
    host.eventually("the repair", |host| {
        host.own_routes() == ROUTES
            && host.ip("link show quilt0").contains("02:52:0a:2a:01:00")
            && !host.bridge("fdb show dev vxlan100").contains("192.0.2.99")
    })
    .await;
}

#[tokio::test]
async fn names_and_suspicions_survive_a_restart() {
    let host = Host::new("names").await;
    let mut daemon = host.start().await;
    daemon.configure("10.42.1.0/24").await.unwrap();
    let peer = Peer {
        subnet: "10.42.2.0/24".to_owned(),
        host_address: "192.0.2.2".to_owned(),
        hostname: "beta".to_owned(),
        suspect: true,
        ..Peer::default()
    };
    let request = SyncPeersRequest {
        generation: 1,
        host_address: ADDRESS.to_owned(),
        peers: vec![peer.clone()],
        node_settings: None,
    };
    daemon.dataplane().await.sync_peers(request).await.unwrap();
    daemon.end(Signal::SIGTERM).await;
    let daemon = host.start().await;
    assert_eq!(peers(&daemon).await.peers[0].peer, Some(peer));
    assert_eq!(daemon.status().await.suspect_peers, 1);
}

#[tokio::test]
async fn a_damaged_file_is_set_aside_and_the_kernel_tells_what_it_said() {
    let host = node("damaged", Signal::SIGTERM).await;
    damage(&host);
    let before = host.state();
    let mut daemon = host.start().await;
    assert_eq!(daemon.status().await.routes, 3);
    assert_eq!(host.state(), before, "nothing is touched");
    assert_eq!(damaged(&host), ["state.damaged-1"]);
    let log = daemon.log();
    assert_eq!(log.matches("the state file cannot be used").count(), 1);
    // What the kernel told is on the disk again.
    daemon.end(Signal::SIGTERM).await;
    let mut host = host;
    host.reboot().await;
    let _daemon = host.start().await;
    host.eventually("the routes", |host| host.own_routes() == ROUTES)
        .await;
}

#[tokio::test]
async fn a_damaged_file_after_a_reboot_makes_no_route_until_the_agent_speaks() {
    let mut host = node("nothing", Signal::SIGTERM).await;
    damage(&host);
    host.reboot().await;
    let daemon = host.start().await;
    let status = daemon.status().await;
    assert_eq!((status.subnet.as_str(), status.peers), ("", 0));
    assert!(host.own_routes().is_empty());
    set_up(&daemon).await;
    assert_eq!(host.own_routes(), ROUTES);
}

#[tokio::test]
async fn two_runtimes_do_not_share_a_state_directory() {
    let first = Host::new("first").await;
    let second = Host::new("second").await;
    let _daemon = first.start().await;
    let directory = first.state_dir();
    let args = ["--state-dir", directory.to_str().unwrap()];
    let (status, text) = second.run_daemon(&args).await;
    assert!(!status.success());
    assert!(
        text.contains("--state-dir") && text.contains("in use"),
        "{text}"
    );
}

#[tokio::test]
async fn without_a_place_to_keep_it_everything_works_and_the_problem_is_told_once() {
    let host = Host::new("nowhere").await;
    let file = host.dir.path().join("file");
    fs::write(&file, "").unwrap();
    let directory = file.join("state");
    let args = ["--state-dir", directory.to_str().unwrap()];
    let daemon = host.start_with("off", &args).await;
    set_up(&daemon).await;
    assert_eq!(host.own_routes(), ROUTES);
    let problems = daemon.status().await.problems();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].contains("not kept on disk"), "{problems:?}");
    assert_eq!(daemon.log().matches("not kept on disk").count(), 1);
}

/// A file system of a few pages.
struct Tiny(std::path::PathBuf);

impl Tiny {
    fn mount(host: &Host) -> Self {
        let path = host.dir.path().join("tiny");
        fs::create_dir(&path).unwrap();
        let options = Some("size=16k");
        mount(
            Some("tmpfs"),
            &path,
            Some("tmpfs"),
            MsFlags::empty(),
            options,
        )
        .unwrap();
        Self(path)
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// Waits until the daemon has so many problems.
async fn problems(daemon: &Daemon, count: usize) {
    let until = Instant::now() + DEADLINE;
    while daemon.status().await.problems().len() != count {
        assert!(Instant::now() < until, "{}", daemon.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_full_disk_is_reported_until_there_is_room() {
    let host = Host::new("full").await;
    let tiny = Tiny::mount(&host);
    let filler = tiny.0.join("filler");
    // It ends with an error, when there is no room for more.
    Command::new("dd")
        .args(["if=/dev/zero", "bs=4k"])
        .arg(format!("of={}", filler.display()))
        .output()
        .unwrap();
    let args = ["--state-dir", tiny.0.to_str().unwrap()];
    let mut daemon = host.start_with("off", &args).await;
    set_up(&daemon).await;
    assert_eq!(host.own_routes(), ROUTES);
    problems(&daemon, 1).await;
    fs::remove_file(filler).unwrap();
    problems(&daemon, 0).await;
    assert!(tiny.0.join("state").exists());
    daemon.end(Signal::SIGTERM).await;
}
