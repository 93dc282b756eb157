//! Entries of the maps of a node with many peers come back, whoever takes them away.

use crate::host::Host;

/// Deletes single entries from among so many, of which nobody tells.
async fn an_entry_comes_back_among(label: &str, peers: usize) {
    let host = Host::new(label).await;
    let daemon = host
        .start_with("required", &["--cluster-cidr", "10.0.0.0/8"])
        .await;
    daemon.configure("10.42.1.0/24").await.unwrap();
    let of = |number: usize| (number / 256, number % 256);
    let named: Vec<(String, String)> = (0..peers)
        .map(of)
        .map(|(high, low)| {
            (
                format!("10.{}.{low}.0/24", 100 + high),
                format!("198.18.{high}.{low}"),
            )
        })
        .collect();
    let named: Vec<(&str, &str)> = named
        .iter()
        .map(|(subnet, address)| (subnet.as_str(), address.as_str()))
        .collect();
    let answer = daemon.sync(1, &named).await;
    assert!(answer.success && answer.rejected.is_empty(), "{answer:?}");
    let entry = |action: &str, number: usize| {
        let (high, low) = of(number);
        let mut bpftool = host.netns.command("bpftool");
        bpftool.args(["map", action, "pinned"]);
        bpftool.arg(host.bpffs().join("quilt-mesh/peers"));
        bpftool.args(format!("key 10 {} {low} 0", 100 + high).split(' '));
        bpftool.output().unwrap().status.success()
    };
    host.eventually("the last peer's entry", |_| entry("lookup", peers - 1))
        .await;
    for number in [0, peers - 1] {
        assert!(entry("delete", number), "the entry of peer {number}");
        host.eventually("the entry", |_| entry("lookup", number))
            .await;
    }
}

#[tokio::test]
async fn an_entry_that_somebody_deletes_among_many_comes_back_with_the_next_comparison() {
    an_entry_comes_back_among("many-peers", 600).await;
}
