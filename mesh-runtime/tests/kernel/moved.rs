//! Containers whose engine moves their interface itself, once their namespace is there, as Docker does for network
//! drivers: it is told a name on the host, moves that, names it anew, gives it its address and brings it up.

use mesh_client::{
    Client, ClientError, HandedOver,
    mesh::{AttachEndpointRequest, Owner},
};
use mesh_testbed::{NetNs, Signal, wait_reachable};

use crate::{
    attach::{inside, leased, names, namespace, node, owner, refusal},
    host::{DEADLINE, Host},
};

const ARGS: [&str; 2] = ["--host-ip", "192.0.2.1"];

fn request(container: &str) -> AttachEndpointRequest {
    AttachEndpointRequest {
        owner: Some(owner(container)),
        default_route: true,
        ..Default::default()
    }
}

async fn attach(client: &mut Client, container: &str) -> HandedOver {
    let attached = client.attach_moved(request(container)).await;
    attached.unwrap_or_else(|error| panic!("{error}"))
}

/// Moves an interface into a container, no more.
fn move_into(host: &Host, made: &HandedOver, container: &NetNs) {
    let (name, path) = (&made.interface, container.path());
    host.ip(&format!("link set {name} netns {}", path.display()));
}

/// All that an engine does with what it is handed over.
fn take(host: &Host, made: &HandedOver, container: &NetNs) {
    move_into(host, made, container);
    set_up(made, container);
}

fn set_up(made: &HandedOver, container: &NetNs) {
    inside(container, &format!("link set {} name eth0", made.interface));
    inside(container, &format!("address add {} dev eth0", made.address));
    inside(container, "link set eth0 up");
    let gateway = &made.gateway;
    inside(container, &format!("route add default via {gateway}"));
}

/// What an engine does with it when the container leaves the network.
fn give_back(host: &Host, made: &HandedOver, container: &NetNs) {
    inside(container, "link set eth0 down");
    inside(container, &format!("link set eth0 name {}", made.interface));
    let path = host.netns.path();
    let back = format!("link set {} netns {}", made.interface, path.display());
    inside(container, &back);
}

async fn reaches_the_host(container: &NetNs) {
    let gateway = "10.42.1.1".parse().unwrap();
    wait_reachable(container, gateway, DEADLINE).await.unwrap();
}

/// The lease's words of what is the matter with it.
async fn leaked(client: &mut Client, container: &str) -> String {
    let lease = client.lease(&owner(container)).await.unwrap();
    lease.unwrap().leaked
}

/// The host's end of a container's pair.
async fn port(client: &mut Client, container: &str) -> String {
    let lease = client.lease(&owner(container)).await.unwrap();
    lease.unwrap().endpoint.unwrap().interface
}

#[tokio::test]
async fn an_interface_for_the_engine_to_move_lies_on_the_host_down_and_has_all_but_what_the_engine_gives_it()
 {
    let (host, daemon, mut client) = node("moved").await;
    let before = names(&host.netns);
    let made = attach(&mut client, "web").await;
    let expected = HandedOver {
        interface: made.interface.clone(),
        address: "10.42.1.2/24".to_owned(),
        gateway: "10.42.1.1".to_owned(),
        routes: vec!["0.0.0.0/0".to_owned(), "10.42.0.0/16".to_owned()],
        mtu: 1450,
        mac: "02:53:0a:2a:01:02".to_owned(),
        new: true,
    };
    assert_eq!(made, expected);
    let end = host.ip(&format!("-details link show {}", made.interface));
    for words in [
        "state DOWN",
        "mtu 1450",
        "02:53:0a:2a:01:02",
        "addrgenmode none",
    ] {
        assert!(end.contains(words), "{words} in {end}");
    }
    assert!(!end.contains("master") && !end.contains("UP"), "{end}");
    let link = port(&mut client, "web").await;
    let link = host.ip(&format!("-details link show {link}"));
    for words in ["master quilt0", "mtu 1450", "alias test/quilt/web/eth0"] {
        assert!(link.contains(words), "{words} in {link}");
    }
    // Nobody else can have the bridge look for it elsewhere meanwhile.
    let known = host.bridge("fdb show br quilt0");
    let pinned = |line: &str| line.contains("02:53:0a:2a:01:02") && line.contains("sticky");
    assert!(known.lines().any(pinned), "{known}");
    let endpoints = daemon.status().await.endpoints;
    assert_eq!(endpoints.len(), 1);
    assert_eq!(endpoints[0].address, "10.42.1.2");
    let lease = client.lease(&owner("web")).await.unwrap().unwrap();
    assert_eq!((&*lease.leaked, &*lease.network_namespace), ("", ""));

    let web = namespace("web").await;
    take(&host, &made, &web);
    reaches_the_host(&web).await;
    // What it is kept from on the host it has where it belongs.
    let end = inside(&web, "-details link show eth0");
    assert!(
        end.contains("addrgenmode eui64") && end.contains("mtu 1450"),
        "{end}"
    );
    assert_eq!(daemon.status().await.endpoints, endpoints);
    assert_eq!(leaked(&mut client, "web").await, "");

    client.detach(owner("web")).await.unwrap();
    assert_eq!(names(&web), ["lo"]);
    assert_eq!(names(&host.netns), before);
    assert_eq!(leased(&mut client).await, 0);
    assert!(daemon.status().await.endpoints.is_empty());
    client.detach(owner("web")).await.unwrap();
}

#[tokio::test]
async fn attaching_it_again_changes_nothing_wherever_the_engine_has_it_and_makes_anew_what_is_gone()
{
    let (host, _daemon, mut client) = node("moved-again").await;
    let made = attach(&mut client, "web").await;
    let known = HandedOver {
        new: false,
        ..made.clone()
    };
    let before = names(&host.netns);
    assert_eq!(attach(&mut client, "web").await, known);
    assert_eq!(names(&host.netns), before);

    let web = namespace("web").await;
    // The kernel tells nothing of the host's end before the other one is up.
    move_into(&host, &made, &web);
    assert_eq!(attach(&mut client, "web").await, known);
    set_up(&made, &web);
    assert_eq!(attach(&mut client, "web").await, known);
    reaches_the_host(&web).await;
    give_back(&host, &made, &web);
    assert_eq!(attach(&mut client, "web").await, known);
    assert_eq!(names(&host.netns), before);
    take(&host, &made, &web);
    reaches_the_host(&web).await;

    drop(web);
    host.eventually_async("the interface gone", async || {
        leaked(&mut client, "web").await.contains("is gone")
    })
    .await;
    assert_eq!(attach(&mut client, "web").await, made);
    assert_eq!(leaked(&mut client, "web").await, "");
    let web = namespace("web").await;
    take(&host, &made, &web);
    reaches_the_host(&web).await;
    assert_eq!(leased(&mut client).await, 1);
}

/// Nothing would come through its port.
#[tokio::test]
async fn a_container_that_changed_its_mac_address_gets_an_interface_anew_for_its_engine_to_move() {
    let (host, _daemon, mut client) = node("moved-mac").await;
    let made = attach(&mut client, "web").await;
    host.ip(&format!(
        "link set {} address 02:00:00:00:00:09",
        made.interface
    ));
    assert_eq!(attach(&mut client, "web").await, made);
    let web = namespace("web").await;
    take(&host, &made, &web);
    inside(&web, "link set eth0 address 02:00:00:00:00:09");
    assert_eq!(attach(&mut client, "web").await, made);
    assert_eq!(names(&web), ["lo"]);
    take(&host, &made, &web);
    reaches_the_host(&web).await;
}

#[tokio::test]
async fn detaching_deletes_both_ends_wherever_the_engine_has_put_the_one() {
    let (host, _daemon, mut client) = node("moved-off").await;
    let before = names(&host.netns);
    let web = namespace("web").await;
    type Put<'a> = &'a dyn Fn(&HandedOver);
    let puts: [Put<'_>; 4] = [
        &|_| {},
        &|made| move_into(&host, made, &web),
        &|made| take(&host, made, &web),
        &|made| {
            take(&host, made, &web);
            give_back(&host, made, &web);
        },
    ];
    for put in puts {
        let made = attach(&mut client, "web").await;
        put(&made);
        client.detach(owner("web")).await.unwrap();
        assert_eq!(names(&host.netns), before);
        assert_eq!(names(&web), ["lo"]);
        assert_eq!(leased(&mut client).await, 0);
    }
    // The container is gone, and its interface with it: the engine says so afterwards.
    let made = attach(&mut client, "web").await;
    take(&host, &made, &web);
    drop(web);
    host.eventually_async("the interface gone", async || {
        leaked(&mut client, "web").await.contains("is gone")
    })
    .await;
    client.detach(owner("web")).await.unwrap();
    assert_eq!(leased(&mut client).await, 0);
}

#[tokio::test]
async fn interfaces_of_somebody_else_under_one_of_its_names_are_refused_and_left() {
    let (host, _daemon, mut client) = node("moved-names").await;
    let made = attach(&mut client, "web").await;
    let link = port(&mut client, "web").await;
    let end = made.interface.clone();
    client.detach(owner("web")).await.unwrap();
    for (words, named, deletes) in [
        (format!("link add {end} type bridge"), &end, &end),
        (format!("link add {link} type bridge"), &link, &link),
        (
            format!("link add {end} type veth peer name far"),
            &end,
            &end,
        ),
        // A pair at the bridge whose other end is another's.
        (
            format!("link add {link} master quilt0 type veth peer name far"),
            &link,
            &link,
        ),
    ] {
        host.ip(&words);
        let before = names(&host.netns);
        let reason = refusal(client.attach_moved(request("web")).await);
        assert!(
            reason.contains(named.as_str()) && reason.contains("somebody else"),
            "{words}: {reason}"
        );
        assert_eq!(names(&host.netns), before, "{words}");
        assert_eq!(leased(&mut client).await, 0);
        host.ip(&format!("link delete {deletes}"));
    }
    assert!(attach(&mut client, "web").await.new);
}

#[tokio::test]
async fn what_does_not_go_with_an_interface_for_the_engine_to_move_is_refused_with_the_rule() {
    let (host, _daemon, mut client) = node("moved-rules").await;
    let before = names(&host.netns);
    let web = namespace("web").await;
    let mut named = request("web");
    named.network_namespace = web.path().to_str().unwrap().to_owned();
    let reason = refusal(client.attach_moved(named.clone()).await);
    assert!(
        reason.contains(&*web.path().display().to_string())
            && reason.contains("moved_by_engine")
            && reason.contains("leave it empty"),
        "{reason}"
    );
    let mut nobodys = request("web");
    nobodys.owner = None;
    let reason = refusal(client.attach_moved(nobodys).await);
    assert!(reason.contains("owner is missing"), "{reason}");
    assert_eq!(names(&host.netns), before);
    assert_eq!(leased(&mut client).await, 0);

    // One owner has one interface, in one of the two ways.
    attach(&mut client, "web").await;
    let reason = refusal(client.attach(named.clone()).await);
    assert!(
        reason.contains("moved_by_engine true, not false"),
        "{reason}"
    );
    let mut other = request("web");
    other.mtu = 1300;
    let reason = refusal(client.attach_moved(other).await);
    assert!(reason.contains("1300"), "{reason}");
    client.detach(owner("web")).await.unwrap();
    client.attach(named).await.unwrap();
    let reason = refusal(client.attach_moved(request("web")).await);
    assert!(
        reason.contains("moved_by_engine false, not true"),
        "{reason}"
    );
}

#[tokio::test]
async fn before_the_node_has_joined_it_is_worth_another_try() {
    let host = Host::new("moved-early").await;
    let _daemon = host.start().await;
    let mut client = Client::connect(&host.socket()).await.unwrap();
    let refused = client.attach_moved(request("web")).await;
    assert!(
        matches!(refused, Err(ClientError::NotYet(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_restarted_runtime_takes_it_over_wherever_the_engine_has_it() {
    let (host, mut daemon, mut client) = node("moved-restart").await;
    let web = namespace("web").await;
    let made = attach(&mut client, "web").await;
    let known = HandedOver {
        new: false,
        ..made.clone()
    };
    // On the host; moved meanwhile; there before.
    for step in 0..4 {
        daemon.end(Signal::SIGKILL).await;
        if step == 1 {
            take(&host, &made, &web);
        }
        if step == 3 {
            give_back(&host, &made, &web);
        }
        daemon = host.start_with("off", &ARGS).await;
        assert_eq!(attach(&mut client, "web").await, known, "{step}");
        assert_eq!(leaked(&mut client, "web").await, "", "{step}");
        assert_eq!(daemon.status().await.endpoints.len(), 1, "{step}");
        if [1, 2].contains(&step) {
            reaches_the_host(&web).await;
        }
    }
    take(&host, &made, &web);
    reaches_the_host(&web).await;

    daemon.end(Signal::SIGKILL).await;
    let link = port_name(&owner("web"), &host);
    drop(web);
    host.eventually("the interface gone", |host| {
        !names(&host.netns).contains(&link)
    })
    .await;
    let daemon = host.start_with("off", &ARGS).await;
    let told = format!("its interface {link} is gone");
    assert_eq!(leaked(&mut client, "web").await, told);
    assert!(daemon.status().await.endpoints.is_empty());
    // The lease stays its owner's until its engine says otherwise.
    assert_eq!(attach(&mut client, "web").await, made);
    client.detach(owner("web")).await.unwrap();
    assert_eq!(leased(&mut client).await, 0);
}

/// The host's end of the only pair there is, as the host shows it.
fn port_name(of: &Owner, host: &Host) -> String {
    let all = host.ip("-oneline link show");
    let alias = format!("{}/{}/{}", of.engine, of.network, of.container);
    let line = all.lines().find(|line| line.contains(&alias)).unwrap();
    line.split([':', '@']).nth(1).unwrap().trim().to_owned()
}

/// Killed at any moment, it leaves what the same call completes, or nothing.
#[tokio::test]
async fn a_runtime_killed_while_it_makes_an_interface_to_be_moved_leaves_nothing_that_stays() {
    let (host, mut daemon, mut client) = node("moved-killed").await;
    let before = names(&host.netns);
    let web = namespace("web").await;
    for pause in 0..12 {
        let call = {
            let mut client = client.clone();
            tokio::spawn(async move { client.attach_moved(request("web")).await })
        };
        // Not to wait for anything: each round is killed at another moment.
        tokio::time::sleep(std::time::Duration::from_micros(400 * pause)).await;
        daemon.end(Signal::SIGKILL).await;
        let _ = call.await.unwrap();
        daemon = host.start_with("off", &ARGS).await;
        let made = attach(&mut client, "web").await;
        take(&host, &made, &web);
        reaches_the_host(&web).await;
        client.detach(owner("web")).await.unwrap();
        assert_eq!(names(&host.netns), before, "after {pause}");
        assert_eq!(leased(&mut client).await, 0);
    }
}

#[tokio::test]
async fn a_clean_up_deletes_it_wherever_the_engine_has_it() {
    let (host, mut daemon, mut client) = node("moved-clean").await;
    let (web, db) = (namespace("web").await, namespace("db").await);
    attach(&mut client, "lies").await;
    for (name, netns) in [("web", &web), ("db", &db)] {
        let made = attach(&mut client, name).await;
        take(&host, &made, netns);
        if name == "db" {
            give_back(&host, &made, netns);
        }
    }
    daemon.end(Signal::SIGTERM).await;
    let (status, text) = host.run_daemon(&["--cleanup"]).await;
    assert!(status.success(), "{text}");
    assert_eq!(names(&web), ["lo"]);
    assert_eq!(names(&host.netns), ["lo", "eth0-far", "eth0"]);
    for container in ["lies", "web", "db"] {
        let words = format!("test/quilt/{container}/eth0");
        assert!(text.contains(&words), "{words} in {text}");
    }
}
