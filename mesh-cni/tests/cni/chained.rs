//! Debian's own plugins after ours that are about the host's rules. They speak versions up to 1.0.0.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use mesh_testbed::{Cni, CniAttachment, Host, NetNs, wait_until};
use serde_json::{Value, json};

use crate::{
    engine::{address, alone, engine, failure, list, quilt},
    mesh::{SOON, five_of_five, mesh_of, namespace, needed, run},
    remains::Remains,
};

/// How long one connection may take.
const ATTEMPT: Duration = Duration::from_secs(1);

/// A list of ours and another one.
pub(crate) fn chain(host: &Host, after: Value) -> Value {
    list("quilt", "1.0.0", [quilt(host, "podman"), after])
}

/// Attaches a container and detaches it, after which a host has what these plugins make once and keep, such as
/// chains of their own.
pub(crate) async fn once(
    engine: &Cni,
    host: &Host,
    list: &Value,
    more: fn(CniAttachment) -> CniAttachment,
) -> Remains {
    let before = Remains::of(host).await;
    let netns = namespace("once").await;
    let attachment = more(CniAttachment::new(netns.name(), &netns));
    let result = engine.add(list, &attachment).await.unwrap();
    engine.del(list, &attachment).await.unwrap();
    before.wait_but_for_rules(host, address(&result, 0)).await
}

pub(crate) fn as_it_is(attachment: CniAttachment) -> CniAttachment {
    attachment
}

/// Connects until somebody takes the connection.
async fn wait_connected(from: &NetNs, to: SocketAddr) {
    let what = format!("a connection from {} to {to}", from.name());
    wait_until(&what, SOON, async || connect(from, to))
        .await
        .unwrap();
}

fn connect(from: &NetNs, to: SocketAddr) -> io::Result<()> {
    let connected = from.run(|| TcpStream::connect_timeout(&to, ATTEMPT));
    connected.map_err(io::Error::other)?.map(drop)
}

fn listen(on: &NetNs, port: u16) -> TcpListener {
    let any = (Ipv4Addr::UNSPECIFIED, port);
    needed(on.run(|| TcpListener::bind(any))).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_portmap_publishes_answers_and_goes_with_its_container() {
    let testbed = mesh_of(2).await;
    let [first, second] = testbed.hosts() else {
        unreachable!()
    };
    let engine = engine(first);
    let portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}, "snat": true});
    let list = chain(first, portmap);
    let published = |attachment: CniAttachment| {
        let port = json!({"hostPort": 8080, "containerPort": 80, "protocol": "tcp"});
        attachment.capability("portMappings", json!([port]))
    };
    let before = once(&engine, first, &list, published).await;
    let web = namespace("web").await;
    let attachment = published(CniAttachment::new("web", &web));
    let result = engine.add(&list, &attachment).await.unwrap();
    let listener = listen(&web, 80);
    let door = SocketAddr::from((first.address(), 8080));
    let far = needed(second.attach_container().await);
    for from in [
        second.netns(),
        testbed.control().netns(),
        first.netns(),
        far.netns(),
    ] {
        wait_connected(from, door).await;
    }
    five_of_five(far.netns(), address(&result, 0)).await;
    // That of portmap 1.1.1 looks for the rules in the tables of IPv6 too, where it made none.
    let failed = failure(engine.check(&list, &attachment).await);
    assert_eq!(failed.plugin, "portmap", "{failed}");
    assert_eq!(first.status().await.unwrap().problems(), [""; 0]);

    engine.del(&list, &attachment).await.unwrap();
    connect(second.netns(), door).unwrap_err();
    before.wait_again(first).await;
    drop(listener);
}

/// The plugin lets a container's packets through the chain FORWARD, which a host may have closed.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_of_firewall_gets_through_a_closed_forward_chain_and_its_rules_go_with_it() {
    let testbed = mesh_of(2).await;
    let [first, _] = testbed.hosts() else {
        unreachable!()
    };
    let engine = engine(first);
    let list = chain(first, json!({"type": "firewall", "backend": "iptables"}));
    run(first.netns(), "iptables", "--policy FORWARD DROP");
    let before = once(&engine, first, &list, as_it_is).await;
    let (web, shop) = (namespace("web").await, namespace("shop").await);
    let attachment = CniAttachment::new("web", &web);
    engine.add(&list, &attachment).await.unwrap();
    let closed = CniAttachment::new("shop", &shop);
    let beside = engine.add(&alone(first), &closed).await.unwrap();
    let outside = testbed.control();
    let door = SocketAddr::from((outside.address(), 8000));
    let listener = listen(outside.netns(), door.port());
    wait_connected(&web, door).await;
    connect(&shop, door).unwrap_err();
    // A host whose bridges are filtered has also siblings go through that chain.
    five_of_five(&web, address(&beside, 0)).await;
    engine.check(&list, &attachment).await.unwrap();
    assert_eq!(first.status().await.unwrap().problems(), [""; 0]);

    engine.del(&list, &attachment).await.unwrap();
    engine.del(&alone(first), &closed).await.unwrap();
    before.wait_again(first).await;
    drop(listener);
}
