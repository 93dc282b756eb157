//! What Docker of another distribution drops of a mesh's packets, by which of its rules, and what lets them through.

use std::{
    fs::File,
    net::{Ipv4Addr, SocketAddrV4},
};

use mesh_testbed::{
    Daemon, DaemonOptions, Engine, EngineContainerOptions, EngineNetwork, Entrance, Host, Signal,
    Testbed, wait_until,
};

use crate::{
    docker::{docker, version, without_fast_path},
    mesh::{SOON, needed, wait_endpoint},
    seen::{PORT, Server, connect},
};

/// The option that Docker 28.2 brought for interfaces such as the overlay's.
const TRUSTED: &str = "com.docker.network.bridge.trusted_host_interfaces=vxlan100";

/// What makes a network of the driver `bridge`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Made {
    /// As docs/CONTAINER_ENGINES.md tells operators.
    AsTold,
    /// Without the option for versions from 28 on.
    Plain,
    /// With that of `TRUSTED` in its place.
    Trusting,
}

/// By which the runtime publishes.
const PUBLISHED: u16 = 8080;

/// Docker's door.
const DOOR: [&str; 2] = [
    "DOCKER-USER -i quilt0 -j ACCEPT",
    "DOCKER-USER -o quilt0 -j ACCEPT",
];

/// Where Docker drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In `raw PREROUTING`, what comes for a container from elsewhere than its bridge.
    Raw,
    /// At the end of its chain `DOCKER`, what comes for the bridge from elsewhere.
    Chain,
    /// By the policy of `FORWARD`.
    Policy,
}

impl Place {
    const ALL: [Self; 3] = [Self::Raw, Self::Chain, Self::Policy];

    /// Whether it is this line of `iptables-save`.
    fn is(self, line: &str) -> bool {
        match self {
            Self::Raw => {
                line.starts_with("-A PREROUTING -d 10.42.1.")
                    && line.ends_with(" ! -i quilt0 -j DROP")
            }
            Self::Chain => line == "-A DOCKER ! -i quilt0 -o quilt0 -j DROP",
            Self::Policy => line.starts_with(":FORWARD DROP "),
        }
    }

    /// How many packets were dropped there.
    fn dropped(self, engine: &Engine) -> u64 {
        let saved = engine.shell("iptables-save -c").unwrap();
        let counted = saved.lines().filter_map(|line| {
            // "[packets:bytes] rule", and of a chain ":name policy [packets:bytes]".
            let (before, rest) = line.split_once('[')?;
            let (counters, after) = rest.split_once(']')?;
            let (packets, _) = counters.split_once(':')?;
            let rule = format!("{before}{}", after.trim_start());
            self.is(&rule).then(|| packets.parse::<u64>().unwrap())
        });
        counted.sum()
    }
}

/// What becomes of a new connection by each way; `None` where it is reached.
#[derive(Clone, Copy, Debug, Default)]
struct Expected {
    /// From another node to a container of Docker's.
    docker: Option<Place>,
    /// From another node to a container that a call attached.
    attached: Option<Place>,
    /// From outside to a port that the runtime publishes.
    published: Option<Place>,
}

impl Expected {
    fn all(place: Place) -> Self {
        Self {
            docker: Some(place),
            attached: Some(place),
            published: Some(place),
        }
    }
}

/// Two hosts. The first has Docker, and a network namespace that a call attached; the second has a container.
struct Scene {
    engine: Engine,
    shop: Entrance,
    shop_address: Ipv4Addr,
    far: Entrance,
    far_address: Ipv4Addr,
    testbed: Testbed,
}

impl Scene {
    async fn new(runtime: &DaemonOptions) -> Self {
        let testbed = Testbed::builder().hosts(2).build().await.unwrap();
        let none = DaemonOptions::new();
        needed(testbed.start_with(&none, runtime, &none).await);
        let [first, second] = testbed.hosts() else {
            unreachable!()
        };
        let engine = docker(first).await;
        let far = second.add_container().await.unwrap();
        // None of Docker's: those end with its daemon.
        engine
            .shell("touch /run/shop; unshare --net=/run/shop true")
            .unwrap();
        let shop = File::open(engine.seen_from_outside("/run/shop")).unwrap();
        let shop = Entrance::new("shop", shop.into());
        let publish = format!("{PUBLISHED}:{PORT}");
        let attach = [
            "attach",
            "shop",
            "--netns",
            "/run/shop",
            "--publish",
            &publish,
        ];
        let said = engine.meshctl(&attach).unwrap();
        let address = said.split([' ', '/']).nth(1).unwrap();
        let shop_address = address.parse().unwrap();
        Self {
            engine,
            shop,
            shop_address,
            far: far.netns().entrance(),
            far_address: far.address(),
            testbed,
        }
    }

    fn host(&self) -> &Host {
        &self.testbed.hosts()[0]
    }

    fn iptables(&self, command: &str) {
        self.engine.shell(&format!("iptables {command}")).unwrap();
    }

    /// Makes a network with these options and a container in it, opens the doors, and sees what becomes of connections.
    async fn see(&self, made: Made, doors: &[&str], expected: Expected) {
        let context = format!("{made:?} {doors:?}");
        println!("{context}: {expected:?}");
        // The runtime leases from the other half.
        let network = EngineNetwork {
            part: Some("10.42.1.128/25".parse().unwrap()),
            protected: made != Made::AsTold,
            ..EngineNetwork::default()
        };
        let options: &[&str] = match made {
            Made::AsTold | Made::Plain => &[],
            Made::Trusting => &[TRUSTED],
        };
        let made = self
            .engine
            .create_bridge_network(self.host(), network, options);
        needed(made.await);
        for door in doors {
            self.iptables(&format!("-I {door}"));
        }
        let web = self.engine.start("web", &EngineContainerOptions::default());
        let web = web.unwrap();
        wait_endpoint(self.host(), web.address, Some(&web.mac)).await;
        let inside = self.engine.entrance(&web).unwrap();
        let outside = self.testbed.control().netns().entrance();
        let far = self.far_address;
        // Of the answers, which belong to a connection, by whoever knows of no connections.
        let answers = expected.docker.filter(|it| *it == Place::Raw);
        for (client, place, door, expected) in [
            (&inside, &self.far, (far, PORT), answers),
            (&self.far, &inside, (web.address, PORT), expected.docker),
            (
                &self.far,
                &self.shop,
                (self.shop_address, PORT),
                expected.attached,
            ),
            (
                &outside,
                &self.shop,
                (self.host().address(), PUBLISHED),
                expected.published,
            ),
        ] {
            let server = Server::on(place, PORT);
            match expected {
                None => drop(server.sees(client, door).await),
                Some(place) => self.dropped(client, door, place, &context).await,
            }
        }
        self.engine.remove(web).unwrap();
        for door in doors {
            self.iptables(&format!("-D {door}"));
        }
        self.engine.run(&["network", "rm", "quilt"]).unwrap();
    }

    /// Sees that a connection is dropped at this place and no other.
    async fn dropped(&self, client: &Entrance, door: (Ipv4Addr, u16), place: Place, context: &str) {
        let counts = || Place::ALL.map(|it| it.dropped(&self.engine));
        let before = counts();
        let door = SocketAddrV4::new(door.0, door.1);
        let what = format!("{context}: the drop of a packet to {door}");
        wait_until(&what, SOON, async || {
            assert!(
                connect(client, door).is_err(),
                "{context}: {door} is reached"
            );
            let grown = counts()
                .iter()
                .zip(before)
                .map(|(now, before)| now > &before)
                .collect::<Vec<_>>();
            let expected = Place::ALL.map(|it| it == place);
            (grown == expected)
                .then_some(())
                .ok_or(format!("{:?} {grown:?}", Place::ALL))
        })
        .await
        .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs another distribution, which `cargo xtask test --engines` makes"]
async fn on_the_kernel_path_each_option_lets_through_what_operators_are_told() {
    let scene = Scene::new(&without_fast_path()).await;
    let engine = &scene.engine;
    if version(engine) < 28 {
        scene.see(Made::Plain, &[], Expected::default()).await;
        // Options that it does not know are none.
        scene.see(Made::AsTold, &[], Expected::default()).await;
        scene.see(Made::Trusting, &[], Expected::default()).await;
        return;
    }
    let raw = Expected {
        docker: Some(Place::Raw),
        ..Expected::all(Place::Chain)
    };
    let raw_alone = Expected {
        docker: Some(Place::Raw),
        ..Expected::default()
    };
    scene.see(Made::Plain, &[], raw).await;
    scene.see(Made::Plain, &DOOR, raw_alone).await;
    scene
        .see(Made::Trusting, &[], Expected::all(Place::Chain))
        .await;
    scene.see(Made::Trusting, &DOOR, Expected::default()).await;
    scene.see(Made::AsTold, &[], Expected::default()).await;
    engine
        .set_daemon_option(scene.host(), "allow-direct-routing", true)
        .unwrap();
    needed(engine.restart_daemon().await);
    scene
        .see(Made::Plain, &[], Expected::all(Place::Chain))
        .await;
    scene.see(Made::Plain, &DOOR, Expected::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs another distribution, which `cargo xtask test --engines` makes"]
async fn on_the_fast_path_what_docker_drops_are_the_ports_of_others() {
    let scene = Scene::new(&DaemonOptions::new()).await;
    let published = (version(&scene.engine) >= 28).then_some(Place::Chain);
    let of_others = Expected {
        published,
        ..Expected::default()
    };
    scene.see(Made::Plain, &[], of_others).await;
    scene.see(Made::AsTold, &[], Expected::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs another distribution, which `cargo xtask test --engines` makes"]
async fn where_docker_enabled_forwarding_and_drops_the_rest_operators_are_told_what_helps() {
    let scene = Scene::new(&without_fast_path()).await;
    let (engine, host) = (&scene.engine, scene.host());
    needed(host.stop(Daemon::Runtime, Signal::SIGTERM, SOON).await);
    host.netns().sysctl("net/ipv4/ip_forward", "0").unwrap();
    needed(engine.restart_daemon().await);
    // From 28 on it is the first network that has the daemon do it.
    let network = EngineNetwork::default();
    needed(engine.create_bridge_network(host, network, &[]).await);
    engine.run(&["network", "rm", "quilt"]).unwrap();
    let policy = engine.shell("iptables -S FORWARD | head -n 1").unwrap();
    assert_eq!(policy.trim(), "-P FORWARD DROP");
    needed(host.start_runtime(&without_fast_path()).await);
    needed(host.wait_ready(SOON).await);
    if version(engine) < 28 {
        scene
            .see(Made::Plain, &[], Expected::all(Place::Policy))
            .await;
        scene
            .see(Made::AsTold, &[], Expected::all(Place::Policy))
            .await;
        scene.see(Made::Plain, &DOOR, Expected::default()).await;
        return;
    }
    scene
        .see(Made::Trusting, &[], Expected::all(Place::Chain))
        .await;
    scene.see(Made::AsTold, &[], Expected::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs another distribution, which `cargo xtask test --engines` makes"]
async fn the_runtime_names_one_door_after_the_other_until_docker_lets_other_nodes_in() {
    let scene = Scene::new(&without_fast_path()).await;
    let (engine, host) = (&scene.engine, scene.host());
    let network = EngineNetwork {
        protected: true,
        ..EngineNetwork::default()
    };
    needed(engine.create_bridge_network(host, network, &[]).await);
    let options = EngineContainerOptions {
        address: Some(Ipv4Addr::new(10, 42, 1, 200)),
        ..EngineContainerOptions::default()
    };
    let web = engine.start("web", &options).unwrap();
    wait_endpoint(host, web.address, Some(&web.mac)).await;
    let server = Server::on(&engine.entrance(&web).unwrap(), PORT);
    let doors: &[&str] = match version(engine) {
        ..28 => &[],
        _ => &[
            "iptables -t raw -I PREROUTING -i vxlan100 -d 10.42.1.0/24 -j ACCEPT",
            "iptables -I DOCKER-USER -i quilt0 -j ACCEPT; iptables -I DOCKER-USER -o quilt0 -j ACCEPT",
        ],
    };
    for door in doors {
        wait_until(door, SOON, async || {
            let to = SocketAddrV4::new(web.address, PORT);
            assert!(connect(&scene.far, to).is_err(), "before {door}");
            let problems = host.status().await.unwrap().problems();
            let named = problems.iter().any(|it| it.contains(door));
            named.then_some(()).ok_or(problems.join("; "))
        })
        .await
        .unwrap();
        engine.shell(door).unwrap();
    }
    server.sees(&scene.far, (web.address, PORT)).await;
    wait_until("no problem", SOON, async || {
        let problems = host.status().await.unwrap().problems();
        problems.is_empty().then_some(()).ok_or(problems.join("; "))
    })
    .await
    .unwrap();
}
