//! Cleaning up leaves nothing of ours, and all that is somebody else's.

use std::{fs, path::Path};

use mesh_testbed::Signal;

use crate::host::{Daemon, Host};

fn run(host: &Host, program: &str, words: &str) -> String {
    let mut command = host.netns.command(program);
    let output = command.args(words.split_whitespace()).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {words}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// Everything below a directory.
fn tree(path: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(path).into_iter().flatten() {
        let path = entry.unwrap().path();
        found.push(path.display().to_string());
        if path.is_dir() && !path.is_symlink() {
            tree(&path, found);
        }
    }
    found.sort();
}

/// All that this project ever makes a part of.
fn snapshot(host: &Host) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for (program, words) in [
        ("ip", "-details -oneline link show"),
        ("ip", "address show"),
        ("ip", "route show table all"),
        ("ip", "rule show"),
        ("ip", "neighbour show"),
        ("bridge", "fdb show"),
        ("tc", "qdisc show"),
    ] {
        let shown = run(host, program, words);
        let lines_of_it = shown.lines().filter(|line| !is_lookup(line));
        lines.extend(lines_of_it.map(still));
    }
    for link in run(host, "ip", "-brief link show").lines() {
        let name = link.split([' ', '@']).next().unwrap();
        for side in ["ingress", "egress"] {
            let filters = run(host, "tc", &format!("filter show dev {name} {side}"));
            lines.extend(filters.lines().map(|line| format!("{name} {side}: {line}")));
        }
    }
    tree(&host.bpffs(), &mut lines);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let dir = host.dir.path().display().to_string();
    lines.extend(
        mounts
            .lines()
            .filter(|line| line.contains(&dir))
            .map(str::to_owned),
    );
    lines
}

/// Whether a line is a neighbour that the kernel looks for, or looked for and did not find: it does whenever something is
/// sent there, and forgets it by itself. Nobody makes such an entry.
fn is_lookup(line: &str) -> bool {
    ["INCOMPLETE", "FAILED"]
        .iter()
        .any(|state| line.trim_end().ends_with(state))
}

/// A line without the timers of bridges, which run.
fn still(line: &str) -> String {
    let mut words = Vec::new();
    let mut rest = line.split_whitespace();
    while let Some(word) = rest.next() {
        if word.ends_with("_timer") || word == "used" {
            rest.next();
        } else {
            words.push(word);
        }
    }
    words.join(" ")
}

/// Another program's devices, routes, entries and filters.
async fn foreign_objects(host: &Host) {
    for words in [
        "link add br-foreign type bridge",
        "link set br-foreign up",
        "link add vx-foreign type vxlan id 7 dstport 4790 local 192.0.2.1 nolearning",
        "link set vx-foreign up",
        "link add eth1 type veth peer name eth1-far",
        "address add 198.51.100.1/24 dev eth1",
        "link set eth1 up",
        "link set eth1-far up",
        "route add 203.0.113.0/24 via 192.0.2.9",
        "route add 10.42.77.0/24 via 192.0.2.9",
        "neighbour add 192.0.2.9 lladdr 02:00:00:00:00:09 dev eth0 nud permanent",
    ] {
        host.ip(words);
    }
    // The kernel says a while later what the carrier has made of an interface.
    host.eventually("the carrier", |host| {
        ["eth1", "eth1-far"].iter().all(|name| {
            let shown = host.ip(&format!("link show {name}"));
            shown.contains("state UP")
        })
    })
    .await;
    host.bridge("fdb append 02:00:00:00:00:07 dev vx-foreign dst 192.0.2.9");
    run(host, "tc", "qdisc add dev eth0 clsact");
    // An empty one, too: nobody but its maker knows what for.
    run(host, "tc", "qdisc add dev br-foreign clsact");
    let filter = host
        .netns
        .command("tc")
        .args("filter add dev eth0 ingress prio 7 bpf bytecode".split(' '))
        .args(["1,6 0 0 4294967295,", "flowid", "1:1"])
        .output()
        .unwrap();
    assert!(filter.status.success(), "{filter:?}");
}

/// Has the daemon make all that it makes.
async fn make_everything(host: &Host, attach: &str) -> Daemon {
    let daemon = host.start_with("required", &["--attach", attach]).await;
    daemon.configure("10.42.1.0/24").await.unwrap();
    let peers = [
        ("10.42.2.0/24", "192.0.2.2"),
        ("10.42.3.0/24", "198.51.100.3"),
    ];
    assert!(daemon.sync(1, &peers).await.success);
    daemon.inject("10.42.9.0/24", "vxlan100").await.unwrap();
    host.ip("link set c1 master quilt0");
    host.eventually_async("the port", async || {
        let fast_path = daemon.status().await.fast_path.unwrap();
        fast_path
            .attachments
            .contains(&"c1: encapsulate".to_owned())
    })
    .await;
    host.ip("link set c1 nomaster");
    daemon
}

#[tokio::test]
async fn what_is_somebody_elses_stays_to_the_last_entry_and_nothing_of_ours_does() {
    for attach in ["clsact", "tcx"] {
        let host = Host::new("foreign").await;
        foreign_objects(&host).await;
        host.ip("link add c1 type veth peer name c1-far");
        fs::create_dir_all(host.bpffs()).unwrap();
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("bpf"), &host.bpffs(), Some("bpf"), flags, None::<&str>).unwrap();
        fs::create_dir(host.bpffs().join("foreign")).unwrap();
        let pin = host.bpffs().join("foreign/map");
        let words = format!(
            "map create {} type array key 4 value 4 entries 1 name other",
            pin.display()
        );
        run(&host, "bpftool", &words);
        // Setting a port's promiscuity and back leaves no trace; all else is compared.
        let before = snapshot(&host);
        let mut daemon = make_everything(&host, attach).await;
        assert_ne!(snapshot(&host), before);
        daemon.end(Signal::SIGKILL).await;
        let (status, text) = host.run_daemon(&["--cleanup"]).await;
        assert!(status.success(), "{text}");
        let after = snapshot(&host);
        let new: Vec<_> = after.iter().filter(|line| !before.contains(line)).collect();
        let missing: Vec<_> = before.iter().filter(|line| !after.contains(line)).collect();
        assert!(
            new.is_empty() && missing.is_empty(),
            "{attach}: new {new:#?}, missing {missing:#?}\n{text}"
        );
        let (_, text) = host.run_daemon(&["--cleanup"]).await;
        assert!(text.contains("nothing of Quilt Mesh"), "{text}");
    }
}

#[tokio::test]
async fn a_bpf_file_system_that_we_mounted_is_unmounted_unless_somebody_uses_it() {
    for used in [false, true] {
        let host = Host::new("mounted").await;
        host.ip("link add eth1 type veth peer name eth1-far");
        host.ip("address add 198.51.100.1/24 dev eth1");
        host.ip("link set eth1 up");
        host.ip("link add c1 type veth peer name c1-far");
        let mut daemon = make_everything(&host, "auto").await;
        daemon.end(Signal::SIGTERM).await;
        if used {
            fs::create_dir(host.bpffs().join("foreign")).unwrap();
        }
        let (status, text) = host.run_daemon(&["--cleanup"]).await;
        assert!(status.success(), "{text}");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mounted = mounts.contains(&host.bpffs().display().to_string());
        assert_eq!(mounted, used, "{text}");
    }
}

#[tokio::test]
async fn the_interfaces_that_were_made_for_containers_go_and_with_them_the_bridge() {
    let (host, mut daemon, mut client) = crate::attach::node("clean-attached").await;
    let (web, attached) = crate::attach::attach(&mut client, "web").await;
    daemon.end(Signal::SIGKILL).await;
    assert!(host.socket().exists());
    let (status, text) = host.run_daemon(&["--cleanup"]).await;
    assert!(status.success(), "{text}");
    let line = format!(
        "done: delete interface {} of test/quilt/web/eth0",
        attached.endpoint.interface
    );
    assert!(text.contains(&line), "{text}");
    assert_eq!(crate::attach::names(&web), ["lo"]);
    assert_eq!(
        crate::attach::names(&host.netns),
        ["lo", "eth0-far", "eth0"]
    );
    assert!(!host.state_dir().exists() && !host.socket().exists());
}
