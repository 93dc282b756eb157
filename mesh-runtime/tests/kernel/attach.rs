//! Containers whose interface the runtime makes.

use std::time::Duration;

use mesh_client::{
    Attached, Client, ClientError,
    mesh::{AllocateAddressRequest, AttachEndpointRequest, ListAddressesRequest, Owner},
};
use mesh_testbed::{NetNs, Signal, wait_reachable};

use crate::host::{DEADLINE, Daemon, Host};

/// A host whose daemon knows its subnet, and a connection to its socket.
pub(crate) async fn node(label: &str) -> (Host, Daemon, Client) {
    let host = Host::new(label).await;
    let daemon = host.start_with("off", &["--host-ip", "192.0.2.1"]).await;
    daemon.configure("10.42.1.0/24").await.unwrap();
    let client = Client::connect(&host.socket()).await.unwrap();
    (host, daemon, client)
}

pub(crate) fn owner(container: &str) -> Owner {
    Owner {
        engine: "test".to_owned(),
        network: "quilt".to_owned(),
        container: container.to_owned(),
        interface: "eth0".to_owned(),
    }
}

/// A container's namespace, with nothing in it.
pub(crate) async fn namespace(name: &str) -> NetNs {
    NetNs::new(name).await.expect("these tests need root")
}

pub(crate) fn request(container: &str, namespace: &NetNs) -> AttachEndpointRequest {
    AttachEndpointRequest {
        owner: Some(owner(container)),
        network_namespace: namespace.path().to_str().unwrap().to_owned(),
        default_route: true,
        ..Default::default()
    }
}

/// Attaches a container that is new.
pub(crate) async fn attach(client: &mut Client, name: &str) -> (NetNs, Attached) {
    let netns = namespace(name).await;
    let attached = client.attach(request(name, &netns)).await;
    (netns, attached.unwrap_or_else(|error| panic!("{error}")))
}

pub(crate) fn inside(container: &NetNs, words: &str) -> String {
    let output = container
        .command("ip")
        .args(words.split(' '))
        .output()
        .unwrap();
    assert!(output.status.success(), "ip {words}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn refusal<T: std::fmt::Debug>(result: Result<T, ClientError>) -> String {
    match result.unwrap_err() {
        ClientError::Refused(reason) | ClientError::NotYet(reason) => reason,
        other => panic!("{other}"),
    }
}

/// How many addresses are leased.
pub(crate) async fn leased(client: &mut Client) -> usize {
    let list = client.addresses(ListAddressesRequest::default()).await;
    let list = list.unwrap();
    assert_eq!(list.leases.len(), list.leased as usize);
    list.leases.len()
}

/// Names of the interfaces of a host or a container.
pub(crate) fn names(netns: &NetNs) -> Vec<String> {
    let all = inside(netns, "-oneline link show");
    let name = |line: &str| line.split([':', '@']).nth(1).unwrap().trim().to_owned();
    let names = all.lines().map(name);
    // That of a runtime that an example embeds, which comes a moment after the bridge and goes with it.
    names.filter(|name| name != "quilt-probe").collect()
}

#[tokio::test]
async fn one_call_gives_a_container_all_that_it_needs_and_one_takes_it_away() {
    let (host, daemon, mut client) = node("attach").await;
    let before = names(&host.netns);
    let (web, attached) = attach(&mut client, "web").await;
    assert_eq!(attached.inside.address, "10.42.1.2/24");
    assert_eq!(attached.inside.gateway, "10.42.1.1");
    assert_eq!(attached.inside.mtu, 1450);
    assert_eq!(attached.inside.mac, "02:53:0a:2a:01:02");
    let shown = inside(&web, "address show eth0");
    for words in [
        "inet 10.42.1.2/24",
        "mtu 1450",
        "02:53:0a:2a:01:02",
        "state UP",
    ] {
        assert!(shown.contains(words), "{words} in {shown}");
    }
    let routes = inside(&web, "route show");
    assert!(
        routes.contains("default via 10.42.1.1 dev eth0"),
        "{routes}"
    );
    let port = &attached.endpoint.interface;
    let port = host.ip(&format!("-details link show {port}"));
    for words in [
        "master quilt0",
        "mtu 1450",
        "alias test/quilt/web/eth0",
        "state UP",
    ] {
        assert!(port.contains(words), "{words} in {port}");
    }
    let endpoints = daemon.status().await.endpoints;
    assert_eq!(endpoints, std::slice::from_ref(&attached.endpoint));
    ping(&web, "10.42.1.1").await;

    client.detach(owner("web")).await.unwrap();
    assert_eq!(names(&web), ["lo"]);
    assert_eq!(leased(&mut client).await, 0);
    assert!(daemon.status().await.endpoints.is_empty());
    assert_eq!(names(&host.netns), before);
    // It is gone already.
    client.detach(owner("web")).await.unwrap();
}

/// One answer to a ping.
async fn ping(from: &NetNs, to: &str) {
    let to = to.parse().unwrap();
    wait_reachable(from, to, DEADLINE).await.unwrap();
}

#[tokio::test]
async fn attaching_the_same_again_is_success_and_changes_nothing() {
    let (host, _daemon, mut client) = node("again").await;
    let (web, first) = attach(&mut client, "web").await;
    let before = names(&host.netns);
    let again = client.attach(request("web", &web)).await.unwrap();
    assert_eq!(
        (&again.endpoint, &again.inside),
        (&first.endpoint, &first.inside)
    );
    assert_eq!(names(&host.netns), before);
    // Also where somebody has taken away a part of what is done inside.
    inside(&web, "address flush dev eth0");
    client.attach(request("web", &web)).await.unwrap();
    assert!(inside(&web, "route show").contains("default via 10.42.1.1"));
}

#[tokio::test]
async fn another_container_under_the_same_name_is_refused_and_the_first_is_left_alone() {
    let (_host, _daemon, mut client) = node("another").await;
    let (web, attached) = attach(&mut client, "web").await;
    let other = namespace("other").await;
    let path = other.path().display().to_string();
    type Change<'a> = &'a dyn Fn(&mut AttachEndpointRequest);
    let changes: [(Change<'_>, &str); 5] = [
        (&|it| it.network_namespace = path.clone(), "namespace"),
        (&|it| it.address = "10.42.1.9".to_owned(), "10.42.1.9"),
        (&|it| it.mac = "02:00:00:00:00:09".to_owned(), "MAC address"),
        (&|it| it.mtu = 1300, "1300"),
        (&|it| it.default_route = false, "default_route"),
    ];
    for (change, words) in changes {
        let mut request = request("web", &web);
        change(&mut request);
        let reason = refusal(client.attach(request).await);
        assert!(
            reason.contains(words) && reason.contains("test/quilt/web/eth0"),
            "{reason}"
        );
    }
    assert_eq!(names(&other), ["lo"]);
    assert_eq!(leased(&mut client).await, 1);
    let again = client.attach(request("web", &web)).await.unwrap();
    assert_eq!(again.endpoint, attached.endpoint);
}

#[tokio::test]
async fn through_an_interface_beside_another_networks_the_cluster_alone_is_reached() {
    let (_host, _daemon, mut client) = node("second").await;
    let web = namespace("web").await;
    inside(&web, "link add eth0 type bridge");
    inside(&web, "link set eth0 up");
    inside(&web, "route add default dev eth0");
    let mut second = request("web", &web);
    second.owner.as_mut().unwrap().interface = "mesh1".to_owned();
    second.default_route = false;
    let attached = client.attach(second).await.unwrap();
    assert_eq!(attached.inside.routes, ["10.42.0.0/16"]);
    let routes = inside(&web, "route show");
    assert!(
        routes.contains("default dev eth0")
            && routes.contains("10.42.0.0/16 via 10.42.1.1 dev mesh1"),
        "{routes}"
    );
    assert_eq!(routes.matches("default").count(), 1, "{routes}");
}

/// Answers that left by the other one's port would be taken for forged there.
#[tokio::test]
async fn two_interfaces_of_a_container_answer_each_for_its_own_address() {
    let (host, _daemon, mut client) = node("both").await;
    let (web, first) = attach(&mut client, "web").await;
    let mut second = request("web", &web);
    second.owner.as_mut().unwrap().interface = "mesh1".to_owned();
    second.default_route = false;
    // Repeating it is success, and the first one's too.
    for _ in 0..2 {
        let attached = client.attach(second.clone()).await.unwrap();
        assert_eq!(attached.inside.routes, [""; 0]);
        let again = client.attach(request("web", &web)).await.unwrap();
        assert_eq!(again.inside.routes, first.inside.routes);
    }
    let routes = inside(&web, "route show");
    assert!(
        routes.contains("default via 10.42.1.1 dev eth0")
            && !routes.contains("10.42.0.0/16 via 10.42.1.1 dev mesh1"),
        "{routes}"
    );
    assert_eq!(routes.matches("default").count(), 1, "{routes}");
    let rules = inside(&web, "rule list from 10.42.1.3");
    assert_eq!(rules.lines().count(), 1, "{rules}");
    for address in ["10.42.1.2", "10.42.1.3"] {
        ping(&host.netns, address).await;
    }
    ping(&web, "10.42.1.1").await;
}

/// As engines make it that attach a container to a network of their own afterwards.
#[tokio::test]
async fn the_cluster_is_reached_through_us_also_where_another_networks_default_route_comes_first() {
    let (_host, _daemon, mut client) = node("joined").await;
    let (web, _) = attach(&mut client, "web").await;
    inside(&web, "link add other type bridge");
    inside(&web, "address add 192.0.2.9/24 dev other");
    inside(&web, "link set other up");
    inside(&web, "route prepend default via 192.0.2.1 dev other");
    let way = inside(&web, "route get 10.42.2.7");
    assert!(way.contains("via 10.42.1.1 dev eth0"), "{way}");
    let way = inside(&web, "route get 198.51.100.7");
    assert!(way.contains("via 192.0.2.1 dev other"), "{way}");
}

#[tokio::test]
async fn what_fails_outside_leaves_nothing_behind() {
    let (host, _daemon, mut client) = node("outside").await;
    let before = names(&host.netns);
    let web = namespace("web").await;
    inside(&web, "link add eth0 type bridge");
    let reason = refusal(client.attach(request("web", &web)).await);
    assert!(
        reason.contains("an interface named eth0 already")
            && reason.contains(web.path().to_str().unwrap()),
        "{reason}"
    );
    assert_eq!(names(&host.netns), before);
    assert_eq!(names(&web), ["lo", "eth0"]);
    assert_eq!(leased(&mut client).await, 0);
    inside(&web, "link delete eth0");
    client.attach(request("web", &web)).await.unwrap();
}

#[tokio::test]
async fn what_fails_inside_undoes_what_the_call_made_and_nothing_else() {
    let (host, _daemon, mut client) = node("inside").await;
    let web = namespace("web").await;
    inside(&web, "link add other type bridge");
    inside(&web, "link set other up");
    inside(&web, "route add default dev other");
    let before = (names(&host.netns), names(&web));
    let mut wanted = request("web", &web);
    let error = client.attach(wanted.clone()).await.unwrap_err().to_string();
    assert!(error.contains("0.0.0.0/0 by another way"), "{error}");
    assert_eq!((names(&host.netns), names(&web)), before);
    assert_eq!(leased(&mut client).await, 0);
    // An attachment of before stays where a repetition fails.
    wanted.default_route = false;
    client.attach(wanted.clone()).await.unwrap();
    inside(&web, "route delete 10.42.0.0/16");
    inside(&web, "route add 10.42.0.0/16 dev other");
    client.attach(wanted).await.unwrap_err();
    assert_eq!(leased(&mut client).await, 1);
    assert!(names(&web).contains(&"eth0".to_owned()));
}

#[tokio::test]
async fn a_lease_of_before_is_used_by_an_attachment_and_outlives_it() {
    let (_host, _daemon, mut client) = node("before").await;
    let lease = client
        .allocate(AllocateAddressRequest {
            owner: Some(owner("web")),
            address: "10.42.1.77".to_owned(),
            outlives_boot: true,
            ..Default::default()
        })
        .await
        .unwrap()
        .lease
        .unwrap();
    assert_eq!(lease.address, "10.42.1.77");
    let (_web, attached) = attach(&mut client, "web").await;
    assert_eq!(attached.inside.address, "10.42.1.77/24");
    client.detach(owner("web")).await.unwrap();
    let lease = client.lease(&owner("web")).await.unwrap().unwrap();
    assert_eq!(lease.address, "10.42.1.77");
    assert!(lease.outlives_boot && lease.endpoint.is_none());
    assert_eq!(lease.network_namespace, "");
}

/// Whoever leases the address of a container that is attached wants it for itself.
#[tokio::test]
async fn an_address_that_is_leased_after_it_was_attached_outlives_the_attachment() {
    let (host, _daemon, mut client) = node("after").await;
    let (web, attached) = attach(&mut client, "web").await;
    let wish = AllocateAddressRequest {
        owner: Some(owner("web")),
        outlives_boot: true,
        ..Default::default()
    };
    client.allocate(wish).await.unwrap();
    // What is attached stays what it is.
    let again = client.attach(request("web", &web)).await.unwrap();
    assert_eq!(again.endpoint, attached.endpoint);
    let (_db, _) = attach(&mut client, "db").await;
    drop(web);
    host.eventually_async("the endpoint gone and the lease kept", async || {
        let lease = client.lease(&owner("web")).await.unwrap().unwrap();
        lease.endpoint.is_none()
    })
    .await;
    assert_eq!(leased(&mut client).await, 2);
}

#[tokio::test]
async fn an_interface_without_a_lease_goes_when_its_owner_is_detached() {
    let (host, mut daemon, mut client) = node("no-lease").await;
    let (web, attached) = attach(&mut client, "web").await;
    // Off the bridge, it is found all the same.
    host.ip(&format!(
        "link set {} nomaster",
        attached.endpoint.interface
    ));
    client.detach(owner("web")).await.unwrap();
    assert_eq!(names(&web), ["lo"]);
    client.attach(request("web", &web)).await.unwrap();
    daemon.end(Signal::SIGKILL).await;
    std::fs::remove_file(host.state_dir().join("leases")).unwrap();
    let _daemon = host.start_with("off", &["--host-ip", "192.0.2.1"]).await;
    client.detach(owner("web")).await.unwrap();
    assert_eq!(names(&web), ["lo"]);
}

#[tokio::test]
async fn a_restarted_runtime_knows_the_endpoints_and_one_without_an_interface_is_listed() {
    let (host, mut daemon, mut client) = node("restart").await;
    let (web, attached) = attach(&mut client, "web").await;
    let (_db, lost) = attach(&mut client, "db").await;
    daemon.end(Signal::SIGKILL).await;
    host.ip(&format!("link delete {}", lost.endpoint.interface));
    let daemon = host.start().await;
    assert_eq!(daemon.status().await.endpoints, [attached.endpoint]);
    // The connection is a new one, and nobody had to say so.
    let leaked = client.lease(&owner("db")).await.unwrap().unwrap().leaked;
    assert_eq!(
        leaked,
        format!("its interface {} is gone", lost.endpoint.interface)
    );
    let web_lease = client.lease(&owner("web")).await.unwrap().unwrap();
    assert_eq!(web_lease.leaked, "");
    ping(&web, "10.42.1.1").await;
    client.detach(owner("db")).await.unwrap();
    assert_eq!(leased(&mut client).await, 1);
}

#[tokio::test]
async fn a_container_made_again_under_its_name_has_its_address_again() {
    let (_host, _daemon, mut client) = node("made-again").await;
    let (web, first) = attach(&mut client, "web").await;
    inside(&web, "link delete eth0");
    let again = client.attach(request("web", &web)).await.unwrap();
    assert_eq!(again.inside, first.inside);
    ping(&web, "10.42.1.1").await;
}

#[tokio::test]
async fn a_container_that_changed_its_mac_address_has_its_own_again_once_it_is_attached_again() {
    let (_host, _daemon, mut client) = node("mac-again").await;
    let (web, _) = attach(&mut client, "web").await;
    inside(&web, "link set eth0 address 02:00:00:00:00:09");
    client.attach(request("web", &web)).await.unwrap();
    assert!(inside(&web, "link show eth0").contains("02:53:0a:2a:01:02"));
    ping(&web, "10.42.1.1").await;
}

#[tokio::test]
async fn an_interface_whose_lease_is_lost_is_made_anew() {
    let (host, mut daemon, mut client) = node("lost").await;
    let (web, _) = attach(&mut client, "web").await;
    daemon.end(Signal::SIGKILL).await;
    std::fs::remove_file(host.state_dir().join("leases")).unwrap();
    let _daemon = host.start_with("off", &["--host-ip", "192.0.2.1"]).await;
    // What is left of it still holds the address.
    client.attach(request("web", &web)).await.unwrap();
    let shown = inside(&web, "address show eth0");
    assert_eq!(shown.matches("inet 10.42.1.").count(), 1, "{shown}");
    ping(&web, "10.42.1.1").await;
}

#[tokio::test]
async fn of_two_attachments_at_once_under_one_name_both_get_the_same() {
    let (host, _daemon, client) = node("at-once").await;
    let web = namespace("web").await;
    let calls = (0..8).map(|_| {
        let (mut client, request) = (client.clone(), request("web", &web));
        tokio::spawn(async move { client.attach(request).await.unwrap().endpoint })
    });
    let mut endpoints = Vec::new();
    for call in calls.collect::<Vec<_>>() {
        endpoints.push(call.await.unwrap());
    }
    endpoints.dedup();
    assert_eq!(endpoints.len(), 1);
    let ports = names(&host.netns);
    let ports = ports.iter().filter(|name| name.starts_with("qm"));
    assert_eq!(ports.count(), 1);
}

#[tokio::test]
async fn a_container_that_goes_with_its_namespace_gives_its_address_back() {
    let (host, _daemon, mut client) = node("goes").await;
    let (web, _) = attach(&mut client, "web").await;
    let (_db, _) = attach(&mut client, "db").await;
    drop(web);
    host.eventually_async("one lease", async || leased(&mut client).await == 1)
        .await;
    assert!(client.lease(&owner("db")).await.unwrap().is_some());
}

/// Killed at any moment, it leaves what the same call completes, or nothing.
#[tokio::test]
async fn a_runtime_killed_in_the_middle_leaves_nothing_that_stays() {
    let (host, mut daemon, mut client) = node("killed").await;
    let before = names(&host.netns);
    let web = namespace("web").await;
    for pause in 0..16 {
        let call = {
            let (mut client, request) = (client.clone(), request("web", &web));
            tokio::spawn(async move { client.attach(request).await })
        };
        // Not to wait for anything: each round is killed at another moment.
        tokio::time::sleep(Duration::from_micros(400 * pause)).await;
        daemon.end(Signal::SIGKILL).await;
        let whole = call.await.unwrap().is_ok();
        daemon = host.start_with("off", &["--host-ip", "192.0.2.1"]).await;
        if !whole {
            let settled = async || {
                let leases = leased(&mut client).await;
                let lease = client.lease(&owner("web")).await.unwrap();
                leases == 0 && names(&host.netns) == before
                    || lease.is_some_and(|it| it.endpoint.is_some() && it.leaked.is_empty())
            };
            let mut settled = settled;
            host.eventually_async("nothing unfinished", async || settled().await)
                .await;
        }
        client.attach(request("web", &web)).await.unwrap();
        ping(&web, "10.42.1.1").await;
        client.detach(owner("web")).await.unwrap();
        assert_eq!(names(&host.netns), before, "after {pause}");
        assert_eq!(leased(&mut client).await, 0);
    }
}

#[tokio::test]
async fn the_1024th_port_of_the_bridge_is_refused_with_the_reason() {
    let (host, mut daemon, mut client) = node("ports").await;
    daemon.end(Signal::SIGTERM).await;
    // One port is that of the overlay's headroom.
    let ports = |range: std::ops::Range<u32>| {
        let port = |number| {
            format!(
                "link add a{number} type veth peer name b{number}\n\
                 link set a{number} master quilt0\nlink set b{number} master quilt0\n"
            )
        };
        range.map(port).collect::<String>()
    };
    let taken = host.ip("-oneline link show master quilt0").lines().count();
    let free = 1023 - taken;
    let batch = host.dir.path().join("batch");
    let mut text = ports(0..(free / 2) as u32);
    if free % 2 == 1 {
        text += "link add odd type veth peer name even\nlink set odd master quilt0\n";
    }
    std::fs::write(&batch, text).unwrap();
    host.ip(&format!("-batch {}", batch.display()));
    // Without programs: to attach a thousand keeps the whole machine's network busy.
    let args = ["--host-ip", "192.0.2.1", "--bpffs", "/dev/null"];
    let _daemon = host.start_with("off", &args).await;
    let web = namespace("web").await;
    let reason = refusal(client.attach(request("web", &web)).await);
    assert!(
        reason.contains("all the 1023 ports") && reason.contains("quilt0"),
        "{reason}"
    );
    assert_eq!(leased(&mut client).await, 0);
    host.ip("link delete a0");
    host.eventually_async("an attachment", async || {
        client.attach(request("web", &web)).await.is_ok()
    })
    .await;
}
