//! What the CNI plugin `bandwidth` makes at a container's port, right after the port came: it has to be able to, it has
//! to hold the container back, and nothing else may suffer. Where programs are filters, as before Linux 6.6, an
//! interface has room for one of us alone. Needs root, iproute2 and the modules ifb, sch_tbf, cls_u32 and act_mirred.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::{Duration, Instant};

use mesh_testbed::{
    Container, Daemon, DaemonOptions, Host, NetNs, PingOptions, Signal, ping, wait_reachable,
    wait_until,
};

mod pair;
use pair::{Pair, SOON, counters};

/// How long a new port is left free.
const NEW: Duration = Duration::from_secs(10);

/// Long enough for what takes milliseconds, and shorter than a new port is left free.
const AT_ONCE: Duration = Duration::from_secs(7);

fn run(namespace: &NetNs, program: &str, words: &str) -> String {
    let mut command = namespace.command(program);
    let output = command.args(words.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "{program} {words}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn tc(namespace: &NetNs, words: &str) -> String {
    run(namespace, "tc", words)
}

fn attaching(mode: &str) -> DaemonOptions {
    DaemonOptions::new().args(["--attach", mode])
}

/// What the plugin makes: what a container gets is shaped at its port, what it sends at a device of its own.
fn limit(host: &NetNs, port: &str) {
    let rate = "tbf rate 100mbit burst 32kbit latency 400ms";
    tc(host, &format!("qdisc add dev {port} root {rate}"));
    run(host, "ip", "link add bwp0 up type ifb");
    tc(host, &format!("qdisc add dev {port} handle ffff: ingress"));
    tc(
        host,
        &format!(
            "filter add dev {port} parent ffff: protocol all prio 1 u32 match u32 0 0 \
             action mirred egress redirect dev bwp0"
        ),
    );
    tc(host, &format!("qdisc add dev bwp0 root {rate}"));
}

/// Packets that the first queueing discipline of a device has sent.
fn passed(host: &NetNs, device: &str) -> u32 {
    let shown = tc(host, &format!("-statistics qdisc show dev {device} root"));
    let (_, sent) = shown.split_once(" bytes ").unwrap();
    sent.split_whitespace().next().unwrap().parse().unwrap()
}

async fn why_by_kernel(host: &Host, container: &Container) -> Option<String> {
    let address = container.address().to_string();
    let endpoints = host.status().await.unwrap().endpoints.into_iter();
    let mut of_it = endpoints.filter(|it| it.address == address);
    of_it.next().map(|it| it.kernel_path)
}

/// Waits until a container is known, and its packets are left to the kernel path for a reason that is said, or not.
async fn wait_left_to_the_kernel(host: &Host, container: &Container, left: bool) {
    wait_until("what the status says of the container", SOON, || async {
        match why_by_kernel(host, container).await {
            Some(why) if why.contains("tc") == left => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .unwrap();
}

async fn five_of_five(from: &Container, to: &Container) {
    wait_reachable(from.netns(), to.address(), SOON)
        .await
        .unwrap();
    let options = PingOptions {
        count: 5,
        ..PingOptions::default()
    };
    let report = ping(from.netns(), to.address(), options).await.unwrap();
    assert!(report.is_complete(), "{report:?}");
}

async fn has_program(host: &Host, container: &Container) -> bool {
    let status = host.status().await.unwrap();
    let program = format!("{}: encapsulate", container.host_interface());
    let attachments = status.fast_path.unwrap().attachments;
    attachments.contains(&program)
}

async fn a_container_that_just_came_is_limited(mode: &str) {
    let pair = Pair::start(&attaching(mode)).await;
    let host = pair.host_a();
    let limited = host.add_container().await.unwrap();
    let port = limited.host_interface();
    // Not before the runtime knows it, and its program would stand.
    wait_left_to_the_kernel(host, &limited, false).await;
    limit(host.netns(), port);
    wait_left_to_the_kernel(host, &limited, true).await;
    let before = [passed(host.netns(), port), passed(host.netns(), "bwp0")];
    five_of_five(&limited, &pair.b).await;
    five_of_five(&pair.b, &limited).await;
    for (device, before) in [port, "bwp0"].into_iter().zip(before) {
        let now = passed(host.netns(), device);
        // Five requests and five replies, whatever else came.
        assert!(now - before >= 10, "{device}: {before} to {now}");
    }

    // The other containers have the fast path, and this one stays what it is.
    pair.wait_fast().await;
    tokio::time::sleep(NEW).await;
    let shown = tc(host.netns(), &format!("qdisc show dev {port}"));
    assert!(
        shown.contains("ingress ffff:") && !shown.contains("clsact"),
        "{shown}"
    );
    wait_left_to_the_kernel(host, &limited, true).await;
    assert!(has_program(host, &limited).await, "there is room for it");
    let status = host.status().await.unwrap();
    assert_eq!(status.problems(), [""; 0]);
    let log = std::fs::read_to_string(host.log(Daemon::Runtime)).unwrap();
    let complaints = log.lines().filter(|line| line.contains("WARN"));
    let about_it: Vec<_> = complaints.filter(|line| line.contains(port)).collect();
    assert!(about_it.is_empty(), "{about_it:?}");
    let kernel = |it: &mesh_proto::mesh::PeerStatus| it.kernel_path.unwrap_or_default();
    let before = kernel(&counters(host).await);
    five_of_five(&pair.a, &pair.b).await;
    assert_eq!(kernel(&counters(host).await), before);

    // Nobody is in the way any more.
    tc(host.netns(), &format!("qdisc del dev {port} root"));
    tc(host.netns(), &format!("qdisc del dev {port} ingress"));
    wait_left_to_the_kernel(host, &limited, false).await;
    wait_until("its program", AT_ONCE, || async {
        let there = tc(host.netns(), &format!("filter show dev {port} ingress"));
        let there = mode == "tcx" || there.contains("encapsulate");
        match there && has_program(host, &limited).await {
            true => Ok(()),
            false => Err("it is not there".to_owned()),
        }
    })
    .await
    .unwrap();
    five_of_five(&limited, &pair.b).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_just_came_is_limited_where_programs_are_filters() {
    a_container_that_just_came_is_limited("clsact").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_just_came_is_limited_where_programs_are_links() {
    a_container_that_just_came_is_limited("tcx").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_made_at_a_port_before_the_bridge_had_it_is_seen_when_it_does() {
    let pair = Pair::start(&DaemonOptions::new()).await;
    pair.wait_fast().await;
    let (host, port) = (pair.host_a(), pair.a.host_interface());
    run(host.netns(), "ip", &format!("link set {port} nomaster"));
    // The runtime hears of it while it is no port.
    limit(host.netns(), port);
    tokio::time::sleep(Duration::from_secs(1)).await;
    run(
        host.netns(),
        "ip",
        &format!("link set {port} master quilt0"),
    );
    let joined = Instant::now();
    wait_left_to_the_kernel(host, &pair.a, true).await;
    assert!(joined.elapsed() < AT_ONCE, "{:?}", joined.elapsed());
}

/// The time until the runtime has a program at a container's port.
async fn until_program(host: &Host, container: &Container) -> Duration {
    let start = Instant::now();
    wait_until("the program of the port", SOON, || async {
        match has_program(host, container).await {
            true => Ok(()),
            false => Err("it is not there".to_owned()),
        }
    })
    .await
    .unwrap();
    start.elapsed()
}

/// The bridge's own program carries its packets until then.
#[tokio::test(flavor = "multi_thread")]
async fn a_port_is_left_free_at_first_and_has_the_fast_path_all_the_same() {
    let pair = Pair::start(&attaching("clsact")).await;
    let host = pair.host_a();
    let start = Instant::now();
    let new = host.add_container().await.unwrap();
    wait_left_to_the_kernel(host, &new, false).await;
    let before = counters(host).await;
    five_of_five(&new, &pair.b).await;
    let after = counters(host).await;
    let shown = tc(
        host.netns(),
        &format!("qdisc show dev {}", new.host_interface()),
    );
    assert!(!shown.contains("clsact"), "{shown}");
    assert!(start.elapsed() < AT_ONCE, "the test was slow");
    assert_eq!(after.kernel_path, before.kernel_path);
    until_program(host, &new).await;
    let waited = start.elapsed();
    assert!(waited >= NEW, "{waited:?}");
    let shown = tc(
        host.netns(),
        &format!("qdisc show dev {}", new.host_interface()),
    );
    assert!(shown.contains("clsact"), "{shown}");
    five_of_five(&new, &pair.b).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_runtime_leaves_no_port_free_that_has_its_filter() {
    let pair = Pair::start(&attaching("clsact")).await;
    pair.wait_fast().await;
    let host = pair.host_a();
    host.stop(Daemon::Runtime, Signal::SIGKILL, SOON)
        .await
        .unwrap();
    host.restart(Daemon::Runtime).unwrap();
    host.wait_serving(SOON).await.unwrap();
    let waited = until_program(host, &pair.a).await;
    assert!(waited < AT_ONCE, "{waited:?}");
}

/// Nobody else would guard it.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_packet_filter_no_port_is_left_free() {
    let without = attaching("clsact").env("PATH", "/nonexistent");
    let pair = Pair::start(&without).await;
    let new = pair.host_a().add_container().await.unwrap();
    let waited = until_program(pair.host_a(), &new).await;
    assert!(waited < AT_ONCE, "{waited:?}");
}

/// An engine does not wait for a program that is not to come yet, and its plugins come next.
#[tokio::test(flavor = "multi_thread")]
async fn a_registered_container_does_not_wait_for_the_program_of_its_port() {
    let pair = Pair::start(&attaching("clsact")).await;
    let host = pair.host_a();
    let start = Instant::now();
    let registered = host.attach_container().await.unwrap();
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
    let before = counters(host).await;
    five_of_five(&registered, &pair.b).await;
    assert_eq!(counters(host).await.kernel_path, before.kernel_path);
    limit(host.netns(), registered.host_interface());
    wait_left_to_the_kernel(host, &registered, true).await;
    five_of_five(&pair.b, &registered).await;
}
