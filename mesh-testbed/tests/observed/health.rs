//! The gRPC health of a runtime.

use mesh_testbed::{Daemon, Testbed, wait_until};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
    health_client::HealthClient,
};

use crate::{
    cluster::DEADLINE,
    page::{RUNTIME, get},
};

/// A thread that does not run, as long as this is there. It is traced by the thread that stopped it.
struct Stopped(libc::pid_t);

impl Stopped {
    /// Stops the thread of that name of a process.
    fn thread(pid: u32, name: &str) -> Self {
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let found = threads.map(|thread| thread.unwrap().path()).find(|thread| {
            let comm = std::fs::read_to_string(thread.join("comm"));
            comm.is_ok_and(|comm| comm.trim() == name)
        });
        let thread = found.unwrap_or_else(|| panic!("no thread {name} of process {pid}"));
        let id = thread.file_name().unwrap().to_str().unwrap();
        let id: libc::pid_t = id.parse().unwrap();
        for request in [libc::PTRACE_SEIZE, libc::PTRACE_INTERRUPT] {
            // SAFETY: both requests take no pointers (ptrace(2)).
            let done = unsafe { libc::ptrace(request, id, 0_usize, 0_usize) };
            assert_eq!(done, 0, "ptrace: {}", std::io::Error::last_os_error());
        }
        let mut status = 0;
        // SAFETY: `status` is there for the call to write to.
        let stopped = unsafe { libc::waitpid(id, &raw mut status, libc::__WALL) };
        assert_eq!(stopped, id, "{}", std::io::Error::last_os_error());
        Self(id)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // SAFETY: it takes no pointers. A thread that is gone is no error here.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, self.0, 0_usize, 0_usize) };
    }
}

#[tokio::test]
async fn a_runtime_whose_loop_does_not_answer_is_not_serving_until_it_does_again() {
    let testbed = Testbed::builder().hosts(1).build().await.unwrap();
    let host = &testbed.hosts()[0];
    host.start_runtime(&Default::default()).await.unwrap();
    let channel = host.runtime_channel().await.unwrap();
    let check = async |service: &str| {
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        let answer = HealthClient::new(channel.clone()).check(request).await;
        answer.map(|answer| answer.into_inner().status())
    };
    let services = ["", "quilt.QuiltRuntime", "mesh.MeshDataplane"];
    for service in services {
        assert_eq!(check(service).await.unwrap(), ServingStatus::Serving);
    }
    assert!(check("some.other").await.is_err());

    // Whoever watches has its first answer at once, and no other while nothing changes.
    let request = HealthCheckRequest::default();
    let mut client = HealthClient::new(channel.clone());
    let mut watched = client.watch(request).await.unwrap().into_inner();
    let first: HealthCheckResponse = watched.message().await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::Serving);

    let stopped = Stopped::thread(host.pid(Daemon::Runtime).unwrap(), "reconcile");
    assert_eq!(check("").await.unwrap(), ServingStatus::NotServing);
    let netns = host.netns();
    assert_eq!(get(netns, RUNTIME, "/readyz").unwrap().0, 503);
    assert_eq!(get(netns, RUNTIME, "/metrics").unwrap().0, 503);
    assert_eq!(get(netns, RUNTIME, "/livez").unwrap().0, 200);
    drop(stopped);
    wait_until("a serving runtime", DEADLINE, async || {
        match check("").await {
            Ok(ServingStatus::Serving) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .unwrap();
    assert_eq!(get(netns, RUNTIME, "/readyz").unwrap().0, 200);
}

#[tokio::test]
async fn who_watches_does_not_hold_up_the_end() {
    let testbed = Testbed::builder().hosts(1).build().await.unwrap();
    let host = &testbed.hosts()[0];
    host.start_runtime(&Default::default()).await.unwrap();
    let mut client = HealthClient::new(host.runtime_channel().await.unwrap());
    for service in ["", "some.other"] {
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        let mut watched = client.watch(request).await.unwrap().into_inner();
        let first = watched.message().await.unwrap().unwrap();
        let expected = match service {
            "" => ServingStatus::Serving,
            _ => ServingStatus::ServiceUnknown,
        };
        assert_eq!(first.status(), expected);
        if service.is_empty() {
            continue;
        }
        let signal = mesh_testbed::Signal::SIGTERM;
        let ended = host.stop(Daemon::Runtime, signal, DEADLINE).await;
        assert!(ended.unwrap().success());
        let log = std::fs::read_to_string(host.log(Daemon::Runtime)).unwrap();
        assert!(
            !log.contains("calls under way did not come to an end"),
            "{log}"
        );
    }
}
