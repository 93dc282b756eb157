//! What a runtime holds: the lock by which it knows that it is alone, and its port. No user without privileges can keep
//! the node without a runtime by having any of it first.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        linux::net::SocketAddrExt as _,
        unix::{
            fs::MetadataExt as _,
            net::{SocketAddr, UnixDatagram, UnixListener},
        },
    },
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use mesh_testbed::{DaemonOptions, Host, NetNs, Testbed};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, Backlog, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType,
        SockaddrIn, UnixAddr, bind, connect, listen, recv, send, socket,
    },
};

use crate::{inside::as_nobody, pair::SOON};

const NAME: &[u8] = b"quilt-mesh-runtime";

/// Takes the name as a user without privileges, in both of the ways that there may be. What it
/// gets, it holds as long as the sockets live.
fn squat(netns: &NetNs) -> (Option<UnixListener>, Option<UnixDatagram>) {
    as_nobody(netns, || {
        let name = SocketAddr::from_abstract_name(NAME).unwrap();
        let stream = UnixListener::bind_addr(&name).ok();
        (stream, UnixDatagram::bind_addr(&name).ok())
    })
}

/// Takes the name, and connects to it itself until nobody else can.
fn squat_full(netns: &NetNs) -> Vec<OwnedFd> {
    let kind = |flags| socket(AddressFamily::Unix, SockType::Stream, flags, None).unwrap();
    let name = UnixAddr::new_abstract(NAME).unwrap();
    as_nobody(netns, || {
        let listener = kind(SockFlag::SOCK_CLOEXEC);
        bind(listener.as_raw_fd(), &name).unwrap();
        listen(&listener, Backlog::new(1).unwrap()).unwrap();
        let mut sockets = vec![listener];
        loop {
            let client = kind(SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK);
            match connect(client.as_raw_fd(), &name) {
                Ok(()) => sockets.push(client),
                Err(Errno::EAGAIN) => return sockets,
                Err(error) => panic!("{error}"),
            }
        }
    })
}

fn options() -> DaemonOptions {
    DaemonOptions::new().binary(env!("CARGO_BIN_EXE_quilt-runtime"))
}

/// Another runtime of root in the same namespace, which shares nothing else with the first, is
/// told that it is not alone.
fn second_is_refused(host: &Host) {
    let directory = tempfile::tempdir().unwrap();
    let mut command = host.netns().command("timeout");
    command.args(["20", env!("CARGO_BIN_EXE_quilt-runtime")]);
    refused(with_places_of_its_own(command, host, directory.path()));
    // Nor one with a /run of its own.
    let mut command = host.netns().command("timeout");
    command.args(["20", "unshare", "--mount", "sh", "-c", OWN_RUN, "sh"]);
    command.arg(env!("CARGO_BIN_EXE_quilt-runtime"));
    refused(with_places_of_its_own(command, host, directory.path()));
}

/// A script that runs its arguments with a /run that nobody else has.
const OWN_RUN: &str = "mount -t tmpfs none /run && exec \"$@\"";

fn with_places_of_its_own(mut command: Command, host: &Host, directory: &Path) -> Command {
    command.args(["--grpc-addr", "127.0.0.1:0", "--bpffs"]);
    command.arg(host.bpffs_dir());
    command.arg("--state-dir").arg(directory.join("state"));
    command.arg("--socket").arg(directory.join("socket"));
    command
}

fn refused(mut command: Command) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let said = format!("{said}{}", String::from_utf8_lossy(&output.stdout));
    assert_ne!(output.status.code(), Some(124), "it went on: {said}");
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("another runtime"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_took_the_name_does_not_keep_the_runtime_from_starting() {
    let testbed = Testbed::builder().hosts(1).build().await.unwrap();
    let host = &testbed.hosts()[0];
    let taken = squat(host.netns());
    assert!(taken.0.is_some() && taken.1.is_some(), "{taken:?}");
    host.start_runtime(&options()).await.unwrap();
}

/// The kernel does not say whose a name is that takes no more connections.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_took_the_name_and_answers_nobody_does_not_keep_the_runtime_from_starting() {
    let testbed = Testbed::builder().hosts(1).build().await.unwrap();
    let host = &testbed.hosts()[0];
    let _taken = squat_full(host.netns());
    host.start_runtime(&options()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_runtime_is_refused() {
    let testbed = Testbed::builder().hosts(1).build().await.unwrap();
    let host = &testbed.hosts()[0];
    host.start_runtime(&options()).await.unwrap();
    second_is_refused(host);
    // What another takes of the name beside the runtime changes nothing.
    let _taken = squat(host.netns());
    second_is_refused(host);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_runtime_is_refused_also_where_a_user_took_the_name() {
    let testbed = Testbed::builder().hosts(1).build().await.unwrap();
    let host = &testbed.hosts()[0];
    let taken = squat(host.netns());
    host.start_runtime(&options()).await.unwrap();
    second_is_refused(host);
    drop(taken);
    second_is_refused(host);
}

/// A user that comes later finds nothing that would keep it from starting again, either.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_takes_the_name_of_a_dead_runtime_does_not_keep_it_from_starting_again() {
    let testbed = Testbed::builder().hosts(1).build().await.unwrap();
    let host = &testbed.hosts()[0];
    host.start_runtime(&options()).await.unwrap();
    second_is_refused(host);
    host.kill_all();
    let _taken = squat(host.netns());
    host.restart(mesh_testbed::Daemon::Runtime).unwrap();
    host.wait_serving(SOON).await.unwrap();
}

/// Asks for the group of packet logs that a runtime holds, as runtimes do.
fn ask_for_group() -> Result<OwnedFd, Errno> {
    let kind = (SockType::Raw, SockFlag::SOCK_CLOEXEC);
    let protocol = SockProtocol::NetlinkNetFilter;
    let socket = socket(AddressFamily::Netlink, kind.0, kind.1, protocol)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    // nlmsghdr, nfgenmsg and NFULA_CFG_CMD with NFULNL_CFG_CMD_BIND.
    let mut request = Vec::new();
    request.extend(28_u32.to_ne_bytes());
    request.extend(0x401_u16.to_ne_bytes());
    request.extend(5_u16.to_ne_bytes());
    request.extend([0; 8]);
    request.extend([0, 0, 0x51, 0x55]);
    request.extend(5_u16.to_ne_bytes());
    request.extend(1_u16.to_ne_bytes());
    request.extend([1, 0, 0, 0]);
    send(socket.as_raw_fd(), &request, MsgFlags::empty())?;
    let mut answer = [0; 256];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    assert!(length >= 20);
    match i32::from_ne_bytes(answer[16..20].try_into().unwrap()) {
        0 => Ok(socket),
        errno => Err(Errno::from_raw(-errno)),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_gets_nothing_of_the_lock_but_the_name_and_the_runtime_starts() {
    let testbed = Testbed::builder().hosts(1).build().await.unwrap();
    let host = &testbed.hosts()[0];
    // The question is the runtime's own: root has it answered, as long as nobody else asked.
    host.netns().run(|| drop(ask_for_group().unwrap())).unwrap();
    let namespace = host
        .netns()
        .run(|| fs::metadata("/proc/thread-self/ns/net").unwrap().ino());
    let file = format!("/run/quilt-mesh/net-{}.lock", namespace.unwrap());
    let taken = as_nobody(host.netns(), || {
        assert_eq!(ask_for_group().unwrap_err(), Errno::EPERM);
        for make in [true, false] {
            let opened = fs::File::options().write(true).create(make).open(&file);
            assert!(opened.is_err(), "{file}");
        }
        let name = SocketAddr::from_abstract_name(NAME).unwrap();
        UnixListener::bind_addr(&name).unwrap()
    });
    host.start_runtime(&options()).await.unwrap();
    as_nobody(host.netns(), || {
        assert_eq!(ask_for_group().unwrap_err(), Errno::EPERM);
        assert!(fs::File::open(&file).is_err(), "{file}");
    });
    second_is_refused(host);
    drop(taken);
}

/// Says to this program that it is run by the test that follows, for the one before it.
const HOLDER: &str = "QUILT_MESH_TEST_HOLDER";

/// What the test that follows runs with less than all of root's rights. By itself it holds nothing.
#[test]
fn a_process_of_a_test_holds_the_name_until_its_input_ends() {
    if std::env::var_os(HOLDER).is_none() {
        return;
    }
    let name = SocketAddr::from_abstract_name(NAME).unwrap();
    let _held = UnixListener::bind_addr(&name).unwrap();
    println!("held");
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

/// As a container that shares its host's network and is root in no more than name.
#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_may_not_change_the_network_does_not_keep_the_runtime_from_starting() {
    let testbed = Testbed::builder().hosts(1).build().await.unwrap();
    let host = &testbed.hosts()[0];
    let mut holder = host.netns().command("setpriv");
    holder
        .arg("--bounding-set=-net_admin")
        .arg(std::env::current_exe().unwrap())
        .arg("held_name::a_process_of_a_test_holds_the_name_until_its_input_ends")
        .args(["--exact", "--nocapture"])
        .env(HOLDER, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    // It ends with the pipe, also if this panics.
    let mut holder = holder.spawn().unwrap();
    let mut said = BufReader::new(holder.stdout.take().unwrap()).lines();
    assert!(said.any(|line| line.unwrap().contains("held")));
    host.start_runtime(&options()).await.unwrap();
    drop(holder.stdin.take());
    holder.wait().unwrap();
}

/// Ends with the test.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_runtimes_that_start_at_once_with_mounts_of_their_own_exactly_one_stays() {
    let testbed = Testbed::builder().hosts(1).build().await.unwrap();
    let host = &testbed.hosts()[0];
    let directory = tempfile::tempdir().unwrap();
    for (round, squatted) in [false, true, false, true].into_iter().enumerate() {
        let taken = squatted.then(|| squat(host.netns()));
        let start = |number: usize| {
            let own = directory.path().join(format!("{round}-{number}"));
            fs::create_dir(&own).unwrap();
            let mut command = host.netns().command("unshare");
            command.args(["--mount", "sh", "-c", OWN_RUN, "sh"]);
            command.arg(env!("CARGO_BIN_EXE_quilt-runtime"));
            let mut command = with_places_of_its_own(command, host, &own);
            command.args(["--fast-path", "off"]).stderr(Stdio::null());
            Started(command.spawn().unwrap())
        };
        let mut started: Vec<_> = (0..4).map(start).collect();
        let until = Instant::now() + SOON;
        let mut serving = || {
            started.retain_mut(|it| it.0.try_wait().unwrap().is_none());
            let socket = |number| directory.path().join(format!("{round}-{number}/socket"));
            let serving = (0..4).filter(|&number| socket(number).exists()).count();
            (started.len(), serving)
        };
        while serving() != (1, 1) {
            assert!(Instant::now() < until, "round {round}: {:?}", serving());
            std::thread::sleep(Duration::from_millis(20));
        }
        second_is_refused(host);
        assert_eq!(serving(), (1, 1), "round {round}");
        drop(taken);
    }
}

/// Nor does who holds the port of the calls, listening or not. Once it is free, calls are served there as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_holds_the_grpc_port_does_not_keep_the_runtime_from_starting() {
    for listens in [true, false] {
        let testbed = Testbed::builder().hosts(1).build().await.unwrap();
        let host = &testbed.hosts()[0];
        let held = as_nobody(host.netns(), || {
            let flags = SockFlag::SOCK_CLOEXEC;
            let held = socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
            bind(held.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 50051)).unwrap();
            if listens {
                listen(&held, Backlog::new(1).unwrap()).unwrap();
            }
            held
        });
        host.spawn(mesh_testbed::Daemon::Runtime, &options())
            .unwrap();
        let socket = host.runtime_socket();
        let told = async || {
            let mut client = mesh_client::Client::connect(&socket).await.ok()?;
            Some(client.status().await.ok()?.grpc_address)
        };
        let until = async |expected: &str| {
            let end = Instant::now() + SOON;
            let mut last = told().await;
            while last.as_deref() != Some(expected) {
                assert!(Instant::now() < end, "{last:?}, not {expected}");
                tokio::time::sleep(Duration::from_millis(20)).await;
                last = told().await;
            }
        };
        until("127.0.0.1:50051 (another process holds it)").await;
        drop(held);
        until("127.0.0.1:50051").await;
        host.wait_serving(SOON).await.unwrap();
    }
}
