//! What is no container, no name and no interface: refused with the value and the rule, and nothing is
//! left behind.

use std::{
    fs::{self, File},
    os::unix::ffi::OsStrExt as _,
    process::{Child, Command, Stdio},
    time::Duration,
};

use mesh_client::{
    Client,
    mesh::{AttachEndpointRequest, PublishedPort},
};
use mesh_testbed::{Deadline, NetNs};
use nix::{sys::stat::Mode, unistd::mkfifo};

use crate::{
    attach::{attach, inside, leased, names, namespace, node, owner, refusal, request},
    host::Host,
};

/// The reason why a container cannot be attached in the namespace at `path`.
async fn refused_at(client: &mut Client, web: &NetNs, path: &str) -> String {
    let mut request = request("web", web);
    request.network_namespace = path.to_owned();
    refusal(client.attach(request).await)
}

#[tokio::test]
async fn what_is_no_containers_network_namespace_is_refused_with_the_reason() {
    let (host, _daemon, mut client) = node("namespaces").await;
    let before = names(&host.netns);
    let web = namespace("web").await;
    let file = host.dir.path().join("file");
    File::create(&file).unwrap();
    let fifo = host.dir.path().join("fifo");
    mkfifo(&fifo, Mode::S_IRUSR).unwrap();
    let own = host.netns.path().display().to_string();
    let long = format!("/{}", "x".repeat(5000));
    for (path, words) in [
        ("", "is empty"),
        ("run/netns/web", "not an absolute path"),
        ("/run/netns/there-is-none", "cannot be opened"),
        (file.to_str().unwrap(), "not a namespace"),
        // Nobody waits for a writer that never comes.
        (fifo.to_str().unwrap(), "not a namespace"),
        ("/dev/null", "not a namespace"),
        ("/proc/self/ns/mnt", "not one of networks"),
        (&own, "this host's own"),
        (&long, "at most 4095 bytes"),
        ("/proc/1/ns/net\0/x", "not an absolute path"),
    ] {
        let reason = refused_at(&mut client, &web, path).await;
        assert!(reason.contains(words), "{path:?}: {reason}");
    }
    assert_eq!(names(&host.netns), before);
    assert_eq!(leased(&mut client).await, 0);
}

/// A process with user and network namespaces of its own, as a rootless engine's.
struct Rootless(Child);

impl Drop for Rootless {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_rootless_engines_namespace_is_refused_with_a_sentence() {
    let (host, _daemon, mut client) = node("rootless").await;
    let web = namespace("web").await;
    let child = Command::new("unshare")
        .args(["--user", "--net", "sleep", "1000"])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let rootless = Rootless(child);
    let of = |kind| format!("/proc/{}/ns/{kind}", rootless.0.id());
    let own = fs::read_link("/proc/self/ns/user").unwrap();
    host.eventually("namespaces of its own", |_| {
        let theirs = fs::read_link(of("user"));
        theirs.is_ok_and(|it| it.as_os_str().as_bytes() != own.as_os_str().as_bytes())
            && fs::read_link(of("net")).ok() != fs::read_link("/proc/self/ns/net").ok()
    })
    .await;
    let reason = refused_at(&mut client, &web, &of("net")).await;
    assert!(
        reason.contains("rootless") && reason.contains("user namespace"),
        "{reason}"
    );
    assert_eq!(leased(&mut client).await, 0);
}

#[tokio::test]
async fn a_process_names_its_namespace_by_its_id() {
    let (_host, _daemon, mut client) = node("by-process").await;
    let web = namespace("web").await;
    let mut sleep = web.command("sleep").arg("1000").spawn().unwrap();
    let mut wanted = request("web", &web);
    wanted.network_namespace = format!("/proc/{}/ns/net", sleep.id());
    let attached = client.attach(wanted).await;
    sleep.kill().unwrap();
    sleep.wait().unwrap();
    attached.unwrap();
    assert!(inside(&web, "address show eth0").contains("10.42.1.2/24"));
}

#[tokio::test]
async fn names_and_numbers_that_break_a_rule_are_refused_with_both() {
    let (host, _daemon, mut client) = node("names").await;
    let before = names(&host.netns);
    let web = namespace("web").await;
    let (db, _) = attach(&mut client, "db").await;
    let port = |host_port, count, protocol: &str, address: &str| PublishedPort {
        protocol: protocol.to_owned(),
        host_address: address.to_owned(),
        host_port,
        container_port: 80,
        count,
    };
    type Break = Box<dyn Fn(&mut AttachEndpointRequest)>;
    let long = "x".repeat(200);
    let cases: Vec<(Break, &str)> = vec![
        (
            Box::new(|it| it.owner.as_mut().unwrap().container = "a/b".into()),
            "\"a/b\"",
        ),
        (
            Box::new(move |it| it.owner.as_mut().unwrap().container = long.clone()),
            "at most 128",
        ),
        (
            Box::new(|it| it.owner.as_mut().unwrap().container = "größe".into()),
            "ASCII",
        ),
        (
            Box::new(|it| it.owner.as_mut().unwrap().interface = "an-interface-too-long".into()),
            "at most 15",
        ),
        (
            Box::new(|it| it.owner.as_mut().unwrap().interface = "a/b".into()),
            "\"a/b\"",
        ),
        (Box::new(|it| it.owner = None), "owner is missing"),
        (
            Box::new(|it| it.interface = "veth1".into()),
            "the runtime names",
        ),
        (Box::new(|it| it.address = "10.42.1.1".into()), "gateway"),
        (Box::new(|it| it.address = "10.43.1.7".into()), "outside"),
        (
            Box::new(|it| it.address = "10.42.1.2".into()),
            "test/quilt/db/eth0",
        ),
        (
            Box::new(|it| it.mac = "ff:ff:ff:ff:ff:ff".into()),
            "group's",
        ),
        (Box::new(|it| it.mac = "02:42".into()), "six bytes"),
        (Box::new(|it| it.mtu = 1500), "1450"),
        (Box::new(|it| it.mtu = 100), "576"),
        (
            Box::new(move |it| it.ports = vec![port(0, 1, "tcp", "")]),
            "between 1 and 65535",
        ),
        (
            Box::new(move |it| it.ports = vec![port(70000, 1, "tcp", "")]),
            "70000",
        ),
        (
            Box::new(move |it| it.ports = vec![port(80, 1, "sctp", "")]),
            "\"sctp\"",
        ),
        (
            Box::new(move |it| it.ports = vec![port(80, 1, "tcp", "224.0.0.1")]),
            "224.0.0.1",
        ),
        (
            Box::new(move |it| it.ports = vec![port(80, 2, "tcp", ""), port(81, 1, "tcp", "")]),
            "share a port",
        ),
        (
            Box::new(move |it| it.ports = vec![port(4780, 10, "udp", "")]),
            "VXLAN",
        ),
        (Box::new(|it| it.names = vec!["a b".into()]), "DNS name"),
    ];
    for (change, words) in cases {
        let mut wanted = request("web", &web);
        change(&mut wanted);
        let reason = refusal(client.attach(wanted).await);
        assert!(reason.contains(words), "{words}: {reason}");
    }
    assert_eq!(names(&web), ["lo"]);
    client.detach(owner("db")).await.unwrap();
    assert_eq!(names(&host.netns), before);
    assert_eq!(leased(&mut client).await, 0);
    drop(db);
}

#[tokio::test]
async fn an_interface_of_the_host_that_has_the_name_is_left_alone() {
    let (host, _daemon, mut client) = node("taken").await;
    let (web, attached) = attach(&mut client, "web").await;
    let link = attached.endpoint.interface;
    client.detach(owner("web")).await.unwrap();
    host.ip(&format!("link add {link} type bridge"));
    let reason = refusal(client.attach(request("web", &web)).await);
    assert!(
        reason.contains(&link) && reason.contains("somebody else"),
        "{reason}"
    );
    assert!(names(&host.netns).contains(&link));
    assert_eq!(leased(&mut client).await, 0);
    let detached = client.detach(owner("web")).await;
    detached.unwrap();
    assert!(names(&host.netns).contains(&link));
}

#[tokio::test]
async fn before_the_underlay_is_known_an_attachment_is_refused_with_what_is_missing() {
    let host = Host::new("no-underlay").await;
    host.ip("address flush dev eth0");
    let daemon = host.start().await;
    daemon.configure("10.42.1.0/24").await.unwrap();
    let mut client = Client::connect(&host.socket()).await.unwrap();
    let web = namespace("web").await;
    let reason = refusal(client.attach(request("web", &web)).await);
    assert!(reason.contains("underlay"), "{reason}");
    assert_eq!(leased(&mut client).await, 0);
}

#[tokio::test]
async fn a_port_that_a_process_of_the_host_listens_on_is_not_published() {
    let (host, _daemon, mut client) = node("listener").await;
    let listen = |address: &'static str| {
        let listening = host.netns.run(|| std::net::TcpListener::bind(address));
        listening.unwrap().unwrap()
    };
    let (listener, on_loopback) = (listen("192.0.2.1:8080"), listen("127.0.0.1:8081"));
    // Of a resolver, for one: of loopback a port of all addresses is 127.0.0.1's alone.
    let stub = listen("127.0.0.53:8081");
    let web = namespace("web").await;
    let mut wanted = request("web", &web);
    wanted.ports = vec![PublishedPort {
        protocol: "tcp".to_owned(),
        host_address: String::new(),
        host_port: 8080,
        container_port: 80,
        count: 2,
    }];
    let reason = refusal(client.attach(wanted.clone()).await);
    assert!(
        reason.contains("127.0.0.1:8081/tcp") && reason.contains("8080-8081:80-81/tcp"),
        "{reason}"
    );
    assert_eq!(leased(&mut client).await, 0);
    // Unless it is the engine, which holds the port for the container.
    let held = AttachEndpointRequest {
        ports_held: true,
        ..wanted.clone()
    };
    client.attach(held).await.unwrap();
    client.detach(owner("web")).await.unwrap();
    // A process that another test starts at this moment has a copy of the socket until it runs its program.
    let deadline = Deadline::after(Duration::from_secs(20));
    let sockets = || fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
    let loopback = u32::from_ne_bytes([127, 0, 0, 1]);
    drop(on_loopback);
    let own = format!("{loopback:08X}:1F91 ");
    while host.netns.run(sockets).unwrap().contains(&own) {
        deadline.pause().await.unwrap();
    }
    let reason = refusal(client.attach(wanted.clone()).await);
    assert!(reason.contains("192.0.2.1:8080/tcp"), "{reason}");
    drop(listener);
    while host.netns.run(sockets).unwrap().contains(":1F90 ") {
        deadline.pause().await.unwrap();
    }
    client.attach(wanted.clone()).await.unwrap();
    // It is the container's by now, whoever comes later.
    client.attach(wanted).await.unwrap();
    drop(stub);
}

/// A namespace that is another one by the time its inside is set up.
#[tokio::test]
async fn the_inside_of_another_namespace_is_left_alone() {
    let (host, _daemon, mut client) = node("swapped").await;
    let (_web, attached) = attach(&mut client, "web").await;
    let before = host.ip("address show eth0");
    let error = mesh_client::configure(&host.netns.path(), &attached.inside).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("not that of the runtime"), "{error}");
    assert_eq!(host.ip("address show eth0"), before);
}

#[tokio::test]
async fn what_an_owner_has_attached_is_detached_by_no_other_call() {
    let (_host, daemon, mut client) = node("by-hand").await;
    let (_web, attached) = attach(&mut client, "web").await;
    for (interface, address) in [
        (attached.endpoint.interface.as_str(), ""),
        ("", attached.endpoint.address.as_str()),
    ] {
        let refused = daemon.detach(interface, address).await.unwrap_err();
        assert!(refused.contains("its owner"), "{refused}");
    }
    assert_eq!(daemon.status().await.endpoints, [attached.endpoint]);
}

#[tokio::test]
async fn what_only_a_container_with_an_owner_has_is_refused_without_one() {
    let (_host, daemon, _client) = node("by-hand-fields").await;
    let request = AttachEndpointRequest {
        interface: "veth1".to_owned(),
        names: vec!["web".to_owned()],
        ..Default::default()
    };
    let answer = daemon.dataplane().await.attach_endpoint(request).await;
    let answer = answer.unwrap().into_inner();
    assert!(
        !answer.success && answer.error.contains("names"),
        "{answer:?}"
    );
}
