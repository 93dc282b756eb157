//! What the daemons find, and what is found beside them.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_the_daemons_find_is_told_once_with_what_the_host_shows_beside_it() {
    let testbed = mesh().await;
    let [home, away] = testbed.hosts() else {
        panic!("two hosts are needed");
    };
    // Something between the hosts drops what is large.
    let switch = |words: &str| {
        let output = testbed.switch().command("nft").arg(words).output().unwrap();
        assert!(output.status.success(), "nft {words}: {output:?}");
    };
    switch("add table bridge hypervisor");
    switch("add chain bridge hypervisor swallows { type filter hook forward priority 0 ; }");
    switch("add rule bridge hypervisor swallows udp dport 4789 meta length > 1400 drop");
    wait_for(home, &["path-mtu-small"]).await;
    shows(home);
    switch("delete table bridge hypervisor");
    wait_for(home, &[]).await;

    let folder = tempfile::tempdir().unwrap();

    // A clock that is wrong.
    let clock = SteppedClock::new().unwrap();
    home.stop(Daemon::Agent, Signal::SIGTERM, SOON)
        .await
        .unwrap();
    clock.step(3600).unwrap();
    let options = clock
        .environment()
        .into_iter()
        .fold(DaemonOptions::new(), |options, (name, value)| {
            options.env(name, value)
        });
    home.start_agent(&options).await.unwrap();
    wait_for(home, &["clocks-differ"]).await;
    home.stop(Daemon::Agent, Signal::SIGTERM, SOON)
        .await
        .unwrap();
    home.start_agent(&DaemonOptions::new()).await.unwrap();
    wait_for(home, &[]).await;

    // A copy of another machine, with its agent's files.
    home.stop(Daemon::Agent, Signal::SIGTERM, SOON)
        .await
        .unwrap();
    let kept = folder.path().join("agent");
    fs::rename(home.state_dir(), &kept).unwrap();
    let copied = Command::new("cp")
        .arg("-a")
        .arg(away.state_dir())
        .arg(home.state_dir())
        .status();
    assert!(copied.unwrap().success());
    home.spawn(Daemon::Agent, &DaemonOptions::new()).unwrap();
    wait_for(home, &["not-registered"]).await;
    let (text, _) = shows(home);
    assert!(
        text.contains("if this host's disk is a copy of that one's"),
        "{text}"
    );
    home.stop(Daemon::Agent, Signal::SIGTERM, SOON)
        .await
        .unwrap();
    fs::remove_dir_all(home.state_dir()).unwrap();
    fs::rename(&kept, home.state_dir()).unwrap();
    home.start_agent(&DaemonOptions::new()).await.unwrap();
    wait_for(home, &[]).await;

    // A runtime that may not load programs, as on a kernel that has none.
    home.stop(Daemon::Runtime, Signal::SIGTERM, SOON)
        .await
        .unwrap();
    run(
        home,
        &format!("rm -rf {}", home.bpffs_dir().join("quilt-mesh").display()),
    );
    let runtime = folder.path().join("quilt-runtime");
    let real = Path::new(env!("CARGO_BIN_EXE_meshctl")).with_file_name("quilt-runtime");
    let script = format!(
        "#!/bin/sh\nexec setpriv --bounding-set -cap_21,-cap_38,-cap_39 {} \"$@\"\n",
        real.display()
    );
    fs::write(&runtime, script).unwrap();
    fs::set_permissions(&runtime, Permissions::from_mode(0o755)).unwrap();
    home.start_runtime(&DaemonOptions::new().binary(&runtime))
        .await
        .unwrap();
    wait_for(home, &["no-guard-programs"]).await;
    shows(home);
    home.stop(Daemon::Runtime, Signal::SIGTERM, SOON)
        .await
        .unwrap();
    home.start_runtime(&DaemonOptions::new()).await.unwrap();
    wait_for(home, &[]).await;

    // One whose operator wants no fast path.
    home.stop(Daemon::Runtime, Signal::SIGTERM, SOON)
        .await
        .unwrap();
    let off = DaemonOptions::new().args(["--fast-path", "off"]);
    home.start_runtime(&off).await.unwrap();
    wait_for(home, &[]).await;

    // Entries of nobody, while no runtime takes them away.
    home.stop(Daemon::Runtime, Signal::SIGTERM, SOON)
        .await
        .unwrap();
    run(
        home,
        &format!(
            "ip neighbour add 10.42.9.0 lladdr 02:51:0a:2a:09:00 dev vxlan100 nud permanent
             bridge fdb append 02:51:0a:2a:09:00 dev vxlan100 dst {} self permanent",
            away.address()
        ),
    );
    wait_for(home, &["runtime-down", "stale-entries"]).await;
    let (text, _) = shows(home);
    assert!(
        text.contains("ip neighbour delete 10.42.9.0 dev vxlan100, bridge fdb delete 02:51:"),
        "{text}"
    );
    run(
        home,
        "ip neighbour delete 10.42.9.0 dev vxlan100
         bridge fdb delete 02:51:0a:2a:09:00 dev vxlan100 self",
    );
    // What a policy for MAC addresses does to devices.
    run(home, "ip link set vxlan100 address 3e:01:02:03:04:05");
    wait_for(home, &["runtime-down", "mac-changed"]).await;
    shows(home);

    // Somebody else has the port of VXLAN: another VXLAN device, and a process.
    run(
        home,
        "ip link delete vxlan100
         ip link add flannel.1 type vxlan id 100 dstport 4789 local 192.0.2.2
         ip link set flannel.1 up",
    );
    home.start_runtime(&DaemonOptions::new()).await.unwrap();
    wait_for(home, &["vxlan-taken"]).await;
    home.stop(Daemon::Runtime, Signal::SIGTERM, SOON)
        .await
        .unwrap();
    run(home, "ip link delete flannel.1");
    let taken = home
        .netns()
        .run(|| UdpSocket::bind("0.0.0.0:4789").unwrap())
        .unwrap();
    home.start_runtime(&DaemonOptions::new()).await.unwrap();
    wait_for(home, &["kernel-refuses"]).await;
    let (text, exit) = shows(home);
    let who = format!("(pid {})", std::process::id());
    assert!(text.contains(&who) && exit == 1, "{text}");
    drop(taken);
    wait_for(home, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn daemons_that_do_not_run_are_told_and_who_has_no_rights_is_told_what_was_not_looked_at() {
    let testbed = mesh().await;
    let home = &testbed.hosts()[0];
    let stranger = || {
        let mut command = home.netns().command("setpriv");
        command.args(["--reuid", STRANGER, "--regid", STRANGER, "--clear-groups"]);
        asked(command.arg(env!("CARGO_BIN_EXE_meshctl")), home, "doctor")
            .output()
            .unwrap()
    };
    let output = stranger();
    let text = String::from_utf8(output.stdout).unwrap();
    println!("$ meshctl doctor\n{text}");
    assert_eq!(output.status.code(), Some(2), "{text}");
    for area in ["ipsec", "packet filter", "twins", "ways to peers"] {
        let words = format!("{area:<16} not looked at: needs root");
        assert!(text.contains(&words), "{words}: {text}");
    }
    run(home, "sysctl -qw net.ipv4.conf.eth0.forwarding=0");
    assert_eq!(stranger().status.code(), Some(1));
    run(home, "sysctl -qw net.ipv4.conf.eth0.forwarding=1");

    home.stop(Daemon::Agent, Signal::SIGTERM, SOON)
        .await
        .unwrap();
    wait_for(home, &["agent-down"]).await;
    home.stop(Daemon::Runtime, Signal::SIGTERM, SOON)
        .await
        .unwrap();
    wait_for(home, &["runtime-down", "agent-down"]).await;
    let (text, exit) = shows(home);
    assert_eq!(exit, 1, "{text}");
}
