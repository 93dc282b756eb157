//! Every call that there is, by the descriptors of what is served, at each door, by everybody who has no right to it. A call
//! that is added is asked as well, and is served on the socket alone unless it stands on the list below.

use std::{
    collections::BTreeSet,
    fs::{self, Permissions},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
};

use hyper_util::rt::TokioIo;
use mesh_credentials::{
    authority::{Authority as MeshAuthority, Request as SignRequest},
    name::MeshId,
    node_key_pair::NodeKeyPair,
};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use time::{Duration, OffsetDateTime};
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use crate::{
    authority::{Authority, CLIENT, SERVER, Signed},
    host::{ADDRESS, DEADLINE, Host},
    leases::run_as,
    tls_door::{Door, start},
};

/// What is served over TCP, to whoever can connect on loopback: what an agent needs, and what tells of the service itself.
/// Nothing is added here without a reason that stands in docs/RUNTIME_IMPLEMENTATION.md ("The doors").
const OVER_TCP: &[&str] = &[
    "/quilt.QuiltRuntime/ConfigureNodeSubnet",
    "/quilt.QuiltRuntime/InjectRoute",
    "/quilt.QuiltRuntime/RemoveRoute",
    "/mesh.MeshDataplane/SyncPeers",
    "/mesh.MeshDataplane/ListPeers",
    "/mesh.MeshDataplane/GetStatus",
    "/mesh.MeshDataplane/GetCapabilities",
    "/mesh.MeshDataplane/ProbePeers",
    "/mesh.MeshDataplane/CheckPeers",
    // Without a network namespace and an owner alone.
    "/mesh.MeshDataplane/AttachEndpoint",
    "/mesh.MeshDataplane/DetachEndpoint",
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// The path of every call of every service that is served.
fn calls() -> Vec<String> {
    let sets = [
        mesh_proto::FILE_DESCRIPTOR_SET,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    let mut calls = BTreeSet::new();
    for set in sets {
        for file in FileDescriptorSet::decode(set).unwrap().file {
            for service in &file.service {
                let service_name = format!("{}.{}", file.package(), service.name());
                let methods = service.method.iter();
                calls.extend(methods.map(|it| format!("/{service_name}/{}", it.name())));
            }
        }
    }
    calls.into_iter().collect()
}

/// Makes a call with an empty message, and returns how it began to be answered.
async fn call(channel: Channel, path: &str) -> Result<(), Status> {
    let mut grpc = Grpc::new(channel);
    let ready = grpc.ready().await;
    ready.map_err(|error| Status::unavailable(format!("{error:?}")))?;
    let path = PathAndQuery::try_from(path).unwrap();
    // As a stream, which every answer is to whoever asks so.
    let codec = ProstCodec::<(), ()>::default();
    let mut answer = grpc
        .server_streaming(Request::new(()), path, codec)
        .await?
        .into_inner();
    answer.message().await.map(drop)
}

/// Whether a call was carried out, or refused for what it says: an empty message is right for few.
fn is_served(answered: &Result<(), Status>) -> bool {
    match answered {
        Ok(()) => true,
        Err(status) => match status.code() {
            Code::InvalidArgument | Code::NotFound | Code::FailedPrecondition => true,
            // Of a whole service that is not served at a door nothing is known there.
            Code::PermissionDenied | Code::Unauthenticated | Code::Unimplemented => false,
            // Nobody knows what that would mean.
            _ => panic!("{status:?}"),
        },
    }
}

/// A channel over a socket that was connected before, by whomever.
async fn over(stream: UnixStream) -> Channel {
    stream.set_nonblocking(true).unwrap();
    let stream = tokio::net::UnixStream::from_std(stream).unwrap();
    let mut stream = Some(TokioIo::new(stream));
    let connect = tower::service_fn(move |_: tonic::codegen::http::Uri| {
        let stream = stream.take();
        async { stream.ok_or_else(|| std::io::Error::other("it ended")) }
    });
    Endpoint::from_static("http://runtime")
        .timeout(DEADLINE)
        .connect_with_connector(connect)
        .await
        .unwrap()
}

#[tokio::test]
async fn root_is_served_every_call_on_the_socket_and_nobody_else_any() {
    let host = Host::new("every-socket").await;
    let _daemon = host.start().await;
    let socket = host.socket();
    // Somebody has opened it to all.
    fs::set_permissions(host.dir.path(), Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&socket, Permissions::from_mode(0o666)).unwrap();
    let calls = calls();
    assert!(calls.len() >= 24, "{calls:?}");
    let before = host.state();
    for path in &calls {
        let at = socket.clone();
        let as_nobody = run_as(65534, move || UnixStream::connect(at)).unwrap();
        let answered = call(over(as_nobody).await, path).await;
        assert!(!is_served(&answered), "{path}: {answered:?}");
    }
    assert_eq!(host.state(), before);
    for path in &calls {
        let answered = call(over(UnixStream::connect(&socket).unwrap()).await, path).await;
        assert!(is_served(&answered), "{path}: {answered:?}");
    }
}

#[tokio::test]
async fn over_tcp_no_call_is_served_but_those_of_the_written_list() {
    let host = Host::new("every-tcp").await;
    let daemon = host.start().await;
    let calls = calls();
    for listed in OVER_TCP {
        assert!(
            calls.iter().any(|path| path == listed),
            "there is no {listed}"
        );
    }
    for path in &calls {
        let answered = call(daemon.channel().await, path).await;
        let listed = OVER_TCP.contains(&path.as_str());
        assert_eq!(is_served(&answered), listed, "{path}: {answered:?}");
    }
}

/// A certificate that an authority of a mesh gave a node, which has nothing to say at a runtime.
fn of_a_node() -> Signed {
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let authority = MeshAuthority::make(MeshId::make(), now).unwrap();
    let key = NodeKeyPair::make().unwrap();
    let request = SignRequest::read(&key.request().unwrap()).unwrap();
    Signed {
        certificate: authority.sign_node(&request, "another", now).unwrap(),
        key: key.pem().to_string(),
    }
}

#[tokio::test]
async fn beyond_loopback_no_call_is_served_to_whoever_shows_no_certificate_of_the_ca_that_holds() {
    let host = Host::new("every-tls").await;
    let authority = Authority::new();
    let door = start(&host, &authority, ADDRESS).await;
    let (roots, now) = (&authority.certificate, OffsetDateTime::now_utc());
    let ago = |hours| now - Duration::HOUR * hours;
    let strangers = [
        ("no certificate", None),
        ("another CA's", Some(Authority::new().sign(CLIENT))),
        ("a node's, of the mesh's own authority", Some(of_a_node())),
        (
            "an expired one",
            Some(authority.sign_for(CLIENT, [ago(2), ago(1)])),
        ),
        (
            "one that does not hold yet",
            Some(authority.sign_for(CLIENT, [ago(-1), ago(-2)])),
        ),
        ("a server's", Some(authority.sign(SERVER))),
    ];
    let before = host.state();
    for path in calls() {
        for (who, identity) in &strangers {
            // That the certificate is not taken is told with the first bytes, or with the next.
            if let Ok(channel) = door.channel(ADDRESS, roots, identity.as_ref()).await {
                let answered = call(channel, &path).await.unwrap_err();
                let never_arrived =
                    answered.code() == Code::Unknown || answered.code() == Code::Unavailable;
                assert!(never_arrived, "{who}: {path}: {answered:?}");
            }
        }
        let answered = in_the_clear(&door, &path).await;
        assert!(answered.is_err(), "{path}: {answered:?}");
    }
    assert_eq!(host.state(), before);
    let own = authority.sign(CLIENT);
    for path in calls() {
        let channel = door.channel(ADDRESS, roots, Some(&own)).await.unwrap();
        let answered = call(channel, &path).await;
        let listed = OVER_TCP.contains(&path.as_str());
        assert_eq!(is_served(&answered), listed, "{path}: {answered:?}");
    }
}

/// A call without TLS.
async fn in_the_clear(door: &Door<'_>, path: &str) -> Result<(), String> {
    let stream = door.plain(ADDRESS).unwrap();
    stream.set_nonblocking(true).unwrap();
    let stream = tokio::net::TcpStream::from_std(stream).unwrap();
    let mut stream = Some(TokioIo::new(stream));
    let connect = tower::service_fn(move |_: tonic::codegen::http::Uri| {
        let stream = stream.take();
        async { stream.ok_or_else(|| std::io::Error::other("it ended")) }
    });
    let endpoint = Endpoint::from_static("http://runtime").timeout(DEADLINE);
    let channel = endpoint.connect_with_connector(connect).await;
    let channel = channel.map_err(|error| format!("{error:?}"))?;
    let answered = call(channel, path).await;
    answered.map_err(|status| format!("{status:?}"))
}
