//! What is left of engines when the process with their testbed ends.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use mesh_testbed::{Engine, EngineContainerOptions, Signal, Testbed, wait_until};

use crate::child::Again;
use crate::mesh::SOON;

const CHILD: &str = "TESTBED_PODMAN_CHILD";

/// Runs `test` again in a child that has a container of either engine and waits to be ended.
pub(crate) async fn nothing_is_left_of_a_child(
    test: &str,
    engines: impl AsyncFn(&Testbed) -> [Engine; 2],
    signal: Option<Signal>,
) {
    if env::var_os(CHILD).is_some() {
        let testbed = Testbed::builder().hosts(2).build().await.unwrap();
        let engines = engines(&testbed).await;
        let options = EngineContainerOptions::default();
        for engine in &engines {
            engine.start("web", &options).unwrap();
        }
        println!("\nmade {}", testbed.name());
        assert!(signal.is_some(), "the panic that this test is about");
        std::thread::sleep(Duration::from_secs(60));
        return;
    }
    // What a panic says is no news here.
    let stderr = match signal {
        Some(_) => Stdio::inherit(),
        None => Stdio::null(),
    };
    let mut child = Again::start(test, CHILD, stderr);
    let name = child.made();
    if let Some(signal) = signal {
        let left = left_of(&name);
        for kind in ["control group", "process", "directory"] {
            assert!(
                left.iter().any(|it| it.starts_with(kind)),
                "{kind}: {left:?}"
            );
        }
        child.signal(signal);
    }
    assert!(!child.end().success(), "the child was to die");
    wait_until("removal of everything", SOON, async || {
        let left = left_of(&name);
        match left.is_empty() {
            true => Ok(()),
            false => Err(format!("{left:?} is left")),
        }
    })
    .await
    .unwrap();
}

/// Control groups, processes and the directory of a testbed with containers.
fn left_of(name: &str) -> Vec<String> {
    let entries = |dir: &Path| {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let root = Path::new("/sys/fs/cgroup");
    let mut hierarchies = entries(root);
    hierarchies.push(root.to_owned());
    let groups = hierarchies.iter().flat_map(|hierarchy| entries(hierarchy));
    let is_ours = |path: &PathBuf| {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        file.starts_with(&format!("{name}-"))
    };
    let mut left: Vec<String> = groups
        .filter(is_ours)
        .map(|group| format!("control group {}", group.display()))
        .collect();
    // Monitors and containers' processes are in a control group of the testbed, or name its
    // directory.
    for process in entries(Path::new("/proc")) {
        let groups = fs::read_to_string(process.join("cgroup")).unwrap_or_default();
        let line = fs::read(process.join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        let named = format!("/{name}");
        if !line.is_empty() && (groups.contains(&named) || line.contains(&named)) {
            left.push(format!("process {} {line}", process.display()));
        }
    }
    let dir = format!("{}/{name}", mesh_testbed::ROOT);
    if fs::exists(&dir).unwrap() {
        left.push(format!("directory {dir}"));
    }
    left
}
