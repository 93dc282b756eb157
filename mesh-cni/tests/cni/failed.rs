//! What an ADD that fails leaves, which is nothing.

use mesh_testbed::{Cni, CniAttachment, Daemon, Signal};
use serde_json::json;

use crate::{
    engine::{address, alone, assert_says, dirs, engine, failure, forgetful, list, quilt},
    mesh::{SOON, five_of_five, ip, links, mesh_of, namespace, only_lease},
    remains::Remains,
    script,
};

#[tokio::test(flavor = "multi_thread")]
async fn an_interface_that_is_there_already_is_refused_and_nothing_of_it_is_touched() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let engine = engine(host);
    let web = namespace("web").await;
    let attachment = CniAttachment::new("web", &web);
    let result = engine.add(&alone(host), &attachment).await.unwrap();
    let before = (
        Remains::of(host).await,
        ip(&web, "address show"),
        only_lease(host).await,
    );
    // The same engine, another one of the same name, and another container in the same namespace.
    let other = CniAttachment::new("other", &web);
    let another = list("quilt", "1.1.0", [quilt(host, "containerd")]);
    let failed = [
        failure(engine.add(&alone(host), &attachment).await),
        failure(forgetful(host).add(&alone(host), &attachment).await),
        failure(forgetful(host).add(&alone(host), &other).await),
        failure(forgetful(host).add(&another, &attachment).await),
    ];
    for failed in failed {
        assert_says(&failed, 101, &["eth0"]);
    }
    let after = (
        Remains::of(host).await,
        ip(&web, "address show"),
        only_lease(host).await,
    );
    assert_eq!(before, after);
    engine.check(&alone(host), &attachment).await.unwrap();
    five_of_five(&web, "10.42.1.1".parse().unwrap()).await;
    assert_eq!(
        only_lease(host).await.address,
        address(&result, 0).to_string()
    );
    engine.del(&alone(host), &attachment).await.unwrap();
    assert_eq!(links(&web), ["lo"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_inside_the_container_is_undone_outside_of_it() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let engine = engine(host);
    let before = Remains::of(host).await;
    let web = namespace("web").await;
    // A default route is in the way of the one that the list demands.
    ip(&web, "link add eth9 type veth peer name eth8");
    ip(&web, "link set eth9 up");
    ip(&web, "address add 192.0.2.200/24 dev eth9");
    ip(&web, "route add default via 192.0.2.201 dev eth9");
    let inside = [ip(&web, "address show"), ip(&web, "route show")];
    let mut plugin = quilt(host, "podman");
    plugin["defaultRoute"] = json!(true);
    let list = list("quilt", "1.1.0", [plugin]);
    let attachment = CniAttachment::new("web", &web);
    for _ in 0..3 {
        let failed = failure(engine.add(&list, &attachment).await);
        assert!(failed.msg.contains("0.0.0.0/0"), "{failed}");
        before.wait_again(host).await;
        assert_eq!(inside, [ip(&web, "address show"), ip(&web, "route show")]);
    }
    // Once it is out of the way, it works.
    ip(&web, "route del default");
    engine.add(&list, &attachment).await.unwrap();
    engine.del(&list, &attachment).await.unwrap();
    before.wait_again(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_later_plugin_fails_at_is_still_there_for_the_engine_to_delete() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let mut dirs = dirs();
    dirs.push(host.dir().join("scripts"));
    let fails = r#"test "$CNI_COMMAND" = ADD || exit 0
echo '{"code": 117, "msg": "no"}'
exit 1"#;
    script::write(&dirs[2], "fails", fails);
    let engine = Cni::on(host, dirs);
    let before = Remains::of(host).await;
    let web = namespace("web").await;
    let attachment = CniAttachment::new("web", &web);
    let list = list(
        "quilt",
        "1.0.0",
        [quilt(host, "nomad"), json!({"type": "fails"})],
    );
    let failed = failure(engine.add(&list, &attachment).await);
    assert_says(&failed, 117, &["no"]);
    let failed = failure(engine.add(&list, &attachment).await);
    assert_says(&failed, 101, &["eth0"]);
    engine.del(&list, &attachment).await.unwrap();
    assert_eq!(links(&web), ["lo"]);
    before.wait_again(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_runtime_an_engine_is_told_to_try_again_and_succeeds_once_it_is_back() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let engine = engine(host);
    let before = Remains::of(host).await;
    let web = namespace("web").await;
    let attachment = CniAttachment::new("web", &web);
    let none = mesh_testbed::DaemonOptions::new();
    host.stop(Daemon::Runtime, Signal::SIGTERM, SOON)
        .await
        .unwrap();
    let failed = failure(engine.add(&alone(host), &attachment).await);
    assert_says(&failed, 11, &["runtime"]);
    assert_eq!(links(&web), ["lo"]);
    host.start_runtime(&none).await.unwrap();
    host.wait_joined(SOON).await.unwrap();
    engine.add(&alone(host), &attachment).await.unwrap();
    engine.del(&alone(host), &attachment).await.unwrap();
    before.wait_again(host).await;
}

/// A restart takes less than the plugin goes on trying.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_is_added_while_the_runtime_restarts_gets_its_address() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let engine = engine(host);
    for _ in 0..3 {
        let web = namespace("web").await;
        let attachment = CniAttachment::new("web", &web);
        host.restart(Daemon::Runtime).unwrap();
        engine.add(&alone(host), &attachment).await.unwrap();
        engine.check(&alone(host), &attachment).await.unwrap();
        engine.del(&alone(host), &attachment).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_node_that_has_not_joined_an_engine_is_told_to_try_again() {
    let testbed = mesh_testbed::Testbed::builder()
        .hosts(1)
        .build()
        .await
        .unwrap();
    let host = &testbed.hosts()[0];
    host.start_runtime(&mesh_testbed::DaemonOptions::new())
        .await
        .unwrap();
    let web = namespace("web").await;
    let attachment = CniAttachment::new("web", &web);
    let failed = failure(engine(host).add(&alone(host), &attachment).await);
    assert_says(&failed, 11, &["subnet"]);
    assert_eq!(links(&web), ["lo"]);
}
