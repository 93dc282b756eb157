//! The engine that speaks CNI, against plugins that write down what they are told. Needs root.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use mesh_testbed::{Cni, CniAttachment, CniError, NetNs, write_script};
use serde_json::{Value, json};

/// Writes down who was called for what, with what, and answers the result that it was given with its name in it; if
/// there is a file `fail-NAME-COMMAND`, fails with what that says.
const SCRIPT: &str = r#"dir=$(dirname "$0")
name=$(basename "$0")
cat > "$dir/input-$name-$CNI_COMMAND"
echo "$name $CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME $CNI_NETNS $CNI_ARGS" >> "$dir/calls"
if test -e "$dir/fail-$name-$CNI_COMMAND"
then
    cat "$dir/fail-$name-$CNI_COMMAND"
    exit 1
fi
if test "$CNI_COMMAND" = VERSION
then
    echo '{"cniVersion": "1.1.0", "supportedVersions": ["0.4.0", "1.1.0"]}'
elif test "$CNI_COMMAND" = ADD
then
    echo "{\"dns\": {\"domain\": \"$name\"}}"
fi"#;

struct Scene {
    host: NetNs,
    dir: PathBuf,
    engine: Cni,
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Scene {
    async fn new(label: &str) -> Self {
        let host = NetNs::new(label).await.unwrap();
        let dir = std::env::temp_dir().join(host.name());
        fs::create_dir_all(&dir).unwrap();
        for name in ["first", "second"] {
            write_script(&dir.join(name), SCRIPT).unwrap();
        }
        let engine = Cni::inside(&host, dir.join("cache"), [Path::new("/nowhere"), &dir]);
        Self { host, dir, engine }
    }

    fn list(version: &str) -> Value {
        let capabilities = json!({"mac": true});
        let first = json!({"type": "first", "capabilities": capabilities});
        json!({"name": "net", "cniVersion": version, "plugins": [first, {"type": "second"}]})
    }

    fn fail(&self, plugin: &str, command: &str, said: &str) {
        fs::write(self.dir.join(format!("fail-{plugin}-{command}")), said).unwrap();
    }

    fn input(&self, plugin: &str, command: &str) -> Value {
        let path = self.dir.join(format!("input-{plugin}-{command}"));
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }

    /// The calls since the last time, without what is the same in all.
    fn calls(&self) -> Vec<String> {
        let path = self.dir.join("calls");
        let calls = fs::read_to_string(&path).unwrap_or_default();
        let _ = fs::remove_file(path);
        let netns = self.host.path().display().to_string();
        let line = |line: &str| line.replace(&netns, "NETNS").trim().to_owned();
        calls.lines().map(line).collect()
    }

    fn remembered(&self) -> usize {
        fs::read_dir(self.dir.join("cache/results")).map_or(0, Iterator::count)
    }
}

#[tokio::test]
async fn each_plugin_gets_the_result_of_the_one_before_and_is_undone_in_reverse_order_with_the_last()
 {
    let scene = Scene::new("chain").await;
    let list = Scene::list("1.0.0");
    let attachment = CniAttachment::new("web", &scene.host)
        .arg("IgnoreUnknown", "1")
        .arg("IP", "10.42.1.9")
        .capability("mac", json!("02:00:00:00:00:01"));
    let result = scene.engine.add(&list, &attachment).await.unwrap();
    let last = json!({"cniVersion": "1.0.0", "dns": {"domain": "second"}});
    assert_eq!(result, last);
    let args = "IgnoreUnknown=1;IP=10.42.1.9";
    let call = |name: &str, command: &str| format!("{name} {command} web eth0 NETNS {args}");
    assert_eq!(scene.calls(), [call("first", "ADD"), call("second", "ADD")]);
    let told = scene.input("first", "ADD");
    assert_eq!(told.get("prevResult"), None);
    assert_eq!(told["runtimeConfig"], json!({"mac": "02:00:00:00:00:01"}));
    let told = scene.input("second", "ADD");
    assert_eq!(
        told["prevResult"],
        json!({"cniVersion": "1.0.0", "dns": {"domain": "first"}})
    );
    assert_eq!(told.get("runtimeConfig"), None);
    assert_eq!(
        [&told["name"], &told["cniVersion"]],
        [&json!("net"), &json!("1.0.0")]
    );

    scene.engine.check(&list, &attachment).await.unwrap();
    assert_eq!(
        scene.calls(),
        [call("first", "CHECK"), call("second", "CHECK")]
    );
    assert_eq!(scene.input("first", "CHECK")["prevResult"], last);

    scene.engine.del(&list, &attachment).await.unwrap();
    assert_eq!(scene.calls(), [call("second", "DEL"), call("first", "DEL")]);
    assert_eq!(scene.input("second", "DEL")["prevResult"], last);
    assert_eq!(scene.remembered(), 0);
    // Nothing is remembered, and each is asked all the same.
    scene.engine.del(&list, &attachment).await.unwrap();
    assert_eq!(scene.calls(), [call("second", "DEL"), call("first", "DEL")]);
    assert_eq!(scene.input("second", "DEL").get("prevResult"), None);
}

#[tokio::test]
async fn an_add_that_fails_is_neither_remembered_nor_undone_and_says_what_the_plugin_said() {
    let scene = Scene::new("fails").await;
    let said = r#"{"cniVersion": "1.0.0", "code": 11, "msg": "later", "details": "much"}"#;
    scene.fail("second", "ADD", said);
    let attachment = CniAttachment::new("web", &scene.host);
    let list = Scene::list("1.0.0");
    let error = scene.engine.add(&list, &attachment).await.unwrap_err();
    let failure = error.failure().unwrap();
    assert_eq!((&*failure.plugin, failure.code), ("second", 11));
    assert_eq!((&*failure.msg, &*failure.details), ("later", "much"));
    assert_eq!(scene.calls().len(), 2);
    assert_eq!(scene.remembered(), 0);

    scene.fail("second", "ADD", "panic: no JSON");
    let error = scene.engine.add(&list, &attachment).await.unwrap_err();
    assert!(matches!(error, CniError::Broken { .. }), "{error}");
    assert!(error.to_string().contains("panic: no JSON"), "{error}");
}

#[tokio::test]
async fn a_plugin_that_fails_to_detach_keeps_those_before_it_from_being_asked() {
    let scene = Scene::new("del-fails").await;
    let list = Scene::list("0.4.0");
    let attachment = CniAttachment::new("web", &scene.host);
    scene.engine.add(&list, &attachment).await.unwrap();
    scene.calls();
    scene.fail("second", "DEL", r#"{"code": 100, "msg": "no"}"#);
    scene.engine.del(&list, &attachment).await.unwrap_err();
    assert_eq!(scene.calls().len(), 1);
    assert_eq!(scene.remembered(), 1);
}

#[tokio::test]
async fn what_a_version_does_not_know_is_not_asked_for() {
    let scene = Scene::new("old").await;
    let list = Scene::list("0.3.1");
    let attachment = CniAttachment::new("web", &scene.host);
    scene.engine.add(&list, &attachment).await.unwrap();
    let error = scene.engine.check(&list, &attachment).await.unwrap_err();
    assert!(matches!(error, CniError::Unsupported { .. }), "{error}");
    scene.calls();
    scene.engine.status(&list).await.unwrap();
    scene.engine.gc(&list, &[("web", "eth0")]).await.unwrap();
    assert_eq!(scene.calls(), [""; 0]);
    scene.engine.del(&list, &attachment).await.unwrap();
    assert_eq!(scene.input("first", "DEL").get("prevResult"), None);

    let both = json!({"name": "net", "cniVersions": ["0.4.0", "1.1.0"],
        "plugins": [{"type": "first"}]});
    let older = scene.engine.clone().speaking("1.0.0").unwrap();
    older.add(&both, &attachment).await.unwrap();
    assert_eq!(scene.input("first", "ADD")["cniVersion"], "0.4.0");
    // The engine is upgraded while the container runs.
    scene.engine.del(&both, &attachment).await.unwrap();
    let told = scene.input("first", "DEL");
    assert_eq!(told["prevResult"]["cniVersion"], "1.1.0");
}

#[tokio::test]
async fn garbage_is_what_is_remembered_and_not_valid_and_each_plugin_is_told_what_is() {
    let scene = Scene::new("gc").await;
    let mut list = Scene::list("1.1.0");
    for container in ["a", "b"] {
        let attachment = CniAttachment::new(container, &scene.host);
        scene.engine.add(&list, &attachment).await.unwrap();
    }
    let mut other = list.clone();
    other["name"] = json!("other");
    let attachment = CniAttachment::new("c", &scene.host);
    scene.engine.add(&other, &attachment).await.unwrap();
    scene.calls();
    scene.fail("second", "GC", r#"{"code": 100, "msg": "no"}"#);
    list["disableGC"] = json!(true);
    scene.engine.gc(&list, &[]).await.unwrap();
    assert_eq!(scene.calls(), [""; 0]);
    list["disableGC"] = json!(false);
    let failed = scene.engine.gc(&list, &[("a", "eth0")]).await.unwrap_err();
    assert_eq!(failed.len(), 1);
    let calls = [
        "second DEL b eth0 NETNS",
        "first DEL b eth0 NETNS",
        "first GC",
        "second GC",
    ];
    assert_eq!(scene.calls(), calls);
    let told = scene.input("first", "GC");
    let valid = json!([{"containerID": "a", "ifname": "eth0"}]);
    assert_eq!(told["cni.dev/valid-attachments"], valid);
    assert_eq!(scene.remembered(), 2);
}

#[tokio::test]
async fn a_plugin_says_which_versions_it_speaks_and_one_that_is_not_there_is_named() {
    let scene = Scene::new("versions").await;
    let versions = scene.engine.versions("first").await.unwrap();
    assert_eq!(versions, ["0.4.0", "1.1.0"]);
    let error = scene.engine.versions("third").await.unwrap_err();
    assert!(error.to_string().contains("\"third\""), "{error}");
    let list = Scene::list("1.1.0");
    scene.fail("second", "STATUS", r#"{"code": 50, "msg": "not yet"}"#);
    let error = scene.engine.status(&list).await.unwrap_err();
    assert_eq!(error.failure().unwrap().code, 50);
}

#[tokio::test]
async fn names_that_no_plugin_should_see_are_refused_before_it_does() {
    let scene = Scene::new("names").await;
    let list = Scene::list("1.1.0");
    let bad = [
        CniAttachment::new("../web", &scene.host),
        CniAttachment::new("", &scene.host),
        CniAttachment::new("web", &scene.host).named("much-too-long-a-name"),
        CniAttachment::new("web", &scene.host).named("a/b"),
    ];
    for attachment in bad {
        let error = scene.engine.add(&list, &attachment).await.unwrap_err();
        assert!(matches!(error, CniError::List(_)), "{error}");
    }
    assert_eq!(scene.calls(), [""; 0]);
}
