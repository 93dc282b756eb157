//! What daemons do not log, however much they are asked to.

use std::{fs, path::Path};

use mesh_testbed::{Daemon, DaemonOptions, Testbed};
use serde_json::Value;

use crate::mesh::{DEADLINE, agent_options, control_options};

/// The lines of the private keys and the other secrets in the files below a directory.
fn secrets_in(directory: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.is_symlink() {
            secrets_in(&path, found);
            continue;
        }
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        let name = path.file_name().unwrap().to_str().unwrap();
        if text.contains("PRIVATE KEY") {
            // Of a file with certificates as well, which everybody may see, those of the keys alone.
            let keys = text.split("-----BEGIN ");
            let keys = keys.filter(|part| part.contains("PRIVATE KEY"));
            let lines = keys.flat_map(|key| key.lines().skip(1));
            found.extend(
                lines
                    .take_while(|line| !line.starts_with("-----END"))
                    .map(str::to_owned),
            );
        } else if ["node-key", "node-token"].contains(&name) {
            found.push(text.trim().to_owned());
        }
    }
}

#[tokio::test]
async fn no_daemon_logs_a_secret_however_much_it_logs() {
    let testbed = Testbed::builder().hosts(2).build().await.unwrap();
    let control = testbed.control();
    let everything = ["--log-level", "trace"];
    // By which its libraries are told apart from itself, which keeps them silent otherwise.
    let everything_of_agents = ["--log-level", "trace,mesh_agent=trace"];
    let json = ("QUILT_MESH_LOG_FORMAT", "json");
    let options = control_options().args(everything).env(json.0, json.1);
    control.start(&options).await.unwrap();
    let mut secrets = Vec::new();
    for (index, host) in testbed.hosts().iter().enumerate() {
        let token = control.told(&["token", "create"]).unwrap();
        let token = token.trim().to_owned();
        // One as text, one as JSON.
        let format = |options: DaemonOptions| match index {
            0 => options,
            _ => options.env(json.0, json.1),
        };
        let runtime = format(DaemonOptions::new().args(everything));
        host.start_runtime(&runtime).await.unwrap();
        let agent = format(agent_options().args(everything_of_agents));
        let agent = agent.env("QUILT_MESH_JOIN", &token);
        host.start_agent(&agent).await.unwrap();
        secrets.push(token);
    }
    testbed.wait_converged(DEADLINE).await.unwrap();
    // An operator asks, and one who is not let in.
    let nodes = control.call(async |client| client.nodes(None).await).await;
    assert_eq!(nodes.unwrap().nodes.len(), 2);
    let told = control.told(&["operator", "create", "somebody", "--role", "operate"]);
    secrets.push(told.unwrap().trim().to_owned());
    assert!(
        control
            .call_without_credentials(async |client| client.nodes(None).await)
            .await
            .is_err()
    );
    secrets_in(testbed.dir(), &mut secrets);
    // A key of an authority, of a control plane and of two nodes; two nodes' keys.
    assert!(secrets.len() >= 3 + 4 + 2, "{}", secrets.len());
    assert!(secrets.iter().all(|it| it.len() >= 16), "{secrets:?}");
    // The secret alone, without what stands before it.
    let tails: Vec<String> = secrets
        .iter()
        .map(|it| it.rsplit('.').next().unwrap().to_owned())
        .collect();

    let hosts = testbed.hosts();
    let logs = [
        (control.log(), true),
        (hosts[0].log(Daemon::Runtime), false),
        (hosts[0].log(Daemon::Agent), false),
        (hosts[1].log(Daemon::Runtime), true),
        (hosts[1].log(Daemon::Agent), true),
    ];
    for (log, is_json) in logs {
        let text = fs::read_to_string(&log).unwrap();
        let log = log.display();
        let level = if is_json {
            r#""level":"trace""#
        } else {
            "TRACE "
        };
        assert!(text.contains(level), "{log} has not everything");
        for secret in &tails {
            let line = text.lines().find(|line| line.contains(secret.as_str()));
            assert_eq!(line, None, "{log}");
        }
        for line in text.lines().filter(|_| is_json) {
            let line: Value = serde_json::from_str(line).unwrap_or_else(|why| {
                panic!("{log}: {why}: {line}");
            });
            for member in ["time", "level", "event", "message", "target"] {
                assert!(line[member].is_string(), "{log}: {line}");
            }
        }
    }
}
