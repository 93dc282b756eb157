//! Containers on the bridge, and the fast path's view of the node.

use mesh_proto::mesh::fast_path_status::State;
use mesh_testbed::{NetNs, Signal};

use crate::host::Host;

/// Puts a container with an address on the bridge, as any container runtime does.
pub(crate) async fn container(host: &Host, name: &str, address: &str) -> NetNs {
    let netns = NetNs::new(name).await.expect("these tests need root");
    host.ip(&format!(
        "link add {name} type veth peer name eth0 netns {}",
        netns.name()
    ));
    host.ip(&format!("link set {name} master quilt0 up"));
    for words in [
        format!("address add {address}/24 dev eth0"),
        "link set eth0 up".to_owned(),
        "route add default via 10.42.1.1".to_owned(),
    ] {
        let status = netns.command("ip").args(words.split(' ')).status().unwrap();
        assert!(status.success(), "{words}");
    }
    netns
}

#[tokio::test]
async fn without_the_fast_path_the_status_says_that_it_is_off() {
    let host = Host::new("off").await;
    let daemon = host.start().await;
    let fast_path = daemon.status().await.fast_path.unwrap();
    assert_eq!(fast_path.state(), State::Off);
    assert!(fast_path.reason.contains("--fast-path off"));
}

#[tokio::test]
async fn the_fast_path_is_active_once_subnet_and_underlay_are_known_and_outlives_the_daemon() {
    let host = Host::new("active").await;
    let mut daemon = host.start_with("required", &[]).await;
    let fast_path = daemon.status().await.fast_path.unwrap();
    assert_eq!(fast_path.state(), State::Waiting);
    assert!(fast_path.reason.contains("subnet"), "{}", fast_path.reason);
    daemon.configure("10.42.1.0/24").await.unwrap();
    daemon.sync(1, &[("10.42.2.0/24", "192.0.2.2")]).await;
    let _inside = container(&host, "c1", "10.42.1.9").await;
    let status = daemon.status().await;
    let fast_path = status.fast_path.clone().unwrap();
    assert_eq!(fast_path.state(), State::Active, "{}", fast_path.reason);
    for attachment in [
        "eth0: decapsulate",
        "c1: encapsulate",
        "vxlan100: safety_net",
    ] {
        assert!(
            fast_path.attachments.iter().any(|it| it == attachment),
            "{attachment}: {:?}",
            fast_path.attachments
        );
    }
    assert_eq!(status.problems(), [""; 0]);

    daemon.end(Signal::SIGKILL).await;
    let daemon = host.start_with("required", &[]).await;
    let status = daemon.status().await;
    assert_eq!(status.peers, 1);
    assert_eq!(status.fast_path.unwrap().state(), State::Active);
    // A call from before the restart cannot undo what a later one did.
    assert_eq!(status.generation, 1);
    let answer = daemon.sync(0, &[]).await;
    assert!(!answer.success, "{answer:?}");
    assert_eq!(daemon.status().await.peers, 1);
}

#[tokio::test]
async fn where_no_bpf_file_system_can_be_the_node_runs_on_the_kernel_path_and_says_so() {
    let host = Host::new("no-bpffs").await;
    // A file cannot be a mount point for a directory.
    let file = host.dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let args = ["--bpffs", file.to_str().unwrap()];
    let command = host.daemon_command("required", &args);
    let (status, text) = crate::host::run_to_end(command).await;
    assert!(!status.success());
    assert!(
        text.contains("BPF file system") && text.contains("required"),
        "{text}"
    );

    let daemon = host
        .start_with("auto", &["--bpffs", file.to_str().unwrap()])
        .await;
    daemon.configure("10.42.1.0/24").await.unwrap();
    daemon.inject("10.42.2.0/24", "vxlan100").await.unwrap();
    assert_eq!(host.own_routes().len(), 1);
    let fast_path = daemon.status().await.fast_path.unwrap();
    assert_eq!(fast_path.state(), State::Unavailable);
    assert!(
        fast_path.reason.contains("BPF file system"),
        "{}",
        fast_path.reason
    );
    assert!(daemon.log().contains("this node runs on the kernel path"));
}

/// Names of the pinned links of a host's fast path.
fn links(host: &Host) -> Vec<std::ffi::OsString> {
    let directory = host.bpffs().join("quilt-mesh/links");
    std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().file_name())
        .collect()
}

#[tokio::test]
async fn a_daemon_that_is_told_to_do_without_the_fast_path_leaves_an_earlier_ones_to_guard() {
    let host = Host::new("detach").await;
    let mut daemon = host.start_with("required", &["--attach", "tcx"]).await;
    daemon.configure("10.42.1.0/24").await.unwrap();
    // Safety net, count egress, decapsulate, catch all.
    host.eventually("the links", |host| links(host).len() == 4)
        .await;
    daemon.end(Signal::SIGTERM).await;
    assert_eq!(links(&host).len(), 4, "the data plane outlives the daemon");
    let daemon = host.start_with("off", &[]).await;
    let mut seen = daemon.status().await;
    for _ in 0..200 {
        if !seen.fast_path.clone().unwrap().attachments.is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        seen = daemon.status().await;
    }
    let fast_path = seen.fast_path.unwrap();
    assert_eq!(seen.subnet, "10.42.1.0/24");
    assert_eq!(fast_path.state(), State::Off);
    assert_eq!(fast_path.attachments.len(), 4, "{fast_path:?}");
    assert_eq!(links(&host).len(), 4, "attached they stay");
}

#[tokio::test]
async fn cleaning_up_removes_programs_and_pins() {
    let host = Host::new("unpin").await;
    let mut daemon = host.start_with("required", &[]).await;
    daemon.configure("10.42.1.0/24").await.unwrap();
    assert!(host.bpffs().join("quilt-mesh/peers").exists());
    daemon.end(Signal::SIGTERM).await;
    let (status, text) = host.run_daemon(&["--cleanup"]).await;
    assert!(status.success(), "{text}");
    assert!(!host.bpffs().join("quilt-mesh").exists());
}

#[tokio::test]
async fn where_the_kernel_refuses_the_programs_the_node_runs_on_the_kernel_path_and_says_so() {
    let host = Host::new("refused").await;
    std::fs::create_dir_all(host.bpffs()).unwrap();
    nix::mount::mount(
        None::<&str>,
        &host.bpffs(),
        Some("bpf"),
        nix::mount::MsFlags::empty(),
        None::<&str>,
    )
    .unwrap();
    let daemon = host.start_without("auto", &[CAP_BPF, CAP_SYS_ADMIN]).await;
    daemon.configure("10.42.1.0/24").await.unwrap();
    daemon.inject("10.42.2.0/24", "vxlan100").await.unwrap();
    assert_eq!(host.own_routes().len(), 1);
    let mut reason = String::new();
    for _ in 0..200 {
        let fast_path = daemon.status().await.fast_path.unwrap();
        reason.clone_from(&fast_path.reason);
        if fast_path.state() == State::Unavailable {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(reason.contains("the kernel refused"), "{reason}");
    assert!(daemon.log().contains("this node runs on the kernel path"));
}

// linux/capability.h
const CAP_SYS_ADMIN: libc::c_ulong = 21;
const CAP_BPF: libc::c_ulong = 39;
