//! `install` and `uninstall`, where no systemd runs.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use mesh_testbed::write_script;
use tempfile::TempDir;

use crate::driver::PROGRAM;

const UNITS: [&str; 2] = ["quilt-docker.service", "quilt-docker.socket"];

/// Runs it with a `docker` that does this.
fn run(dir: &TempDir, docker: Option<&str>, words: &[&str]) -> Output {
    let programs = dir.path().join("programs");
    fs::create_dir_all(&programs).unwrap();
    let file = programs.join("docker");
    let _ = fs::remove_file(&file);
    if let Some(docker) = docker {
        write_script(&file, docker).unwrap();
    }
    for tool in ["timeout", "sh"] {
        let link = programs.join(tool);
        if !link.exists() {
            let found = ["/usr/bin", "/bin"].map(|it| Path::new(it).join(tool));
            let found = found.iter().find(|it| it.exists()).unwrap();
            std::os::unix::fs::symlink(found, link).unwrap();
        }
    }
    Command::new(PROGRAM)
        .args(words)
        .arg("--unit-dir")
        .arg(dir.path().join("units"))
        .env("PATH", programs)
        .output()
        .unwrap()
}

fn units(dir: &TempDir) -> Vec<String> {
    let units = fs::read_dir(dir.path().join("units")).into_iter().flatten();
    let mut names: Vec<String> = units
        .map(|it| it.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

#[test]
fn what_is_installed_names_this_program_and_is_removed_whole() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let installed = run(&dir, None, &["install"]);
        assert!(installed.status.success(), "{}", said(&installed));
        assert_eq!(units(&dir), UNITS);
        let words = said(&installed);
        assert!(
            words.contains("docker network create --driver quilt --ipam-driver quilt mesh"),
            "{words}"
        );
    }
    let service = fs::read_to_string(dir.path().join("units").join(UNITS[0])).unwrap();
    let program = fs::canonicalize(PROGRAM).unwrap();
    let line = format!("ExecStart={} serve\n", program.display());
    assert!(service.contains(&line), "{service}");
    let socket = fs::read_to_string(dir.path().join("units").join(UNITS[1])).unwrap();
    assert!(
        socket.contains("ListenStream=/run/docker/plugins/quilt.sock\n"),
        "{socket}"
    );
    // What was removed by half, or already, is removed.
    for half in [false, true, true] {
        if half && !units(&dir).is_empty() {
            fs::remove_file(dir.path().join("units").join(UNITS[0])).unwrap();
        }
        let removed = run(&dir, Some("exit 0"), &["uninstall"]);
        assert!(removed.status.success(), "{}", said(&removed));
        assert!(units(&dir).is_empty());
        if !half {
            assert!(run(&dir, None, &["install"]).status.success());
        }
    }
}

#[test]
fn while_docker_has_networks_of_the_driver_or_does_not_say_it_stays() {
    let dir = tempfile::tempdir().unwrap();
    assert!(run(&dir, None, &["install"]).status.success());
    for (docker, words) in [
        (
            Some("printf 'mesh\\nshop\\n'"),
            "docker network rm mesh shop",
        ),
        (
            Some("echo no daemon >&2; exit 1"),
            "start it, or give --force",
        ),
        (None, "start it, or give --force"),
    ] {
        let refused = run(&dir, docker, &["uninstall"]);
        assert!(!refused.status.success());
        assert!(said(&refused).contains(words), "{}", said(&refused));
        assert_eq!(units(&dir), UNITS);
    }
    // It is asked for the driver's own.
    let own = r#"[ "$*" = "network ls --filter driver=quilt --format {{.Name}}" ] || echo other"#;
    let removed = run(&dir, Some(own), &["uninstall"]);
    assert!(removed.status.success(), "{}", said(&removed));
    assert!(run(&dir, None, &["install"]).status.success());
    let forced = run(&dir, Some("echo mesh"), &["uninstall", "--force"]);
    assert!(forced.status.success(), "{}", said(&forced));
    assert!(units(&dir).is_empty());
}

#[test]
fn a_directory_that_cannot_be_is_refused() {
    for (place, words) in [("units", "absolute"), ("/proc/nowhere", "/proc/nowhere")] {
        let refused = Command::new(PROGRAM)
            .args(["install", "--unit-dir", place])
            .output()
            .unwrap();
        assert!(!refused.status.success());
        assert!(said(&refused).contains(words), "{}", said(&refused));
    }
}
