//! What an operator does to a node that is to be worked on, against real daemons. What is printed is shown with `--nocapture`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "functions of tests, which may panic like tests"
)]

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    process::{Command, Output},
    time::Duration,
};

use mesh_testbed::{
    Daemon, DaemonOptions, Host, NetNs, PingOptions, Signal, Testbed, ping, wait_until,
};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);

/// Nobody that has a file here.
const STRANGER: &str = "65534";

/// A mesh of so many nodes.
async fn mesh(hosts: usize) -> Testbed {
    let testbed = Testbed::builder().hosts(hosts).build().await.unwrap();
    testbed
        .control()
        .start(&DaemonOptions::new())
        .await
        .unwrap();
    for host in testbed.hosts() {
        host.start_runtime(&DaemonOptions::new()).await.unwrap();
        host.start_agent(&DaemonOptions::new()).await.unwrap();
    }
    testbed.wait_converged(SOON).await.unwrap();
    testbed
}

fn asked(mut command: Command, host: &Host, words: &str) -> Output {
    command
        .arg("--socket")
        .arg(host.runtime_socket())
        .arg("--agent-socket")
        .arg(host.agent_socket())
        .args(words.split_whitespace());
    let output = command.output().unwrap();
    println!(
        "$ meshctl {words}\n{}{}({:?})",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
        output.status.code()
    );
    output
}

fn meshctl(host: &Host, words: &str) -> Output {
    let command = host.netns().command(env!("CARGO_BIN_EXE_meshctl"));
    asked(command, host, words)
}

/// The same, by somebody without rights.
fn stranger(host: &Host, words: &str) -> Output {
    // The folders of a test are its own; those of the sockets are everybody's.
    for folder in host.agent_socket().ancestors().skip(1) {
        let mode = fs::metadata(folder).unwrap().permissions().mode();
        if mode & 0o001 == 0 {
            fs::set_permissions(folder, Permissions::from_mode(mode | 0o001)).unwrap();
        }
    }
    let mut command = host.netns().command("setpriv");
    command.args(["--reuid", STRANGER, "--regid", STRANGER, "--clear-groups"]);
    command.arg(env!("CARGO_BIN_EXE_meshctl"));
    asked(command, host, words)
}

fn text(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn complaint(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn codes(host: &Host) -> Vec<String> {
    let output = meshctl(host, "status --json");
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = status["findings"].as_array().unwrap().iter();
    findings
        .map(|it| it["code"].as_str().unwrap().to_owned())
        .collect()
}

async fn wait_for_code(host: &Host, code: &str, there: bool) {
    let what = format!("{code}: {there}");
    wait_until(&what, SOON, async || {
        let codes = codes(host);
        match codes.iter().any(|it| it == code) == there {
            true => Ok(()),
            false => Err(format!("{codes:?}")),
        }
    })
    .await
    .unwrap();
}

async fn pings(from: &NetNs, to: &str) -> bool {
    let report = ping(from, to.parse().unwrap(), PingOptions::default()).await;
    report.unwrap().is_complete()
}

fn has_link(host: &Host, name: &str) -> bool {
    let shown = host
        .netns()
        .command("ip")
        .args(["link", "show", name])
        .output();
    shown.unwrap().status.success()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_takes_nothing_new_keeps_what_it_has_and_is_one_after_a_restart() {
    let testbed = mesh(1).await;
    let host = &testbed.hosts()[0];
    let (web, db) = (
        NetNs::new("web").await.unwrap(),
        NetNs::new("db").await.unwrap(),
    );
    let attach = |name: &str, netns: &NetNs| {
        meshctl(
            host,
            &format!("attach {name} --netns {}", netns.path().display()),
        )
    };
    text(&attach("web", &web));
    let refused = complaint(&stranger(host, "drain"));
    assert!(refused.contains("only root may call"), "{refused}");

    let said = text(&meshctl(host, "drain"));
    assert!(
        said.contains("takes no new containers") && said.contains("meshctl/quilt/web/eth0"),
        "{said}"
    );
    let again: Value = serde_json::from_str(&text(&meshctl(host, "drain --json"))).unwrap();
    assert_eq!(again["drained"], true);
    assert_eq!(again["here"][0]["address"], "10.42.1.2");
    for life in ["this", "the next"] {
        let refused = complaint(&attach("db", &db));
        assert!(
            refused.contains("drained") && refused.contains("meshctl drain --undo"),
            "{life}: {refused}"
        );
        // Who is here stays, and may say so again.
        text(&attach("web", &web));
        assert!(pings(&web, "10.42.1.1").await, "{life}");
        wait_for_code(host, "node-drained", true).await;
        assert_eq!(meshctl(host, "status").status.code(), Some(0), "{life}");
        host.stop(Daemon::Runtime, Signal::SIGKILL, SOON)
            .await
            .unwrap();
        host.start_runtime(&DaemonOptions::new()).await.unwrap();
        host.wait_joined(SOON).await.unwrap();
    }
    text(&meshctl(host, "detach web"));
    let said = text(&meshctl(host, "drain"));
    assert!(said.contains("nothing is here any more"), "{said}");
    complaint(&attach("web", &web));
    for _ in 0..2 {
        let said = text(&meshctl(host, "drain --undo"));
        assert!(said.contains("takes new containers"), "{said}");
    }
    text(&attach("db", &db));
    wait_for_code(host, "node-drained", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_leaves_is_none_until_its_operator_says_so() {
    let testbed = mesh(2).await;
    let [home, away] = testbed.hosts() else {
        panic!("two hosts are needed");
    };
    let control = testbed.control();
    let subnet = home.status().await.unwrap().subnet;
    let web = NetNs::new("web").await.unwrap();
    let attach = format!("attach web --netns {}", web.path().display());
    text(&meshctl(home, &attach));

    // Nobody leaves by accident, and nobody else says so.
    let refused = complaint(&meshctl(home, "leave"));
    assert!(
        refused.contains("meshctl/quilt/web/eth0") && refused.contains("--force"),
        "{refused}"
    );
    let refused = complaint(&stranger(home, "leave --force"));
    assert!(refused.contains("only root"), "{refused}");
    text(&meshctl(home, "detach web"));
    control.kill(Signal::SIGSTOP).unwrap();
    let refused = complaint(&meshctl(home, "leave"));
    assert!(refused.contains("goes on as before"), "{refused}");
    control.kill(Signal::SIGCONT).unwrap();
    // Its agent has been started anew, and registers again.
    wait_until("a node that is registered", SOON, async || {
        let status = home
            .agent_status()
            .await
            .map_err(|error| error.to_string())?;
        match status.node_id.as_str() {
            "" => Err(format!("{status:?}")),
            _ => Ok(()),
        }
    })
    .await
    .unwrap();
    testbed.wait_converged(SOON).await.unwrap();

    let said = text(&meshctl(home, "leave"));
    assert!(
        said.contains(&format!("its subnet {subnet} may become another's"))
            && said.contains("by hand"),
        "{said}"
    );
    let has_left = async || {
        let nodes = control.nodes().await.map_err(|error| error.to_string())?;
        let node = nodes.iter().find(|node| node.hostname == home.name());
        match node.is_some_and(|node| node.left) {
            true => Ok(()),
            false => Err(format!("{nodes:?}")),
        }
    };
    has_left().await.unwrap();
    assert!(!has_link(home, "vxlan100"), "the overlay device is there");
    assert!(!has_link(home, "quilt0"), "the bridge is there");
    assert_eq!(home.status().await.unwrap().subnet, "");
    wait_until("a node that is no peer any more", SOON, async || match away
        .status()
        .await
        .map_err(|error| error.to_string())?
        .peers
    {
        0 => Ok(()),
        peers => Err(format!("{peers} peers")),
    })
    .await
    .unwrap();

    // Neither while it runs nor after a restart of both.
    wait_for_code(home, "node-left", true).await;
    let again: Value = serde_json::from_str(&text(&meshctl(home, "leave --json"))).unwrap();
    assert_eq!(again["left"], true);
    for daemon in [Daemon::Agent, Daemon::Runtime] {
        home.stop(daemon, Signal::SIGTERM, SOON).await.unwrap();
    }
    home.start_runtime(&DaemonOptions::new()).await.unwrap();
    home.spawn(Daemon::Agent, &DaemonOptions::new()).unwrap();
    wait_for_code(home, "node-left", true).await;
    has_left().await.unwrap();
    assert!(
        !has_link(home, "vxlan100"),
        "the overlay device is there again"
    );

    // It is the node that it was.
    let refused = complaint(&stranger(home, "leave --undo"));
    assert!(refused.contains("only root"), "{refused}");
    let said = text(&meshctl(home, "leave --undo"));
    assert!(said.contains("joins again"), "{said}");
    home.wait_joined(SOON).await.unwrap();
    testbed.wait_converged(SOON).await.unwrap();
    assert_eq!(home.status().await.unwrap().subnet, subnet);
    wait_for_code(home, "node-left", false).await;
    text(&meshctl(home, "leave --undo"));
    text(&meshctl(home, &attach));

    // Whoever says so leaves although a container is here, which stays and can be taken off.
    let said = text(&meshctl(home, "leave --force"));
    assert!(
        said.contains("quilt0 has ports") && said.contains("meshctl/quilt/web/eth0"),
        "{said}"
    );
    assert!(!has_link(home, "vxlan100") && has_link(home, "quilt0"));
    wait_for_code(home, "node-left", true).await;
    let db = NetNs::new("db").await.unwrap();
    let attach = format!("attach db --netns {}", db.path().display());
    let refused = complaint(&meshctl(home, &attach));
    assert!(refused.contains("no subnet"), "{refused}");
    text(&meshctl(home, "detach web"));
}

fn nft(host: &Host, words: &[&str]) {
    let done = host.netns().command("nft").args(words).output().unwrap();
    assert!(done.status.success(), "nft {words:?}: {done:?}");
}

fn firewall(host: &Host) -> (Value, i32) {
    let output = meshctl(host, "firewall check --json");
    let document = serde_json::from_slice(&output.stdout);
    (
        document.unwrap_or_else(|error| panic!("{error}: {output:?}")),
        output.status.code().unwrap(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guards_are_compared_with_what_the_kernel_has_and_others_are_shown_beside_them() {
    let testbed = Testbed::builder().hosts(1).build().await.unwrap();
    let host = &testbed.hosts()[0];
    host.start_runtime(&DaemonOptions::new()).await.unwrap();
    // Nothing is to be guarded before there is a subnet.
    let (document, code) = firewall(host);
    assert_eq!(
        (document["state"].as_str(), code),
        (Some("nothing-wanted"), 2)
    );
    testbed
        .control()
        .start(&DaemonOptions::new())
        .await
        .unwrap();
    host.start_agent(&DaemonOptions::new()).await.unwrap();
    host.wait_joined(SOON).await.unwrap();
    let fine = async || {
        wait_until("guards in place", SOON, async || {
            let (document, code) = firewall(host);
            match (document["state"].as_str(), code) {
                (Some("in-place"), 0) => Ok(document),
                _ => Err(document.to_string()),
            }
        })
        .await
        .unwrap()
    };
    let document = fine().await;
    assert_eq!(document["rules"]["wanted"], document["rules"]["found"]);
    assert_eq!(
        document["not_evaluated"]["chains"]
            .as_array()
            .unwrap()
            .len(),
        0
    );

    // A packet filter of somebody else at our hooks, and one at none of ours.
    nft(host, &["add table ip theirs"]);
    let chain = "{ type filter hook forward priority 5; policy drop; }";
    nft(host, &[&format!("add chain ip theirs guard {chain}")]);
    let (document, code) = firewall(host);
    assert_eq!(code, 0, "{document}");
    let chain = &document["not_evaluated"]["chains"][0];
    assert_eq!(chain["name"], "table ip theirs, chain guard");
    assert_eq!(chain["hook"], "forward");
    assert_eq!(
        (&chain["priority"], &chain["policy"]),
        (&Value::from(5), &Value::from("drop"))
    );
    let shown = text(&meshctl(host, "firewall check"));
    assert!(
        shown.contains("not evaluated") && shown.contains("chain guard"),
        "{shown}"
    );

    // What somebody adds to ours is put right, and told afterwards.
    let repairs = document["rules"]["repairs"].as_u64().unwrap();
    nft(host, &["add chain inet quilt_mesh intruder"]);
    nft(host, &["add rule inet quilt_mesh intruder accept"]);
    wait_until("a repair that is told", SOON, async || {
        match fine().await["rules"]["repairs"].as_u64() {
            Some(now) if now > repairs => Ok(()),
            now => Err(format!("{now:?}")),
        }
    })
    .await
    .unwrap();

    // Who may not look, or finds nobody to ask, is told that it cannot be told.
    let refused = stranger(host, "firewall check");
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    host.stop(Daemon::Runtime, Signal::SIGTERM, SOON)
        .await
        .unwrap();
    let gone = meshctl(host, "firewall check");
    assert_eq!(gone.status.code(), Some(2), "{gone:?}");

    // One that cannot write them says why.
    let without_nft = DaemonOptions::new().env("PATH", "/nonexistent");
    host.start_runtime(&without_nft).await.unwrap();
    wait_until("rules that are refused", SOON, async || {
        let (document, code) = firewall(host);
        match (document["state"].as_str(), code) {
            (Some("refused"), 1) => Ok(()),
            _ => Err(document.to_string()),
        }
    })
    .await
    .unwrap();
}
