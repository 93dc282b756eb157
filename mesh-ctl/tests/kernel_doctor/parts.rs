//! Parts of other versions, and managers of the host's network.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_other_versions_and_network_managers_are_found() {
    let testbed = mesh().await;
    let home = &testbed.hosts()[0];
    // An agent of a later version, which tells nothing else.
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let serves = tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(MeshAgentServer::new(Later))
            .serve_with_incoming(UnixListenerStream::new(listener)),
    );
    let output = home
        .netns()
        .command(env!("CARGO_BIN_EXE_meshctl"))
        .arg("--socket")
        .arg(home.runtime_socket())
        .arg("--agent-socket")
        .arg(&socket)
        .arg("doctor")
        .output()
        .unwrap();
    serves.abort();
    let text = String::from_utf8(output.stdout).unwrap();
    println!("# meshctl doctor\n{text}");
    assert!(text.contains("(host-versions-differ)"), "{text}");
    assert!(
        text.contains("quilt-mesh-agent 9.9.9") && text.ends_with("1 notice\n"),
        "{text}"
    );
    assert_eq!(
        output.status.code(),
        Some(0),
        "a notice is nothing wrong: {text}"
    );

    // systemd-networkd and NetworkManager, by what they say below /run of themselves: in mounts of this process's own.
    let output = home
        .netns()
        .command("ip")
        .args(["-j", "link", "show", "vxlan100"])
        .output();
    let links: Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
    let index = links[0]["ifindex"].as_u64().unwrap();
    let said = |manager: &str, words: &str| {
        let script = format!(
            "mount --bind {0} {0} && mount --make-private {0} && mkdir -p {0}/run {0}/kept && mount --rbind /run {0}/kept && \
             mount -t tmpfs tmpfs /run && mkdir -p /run/{manager} /run/quilt-mesh-testbed && \
             mount --rbind {0}/kept/quilt-mesh-testbed /run/quilt-mesh-testbed && \
             printf '{words}' > /run/{manager}/{index} && exec \"$@\"",
            folder.path().display()
        );
        let mut command = home.netns().command("unshare");
        command.args([
            "--mount",
            "sh",
            "-ec",
            &script,
            "sh",
            env!("CARGO_BIN_EXE_meshctl"),
        ]);
        let output = asked(&mut command, home, "doctor").output().unwrap();
        println!("{}", String::from_utf8_lossy(&output.stdout));
        assert!(output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let networkd = "systemd/netif/links";
    let network_manager = "NetworkManager/devices";
    let managed = r"[device]\nmanaged=true\nconnection-uuid=1-2\n";
    for (manager, words, found) in [
        (
            networkd,
            r"ADMIN_STATE=configured\n",
            "systemd-networkd manages vxlan100",
        ),
        (network_manager, managed, "NetworkManager manages vxlan100"),
    ] {
        let text = said(manager, words);
        assert!(
            text.contains(found) && text.ends_with("1 warning\n"),
            "{text}"
        );
    }
    for (manager, words) in [
        (networkd, r"ADMIN_STATE=unmanaged\n"),
        (network_manager, r"[device]\nmanaged=false\n"),
    ] {
        let text = said(manager, words);
        assert!(text.ends_with("none\n"), "{text}");
    }
}

/// An agent of a later version.
struct Later;

#[tonic::async_trait]
impl MeshAgent for Later {
    async fn get_status(
        &self,
        _: tonic::Request<AgentStatusRequest>,
    ) -> Result<tonic::Response<AgentStatus>, tonic::Status> {
        Ok(tonic::Response::new(AgentStatus {
            version: "9.9.9".to_owned(),
            hostname: "host1".to_owned(),
            ..AgentStatus::default()
        }))
    }

    async fn leave(
        &self,
        _: tonic::Request<LeaveRequest>,
    ) -> Result<tonic::Response<LeaveResponse>, tonic::Status> {
        Err(tonic::Status::unimplemented("nobody asks it to"))
    }

    async fn join_again(
        &self,
        _: tonic::Request<JoinAgainRequest>,
    ) -> Result<tonic::Response<JoinAgainResponse>, tonic::Status> {
        Err(tonic::Status::unimplemented("nobody asks it to"))
    }
}
