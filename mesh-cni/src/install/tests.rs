use std::os::unix::fs::PermissionsExt as _;

use clap::Parser as _;

use super::*;

fn install(folder: &Path, more: &[&str]) -> anyhow::Result<()> {
    let (networks, plugins) = (folder.join("net.d"), folder.join("bin"));
    let fixed = [
        "quilt-cni".as_ref(),
        "install".as_ref(),
        "--conf-dir".as_ref(),
        networks.as_os_str(),
        "--bin-dir".as_ref(),
        plugins.as_os_str(),
    ];
    let more = more.iter().map(AsRef::as_ref);
    run(Options::try_parse_from(fixed.into_iter().chain(more))?)
}

fn conflist(folder: &Path, name: &str) -> Value {
    serde_json::from_slice(&fs::read(folder.join("net.d").join(name)).unwrap()).unwrap()
}

#[test]
fn what_is_installed_is_a_network_that_sorts_last_and_a_plugin_that_can_be_run() {
    let folder = tempfile::tempdir().unwrap();
    install(folder.path(), &["--engine", "podman"]).unwrap();
    let network = conflist(folder.path(), "zz-quilt.conflist");
    assert_eq!(network["name"], "quilt");
    assert_eq!(network["plugins"][0]["engine"], "podman");
    assert_eq!(
        network["plugins"].as_array().unwrap().len(),
        1,
        "no portmap is there"
    );
    assert_eq!(network["cniVersions"][1], "1.1.0");
    assert!(network["plugins"][0].get("socket").is_none());
    let plugin = fs::metadata(folder.path().join("bin/quilt-cni")).unwrap();
    assert_eq!(plugin.permissions().mode() & 0o777, 0o755);
    // Again, and nothing has changed.
    install(folder.path(), &["--engine", "podman"]).unwrap();
    assert_eq!(conflist(folder.path(), "zz-quilt.conflist"), network);
    assert_eq!(
        fs::read_dir(folder.path().join("net.d")).unwrap().count(),
        1
    );
}

#[test]
fn what_somebody_changed_is_replaced_only_when_told_so() {
    let folder = tempfile::tempdir().unwrap();
    install(folder.path(), &["--engine", "podman"]).unwrap();
    let changed = ["--engine", "podman", "--mtu", "1400"];
    let refused = install(folder.path(), &changed).unwrap_err().to_string();
    assert!(refused.contains("--force"), "{refused}");
    install(folder.path(), &[&changed[..], &["--force"]].concat()).unwrap();
    assert_eq!(
        conflist(folder.path(), "zz-quilt.conflist")["plugins"][0]["mtu"],
        1400
    );
}

#[test]
fn ports_are_published_as_soon_as_the_plugin_for_them_is_there() {
    let folder = tempfile::tempdir().unwrap();
    install(folder.path(), &["--engine", "podman"]).unwrap();
    let portmap = folder.path().join("bin/portmap");
    let answers = |versions: &str| {
        let script = format!("echo '{{\"supportedVersions\":[{versions}]}}'");
        mesh_testbed::write_script(&portmap, &script).unwrap();
        install(folder.path(), &["--engine", "podman"]).unwrap();
        conflist(folder.path(), "zz-quilt.conflist")
    };
    let old = answers(r#""0.4.0","1.0.0""#);
    assert_eq!(old["plugins"][1]["type"], "portmap");
    assert!(old.get("cniVersions").is_none());
    assert_eq!(old["disableCheck"], true);
    let new = answers(r#""1.0.0","1.1.0""#);
    assert_eq!(new["cniVersions"][1], "1.1.0");
    assert!(new.get("disableCheck").is_none());
}

#[test]
fn a_name_that_another_file_has_is_refused_and_one_of_its_own_is_not() {
    let folder = tempfile::tempdir().unwrap();
    install(folder.path(), &["--engine", "podman"]).unwrap();
    fs::rename(
        folder.path().join("net.d/zz-quilt.conflist"),
        folder.path().join("net.d/10-mine.conflist"),
    )
    .unwrap();
    let refused = install(folder.path(), &["--engine", "containerd"]).unwrap_err();
    assert!(
        refused.to_string().contains("10-mine.conflist"),
        "{refused}"
    );
    install(
        folder.path(),
        &["--engine", "containerd", "--network", "mesh"],
    )
    .unwrap();
    let network = conflist(folder.path(), "zz-mesh.conflist");
    assert_eq!(network["plugins"][0]["engine"], "containerd");
    // Podman lists it as well, and its prune is to spare it.
    assert_eq!(network["args"]["podman_labels"]["quilt-mesh"], "yes");
}

#[test]
fn an_engine_that_takes_the_first_network_is_said_to_take_anothers() {
    let own = Path::new("/etc/cni/net.d/zz-ctr.conflist");
    let alone = first_network("containerd", own, &[]);
    assert!(alone.contains("the first network"), "{alone}");
    let ours = PathBuf::from("/etc/cni/net.d/zz-quilt.conflist");
    let later = first_network("containerd", own, &[(ours, json!({ "name": "quilt" }))]);
    assert_eq!(later, alone, "it sorts behind it");
    let file = PathBuf::from("/etc/cni/net.d/87-podman-bridge.conflist");
    let beside = first_network("containerd", own, &[(file, json!({ "name": "podman" }))]);
    assert!(
        beside.contains("\"podman\" of /etc/cni/net.d/87-podman-bridge.conflist"),
        "{beside}"
    );
}

#[test]
fn an_engine_that_is_not_known_says_where_it_looks() {
    let folder = tempfile::tempdir().unwrap();
    install(
        folder.path(),
        &["--engine", "mine", "--socket", "/run/mine.sock"],
    )
    .unwrap();
    let network = conflist(folder.path(), "zz-quilt.conflist");
    assert_eq!(network["plugins"][0]["socket"], "/run/mine.sock");
    let options = Options::try_parse_from(["quilt-cni", "install", "--engine", "mine"]).unwrap();
    let refused = run(options).unwrap_err().to_string();
    assert!(
        refused.contains("--bin-dir") && refused.contains("podman"),
        "{refused}"
    );
    let options = Options::try_parse_from(["quilt-cni", "install", "--engine", "docker"]).unwrap();
    let refused = run(options).unwrap_err().to_string();
    assert!(refused.contains("no CNI plugins"), "{refused}");
    for bad in [["--engine", "a b"], ["--network", "a/b"]] {
        let more = [&["--engine", "mine"][..], &bad].concat();
        assert!(install(folder.path(), &more).is_err(), "{bad:?}");
    }
}

#[test]
fn what_is_uninstalled_is_gone_and_the_plugin_stays_for_containers_that_run() {
    let folder = tempfile::tempdir().unwrap();
    install(folder.path(), &["--engine", "podman"]).unwrap();
    let place = |engine: &str| Place {
        engine: engine.to_owned(),
        network: "quilt".to_owned(),
        conf_dir: Some(folder.path().join("net.d")),
        bin_dir: Some(folder.path().join("bin")),
    };
    assert!(place("nomad").uninstall().is_err(), "it is Podman's");
    let refused = install(folder.path(), &["--engine", "nomad", "--force"]).unwrap_err();
    assert!(refused.to_string().contains("--network"), "{refused}");
    place("podman").uninstall().unwrap();
    assert_eq!(
        fs::read_dir(folder.path().join("net.d")).unwrap().count(),
        0
    );
    assert!(folder.path().join("bin/quilt-cni").exists());
}
