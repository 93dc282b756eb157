//! What is tried with every Docker on a network of `quilt-docker`: its containers' addresses, names, ports and networks, and what becomes of them when
//! whatever serves them begins anew.

use std::{net::Ipv4Addr, time::Duration};

use mesh_testbed::{
    BRIDGE, Daemon, DaemonOptions, Engine, EngineContainer, EngineContainerOptions, Host, Signal,
    Testbed, wait_reachable, wait_until,
};

use crate::{
    leases::{container_links, leases, wait_nothing_left},
    mesh::{SOON, bridge, mesh_of_two, wait_endpoint, wait_no_endpoint},
    reach_each_other,
    seen::{PORT, Server},
};

/// Another network, of Docker's own.
const OTHER: [&str; 7] = [
    "network",
    "create",
    "-d",
    "bridge",
    "--subnet",
    "172.30.0.0/24",
    "other",
];

fn hosts(testbed: &Testbed) -> (&Host, &Host) {
    let [first, second] = testbed.hosts() else {
        unreachable!()
    };
    (first, second)
}

/// Starts a container, or says what the driver said.
fn start(engine: &Engine, name: &str) -> EngineContainer {
    let started = engine.start(name, &EngineContainerOptions::default());
    started.unwrap_or_else(|error| panic!("{error}\n{}", engine.driver_log()))
}

/// Has Docker's daemon keep containers while it restarts.
async fn keep_alive(engine: &Engine) {
    let setting = r#"sed -i 's/^{/{"live-restore":true,/' /mnt/daemon.json; kill -HUP $(cat /mnt/docker.pid)"#;
    engine.shell(setting).unwrap();
    wait_until("a daemon that keeps containers", SOON, async || {
        let keeps = engine.run(&["info", "--format", "{{.LiveRestoreEnabled}}"]);
        match keeps {
            Ok(keeps) if keeps.trim() == "true" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .unwrap();
}

/// Waits until the container runs, with an address.
async fn wait_container(engine: &Engine, name: &str) -> EngineContainer {
    wait_until("the container", SOON, async || {
        let running = engine.run(&["inspect", "--format", "{{.State.Running}}", name]);
        match running {
            Ok(running) if running.trim() == "true" => {
                engine.container(name).map_err(|error| error.to_string())
            }
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .unwrap()
}

async fn runtime_starts_anew(host: &Host, signal: Signal) {
    host.stop(Daemon::Runtime, signal, SOON).await.unwrap();
    host.restart(Daemon::Runtime).unwrap();
    host.wait_ready(SOON).await.unwrap();
}

pub(crate) async fn reach_each_other_and_leave_nothing(docker: impl AsyncFn(&Host) -> Engine) {
    let testbed = mesh_of_two().await;
    let (first, second) = hosts(&testbed);
    let before = [bridge(first).await, bridge(second).await];
    let engines = [docker(first).await, docker(second).await];
    let web = start(&engines[0], "web");
    let options = EngineContainerOptions {
        address: Some(Ipv4Addr::new(10, 42, 2, 40)),
        mac: Some("02:00:5e:00:53:01".into()),
        aliases: vec!["data".into()],
        ..EngineContainerOptions::default()
    };
    let db = engines[1].start("db", &options).unwrap();
    assert_eq!(
        (db.address, &db.mac),
        (options.address.unwrap(), options.mac.as_ref().unwrap())
    );
    for (host, container) in [(first, &web), (second, &db)] {
        let lease = &leases(host).await[0];
        assert_eq!(lease.address, container.address.to_string());
        let holder = lease.owner.as_ref().unwrap();
        assert_eq!(
            (&*holder.engine, &holder.container),
            ("docker", &container.mac.replace(':', ""))
        );
        wait_endpoint(host, container.address, Some(&container.mac)).await;
    }
    reach_each_other((first, &engines[0], &web), (second, &engines[1], &db)).await;
    // By Docker's own name server, on the network that both are in.
    let shop = start(&engines[1], "shop");
    for name in ["db", "data"] {
        engines[1]
            .exec(&shop, &["ping", "-c", "1", "-W", "5", name])
            .unwrap();
    }

    let all = [
        (first, &engines[0], web),
        (second, &engines[1], db),
        (second, &engines[1], shop),
    ];
    for (host, engine, container) in all {
        let address = container.address;
        engine.remove(container).unwrap();
        // By the driver, not by whoever sweeps later.
        let leases = leases(host).await;
        assert!(
            !leases.iter().any(|it| it.address == address.to_string()),
            "{leases:?}"
        );
        wait_no_endpoint(host, address).await;
    }
    for host in testbed.hosts() {
        assert_eq!(
            (leases(host).await, container_links(host).await),
            (vec![], vec![])
        );
        assert_eq!(host.status().await.unwrap().problems(), [""; 0]);
    }
    assert_eq!([bridge(first).await, bridge(second).await], before);
}

pub(crate) async fn ports_are_reached(docker: impl AsyncFn(&Host) -> Engine) {
    let testbed = mesh_of_two().await;
    let (first, second) = hosts(&testbed);
    let engine = docker(first).await;
    let options = EngineContainerOptions {
        publish: Some((8081, PORT)),
        ..EngineContainerOptions::default()
    };
    let web = engine.start("web", &options).unwrap();
    let sibling = start(&engine, "sibling");
    let db = second.add_container().await.unwrap();
    wait_endpoint(second, db.address(), None).await;
    let inside = engine.entrance(&web).unwrap();
    let server = Server::on(&inside, PORT);
    let outside = testbed.control();
    let gateway = first.bridge_address(BRIDGE).await.unwrap().addr();
    for (client, door, whom) in [
        (
            outside.netns().entrance(),
            first.address(),
            outside.address(),
        ),
        (db.netns().entrance(), first.address(), second.address()),
        (db.netns().entrance(), gateway, gateway),
        (first.netns().entrance(), first.address(), first.address()),
        (first.netns().entrance(), gateway, gateway),
        (first.netns().entrance(), Ipv4Addr::LOCALHOST, gateway),
        (engine.entrance(&sibling).unwrap(), first.address(), gateway),
        (inside.clone(), first.address(), gateway),
    ] {
        let seen = server.sees(&client, (door, 8081)).await;
        assert_eq!(seen, whom, "{} by {door}", client.name());
    }
    let taken = engine.start("rival", &options).unwrap_err().to_string();
    assert!(taken.contains("8081"), "{taken}");
    engine.run(&["rm", "--force", "rival"]).unwrap();
    engine.run(&["restart", "--time", "0", "web"]).unwrap();
    let web = engine.container("web").unwrap();
    let server = Server::on(&engine.entrance(&web).unwrap(), PORT);
    let client = outside.netns().entrance();
    let seen = server.sees(&client, (first.address(), 8081)).await;
    assert_eq!(seen, outside.address());
    assert_eq!(leases(first).await.len(), 2);
    assert_eq!(first.status().await.unwrap().problems(), [""; 0]);
}

/// Docker moves its ports to the network with the default route, and there is one mesh whatever its networks are called.
pub(crate) async fn join_and_leave(docker: impl AsyncFn(&Host) -> Engine) {
    let testbed = mesh_of_two().await;
    let (first, second) = hosts(&testbed);
    let engine = docker(first).await;
    engine.run(&OTHER).unwrap();
    let far = second.add_container().await.unwrap();
    let group = engine.control_group();
    let run = |name: &str, options: &[&str]| {
        let common = [
            "run",
            "--detach",
            "--name",
            name,
            "--cap-add",
            "NET_RAW",
            "--cgroup-parent",
        ];
        let what = ["localhost/busybox:latest", "sleep", "1000000"];
        engine.run(&[&common[..], &[&group], options, &what].concat())
    };
    run(
        "web",
        &["--network", "other", "--publish", &format!("8082:{PORT}")],
    )
    .unwrap();
    for _ in 0..2 {
        engine.run(&["network", "connect", "quilt", "web"]).unwrap();
        let web = engine.container("web").unwrap();
        let inside = engine.entrance(&web).unwrap();
        wait_reachable(far.netns(), web.address, SOON)
            .await
            .unwrap();
        let server = Server::on(&inside, PORT);
        let seen = server
            .sees(&far.netns().entrance(), (web.address, PORT))
            .await;
        assert_eq!(seen, far.address());
        let client = testbed.control().netns().entrance();
        server.sees(&client, (first.address(), 8082)).await;
        engine
            .run(&["network", "disconnect", "quilt", "web"])
            .unwrap();
        assert_eq!(
            (leases(first).await, container_links(first).await),
            (vec![], vec![])
        );
        server.sees(&client, (first.address(), 8082)).await;
    }
    // A second name of the mesh, for others; one container has one of them.
    let further = [
        "network",
        "create",
        "-d",
        "quilt",
        "--ipam-driver",
        "quilt",
        "further",
    ];
    engine.run(&further).unwrap();
    run("shop", &["--network", "further"]).unwrap();
    let web = start(&engine, "api");
    let shop = engine.run(&[
        "inspect",
        "--format",
        "{{(index .NetworkSettings.Networks \"further\").IPAddress}}",
        "shop",
    ]);
    engine
        .exec(&web, &["ping", "-c", "1", "-W", "5", shop.unwrap().trim()])
        .unwrap();
    let refused = engine.run(&["network", "connect", "further", "api"]);
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("names of one mesh"), "{refused}");
    assert_eq!(leases(first).await.len(), 2);
    engine
        .run(&["rm", "--force", "shop", "api", "web"])
        .unwrap();
    engine.run(&["system", "prune", "--force"]).unwrap();
    assert_eq!(
        (leases(first).await, container_links(first).await),
        (vec![], vec![])
    );
    let left = engine.run(&["network", "ls", "--filter", "driver=quilt", "--quiet"]);
    assert_eq!(left.unwrap(), "", "networks that nobody used are pruned");
    engine.run(&further).unwrap();
    run("shop", &["--network", "further"]).unwrap();
}

pub(crate) async fn come_back(docker: impl AsyncFn(&Host) -> Engine) {
    let testbed = mesh_of_two().await;
    let (first, second) = hosts(&testbed);
    let mut engine = docker(first).await;
    let far = second.add_container().await.unwrap();
    for (name, address) in [("web", None), ("api", Some(Ipv4Addr::new(10, 42, 1, 77)))] {
        let options = EngineContainerOptions {
            address,
            publish: address.map(|_| (8081, PORT)),
            ..EngineContainerOptions::default()
        };
        engine.start(name, &options).unwrap();
        engine
            .run(&["update", "--restart", "always", name])
            .unwrap();
    }
    let all_there = async |engine: &Engine, after: &str| {
        for name in ["web", "api"] {
            let container = wait_container(engine, name).await;
            wait_endpoint(first, container.address, Some(&container.mac)).await;
            let reached = wait_reachable(far.netns(), container.address, SOON).await;
            reached.unwrap_or_else(|error| panic!("{name} after {after}: {error}"));
        }
        let api = engine.container("api").unwrap();
        assert_eq!(api.address, Ipv4Addr::new(10, 42, 1, 77), "after {after}");
        let server = Server::on(&engine.entrance(&api).unwrap(), PORT);
        let client = testbed.control().netns().entrance();
        server.sees(&client, (first.address(), 8081)).await;
        assert_eq!(leases(first).await.len(), 2, "after {after}");
        assert_eq!(container_links(first).await.len(), 2, "after {after}");
    };
    all_there(&engine, "their start").await;
    engine.restart_daemon().await.unwrap();
    all_there(&engine, "a restart of Docker's daemon").await;
    engine.kill_driver().unwrap();
    engine.start_driver().await.unwrap();
    all_there(&engine, "the end of the driver").await;
    engine
        .run(&["restart", "--time", "0", "web", "api"])
        .unwrap();
    all_there(&engine, "a restart with another driver").await;
    runtime_starts_anew(first, Signal::SIGKILL).await;
    all_there(&engine, "the end of the runtime").await;
    engine.restart_host(first).await.unwrap();
    all_there(&engine, "a restart of the host").await;

    // Running ones are not touched, by a daemon that keeps them alive.
    let before = ["web", "api"].map(|name| engine.container(name).unwrap());
    keep_alive(&engine).await;
    engine.restart_daemon().await.unwrap();
    all_there(&engine, "a restart of a daemon that keeps them").await;
    assert_eq!(
        ["web", "api"].map(|name| engine.container(name).unwrap()),
        before
    );
    engine.run(&["rm", "--force", "web", "api"]).unwrap();
    wait_nothing_left(first).await;
}

pub(crate) async fn without_a_runtime(docker: impl AsyncFn(&Host) -> Engine) {
    let testbed = mesh_of_two().await;
    let (first, _) = hosts(&testbed);
    let engine = docker(first).await;
    start(&engine, "web");
    start(&engine, "api");
    first
        .stop(Daemon::Runtime, Signal::SIGTERM, SOON)
        .await
        .unwrap();
    let refused = engine.start("shop", &EngineContainerOptions::default());
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("quilt-runtime"), "{refused}");
    engine.run(&["rm", "--force", "web"]).unwrap();
    engine.run(&["stop", "--time", "0", "api"]).unwrap();
    // Also of a driver that has to remember it.
    engine.kill_driver().unwrap();
    engine.start_driver().await.unwrap();
    first.start_runtime(&DaemonOptions::new()).await.unwrap();
    wait_nothing_left(first).await;
    engine.run(&["start", "api"]).unwrap();
    engine.run(&["start", "shop"]).unwrap();
    assert_eq!(leases(first).await.len(), 2);
}

/// Docker finds a driver when it needs one, and again after it was gone.
pub(crate) async fn before_the_driver(docker: impl AsyncFn(&Host) -> Engine) {
    let testbed = mesh_of_two().await;
    let (first, second) = hosts(&testbed);
    let engine = docker(first).await;
    let far = second.add_container().await.unwrap();
    start(&engine, "web");
    engine.kill_driver().unwrap();
    engine.restart_daemon().await.unwrap();
    // The daemon answers, whatever it tries meanwhile.
    engine.run(&["network", "ls"]).unwrap();
    engine.start_driver().await.unwrap();
    wait_until("a start", Duration::from_secs(60), async || {
        engine
            .run(&["start", "web"])
            .map_err(|error| error.to_string())
    })
    .await
    .unwrap();
    let web = wait_container(&engine, "web").await;
    wait_reachable(far.netns(), web.address, SOON)
        .await
        .unwrap();
    // Of the container's earlier life, whose end Docker could tell nobody.
    wait_until("the end of the other lease", SOON, async || {
        let leases = leases(first).await;
        (leases.len() == 1)
            .then_some(())
            .ok_or(format!("{leases:?}"))
    })
    .await
    .unwrap();
    assert_eq!(container_links(first).await.len(), 1);
}
