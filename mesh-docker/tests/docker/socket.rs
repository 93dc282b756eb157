//! The socket on which Docker calls, and who may have it.

use std::{
    fs, io,
    os::{
        fd::AsRawFd as _,
        unix::{
            fs::{FileTypeExt as _, PermissionsExt as _},
            net::{UnixListener, UnixStream},
            process::CommandExt as _,
        },
    },
    process::{Command, Output, Stdio},
};

use mesh_testbed::{Host, Signal};

use crate::{
    driver::{Driver, PROGRAM},
    mesh::{five_of_five, leases, mesh_of},
};

/// A container from its start to its end.
async fn serves(driver: &Driver, host: &Host) {
    let docker = driver.docker();
    let network = docker.create_network().await.unwrap();
    let mut web = network.container("web").await;
    docker.run(host, &mut web).await.unwrap();
    five_of_five(&web.namespace, network.gateway).await;
    docker.stop(host, &mut web).await.unwrap();
    docker.delete_network(&network).await.unwrap();
    assert!(leases(host).await.is_empty());
}

/// As systemd does it (sd_listen_fds(3)).
fn passing(driver: &Driver, listener: &UnixListener, pid: &str) -> Command {
    let arguments = driver.command();
    let mut shell = Command::new("sh");
    let line = format!("LISTEN_PID={pid} LISTEN_FDS=1 exec \"$0\" \"$@\"");
    shell
        .args(["-c", &line, PROGRAM])
        .args(arguments.get_args())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(driver.log_file());
    let descriptor = listener.as_raw_fd();
    // SAFETY: dup2 is async-signal-safe; the listener is there for as long as the command.
    unsafe {
        shell.pre_exec(move || match nix::libc::dup2(descriptor, 3) {
            3 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
    shell
}

/// A second driver, which has to end by itself.
fn ends(mut command: Command) -> Output {
    let output = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert!(!output.status.success(), "{output:?}");
    output
}

fn says(output: &Output, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    for word in words {
        assert!(said.contains(word), "{word:?} in {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_systemd_passes_is_served_and_stays_for_the_next() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let mut driver = Driver::of(host, &host.runtime_socket());
    let listener = UnixListener::bind(driver.socket()).unwrap();
    for ends_by in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGKILL] {
        driver.start_by(passing(&driver, &listener, "$$")).await;
        serves(&driver, host).await;
        // A connection on which nothing comes holds nobody up.
        let _idle = UnixStream::connect(driver.socket()).unwrap();
        let ended = driver.end(ends_by).await;
        assert_eq!(
            ended.success(),
            ends_by != Signal::SIGKILL,
            "{}",
            driver.log()
        );
        // Who calls now waits for the one that systemd starts.
        UnixStream::connect(driver.socket()).unwrap();
    }
    drop(listener);
    fs::remove_file(driver.socket()).unwrap();
    // What is for another process is none of it.
    let other = UnixListener::bind(host.dir().join("docker/other.sock")).unwrap();
    driver.start_by(passing(&driver, &other, "1")).await;
    serves(&driver, host).await;
    driver.end(Signal::SIGTERM).await;
    assert!(!driver.socket().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_a_killed_driver_left_is_replaced_and_one_in_use_is_not() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let mut driver = Driver::on(host).await;
    let mode = fs::metadata(driver.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "others may call: {mode:o}");
    driver.kill().await;
    assert!(
        fs::metadata(driver.socket())
            .unwrap()
            .file_type()
            .is_socket()
    );
    driver.start().await;
    serves(&driver, host).await;

    // With a state directory of its own, and without.
    let mut second = driver.command();
    let elsewhere = host.dir().join("docker/elsewhere");
    second.arg("--state-dir").arg(&elsewhere);
    let socket = driver.socket().display().to_string();
    says(&ends(second), &["another process serves", &socket]);
    let mut second = driver.command();
    second
        .arg("--socket")
        .arg(host.dir().join("docker/second.sock"));
    let state = driver.state().display().to_string();
    says(&ends(second), &["in use by another quilt-docker", &state]);
    serves(&driver, host).await;

    driver.end(Signal::SIGTERM).await;
    assert!(!driver.socket().exists());
    fs::write(driver.socket(), "a file").unwrap();
    says(&ends(driver.command()), &["is no socket", &socket]);
    assert_eq!(fs::read(driver.socket()).unwrap(), b"a file");
    fs::remove_file(driver.socket()).unwrap();
    driver.start().await;
    serves(&driver, host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_that_is_told_to_end_answers_first_what_it_was_asked() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let mut gate = mesh_testbed::Gate::before(host).unwrap();
    let mut driver = Driver::before(host, gate.socket()).await;
    let docker = driver.docker();
    let network = docker.create_network().await.unwrap();
    let mut web = network.container("web").await;
    let request = web.request(crate::container::Step::Address);
    let (asks, its_request) = (docker.clone(), request.clone());
    let asked = tokio::spawn(async move {
        asks.post(
            "IpamDriver.RequestAddress",
            its_request.to_string().as_bytes(),
        )
        .await
    });
    let call = gate.next_of("allocate").await;
    driver.signal(Signal::SIGTERM);
    call.pass();
    let answer = asked.await.unwrap().unwrap();
    crate::docker::read("IpamDriver.RequestAddress", answer).unwrap();
    let ended = driver.end_by_itself().await;
    assert!(ended.success(), "{}", driver.log());
    driver.start().await;
    gate.passing(async {
        docker.run(host, &mut web).await.unwrap();
        docker.stop(host, &mut web).await.unwrap();
    })
    .await;
    assert!(leases(host).await.is_empty());
}
