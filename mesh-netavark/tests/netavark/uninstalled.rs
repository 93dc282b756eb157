//! `uninstall`, which asks Podman first.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

/// Runs the plugin's command for a directory of plugins, with a Podman that does what this script says.
fn operate(folder: &Path, podman: &str, arguments: &[&str]) -> Output {
    let programs = folder.join("programs");
    fs::create_dir_all(&programs).unwrap();
    // By a process of its own: what this one has open for writing, a child that another test forks has too for a moment, and
    // nobody could run it.
    let write = r#"printf '#!/bin/sh\n%s\n' "$1" >"$2"; chmod 755 "$2""#;
    let mut writer = Command::new("sh");
    writer
        .args(["-c", write, "write", podman])
        .arg(programs.join("podman"));
    assert!(writer.status().unwrap().success());
    let mut command = Command::new(env!("CARGO_BIN_EXE_quilt-netavark"));
    command
        .args(arguments)
        .arg("--plugin-dir")
        .arg(folder.join("plugins"))
        .env("PATH", format!("{}:/usr/bin:/bin", programs.display()));
    command.output().unwrap()
}

#[test]
fn the_plugin_stays_while_podman_has_networks_of_it_or_does_not_say() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = folder.path().join("plugins/quilt");
    for (podman, words) in [
        ("exit 1", &["does not say", "--force"][..]),
        (
            "echo mesh; echo second",
            &["podman network rm mesh second"][..],
        ),
    ] {
        let installed = operate(folder.path(), "echo netavark [quilt]", &["install"]);
        assert!(installed.status.success(), "{installed:?}");
        let refused = operate(folder.path(), podman, &["uninstall"]);
        assert!(!refused.status.success(), "{podman}: {refused:?}");
        let said = String::from_utf8_lossy(&refused.stderr);
        for word in words {
            assert!(said.contains(word), "{podman}: {said}");
        }
        assert!(plugin.exists(), "{podman}");
        let forced = operate(folder.path(), podman, &["uninstall", "--force"]);
        assert!(forced.status.success(), "{podman}: {forced:?}");
        assert!(!plugin.exists(), "{podman}");
    }
    operate(folder.path(), "exit 1", &["install"]);
    let removed = operate(folder.path(), "exit 0", &["uninstall"]);
    assert!(removed.status.success(), "it has none: {removed:?}");
    assert!(!plugin.exists());
}
