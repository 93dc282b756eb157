//! What a container must not leave behind.

use std::{fs, net::Ipv4Addr, path::Path};

use mesh_testbed::{Host, NetNs, wait_until};

use crate::mesh::{SOON, ip, leases, links, owner_of, run};

/// The port of the node's own endpoint for probes, which each runtime makes anew.
const PROBE: &str = "quilt-probe";

/// What a host has: interfaces, leases, entries, rules and files.
#[derive(Debug, PartialEq)]
pub(crate) struct Remains {
    links: Vec<String>,
    leases: Vec<String>,
    endpoints: usize,
    neighbours: Vec<String>,
    rules: Vec<String>,
    files: Vec<String>,
}

impl Remains {
    /// What a host has, once each port has its program: that follows a moment after its container is added.
    pub(crate) async fn of(host: &Host) -> Self {
        wait_until("programs at all ports", SOON, async || {
            let status = host.status().await.unwrap();
            let fast_path = status.fast_path.unwrap_or_default();
            let lacks = |port: &str| {
                !fast_path
                    .attachments
                    .contains(&format!("{port}: encapsulate"))
            };
            let probe = links(host.netns()).into_iter().filter(|it| it == PROBE);
            let ports = status.endpoints.into_iter().map(|it| it.interface);
            let ports = ports.chain(probe);
            let without: Vec<String> = ports.filter(|port| lacks(port)).collect();
            if fast_path.attach_mode != "tcx" || fast_path.attachments.is_empty() {
                return Ok(());
            }
            // Nothing stands in for them in the rules any more.
            let stand_in = run(host.netns(), "nft", "list set bridge quilt_mesh bare");
            match without.is_empty() && !stand_in.contains("elements") {
                true => Ok(()),
                false => Err(format!("none at {without:?}, {stand_in}")),
            }
        })
        .await
        .unwrap();
        wait_until("files that nobody writes", SOON, async || {
            let now = Self::now(host).await;
            match now.files.iter().find(|it| it.ends_with(".new")) {
                None => Ok(now),
                Some(file) => Err(file.clone()),
            }
        })
        .await
        .unwrap()
    }

    async fn now(host: &Host) -> Self {
        let sorted = |text: String| {
            let mut lines: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
            lines.sort();
            lines
        };
        let mut files = Vec::new();
        list(host.dir(), &mut files);
        // Pins have an interface's index in their names, and this one has another with each runtime.
        if let Some(index) = index_of(host.netns(), PROBE) {
            let ours = format!("-{index}-encapsulate");
            for file in &mut files {
                if let Some(pin) = file.strip_suffix(&ours) {
                    *file = format!("{pin}-{PROBE}-encapsulate");
                }
            }
        }
        files.sort();
        Self {
            links: links(host.netns()),
            leases: leases(host).await.iter().map(owner_of).collect(),
            endpoints: host.status().await.unwrap().endpoints.len(),
            neighbours: sorted(ip(host.netns(), "neighbour show nud permanent")),
            rules: sorted(run(host.netns(), "nft", "--stateless list ruleset")),
            files,
        }
    }

    /// Waits until a host has again what it had, and nothing besides: some of it follows a moment later.
    pub(crate) async fn wait_again(&self, host: &Host) {
        wait_until("what there was before", SOON, async || {
            let now = Self::now(host).await;
            match now == *self {
                true => Ok(()),
                false => Err(self.difference(&now)),
            }
        })
        .await
        .unwrap();
    }

    /// Waits until a host has again what it had, but for rules that plugins keep: none of them is about `address`.
    /// Returns what there is.
    pub(crate) async fn wait_but_for_rules(&self, host: &Host, address: Ipv4Addr) -> Self {
        let address = address.to_string();
        wait_until("what there was before", SOON, async || {
            let mut now = Self::now(host).await;
            let rules = now.rules.clone();
            if now.names_in_rules(&address) {
                return Err(format!("{address} in {rules:#?}"));
            }
            now.rules.clone_from(&self.rules);
            match now == *self {
                true => Ok(Self { rules, ..now }),
                false => Err(self.difference(&now)),
            }
        })
        .await
        .unwrap()
    }

    /// Whether a rule is about an address.
    fn names_in_rules(&self, address: &str) -> bool {
        let is_end = |it: char| !it.is_ascii_digit() && it != '.';
        let mut words = self.rules.iter().flat_map(|rule| rule.split(is_end));
        words.any(|word| word == address)
    }

    fn difference(&self, now: &Self) -> String {
        let lists = |it: &Self| {
            [
                it.links.clone(),
                it.leases.clone(),
                it.neighbours.clone(),
                it.rules.clone(),
                it.files.clone(),
                vec![format!("{} endpoints", it.endpoints)],
            ]
            .concat()
        };
        let (before, now) = (lists(self), lists(now));
        let only = |some: &[String], others: &[String]| {
            let only = some.iter().filter(|it| !others.contains(it));
            only.cloned().collect::<Vec<_>>()
        };
        format!(
            "more: {:#?}, less: {:#?}",
            only(&now, &before),
            only(&before, &now)
        )
    }
}

/// The index of an interface, if there is one of this name.
fn index_of(netns: &NetNs, name: &str) -> Option<u32> {
    let all = ip(netns, "-oneline link show");
    let mut lines = all
        .lines()
        .map(|line| line.split([':', '@']).map(str::trim));
    let index = lines.find_map(|mut it| Some((it.next()?, it.next()?)).filter(|it| it.1 == name));
    index.map(|(index, _)| index.parse().unwrap())
}

/// The files below a directory, pins included, but logs.
fn list(dir: &Path, files: &mut Vec<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        match path.is_dir() && !path.is_symlink() {
            true => list(&path, files),
            false if path.extension().is_some_and(|it| it == "log") => {}
            false => files.push(path.display().to_string()),
        }
    }
}
