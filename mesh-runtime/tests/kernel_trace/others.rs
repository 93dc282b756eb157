//! On the kernel path: our rules, and what others have put there.

use mesh_runtime::trace::Verdict::{Drops, NotEvaluated, Passes};

use crate::scene::{Packet, Scene, end, nft, run};

#[tokio::test(flavor = "multi_thread")]
async fn others_rules_are_named_and_never_guessed_and_empty_ones_are_none() {
    let scene = Scene::start(&["--fast-path", "off"])
        .await
        .without_runtimes()
        .await;
    let a = scene.a().netns();
    let trace = scene.compare_between("nothing is wrong", &scene.there(), Passes);
    assert_eq!(trace.path, "kernel");
    nft(
        a,
        "add table ip f; add chain ip f c { type filter hook forward priority 0; }",
    );
    scene.compare_between("a chain without rules", &scene.there(), Passes);
    for (what, rule, arrives) in [
        (
            "one with a rule that accepts",
            "add rule ip f c accept",
            true,
        ),
        ("one whose rules drop", "insert rule ip f c drop", false),
    ] {
        nft(a, rule);
        let trace = scene.compare_between(what, &scene.there(), NotEvaluated);
        assert!(end(&trace).contains("table ip f, chain c"), "{trace:#?}");
        assert_eq!(
            scene.there().arrives_at(crate::scene::PORT),
            arrives,
            "{what}"
        );
    }
    nft(a, "delete table ip f");
    scene.compare_between("nobody else's rules again", &scene.there(), Passes);

    nft(
        a,
        "add table bridge f; add chain bridge f c { type filter hook input priority 0; policy drop; }",
    );
    let trace = scene.compare_between("one of the bridge", &scene.there(), NotEvaluated);
    assert!(
        end(&trace).contains("table bridge f, chain c"),
        "{trace:#?}"
    );
    assert!(!scene.there().arrives_at(crate::scene::PORT));
    nft(a, "delete table bridge f");

    nft(
        a,
        "add table ip f; add chain ip f c { type filter hook output priority 0; policy drop; }",
    );
    let trace = scene.compare_between("one of what this host sends", &scene.there(), NotEvaluated);
    assert!(
        end(&trace).contains("underlay, from this host"),
        "{trace:#?}"
    );
    assert!(!scene.there().arrives_at(crate::scene::PORT));
    nft(a, "delete table ip f");

    let b = scene.b().netns();
    nft(
        b,
        "add table ip f; add chain ip f c { type filter hook input priority 0; policy drop; }",
    );
    scene.compare_between(
        "one of what the other takes in",
        &scene.there(),
        NotEvaluated,
    );
    assert!(!scene.there().arrives_at(crate::scene::PORT));
    nft(b, "delete table ip f");

    run(a, "tc qdisc add dev eth0 clsact");
    // What comes from this host's VXLAN goes to nobody.
    run(a, "ip link add nowhere type veth peer name nowhere2");
    run(
        a,
        "tc filter add dev eth0 egress protocol ip u32 match u32 0 0 action mirred egress redirect dev nowhere",
    );
    let trace = scene.compare_between("a filter at the interface", &scene.there(), NotEvaluated);
    assert!(end(&trace).contains("u32"), "{trace:#?}");
    assert!(!scene.there().arrives_at(crate::scene::PORT));
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_rules_are_evaluated_by_what_their_sets_hold() {
    let scene = Scene::start(&["--fast-path", "off"]).await;
    let thief = scene.a().add_container().await.unwrap();
    scene.pair.wait_endpoint(scene.a(), &thief).await;
    let scene = scene.without_runtimes().await;
    // Without programs the rules judge alone.
    for host in [scene.a(), scene.b()] {
        detach(host.netns());
        let links = host.bpffs_dir().join("quilt-mesh/links");
        std::fs::remove_dir_all(links).unwrap();
    }
    scene.compare_between("nothing is wrong", &scene.there(), Passes);
    let b = scene.b().netns();
    let peers = format!(
        "element inet quilt_mesh peers {{ {} }}",
        scene.a().address()
    );
    nft(b, &format!("delete {peers}"));
    scene.compare_between("a peer that the rules do not know", &scene.there(), Drops);
    let trace = scene.trace_on(scene.b(), &scene.there());
    assert!(end(&trace).contains("ip saddr != @peers"), "{trace:#?}");
    nft(b, &format!("add {peers}"));
    nft(b, "delete element inet quilt_mesh subnets { 10.42.1.0 }");
    scene.compare_between("a subnet that they do not know", &scene.there(), Drops);
    let trace = scene.trace_on(scene.b(), &scene.there());
    assert!(end(&trace).contains("@subnets"), "{trace:#?}");
    nft(b, "add element inet quilt_mesh subnets { 10.42.1.0 }");

    // The gateway's address.
    let a = scene.a().netns();
    run(thief.netns(), "ip address add 10.42.1.1/32 dev lo");
    let forged = Packet {
        source: [10, 42, 1, 1].into(),
        from: thief.netns(),
        from_interface: thief.host_interface().to_owned(),
        ..scene.there()
    };
    assert!(!forged.arrives_at(forged.port));
    nft(
        a,
        "delete table inet quilt_mesh; delete table bridge quilt_mesh",
    );
    scene.compare_between("without our tables", &scene.there(), Passes);
}

/// Takes all programs off: links go with their pins, and filters by their queueing disciplines.
fn detach(host: &mesh_testbed::NetNs) {
    let shown = host.command("ip").args(["-o", "link"]).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    for line in shown.lines() {
        let name = line.split(": ").nth(1).unwrap();
        let name = name.split('@').next().unwrap();
        // Most have none.
        let _ = host
            .command("tc")
            .args(["qdisc", "del", "dev", name, "clsact"])
            .output();
    }
}
