//! The daemon as a process: signals, health, reflection, memory.

use std::fs;

use mesh_testbed::Signal;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::host::Host;

#[tokio::test]
async fn sigterm_and_sigint_end_the_daemon_with_success() {
    let host = Host::new("signals").await;
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut daemon = host.start().await;
        // A connection that stays open must not hold it up.
        let _channel = daemon.channel().await;
        let status = daemon.end(signal).await;
        assert!(status.success(), "{signal}: {status}");
    }
}

#[tokio::test]
async fn health_answers_for_the_server_and_for_each_service() {
    let host = Host::new("health").await;
    let daemon = host.start().await;
    let mut client = HealthClient::new(daemon.channel().await);
    for service in ["", "quilt.QuiltRuntime", "mesh.MeshDataplane"] {
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        let answer = client.check(request).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service:?}");
    }
}

#[tokio::test]
async fn reflection_lists_the_services() {
    let host = Host::new("reflection").await;
    let daemon = host.start().await;
    let mut client = ServerReflectionClient::new(daemon.channel().await);
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let answers = client
        .server_reflection_info(tokio_stream::once(request))
        .await
        .unwrap();
    let answer = answers.into_inner().message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("{answer:?}");
    };
    let names: Vec<&str> = list.service.iter().map(|it| it.name.as_str()).collect();
    for name in [
        "quilt.QuiltRuntime",
        "mesh.MeshDataplane",
        "grpc.health.v1.Health",
    ] {
        assert!(names.contains(&name), "{names:?}");
    }
}

#[tokio::test]
async fn options_are_read_from_the_environment() {
    let host = Host::new("environment").await;
    let mut command = host.netns.command(env!("CARGO_BIN_EXE_quilt-runtime"));
    command.env("QUILT_MESH_BRIDGE", "a/b");
    let (status, text) = crate::host::run_to_end(command).await;
    assert!(!status.success());
    assert!(text.contains("\"a/b\" is not a name"), "{text}");
}

#[tokio::test]
async fn what_a_round_takes_does_not_stay_in_memory() {
    let host = Host::new("memory").await;
    let daemon = host.start().await;
    daemon.configure("10.42.1.0/24").await.unwrap();
    let peers: Vec<(String, String)> = (2..=255)
        .map(|third| (format!("10.42.{third}.0/24"), format!("192.0.2.{third}")))
        .take(253)
        .collect();
    let peers: Vec<(&str, &str)> = peers
        .iter()
        .map(|(a, b)| (a.as_str(), b.as_str()))
        .collect();
    let answer = daemon.sync(1, &peers).await;
    assert!(answer.success && answer.rejected.is_empty(), "{answer:?}");
    assert_eq!(answer.added, 253);
    for generation in 2..30 {
        daemon.sync(generation, &peers).await;
    }
    let resident = resident_mib(daemon.child.id());
    for generation in 30..130 {
        daemon.sync(generation, &peers).await;
    }
    let grown = resident_mib(daemon.child.id()) - resident;
    assert!(grown < 2.0, "{grown} MiB more after 100 syncs");
    // The goal for a release build is 20 MB in all; an unoptimised one is larger.
    println!("{resident:.1} MiB resident with 253 peers");
}

fn resident_mib(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: f64 = line
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    kib / 1024.0
}
