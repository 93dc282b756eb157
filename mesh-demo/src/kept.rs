//! A cluster that stays after the run, and its removal.

use anyhow::{Context as _, bail};
use mesh_testbed::{Container, Daemon, Testbed};
use serde::Serialize;

/// How a person finds their way around a kept cluster.
#[derive(Debug, Serialize)]
pub(crate) struct KeptCluster {
    pub(crate) name: String,
    pub(crate) directory: String,
    pub(crate) enter: Vec<Place>,
    pub(crate) commands: Vec<Hint>,
    pub(crate) remove: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct Place {
    pub(crate) name: String,
    pub(crate) command: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct Hint {
    pub(crate) what: String,
    pub(crate) command: String,
}

/// Keeps the testbed and describes it.
pub(crate) fn keep(testbed: &Testbed, containers: &[Container]) -> anyhow::Result<KeptCluster> {
    testbed.keep()?;
    let place = |name: &str, command: String| Place {
        name: name.to_owned(),
        command,
    };
    let hosts = testbed.hosts();
    let mut enter: Vec<Place> = hosts
        .iter()
        .map(|host| place(host.name(), host.netns().enter_command()))
        .collect();
    enter.extend(
        containers
            .iter()
            .map(|container| place(container.name(), container.netns().enter_command())),
    );
    let hint = |what: &str, command: String| Hint {
        what: what.to_owned(),
        command,
    };
    let control = testbed.control();
    let mut commands = vec![hint(
        "nodes, as the control plane sees them, asked by an operator",
        format!(
            "{} curl -s --cacert {} -H 'Authorization: Bearer {}' {}/api/nodes",
            control.netns().enter_command(),
            control.authority().display(),
            control.operator()?,
            control.url()
        ),
    )];
    if let (Some(host), [first, .., last]) = (hosts.first(), containers) {
        commands.extend([
            hint(
                "from a container on the first host to one on the last (ping is in iputils-ping)",
                format!("{} ping {}", first.netns().enter_command(), last.address()),
            ),
            hint(
                "pinned maps of the first host",
                format!("ls {}/quilt-mesh", host.bpffs_dir().display()),
            ),
            hint("one of them", host.bpftool_dump_command("peers").join(" ")),
            hint(
                "log of its runtime",
                format!("tail {}", host.log(Daemon::Runtime).display()),
            ),
            hint(
                "log of its agent",
                format!("tail {}", host.log(Daemon::Agent).display()),
            ),
        ]);
    }
    Ok(KeptCluster {
        name: testbed.name().to_owned(),
        directory: testbed.dir().display().to_string(),
        enter,
        commands,
        remove: "cargo xtask demo --cleanup".to_owned(),
    })
}

/// Removes every kept cluster, and goes on with the next after a failure.
pub(crate) fn remove_all(json: bool) -> anyhow::Result<()> {
    let mut removed = Vec::new();
    let mut failures = Vec::new();
    for name in mesh_testbed::kept_testbeds() {
        match mesh_testbed::remove_kept_testbed(&name)
            .with_context(|| format!("cannot remove cluster {name}"))
        {
            Ok(()) => removed.push(name),
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    match (json, removed.is_empty()) {
        (true, _) => println!(
            "{}",
            serde_json::json!({ "removed": removed, "errors": failures })
        ),
        (false, true) => println!("no cluster was kept"),
        (false, false) => println!("removed {}", removed.join(", ")),
    }
    match failures.is_empty() {
        true => Ok(()),
        false => bail!("{}", failures.join("; ")),
    }
}
