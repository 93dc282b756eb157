//! Docker of another distribution with a network of its own driver `bridge`, on both paths.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddrV4},
};

use mesh_testbed::{
    Daemon, DaemonOptions, Distribution, Engine, EngineContainer, EngineContainerOptions,
    EngineNetwork, Entrance, Host, Signal, Testbed, transfer, wait_until,
};

use crate::{
    containerd::reach_each_other,
    mesh::{End, SOON, bridge, counters, mesh_of_two, needed, wait_endpoint, wait_no_endpoint},
    seen::{PORT, Server, connect},
};

/// Where somebody outside the mesh serves.
const OUTSIDE: u16 = 8000;

/// By which a host publishes.
const PUBLISHED: u16 = 8081;

/// Docker of the distribution, without a network.
pub(crate) async fn docker(host: &Host) -> Engine {
    let distribution = needed(Distribution::chosen());
    needed(Engine::docker_of(&distribution, host).await)
}

/// The first number of the daemon's version.
pub(crate) fn version(engine: &Engine) -> u32 {
    let said = engine.run(&["version", "--format", "{{.Server.Version}}"]);
    let said = said.unwrap();
    said.split('.').next().unwrap().parse().unwrap()
}

pub(crate) fn without_fast_path() -> DaemonOptions {
    DaemonOptions::new().args(["--fast-path", "off"])
}

/// Has a host forward by the kernel path alone from now on.
async fn fall_back(host: &Host) {
    needed(host.stop(Daemon::Runtime, Signal::SIGTERM, SOON).await);
    needed(host.start_runtime(&without_fast_path()).await);
    needed(host.wait_ready(SOON).await);
}

/// Both see each other's own address, and the kernel path carries what they send.
async fn reach_each_other_by_the_kernel_path(one: &End<'_>, other: &End<'_>) {
    for (from, to) in [(one, other), (other, one)] {
        let server = Server::on(&to.inside, PORT);
        let seen = server.sees(&from.inside, (to.address, PORT)).await;
        assert_eq!(seen, from.address);
        // A runtime that has just begun has not told its programs yet.
        wait_until("a transfer by the kernel path", SOON, async || {
            let before = counters(to.host).await.kernel_path.unwrap_or_default();
            let copied = transfer(&from.inside, &to.inside, to.address, 1_000_000, SOON);
            assert!(copied.await.unwrap().is_intact());
            let after = counters(to.host).await.kernel_path.unwrap_or_default();
            let bytes = after.rx_bytes - before.rx_bytes;
            let all = bytes > 1_000_000;
            all.then_some(()).ok_or(format!("{bytes} bytes of 1 MB"))
        })
        .await
        .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs another distribution, which `cargo xtask test --engines` makes"]
async fn without_a_special_option_containers_of_docker_reach_each_other_by_the_fast_path() {
    let testbed = mesh_of_two().await;
    let [first, second] = testbed.hosts() else {
        unreachable!()
    };
    let before = [bridge(first).await, bridge(second).await];
    let engines = [docker(first).await, docker(second).await];
    for (engine, host) in engines.iter().zip(testbed.hosts()) {
        let network = EngineNetwork {
            protected: true,
            ..EngineNetwork::default()
        };
        let made = engine.create_bridge_network(host, network, &[]).await;
        needed(made);
    }
    let web = engines[0]
        .start("web", &EngineContainerOptions::default())
        .unwrap();
    let options = EngineContainerOptions {
        address: Some(Ipv4Addr::new(10, 42, 2, 40)),
        mac: Some("02:00:5e:00:53:01".into()),
        ..EngineContainerOptions::default()
    };
    let db = engines[1].start("db", &options).unwrap();
    assert_eq!(
        (Some(db.address), Some(&db.mac)),
        (options.address, options.mac.as_ref())
    );
    wait_endpoint(first, web.address, Some(&web.mac)).await;
    wait_endpoint(second, db.address, Some(&db.mac)).await;
    reach_each_other((first, &engines[0], &web), (second, &engines[1], &db)).await;
    for (host, engine, container) in [(first, &engines[0], web), (second, &engines[1], db)] {
        let address = container.address;
        engine.remove(container).unwrap();
        wait_no_endpoint(host, address).await;
        engine.run(&["network", "rm", "quilt"]).unwrap();
        assert_eq!(host.status().await.unwrap().problems(), [""; 0]);
    }
    assert_eq!([bridge(first).await, bridge(second).await], before);
}

/// A mesh whose hosts have Docker with the network that docs/CONTAINER_ENGINES.md tells operators to make, and containers: one that publishes a port,
/// one beside it, and one on the other host. One host's Docker masquerades, and the other's does not.
struct Scene {
    web: EngineContainer,
    sibling: EngineContainer,
    db: EngineContainer,
    engines: [Engine; 2],
    testbed: Testbed,
}

impl Scene {
    async fn new() -> Self {
        let testbed = mesh_of_two().await;
        let [first, second] = testbed.hosts() else {
            unreachable!()
        };
        let engines = [docker(first).await, docker(second).await];
        for (engine, host, masquerade) in [(&engines[0], first, true), (&engines[1], second, false)]
        {
            let network = EngineNetwork {
                masquerade,
                ..EngineNetwork::default()
            };
            let made = engine.create_bridge_network(host, network, &[]);
            needed(made.await);
            // What it was told of the network it knows still.
            needed(engine.restart_daemon().await);
        }
        let options = EngineContainerOptions::default();
        let published = EngineContainerOptions {
            publish: Some((PUBLISHED, PORT)),
            ..options.clone()
        };
        let web = engines[0].start("web", &published).unwrap();
        let sibling = engines[0].start("sibling", &options).unwrap();
        let db = engines[1].start("db", &options).unwrap();
        wait_endpoint(first, web.address, Some(&web.mac)).await;
        wait_endpoint(second, db.address, Some(&db.mac)).await;
        Self {
            web,
            sibling,
            db,
            engines,
            testbed,
        }
    }

    fn hosts(&self) -> [&Host; 2] {
        let [first, second] = self.testbed.hosts() else {
            unreachable!()
        };
        [first, second]
    }

    fn inside(&self, container: &EngineContainer) -> Entrance {
        let of = usize::from(container == &self.db);
        self.engines[of].entrance(container).unwrap()
    }

    /// The published port is reached from everywhere, and whom the container sees there.
    async fn ports(&self) {
        let [first, second] = self.hosts();
        let outside = self.testbed.control();
        let gateway = first.bridge_address(mesh_testbed::BRIDGE).await.unwrap();
        let server = Server::on(&self.inside(&self.web), PORT);
        for (client, whom) in [
            (outside.netns().entrance(), outside.address()),
            (second.netns().entrance(), second.address()),
            (self.inside(&self.db), second.address()),
            (first.netns().entrance(), first.address()),
            (self.inside(&self.sibling), gateway.addr()),
            (self.inside(&self.web), gateway.addr()),
        ] {
            let seen = server.sees(&client, (first.address(), PUBLISHED)).await;
            assert_eq!(seen, whom, "{}", client.name());
        }
        let client = first.netns().entrance();
        let seen = server.sees(&client, (Ipv4Addr::LOCALHOST, PUBLISHED)).await;
        assert_eq!(seen, gateway.addr());
    }

    /// Containers get out, under their host's address.
    async fn way_out(&self) {
        let [first, second] = self.hosts();
        let outside = self.testbed.control();
        let server = Server::on(&outside.netns().entrance(), OUTSIDE);
        for (host, client) in [(first, &self.web), (second, &self.db)] {
            let client = self.inside(client);
            let seen = server.sees(&client, (outside.address(), OUTSIDE)).await;
            assert_eq!(seen, host.address(), "{}", host.name());
        }
    }

    /// Nobody outside the mesh gets to a container past its published ports, although Docker lets everybody.
    fn strangers_stay_out(&self) {
        let [first, _] = self.hosts();
        let stranger = self.testbed.control().netns();
        let route = format!(
            "ip route add {}/32 via {}",
            self.web.address,
            first.address()
        );
        let mut sh = stranger.command("sh");
        assert!(sh.args(["-c", &route]).status().unwrap().success());
        let _server = Server::on(&self.inside(&self.web), PORT);
        let door = SocketAddrV4::new(self.web.address, PORT);
        let refused = connect(&stranger.entrance(), door).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::TimedOut, "{refused}");
        let mut sh = stranger.command("sh");
        let route = route.replace("add", "del");
        assert!(sh.args(["-c", &route]).status().unwrap().success());
    }

    fn end<'a>(&'a self, host: &'a Host, container: &EngineContainer) -> End<'a> {
        End {
            host,
            inside: self.inside(container),
            address: container.address,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs another distribution, which `cargo xtask test --engines` makes"]
async fn with_the_network_that_operators_are_told_to_make_everything_works_on_both_paths() {
    let scene = Scene::new().await;
    let [first, second] = scene.hosts();
    let [of_first, of_second] = scene.engines.each_ref();
    reach_each_other(
        (first, of_first, &scene.web),
        (second, of_second, &scene.db),
    )
    .await;
    scene.ports().await;
    scene.way_out().await;
    scene.strangers_stay_out();

    fall_back(first).await;
    fall_back(second).await;
    let ends = [scene.end(first, &scene.web), scene.end(second, &scene.db)];
    reach_each_other_by_the_kernel_path(&ends[0], &ends[1]).await;
    scene.ports().await;
    scene.way_out().await;
    scene.strangers_stay_out();
    for host in scene.hosts() {
        assert_eq!(host.status().await.unwrap().problems(), [""; 0]);
    }
}
