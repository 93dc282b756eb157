//! What happens between two calls of a plugin, or between a call and its answer: nobody loses what another one got.

use std::fs;

use mesh_testbed::{Cni, CniAttachment, CniError, Gate, Host, NetNs, wait_until};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tonic::Status;

use crate::{
    engine::{address, alone, assert_says, dirs, engine, failure, list, plugin, quilt},
    mesh::{SOON, five_of_five, ip, leases, links, mesh_of, namespace, needed, only_lease},
    remains::Remains,
    script,
};

/// Another engine of the same name, which calls through the gate.
fn through(host: &Host) -> Cni {
    Cni::inside(host.netns(), host.dir().join("through"), dirs())
}

/// The list of [`alone`], for an engine whose plugin goes through the gate.
fn list_through(gate: &Gate, host: &Host) -> Value {
    let mut plugin = quilt(host, "podman");
    plugin["socket"] = json!(gate.socket());
    list("quilt", "1.1.0", [plugin])
}

/// Attaches a container and has it lose its interface: its lease is listed as leaked, and stays.
async fn harmed(host: &Host, attachment: &CniAttachment, netns: &NetNs) {
    engine(host).add(&alone(host), attachment).await.unwrap();
    ip(netns, "link del eth0");
    wait_until("a lease that is leaked", SOON, async || {
        let leases = leases(host).await;
        let leaked = leases.len() == 1 && !leases[0].leaked.is_empty();
        leaked.then_some(()).ok_or(format!("{leases:?}"))
    })
    .await
    .unwrap();
}

/// Sees that a container is all that is attached, as its result says.
async fn is_attached(host: &Host, attachment: &CniAttachment, netns: &NetNs, result: &Value) {
    let lease = only_lease(host).await;
    assert_eq!(lease.address, address(result, 0).to_string());
    assert_eq!(lease.leaked, "");
    assert_eq!(links(netns), ["eth0", "lo"]);
    engine(host).check(&alone(host), attachment).await.unwrap();
    five_of_five(netns, "10.42.1.1".parse().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_that_comes_to_life_while_it_is_collected_stays() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let mut gate = needed(Gate::before(host));
    let before = Remains::of(host).await;
    let web = namespace("web").await;
    let attachment = CniAttachment::new("web", &web);
    harmed(host, &attachment, &web).await;
    let (forgetful, list) = (through(host), list_through(&gate, host));
    let collects = tokio::spawn(async move { forgetful.gc(&list, &[]).await });
    let detach = gate.next("detach", "web").await;
    let result = engine(host).add(&alone(host), &attachment).await.unwrap();
    detach.pass();
    collects.await.unwrap().unwrap();
    is_attached(host, &attachment, &web, &result).await;
    engine(host).del(&alone(host), &attachment).await.unwrap();
    before.wait_again(host).await;
}

/// An ADD that is refused for what an earlier life left takes that off first, if it is still nobody's by then.
#[tokio::test(flavor = "multi_thread")]
async fn what_comes_to_life_while_an_add_is_about_to_take_it_off_stays() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let mut gate = needed(Gate::before(host));
    let before = Remains::of(host).await;
    let (web, other) = (namespace("web").await, namespace("other").await);
    let attachment = CniAttachment::new("web", &web);
    let elsewhere = CniAttachment::new("web", &other);
    harmed(host, &attachment, &web).await;
    let replaces = begin_add(through(host), list_through(&gate, host), &elsewhere);
    gate.next("attach", "web").await.pass();
    let detach = gate.next("detach", "web").await;
    let result = engine(host).add(&alone(host), &attachment).await.unwrap();
    detach.pass();
    gate.next("attach", "web").await.pass();
    assert_says(&failure(replaces.await.unwrap()), 100, &["namespace"]);
    assert_eq!(links(&other), ["lo"]);
    is_attached(host, &attachment, &web, &result).await;
    engine(host).del(&alone(host), &attachment).await.unwrap();
    before.wait_again(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_adds_that_both_found_nothing_one_succeeds_and_the_other_takes_nothing_from_it() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let mut gate = needed(Gate::before(host));
    let before = Remains::of(host).await;
    let web = namespace("web").await;
    let attachment = CniAttachment::new("web", &web);
    let one = begin_add(engine(host), list_through(&gate, host), &attachment);
    let first = gate.next("attach", "web").await;
    let other = begin_add(engine(host), list_through(&gate, host), &attachment);
    let second = gate.next("attach", "web").await;
    gate.open();
    first.pass();
    second.pass();
    let (result, failed) = match (one.await.unwrap(), other.await.unwrap()) {
        (Ok(result), failed @ Err(_)) | (failed @ Err(_), Ok(result)) => (result, failure(failed)),
        others => panic!("{others:?}"),
    };
    assert_says(&failed, 101, &["eth0"]);
    is_attached(host, &attachment, &web, &result).await;
    engine(host).del(&alone(host), &attachment).await.unwrap();
    before.wait_again(host).await;
}

/// The runtime has one call of an owner wait for the other, and in the end tells it that nothing of its own was begun.
#[tokio::test(flavor = "multi_thread")]
async fn an_add_that_waits_for_another_one_in_vain_is_to_be_tried_again_and_takes_nothing_from_it()
{
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let mut gate = needed(Gate::before(host));
    let before = Remains::of(host).await;
    let web = namespace("web").await;
    let attachment = CniAttachment::new("web", &web);
    // Both look before anything is there.
    let waits = begin_add(through(host), list_through(&gate, host), &attachment);
    let waiting = gate.next("attach", "web").await;
    let goes_on = begin_add(engine(host), list_through(&gate, host), &attachment);
    let served = gate.next("attach", "web").await.hold().await;
    assert_eq!(links(&web), ["eth0", "lo"]);
    // A call that took something back would find the gate open.
    gate.open();
    waiting.fail(Status::aborted("another call has not ended"));
    assert_says(&failure(waits.await.unwrap()), 11, &["another call"]);
    served.tell();
    let result = goes_on.await.unwrap().unwrap();
    is_attached(host, &attachment, &web, &result).await;
    engine(host).del(&alone(host), &attachment).await.unwrap();
    before.wait_again(host).await;
}

/// The runtime goes when the same container is added in another namespace than it is in.
#[tokio::test(flavor = "multi_thread")]
async fn an_add_that_fails_half_way_takes_nothing_back_that_was_there_before_it() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let mut gate = needed(Gate::before(host));
    let before = Remains::of(host).await;
    let (web, other) = (namespace("web").await, namespace("other").await);
    let attachment = CniAttachment::new("web", &web);
    let elsewhere = CniAttachment::new("web", &other);
    let result = engine(host).add(&alone(host), &attachment).await.unwrap();
    let fails = begin_add(through(host), list_through(&gate, host), &elsewhere);
    let attach = gate.next("attach", "web").await;
    attach.fail(Status::unavailable("the runtime is shutting down"));
    // A call that took something back would find the gate open.
    gate.open();
    assert_says(&failure(fails.await.unwrap()), 11, &["shutting down"]);
    is_attached(host, &attachment, &web, &result).await;
    engine(host).del(&alone(host), &attachment).await.unwrap();
    before.wait_again(host).await;
}

fn begin_add(
    engine: Cni,
    list: Value,
    attachment: &CniAttachment,
) -> JoinHandle<Result<Value, CniError>> {
    let attachment = attachment.clone();
    tokio::spawn(async move { engine.add(&list, &attachment).await })
}

/// Its mounts are its own, and so is the symbolic link on the way to the namespace.
#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_behind_a_symbolic_link_that_the_runtime_does_not_see_is_found() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let before = Remains::of(host).await;
    let web = namespace("web").await;
    // A directory that is empty for everybody but the plugin.
    let place = host.dir().join("place");
    fs::create_dir(&place).unwrap();
    let apart = host.dir().join("apart");
    let lines = format!(
        r#"place={place}
export place netns={netns} plugin={plugin}
exec unshare --mount sh -ec '
mount -t tmpfs place "$place"
mkdir "$place/netns"
touch "$place/netns/web"
mount --bind "$netns" "$place/netns/web"
ln -s "$place/netns" "$place/link"
exec "$plugin"'"#,
        place = place.display(),
        netns = web.path().display(),
        plugin = plugin().display(),
    );
    script::write(&apart, "quilt-cni", &lines);
    let engine = Cni::on(host, [apart.clone()]);
    let attachment = CniAttachment::by_path("web", place.join("link/web"));
    let result = engine.add(&alone(host), &attachment).await.unwrap();
    assert_eq!(
        only_lease(host).await.address,
        address(&result, 0).to_string()
    );
    five_of_five(&web, "10.42.1.1".parse().unwrap()).await;
    engine.check(&alone(host), &attachment).await.unwrap();
    engine.del(&alone(host), &attachment).await.unwrap();
    assert_eq!(links(&web), ["lo"]);
    fs::remove_dir_all(apart).unwrap();
    fs::remove_dir(place).unwrap();
    before.wait_again(host).await;
}
