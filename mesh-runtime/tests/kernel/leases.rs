//! Addresses that the runtime leases.

use std::{
    collections::BTreeSet,
    fs,
    io::ErrorKind,
    net::Ipv4Addr,
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
};

use mesh_client::{
    Client, ClientError,
    mesh::{AddressLease, AllocateAddressRequest, ListAddressesRequest, Owner},
};
use mesh_testbed::Signal;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::{
    attach::{attach, leased, namespace, node, owner, refusal, request},
    containers::container,
    host::Host,
};

fn wish(container: &str, address: &str) -> AllocateAddressRequest {
    AllocateAddressRequest {
        owner: Some(owner(container)),
        address: address.to_owned(),
        ..Default::default()
    }
}

/// Leases an address.
async fn allocate(client: &mut Client, container: &str) -> String {
    let answer = client.allocate(wish(container, "")).await;
    answer.unwrap().lease.unwrap().address
}

async fn refused(client: &mut Client, request: AllocateAddressRequest) -> String {
    refusal(client.allocate(request).await)
}

#[tokio::test]
async fn an_owner_has_one_address_and_no_two_have_the_same() {
    let (_host, _daemon, mut client) = node("owners").await;
    assert_eq!(allocate(&mut client, "a").await, "10.42.1.2");
    assert_eq!(allocate(&mut client, "b").await, "10.42.1.3");
    assert_eq!(allocate(&mut client, "a").await, "10.42.1.2");
    let answer = client.allocate(wish("c", "10.42.1.200")).await.unwrap();
    assert_eq!(answer.lease.unwrap().address, "10.42.1.200");
    assert_eq!(
        (&*answer.subnet, &*answer.gateway),
        ("10.42.1.0/24", "10.42.1.1")
    );
    let reason = refused(&mut client, wish("d", "10.42.1.3")).await;
    assert!(reason.contains("test/quilt/b/eth0"), "{reason}");
    // What was given back rests while there are others.
    client.release(owner("a")).await.unwrap();
    client.release(owner("a")).await.unwrap();
    assert_eq!(allocate(&mut client, "e").await, "10.42.1.4");
}

#[tokio::test]
async fn names_and_labels_are_kept_with_an_address() {
    let (_host, _daemon, mut client) = node("labels").await;
    let mut request = wish("a", "");
    request.names = vec!["web".to_owned(), "web.shop".to_owned()];
    request.labels = [("team".to_owned(), "shop".to_owned())].into();
    client.allocate(request.clone()).await.unwrap();
    let lease = client.lease(&owner("a")).await.unwrap().unwrap();
    assert_eq!((lease.names, lease.labels), (request.names, request.labels));
}

#[tokio::test]
async fn addresses_that_no_container_can_have_are_refused_with_the_rule() {
    let (_host, _daemon, mut client) = node("reserved").await;
    for (address, words) in [
        ("10.42.1.0", "10.42.1.0"),
        ("10.42.1.1", "gateway"),
        ("10.42.1.255", "broadcast"),
        ("10.42.2.7", "outside"),
        ("10.42.1.07", "not an IPv4 address"),
        ("fd00::1", "not an IPv4 address"),
        ("web", "\"web\""),
    ] {
        let reason = refused(&mut client, wish("a", address)).await;
        assert!(reason.contains(words), "{address}: {reason}");
    }
    assert_eq!(leased(&mut client).await, 0);
}

#[tokio::test]
async fn owners_that_break_a_rule_are_refused_with_the_value_and_the_rule() {
    let (_host, _daemon, mut client) = node("bad-owners").await;
    let long = "x".repeat(200);
    for (container, words) in [
        ("", "container is empty"),
        ("../../etc", "\"../../etc\""),
        ("größe", "ASCII"),
        (long.as_str(), "200 bytes, at most 128"),
    ] {
        let reason = refused(&mut client, wish(container, "")).await;
        assert!(reason.contains(words), "{reason}");
    }
    let mut request = wish("a", "");
    request.owner = None;
    let reason = refused(&mut client, request.clone()).await;
    assert!(reason.contains("owner is missing"), "{reason}");
    request.owner = Some(owner("a"));
    request.names = vec!["no name".to_owned()];
    let reason = refused(&mut client, request).await;
    assert!(reason.contains("DNS name"), "{reason}");
    assert_eq!(leased(&mut client).await, 0);
}

#[tokio::test]
async fn a_full_subnet_says_how_many_there_are_and_who_holds_most() {
    let host = Host::new("exhausted").await;
    let args = ["--host-ip", "192.0.2.1", "--node-prefix", "29"];
    let daemon = host.start_with("off", &args).await;
    daemon.configure("10.42.1.0/29").await.unwrap();
    let mut client = Client::connect(&host.socket()).await.unwrap();
    let mut other = wish("other", "");
    other.owner.as_mut().unwrap().engine = "podman".to_owned();
    client.allocate(other).await.unwrap();
    for container in ["a", "b", "c", "d"] {
        allocate(&mut client, container).await;
    }
    let reason = refused(&mut client, wish("e", "")).await;
    for words in ["10.42.1.0/29", "5", "4", "test/quilt"] {
        assert!(reason.contains(words), "{words} in {reason}");
    }
    // The longest released comes first.
    for container in ["c", "a"] {
        client.release(owner(container)).await.unwrap();
    }
    assert_eq!(allocate(&mut client, "f").await, "10.42.1.5");
    assert_eq!(allocate(&mut client, "g").await, "10.42.1.3");
}

#[tokio::test]
async fn the_subnet_stays_while_addresses_of_it_are_leased() {
    let (_host, daemon, mut client) = node("subnet-in-use").await;
    for container in ["a", "b", "c"] {
        allocate(&mut client, container).await;
    }
    let reason = daemon.configure("10.42.9.0/24").await.unwrap_err();
    assert!(
        reason.contains('3') && reason.contains("10.42.1.0/24"),
        "{reason}"
    );
    daemon.configure("10.42.1.0/24").await.unwrap();
    for container in ["a", "b", "c"] {
        client.release(owner(container)).await.unwrap();
    }
    daemon.configure("10.42.9.0/24").await.unwrap();
    assert_eq!(allocate(&mut client, "a").await, "10.42.9.2");
}

#[tokio::test]
async fn without_a_subnet_nothing_is_leased_and_the_reason_is_said() {
    let host = Host::new("no-subnet").await;
    let _daemon = host.start().await;
    let mut client = Client::connect(&host.socket()).await.unwrap();
    let reason = refused(&mut client, wish("a", "")).await;
    assert!(reason.contains("no subnet yet"), "{reason}");
    let web = namespace("web").await;
    let reason = refusal(client.attach(request("web", &web)).await);
    assert!(reason.contains("subnet"), "{reason}");
}

#[tokio::test]
async fn what_was_answered_outlives_a_kill() {
    let (host, mut daemon, mut client) = node("kill").await;
    let mut before = Vec::new();
    for container in ["a", "b", "c"] {
        before.push(allocate(&mut client, container).await);
    }
    daemon.end(Signal::SIGKILL).await;
    let _daemon = host.start().await;
    let list = client.addresses(ListAddressesRequest::default()).await;
    let after: Vec<String> = list
        .unwrap()
        .leases
        .into_iter()
        .map(|it| it.address)
        .collect();
    assert_eq!(after, before);
    assert_eq!(allocate(&mut client, "d").await, "10.42.1.5");
}

#[tokio::test]
async fn a_restart_of_the_host_ends_the_leases_of_what_cannot_outlive_it() {
    let (mut host, mut daemon, mut client) = node("boot").await;
    allocate(&mut client, "here").await;
    let mut docker = wish("docker", "");
    docker.outlives_boot = true;
    client.allocate(docker).await.unwrap();
    let (web, _) = attach(&mut client, "web").await;
    daemon.end(Signal::SIGTERM).await;
    drop(web);
    host.reboot().await;
    let _daemon = host.start().await;
    let leases = client.addresses(ListAddressesRequest::default()).await;
    let leases = leases.unwrap().leases;
    let left: Vec<&str> = leases.iter().map(|it| it.address.as_str()).collect();
    assert_eq!(left, ["10.42.1.3"]);
    assert!(leases[0].outlives_boot);
}

#[tokio::test]
async fn an_address_that_a_container_was_given_by_hand_is_leased_to_nobody() {
    let (host, daemon, mut client) = node("by-hand").await;
    let _container = container(&host, "veth1", "10.42.1.2").await;
    host.eventually_async("the endpoint", async || {
        !daemon.status().await.endpoints.is_empty()
    })
    .await;
    let reason = refused(&mut client, wish("a", "10.42.1.2")).await;
    assert!(reason.contains("veth1"), "{reason}");
    assert_eq!(allocate(&mut client, "a").await, "10.42.1.3");
}

#[tokio::test]
async fn an_address_whose_namespace_is_gone_is_reclaimed_and_one_without_a_namespace_is_not() {
    let (host, _daemon, mut client) = node("reclaim").await;
    let web = namespace("web").await;
    let mut named = wish("named", "");
    named.network_namespace = web.path().to_str().unwrap().to_owned();
    client.allocate(named).await.unwrap();
    allocate(&mut client, "unnamed").await;
    assert_eq!(leased(&mut client).await, 2);
    drop(web);
    let lease = client.lease(&owner("named")).await.unwrap();
    if let Some(AddressLease { leaked, .. }) = lease {
        assert!(leaked.contains("is gone"), "{leaked}");
    }
    host.eventually_async("one lease", async || leased(&mut client).await == 1)
        .await;
    assert!(client.lease(&owner("unnamed")).await.unwrap().is_some());
}

/// A file system with room for a few pages, in the place of the state directory.
struct Tiny<'a>(&'a Path);

impl Drop for Tiny<'_> {
    fn drop(&mut self) {
        let _ = umount2(self.0, MntFlags::MNT_DETACH);
    }
}

#[tokio::test]
async fn on_a_full_disk_nothing_is_leased_and_nothing_is_lost_and_it_goes_on_with_room() {
    let host = Host::new("full-leases").await;
    let directory = host.state_dir();
    fs::create_dir_all(&directory).unwrap();
    mount(
        Some("tmpfs"),
        &directory,
        Some("tmpfs"),
        MsFlags::empty(),
        Some("size=128k"),
    )
    .unwrap();
    let tiny = Tiny(&directory);
    let mut daemon = host.start_with("off", &["--host-ip", "192.0.2.1"]).await;
    daemon.configure("10.42.1.0/24").await.unwrap();
    let mut client = Client::connect(&host.socket()).await.unwrap();
    allocate(&mut client, "a").await;
    let early = namespace("early").await;
    client.attach(request("early", &early)).await.unwrap();
    let filler = tiny.0.join("filler");
    // It ends with an error, when there is no room for more.
    Command::new("dd")
        .args(["if=/dev/zero", "bs=512"])
        .arg(format!("of={}", filler.display()))
        .output()
        .unwrap();
    let mut refusals = 0;
    // The last of them fill the page that the others do not fit into.
    for number in 0..60 {
        let mut request = wish(&format!("c{number}"), "");
        if number < 40 {
            request.labels = [("filler".to_owned(), "x".repeat(4000))].into();
        }
        match client.allocate(request).await {
            Ok(_) => {}
            // There may be room in a moment.
            Err(ClientError::NotYet(reason)) => {
                assert!(reason.contains("No space left"), "{reason}");
                refusals += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(refusals > 0);
    let web = namespace("web").await;
    let held = leased(&mut client).await;
    let mut attachment = request("web", &web);
    attachment.labels = [("filler".to_owned(), "x".repeat(4000))].into();
    refusal(client.attach(attachment).await);
    assert_eq!(crate::attach::names(&web), ["lo"]);
    // A container that stays attached stays as it is. A plugin that is told to try again deletes the interface by itself.
    let stays = client.detach(owner("early")).await;
    assert!(matches!(stays, Err(ClientError::NotYet(_))), "{stays:?}");
    assert_eq!(crate::attach::names(&early), ["lo", "eth0"]);
    assert_eq!(leased(&mut client).await, held);
    daemon.end(Signal::SIGKILL).await;
    let _daemon = host.start_with("off", &["--host-ip", "192.0.2.1"]).await;
    assert_eq!(leased(&mut client).await, held);
    fs::remove_file(filler).unwrap();
    allocate(&mut client, "b").await;
    client.attach(request("web", &web)).await.unwrap();
    client.detach(owner("early")).await.unwrap();
    assert_eq!(crate::attach::names(&early), ["lo"]);
}

/// Each holds one address or two at any time.
#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_clients_at_once_never_have_one_address_twice() {
    let (host, _daemon, mut client) = node("many").await;
    let held: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let clients = (0..64).map(|number| {
        let (socket, held) = (host.socket(), Arc::clone(&held));
        tokio::spawn(async move {
            let mut client = Client::connect(&socket).await.unwrap();
            let name = |turn| format!("c{number}-{}", turn % 2);
            let mut before: Option<String> = None;
            for turn in 0..100 {
                let address = allocate(&mut client, &name(turn)).await;
                assert!(held.lock().unwrap().insert(address.clone()), "{address}");
                if let Some(before) = before.replace(address) {
                    assert!(held.lock().unwrap().remove(&before));
                    client.release(owner(&name(turn + 1))).await.unwrap();
                }
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    assert_eq!(leased(&mut client).await, 64);
}

#[tokio::test]
async fn these_calls_are_served_on_the_socket_alone() {
    let (host, daemon, mut client) = node("door").await;
    let mut tcp = daemon.dataplane().await;
    let web = namespace("web").await;
    let status = tcp.allocate_address(wish("a", "")).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::PermissionDenied);
    assert!(status.message().contains("socket"), "{status}");
    let mut attachment = request("web", &web);
    let denied = tcp.attach_endpoint(attachment.clone()).await.unwrap_err();
    assert_eq!(denied.code(), tonic::Code::PermissionDenied);
    attachment.owner = None;
    let denied = tcp.attach_endpoint(attachment).await.unwrap_err();
    assert_eq!(denied.code(), tonic::Code::PermissionDenied);
    let list = tcp.list_addresses(ListAddressesRequest::default()).await;
    assert_eq!(list.unwrap_err().code(), tonic::Code::PermissionDenied);
    assert_eq!(leased(&mut client).await, 0);
    assert_eq!(crate::attach::names(&web), ["lo"]);
    let mode = fs::metadata(host.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// Does `work` on a thread with that user's and group's credentials, without any capability.
pub(crate) fn run_as<T: Send + 'static>(user: u32, work: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::spawn(move || {
        // SAFETY: the raw calls change the calling thread alone, which ends with this closure.
        unsafe {
            assert_eq!(libc::syscall(libc::SYS_setgroups, 0, 0), 0);
            assert_eq!(libc::syscall(libc::SYS_setresgid, user, user, user), 0);
            assert_eq!(libc::syscall(libc::SYS_setresuid, user, user, user), 0);
        }
        work()
    });
    thread.join().unwrap()
}

/// Connects to the socket as another user.
fn connect_as(user: u32, socket: &Path) -> std::io::Result<()> {
    let socket = socket.to_owned();
    run_as(user, move || UnixStream::connect(socket).map(drop))
}

#[tokio::test]
async fn who_may_not_call_is_kept_out_by_the_socket_and_by_its_credentials() {
    let (host, _daemon, _client) = node("callers").await;
    let socket = host.socket();
    fs::set_permissions(host.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let denied = connect_as(65534, &socket).unwrap_err();
    assert_eq!(denied.kind(), ErrorKind::PermissionDenied);
    // Somebody has opened it to all.
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
    let denied = call_as_nobody(&socket);
    assert!(denied.contains("user 65534 may not call"), "{denied}");
}

/// Lists the addresses as the user nobody, and returns what comes of it.
fn call_as_nobody(socket: &Path) -> String {
    let socket = socket.to_owned();
    run_as(65534, move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut client = Client::connect(&socket).await.unwrap();
            let list = client.addresses(ListAddressesRequest::default()).await;
            list.unwrap_err().to_string()
        })
    })
}

#[tokio::test]
async fn members_of_the_sockets_group_may_call() {
    let host = Host::new("group").await;
    fs::set_permissions(host.dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let daemon = host.start_with("off", &["--socket-group", "65534"]).await;
    let log = daemon.log();
    assert!(log.contains("cannot reach the socket"), "{log}");
    // Where it is if nobody says another path.
    let directory = fs::metadata("/run/quilt-mesh").unwrap();
    assert_eq!(directory.permissions().mode() & 0o777, 0o711);
    fs::set_permissions(host.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    connect_as(65534, &host.socket()).unwrap();
    let denied = connect_as(65533, &host.socket()).unwrap_err();
    assert_eq!(denied.kind(), ErrorKind::PermissionDenied);
}

#[tokio::test]
async fn the_port_on_loopback_can_be_closed() {
    let host = Host::new("closed").await;
    let mut command = host.daemon_command("off", &["--grpc-addr", "off", "--metrics-addr", "off"]);
    let mut child = command.spawn().unwrap();
    host.eventually("the socket", |host| host.socket().exists())
        .await;
    let mut client = Client::connect(&host.socket()).await.unwrap();
    let reason = refused(&mut client, wish("a", "")).await;
    assert!(reason.contains("no subnet yet"), "{reason}");
    let listening = host.netns.command("ss").args(["-Hlnt"]).output().unwrap();
    assert!(listening.stdout.is_empty(), "{listening:?}");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test]
async fn the_gateways_and_every_other_address_are_what_the_list_says() {
    let (_host, _daemon, mut client) = node("list").await;
    allocate(&mut client, "a").await;
    let mut other = wish("b", "");
    other.owner = Some(Owner {
        network: "other".to_owned(),
        ..owner("b")
    });
    client.allocate(other).await.unwrap();
    let list = client
        .addresses(ListAddressesRequest {
            engine: "test".to_owned(),
            network: "other".to_owned(),
        })
        .await
        .unwrap();
    assert_eq!((list.capacity, list.leased, list.leases.len()), (253, 2, 1));
    let address: Ipv4Addr = list.leases[0].address.parse().unwrap();
    assert_eq!(address, Ipv4Addr::new(10, 42, 1, 3));
    assert_eq!(
        (&*list.subnet, &*list.gateway),
        ("10.42.1.0/24", "10.42.1.1")
    );
}
