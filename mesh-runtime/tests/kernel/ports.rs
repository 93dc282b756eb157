//! Ports get their programs, whoever makes them, and get them back when somebody takes them.

use std::{
    fs,
    path::Path,
    process::Output,
    time::{Duration, Instant},
};

use mesh_testbed::Signal;

use crate::host::{DEADLINE, Daemon, Host};

/// A host whose daemon carries traffic on the fast path.
async fn node(label: &str, attach: &str) -> (Host, Daemon) {
    let host = Host::new(label).await;
    let daemon = host.start_with("required", &["--attach", attach]).await;
    daemon.configure("10.42.1.0/24").await.unwrap();
    daemon.sync(1, &[("10.42.2.0/24", "192.0.2.2")]).await;
    (host, daemon)
}

/// Adds a veth pair with one end on the bridge, by hand.
fn add_port(host: &Host, name: &str) {
    host.ip(&format!("link add {name} type veth peer name {name}-far"));
    host.ip(&format!("link set {name} master quilt0 up"));
}

/// Waits until the programs of that role are attached to so many interfaces, as the pinned
/// links show it.
async fn attached(host: &Host, program: &str, count: usize) {
    host.eventually(&format!("{count} {program}"), |host| {
        let links = fs::read_dir(host.bpffs().join("quilt-mesh/links"));
        let names = links
            .into_iter()
            .flatten()
            .flatten()
            .map(|it| it.file_name());
        names
            .filter(|it| it.to_string_lossy().ends_with(program))
            .count()
            == count
    })
    .await;
}

fn show(what: &str, mut delays: Vec<Duration>) {
    delays.sort();
    let at = |percent: usize| delays[(delays.len() * percent / 100).min(delays.len() - 1)];
    println!(
        "{what}: {} ports, p50 {:.1?}, p99 {:.1?}, longest {:.1?}",
        delays.len(),
        at(50),
        at(99),
        at(100),
    );
}

#[tokio::test]
async fn every_port_gets_its_program_one_by_one_and_fifty_at_once() {
    let (host, daemon) = node("many", "tcx").await;
    let mut delays = Vec::new();
    for number in 0..50 {
        add_port(&host, &format!("one{number}"));
        let appeared = Instant::now();
        attached(&host, "encapsulate", number + 1).await;
        delays.push(appeared.elapsed());
    }
    show("one by one, from port to program", delays);

    for number in 0..50 {
        host.ip(&format!(
            "link add all{number} type veth peer name all{number}-far"
        ));
    }
    let batch = host.dir.path().join("batch");
    let lines: Vec<String> = (0..50)
        .map(|number| format!("link set all{number} master quilt0 up"))
        .collect();
    fs::write(&batch, lines.join("\n")).unwrap();
    host.ip(&format!("-batch {}", batch.display()));
    let appeared = Instant::now();
    // A repair that falls into it has its turn between two of them.
    host.ip("route flush proto 81");
    host.eventually("the repair", |host| !host.own_routes().is_empty())
        .await;
    let repaired = appeared.elapsed();
    let mut delays = Vec::new();
    for number in 50..100 {
        attached_at_least(&host, number + 1).await;
        delays.push(appeared.elapsed());
    }
    show("all at once, from port to program", delays);
    println!("a route that was removed at that moment was back after {repaired:.1?}");
    let status = daemon.status().await;
    assert_eq!(status.problems(), [""; 0]);
    assert_eq!(status.fast_path.unwrap().attachments.len(), 104);
}

async fn attached_at_least(host: &Host, count: usize) {
    let until = Instant::now() + DEADLINE;
    let links = host.bpffs().join("quilt-mesh/links");
    while fs::read_dir(&links).map_or(0, Iterator::count) < count + 4 {
        assert!(Instant::now() < until, "{count} programs");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn bpftool(host: &Host, command: &str, pin: &Path) -> Output {
    let mut bpftool = host.netns.command("bpftool");
    bpftool
        .args(["link", command, "pinned"])
        .arg(pin)
        .output()
        .unwrap()
}

/// Id of a pinned link; `None` while there is none.
fn link_id(host: &Host, pin: &Path) -> Option<String> {
    let shown = bpftool(host, "show", pin);
    let text = String::from_utf8(shown.stdout).unwrap();
    let (id, _) = text.split_once(':')?;
    shown.status.success().then(|| id.to_owned())
}

#[tokio::test]
async fn a_link_that_somebody_detaches_and_a_pin_that_somebody_removes_come_back() {
    let (host, daemon) = node("detached", "tcx").await;
    add_port(&host, "c1");
    attached(&host, "encapsulate", 1).await;
    let before = daemon.status().await.fast_path.unwrap().attachments;
    let links: Vec<_> = fs::read_dir(host.bpffs().join("quilt-mesh/links"))
        .unwrap()
        .map(|it| it.unwrap().path())
        .collect();
    assert_eq!(links.len(), 5);
    let ids = || {
        links
            .iter()
            .map(|pin| link_id(&host, pin))
            .collect::<Vec<_>>()
    };
    let old = ids();
    for pin in &links {
        let detached = bpftool(&host, "detach", pin);
        assert!(detached.status.success(), "{detached:?}");
    }
    let gone = Instant::now();
    host.eventually("other links in their place", |_| {
        ids()
            .iter()
            .zip(&old)
            .all(|(new, old)| new.is_some() && new != old)
    })
    .await;
    println!(
        "links that were detached were back after {:.1?}",
        gone.elapsed()
    );
    assert_eq!(daemon.status().await.fast_path.unwrap().attachments, before);
    let link = link_id(&host, &links[0]);
    fs::remove_file(&links[0]).unwrap();
    host.eventually("the pin", |_| links[0].exists()).await;
    assert_eq!(link_id(&host, &links[0]), link, "the link itself stayed");
    assert_eq!(daemon.status().await.fast_path.unwrap().attachments, before);
}

fn filters(host: &Host, interface: &str, side: &str) -> String {
    let output = host
        .netns
        .command("tc")
        .args(["filter", "show", "dev", interface, side])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// As after a reboot of everything but the network namespace, or a BPF file system that nobody keeps.
#[tokio::test]
async fn filters_of_an_earlier_run_go_also_where_its_marks_are_lost() {
    let (host, mut daemon) = node("lost-marks", "clsact").await;
    add_port(&host, "c1");
    let there = |interface, program| filters(&host, interface, "ingress").contains(program);
    host.eventually("the filters", |_| there("c1", "encapsulate"))
        .await;
    daemon.end(Signal::SIGTERM).await;
    fs::remove_dir_all(host.bpffs().join("quilt-mesh")).unwrap();
    let daemon = host.start_with("required", &["--attach", "tcx"]).await;
    for (interface, program) in [
        ("c1", "encapsulate"),
        ("quilt0", "catch_all"),
        ("eth0", "decapsulate"),
        ("vxlan100", "safety_net"),
    ] {
        host.eventually(&format!("{interface} without {program}"), |_| {
            !there(interface, program)
        })
        .await;
    }
    assert_eq!(daemon.status().await.problems(), [""; 0]);
}

#[tokio::test]
async fn filters_and_qdiscs_that_somebody_removes_come_back() {
    let (host, daemon) = node("filters", "clsact").await;
    add_port(&host, "c1");
    let hooks = [
        ("c1", "ingress", "encapsulate"),
        ("quilt0", "ingress", "catch_all"),
        ("eth0", "ingress", "decapsulate"),
        ("vxlan100", "ingress", "safety_net"),
        ("vxlan100", "egress", "count_egress"),
    ];
    let there = |host: &Host| {
        hooks
            .iter()
            .all(|(interface, side, program)| filters(host, interface, side).contains(program))
    };
    host.eventually("the filters", there).await;
    for words in [["filter", "del", "dev"], ["qdisc", "del", "dev"]] {
        for (interface, side, _) in hooks {
            let what = if words[0] == "filter" { side } else { "clsact" };
            let _ = host
                .netns
                .command("tc")
                .args(words)
                .args([interface, what])
                .output()
                .unwrap();
        }
        let gone = Instant::now();
        host.eventually("the filters", there).await;
        println!(
            "after tc {} they were back after {:.1?}",
            words.join(" "),
            gone.elapsed()
        );
    }
    let status = daemon.status().await;
    assert_eq!(status.problems(), [""; 0]);
    assert_eq!(status.fast_path.unwrap().attachments.len(), 5);
}
