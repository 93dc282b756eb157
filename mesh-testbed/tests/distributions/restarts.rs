//! Sandboxes of containerd's CRI while the runtime, containerd or the host begin anew, and when their namespace goes.

use mesh_testbed::{Daemon, DaemonOptions, Signal, wait_reachable, wait_until};

use crate::{
    calls,
    containerd::{containerd, is_new},
    cri::{Cri, Sandbox},
    leases::{container_links, leases},
    mesh::{SOON, mesh_of_two, needed},
    pod::Pod,
};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs another distribution, which `cargo xtask test --engines` makes"]
async fn without_a_runtime_the_engine_says_so_and_a_sandbox_leaves_nothing() {
    let testbed = mesh_of_two().await;
    let [first, second] = testbed.hosts() else {
        unreachable!()
    };
    let engine = containerd(first).await;
    calls::note(&engine);
    let cri = Cri::of(&engine).await;
    let far = second.add_container().await.unwrap();
    assert!(cri.condition("NetworkReady").await.status);
    needed(first.stop(Daemon::Runtime, Signal::SIGTERM, SOON).await);
    let words = "is quilt-runtime running";
    if is_new(&engine) {
        // By STATUS, whose error Kubernetes' scheduler sees.
        let condition = cri.condition("NetworkReady").await;
        assert!(!condition.status, "{condition:?}");
        assert!(condition.message.contains(words), "{condition:?}");
    }
    let refusal = cri.run("web", &[], &[]).await.err().unwrap();
    assert!(refusal.message().contains(words), "{refusal}");
    // It does not try again: that is for whoever asked.
    assert_eq!(calls::noted(&engine), ["ADD NETNS", "DEL NETNS"]);
    assert_eq!(container_links(first).await, [""; 0]);
    needed(first.start_runtime(&DaemonOptions::new()).await);
    needed(first.wait_ready(SOON).await);
    assert_eq!(leases(first).await, []);
    assert!(cri.condition("NetworkReady").await.status);
    let web = Pod::run(first, &cri, "web").await;
    needed(wait_reachable(far.netns(), web.address, SOON).await);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs another distribution, which `cargo xtask test --engines` makes"]
async fn a_sandbox_that_begins_while_the_runtime_restarts_is_on_the_mesh() {
    let testbed = mesh_of_two().await;
    let [first, second] = testbed.hosts() else {
        unreachable!()
    };
    let engine = containerd(first).await;
    let cri = Cri::of(&engine).await;
    let far = second.add_container().await.unwrap();
    needed(first.restart(Daemon::Runtime));
    let web = Pod::run(first, &cri, "web").await;
    needed(wait_reachable(far.netns(), web.address, SOON).await);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs another distribution, which `cargo xtask test --engines` makes"]
async fn what_containerd_made_before_it_restarted_stays_and_goes_without_a_trace() {
    let testbed = mesh_of_two().await;
    let [first, second] = testbed.hosts() else {
        unreachable!()
    };
    let engine = containerd(first).await;
    calls::note(&engine);
    let far = second.add_container().await.unwrap();
    let web = {
        let cri = Cri::of(&engine).await;
        cri.run("web", &[], &[]).await.unwrap()
    };
    needed(engine.restart_daemon().await);
    let cri = Cri::of(&engine).await;
    let shown = cri.shown(&web).await;
    assert!(shown.is_ready);
    needed(wait_reachable(far.netns(), shown.address.unwrap(), SOON).await);
    // Neither CHECK nor GC.
    assert_eq!(calls::noted(&engine), ["ADD NETNS"]);
    end(&cri, &web).await;
    assert_eq!(leases(first).await, []);
    assert_eq!(container_links(first).await, [""; 0]);
}

async fn end(cri: &Cri<'_>, sandbox: &Sandbox) {
    cri.stop(sandbox).await.unwrap();
    cri.remove(sandbox).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs another distribution, which `cargo xtask test --engines` makes"]
async fn a_sandbox_whose_namespace_is_gone_is_removed_and_leaves_nothing() {
    let testbed = mesh_of_two().await;
    let [first, _] = testbed.hosts() else {
        unreachable!()
    };
    let engine = containerd(first).await;
    calls::note(&engine);
    let cri = Cri::of(&engine).await;
    // One whose processes keep the namespace although its name is gone, and one that has none any more.
    for killed in [false, true] {
        let web = cri.run("web", &[], &[]).await.unwrap();
        let netns = cri.shown(&web).await.netns;
        if killed {
            let id: &str = &web.id;
            let kill = [
                "--namespace",
                "k8s.io",
                "tasks",
                "kill",
                "--signal",
                "9",
                id,
            ];
            engine.run(&kill).unwrap();
            // Until it knows, containerd refuses to stop it.
            wait_until("the end of the sandbox", SOON, async || {
                let shown = cri.shown(&web).await;
                (!shown.is_ready).then_some(()).ok_or("it is ready")
            })
            .await
            .unwrap();
        }
        engine
            .shell(&format!("umount {netns}; rm {netns}"))
            .unwrap();
        cri.stop(&web).await.unwrap();
        assert_eq!(leases(first).await, []);
        assert_eq!(container_links(first).await, [""; 0]);
        cri.remove(&web).await.unwrap();
    }
    let noted = calls::noted(&engine);
    assert_eq!(noted[..3], ["ADD NETNS", "DEL ", "DEL "], "{noted:?}");
    assert_eq!(first.status().await.unwrap().problems(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs another distribution, which `cargo xtask test --engines` makes"]
async fn after_a_restart_of_the_host_old_sandboxes_are_removed_and_new_ones_run() {
    let testbed = mesh_of_two().await;
    let [first, second] = testbed.hosts() else {
        unreachable!()
    };
    let mut engine = containerd(first).await;
    let far = second.add_container().await.unwrap();
    let before = {
        let cri = Cri::of(&engine).await;
        cri.run("web", &[], &[]).await.unwrap()
    };
    needed(engine.restart_host(first).await);
    assert_eq!(leases(first).await, [], "of the boot before");
    let cri = Cri::of(&engine).await;
    assert!(!cri.shown(&before).await.is_ready);
    end(&cri, &before).await;
    let web = Pod::run(first, &cri, "web").await;
    needed(wait_reachable(far.netns(), web.address, SOON).await);
    assert_eq!(leases(first).await.len(), 1);
    assert_eq!(container_links(first).await.len(), 1);
}
