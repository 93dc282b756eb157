//! nftables as an independent witness, and as what others do on the same host.

use std::{io::Write as _, process::Stdio};

use mesh_testbed::NetNs;

use crate::inside::{run, try_run};

/// The runtime's own tables.
pub(crate) const TABLES: [&str; 2] = ["inet quilt_mesh", "bridge quilt_mesh"];

/// Has `nft` read a script inside.
pub(crate) fn nft(netns: &NetNs, script: &str) {
    let mut command = netns.command("nft");
    command.args(["-f", "-"]).stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(script.as_bytes()).unwrap();
    drop(input);
    let status = child.wait().unwrap();
    assert!(status.success(), "{script}");
}

/// What `nft` lists of a table, without counters; `None` if there is no such table.
pub(crate) fn listed(netns: &NetNs, table: &str) -> Option<String> {
    let output = try_run(netns, "nft", &format!("--stateless list table {table}"));
    let text = || String::from_utf8(output.stdout).unwrap();
    output.status.success().then(text)
}

/// The runtime's tables, comparable: a set's elements have no order.
pub(crate) fn own_rules(netns: &NetNs) -> Option<Vec<Vec<String>>> {
    TABLES
        .iter()
        .map(|table| {
            let text = listed(netns, table)?;
            let words = text.split(|c: char| c.is_whitespace() || c == ',');
            let mut words: Vec<String> = words.map(str::to_owned).collect();
            words.sort_unstable();
            Some(words)
        })
        .collect()
}

/// Chain and handle of the first rule of each chain of a table.
pub(crate) fn first_rules(netns: &NetNs, table: &str) -> Vec<(String, String)> {
    let text = run(netns, "nft", &format!("--handle list table {table}"));
    let mut found = Vec::<(String, String)>::new();
    let mut chain = None::<String>;
    for line in text.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("chain ") {
            chain = rest.split(' ').next().map(str::to_owned);
            continue;
        }
        let Some((_, handle)) = line.split_once("# handle ") else {
            continue;
        };
        if !line.starts_with("table ")
            && !line.starts_with("set ")
            && let Some(chain) = chain.take()
        {
            found.push((chain, handle.to_owned()));
        }
    }
    found
}
