//! Containers of Podman and of Docker.

use std::{
    fs,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use futures_util::TryStreamExt as _;
use mesh_testbed::{BRIDGE, Engine, EngineContainer, EngineContainerOptions, Host, Links, Testbed};
use netlink_packet_route::link::LinkAttribute;
use tokio::task::JoinHandle;

use crate::mesh::{
    End, SOON, assert_fast, bridge, counters, fast, mesh_of_two, needed, talk, wait_endpoint,
    wait_no_endpoint,
};

/// The port of the node's own endpoint for probes.
const PROBE: &str = "quilt-probe";
/// The runtime's own ports.
const OWN: [&str; 2] = ["quilt-headroom", PROBE];

/// Both containers ping each other with a program of their own, and talk both ways.
pub(crate) async fn reach_each_other(
    one: (&Host, &Engine, &EngineContainer),
    other: (&Host, &Engine, &EngineContainer),
) {
    for (from, to) in [(one, other), (other, one)] {
        let before = counters(from.0).await;
        let address = to.2.address.to_string();
        let said = from.1.exec(
            from.2,
            &["ping", "-c", "5", "-i", "0.1", "-W", "2", &address],
        );
        let said = said.unwrap();
        assert!(said.contains("5 packets received"), "{said}");
        let after = counters(from.0).await;
        assert_fast(&before, &after);
        assert_eq!(fast(&after).tx_packets - fast(&before).tx_packets, 5);
        assert_eq!(fast(&after).rx_packets - fast(&before).rx_packets, 5);
    }
    let [one, other] = [one, other].map(|(host, engine, container)| End {
        host,
        inside: engine.entrance(container).unwrap(),
        address: container.address,
    });
    talk(&one, &other).await;
    talk(&other, &one).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_podman_get_the_fast_path_without_a_call_and_leave_the_bridge_as_it_is() {
    containers_get_the_fast_path(async |host: &Host| needed(Engine::podman(host).await)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_docker_get_the_fast_path_without_a_call_and_leave_the_bridge_as_it_is() {
    containers_get_the_fast_path(async |host: &Host| needed(Engine::docker(host).await)).await;
}

async fn containers_get_the_fast_path(engine: impl AsyncFn(&Host) -> Engine) {
    let testbed = mesh_of_two().await;
    let [first, second] = testbed.hosts() else {
        unreachable!()
    };
    let before = [bridge(first).await, bridge(second).await];
    let engines = [engine(first).await, engine(second).await];

    let options = EngineContainerOptions::default();
    let started = Instant::now();
    let appearance = watch_for_appearance(first).await;
    let web = tokio::task::block_in_place(|| engines[0].start("web", &options).unwrap());
    wait_endpoint(first, web.address, Some(&web.mac)).await;
    let appearance = appearance.await.unwrap().expect("a port and its program");
    println!(
        "{}: the port was there {:?} after the command; its program was there {:?} later",
        engines[0].name(),
        appearance.port - started,
        appearance.program - appearance.port
    );
    let options = EngineContainerOptions {
        address: Some(Ipv4Addr::new(10, 42, 2, 40)),
        mac: Some("02:00:5e:00:53:01".into()),
        ..EngineContainerOptions::default()
    };
    let db = engines[1].start("db", &options).unwrap();
    assert_eq!(
        (db.address, &db.mac),
        (options.address.unwrap(), options.mac.as_ref().unwrap())
    );
    wait_endpoint(second, db.address, Some(&db.mac)).await;
    reach_each_other((first, &engines[0], &web), (second, &engines[1], &db)).await;

    // The same address with another MAC address: the entry follows, and so do packets.
    engines[1].remove(db).unwrap();
    let address = options.address.unwrap();
    wait_no_endpoint(second, address).await;
    let options = EngineContainerOptions {
        mac: Some("02:00:5e:00:53:02".into()),
        ..options
    };
    let db = engines[1].start("db", &options).unwrap();
    wait_endpoint(second, address, options.mac.as_deref()).await;
    reach_each_other((first, &engines[0], &web), (second, &engines[1], &db)).await;

    for (host, engine, container) in [(first, &engines[0], web), (second, &engines[1], db)] {
        let rules = host.netns().command("iptables-save").output().unwrap();
        assert!(rules.status.success(), "{rules:?}");
        let rules = String::from_utf8(rules.stdout).unwrap();
        assert!(!rules.contains("MASQUERADE"), "{rules}");
        let address = container.address;
        engine.remove(container).unwrap();
        wait_no_endpoint(host, address).await;
        let status = host.status().await.unwrap();
        let attachments = status.fast_path.clone().unwrap().attachments;
        assert!(
            attachments
                .iter()
                .filter(|it| it.ends_with(": encapsulate"))
                .eq(["quilt-probe: encapsulate"]),
            "no container, no program but the node's own endpoint's: {attachments:?}"
        );
        assert_eq!(status.problems(), [""; 0]);
    }
    assert_eq!([bridge(first).await, bridge(second).await], before);
}

/// When a bridge got its first port, and when that had its program.
struct Appearance {
    port: Instant,
    program: Instant,
}

/// Looks, beside whatever else is done, for the first port of a host's bridge and for the link of
/// its program.
async fn watch_for_appearance(host: &Host) -> JoinHandle<Option<Appearance>> {
    let handle = host.netns().netlink().unwrap();
    let links = Links::of(host.netns()).unwrap();
    let bridge = links.index(BRIDGE).await.unwrap().unwrap();
    let directory = host.bpffs_dir().join("quilt-mesh/links");
    let own = links.index(PROBE).await.unwrap().unwrap();
    let own = format!("-{own}-encapsulate");
    tokio::spawn(async move {
        let until = Instant::now() + SOON;
        let mut port = None;
        while Instant::now() < until {
            if port.is_none() {
                let dump = handle.link().get().execute().try_collect::<Vec<_>>();
                let is_port = LinkAttribute::Controller(bridge);
                let mut found = dump.await.unwrap().into_iter();
                let found = found.any(|link| {
                    // Of the runtime's own ports one makes containers leave room for headers, and one is for probes.
                    let is_own = OWN.map(|name| LinkAttribute::IfName(name.into()));
                    let is_own = link.attributes.iter().any(|it| is_own.contains(it));
                    !is_own && link.attributes.contains(&is_port)
                });
                port = found.then(Instant::now);
            }
            let names = fs::read_dir(&directory).into_iter().flatten().flatten();
            let mut names = names.map(|link| link.file_name().into_string().unwrap());
            if names.any(|name| name.ends_with("-encapsulate") && !name.ends_with(&own)) {
                let program = Instant::now();
                let port = port.unwrap_or(program);
                return Some(Appearance { port, program });
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        None
    })
}

#[tokio::test]
async fn an_engine_on_a_host_without_a_bridge_is_told_what_makes_one() {
    let testbed = Testbed::builder().hosts(1).build().await.unwrap();
    let error = Engine::podman(&testbed.hosts()[0]).await.unwrap_err();
    assert!(error.to_string().contains("start the runtime"), "{error}");
}
