//! What is shown on both sides of a handshake, and what it counts for.

use std::io;
use std::sync::Arc;

use mesh_credentials::authority::{Authority, GRACE, NODE_LIFE, Request};
use mesh_credentials::name::MeshId;
use mesh_credentials::node_key_pair::NodeKeyPair;
use mesh_credentials::tls as credentials_tls;
use mesh_rest::security::Stage;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::client::{PATIENCE, plain, request, tls, try_tls, with_json};
use super::server::{NodeIdentity, Server, now};
use crate::answer::node;

#[tokio::test]
async fn a_node_registers_beats_and_asks_over_tls_with_its_certificate() {
    let server = Server::start(Stage::Secured).await;
    let registration = with_json("POST", "/api/nodes/register", "", &node("a", "192.0.2.1"));
    let registered = plain(&server).await.ask(&registration).await;
    assert_eq!(registered.status, 200, "{}", registered.body);
    let body: serde_json::Value = serde_json::from_str(&registered.body).unwrap();
    let identity = server.node(body["node_id"].as_str().unwrap(), 0);
    let id = &identity.node_id;
    let mut connection = tls(&server, Some(&identity)).await;
    for request in [
        request("POST", &format!("/api/nodes/{id}/heartbeat"), ""),
        request("GET", "/api/nodes", ""),
        request("GET", &format!("/api/nodes?since=0&node={id}"), ""),
        request("GET", &format!("/api/nodes?since=0&wait=5&node={id}"), ""),
    ] {
        let answer = connection.ask(&request).await;
        assert_eq!(answer.status, 200, "{request}: {}", answer.body);
    }
}

#[tokio::test]
async fn the_time_of_a_certificate_is_judged_for_each_request_and_said_in_words() {
    let server = Server::start(Stage::Secured).await;
    let identity = server.node("a", 0);
    let beat = request("POST", "/api/nodes/a/heartbeat", "");
    let renew = with_json("POST", "/api/renew", "", &serde_json::json!({}));
    for (clock, beating, renewing) in [
        (0, (404, "unknown-node"), 404),
        // It was signed while this clock was ahead.
        (-7200, (401, "clock"), 404),
        (NODE_LIFE - 60, (404, "unknown-node"), 404),
        (NODE_LIFE + 60, (401, "certificate-expired"), 404),
        (NODE_LIFE + GRACE - 60, (401, "certificate-expired"), 404),
        (NODE_LIFE + GRACE + 60, (401, "certificate-expired"), 401),
    ] {
        server.set_clock(clock);
        let answer = tls(&server, Some(&identity)).await.ask(&beat).await;
        let (status, kind) = beating;
        assert_eq!(
            (answer.status, answer.kind().as_str()),
            (status, kind),
            "{clock}"
        );
        // Nobody serves it here: what is let in finds no route, or a handler that refuses what was sent.
        let answer = tls(&server, Some(&identity)).await.ask(&renew).await;
        let is_let_in = answer.status != 401;
        assert_eq!(is_let_in, renewing != 401, "{clock}: {}", answer.body);
    }
    // On one connection, too, which outlives its certificate.
    server.set_clock(0);
    let mut connection = tls(&server, Some(&identity)).await;
    assert_eq!(connection.ask(&beat).await.status, 404);
    server.set_clock(NODE_LIFE + 60);
    assert_eq!(connection.ask(&beat).await.kind(), "certificate-expired");
    assert!(connection.is_over().await);
}

/// Over TLS the client learns that its certificate was not taken when it reads, not when it connects.
async fn is_cut_off(server: &Server, identity: &NodeIdentity) -> bool {
    let Ok(mut connection) = try_tls(server, Some(identity.pem())).await else {
        return true;
    };
    let sent = connection.send(&request("GET", "/health", "")).await;
    sent.is_err() || connection.answer().await.is_err()
}

#[tokio::test]
async fn certificates_that_others_signed_or_that_are_for_something_else_are_not_taken() {
    let server = Server::start(Stage::Secured).await;
    let honest = server.node("a", 0);
    assert!(!is_cut_off(&server, &honest).await);
    // An authority with the names of the mesh's own, and a key of its own.
    let forger = Authority::make(server.authority.mesh().clone(), now()).unwrap();
    let other_mesh = Authority::make(MeshId::make(), now()).unwrap();
    for authority in [&forger, &other_mesh] {
        let key = NodeKeyPair::make().unwrap();
        let request = Request::read(&key.request().unwrap()).unwrap();
        let identity = NodeIdentity {
            node_id: "a".to_owned(),
            certificate: authority.sign_node(&request, "a", now()).unwrap(),
            key: key.pem().to_owned(),
        };
        assert!(is_cut_off(&server, &identity).await);
    }
    // The mesh's own authority signed it, for another use.
    let control_plane = server
        .authority
        .sign_control_plane(&[], &[], now())
        .unwrap();
    let identity = NodeIdentity {
        node_id: "a".to_owned(),
        certificate: control_plane.certificate,
        key: control_plane.key,
    };
    assert!(is_cut_off(&server, &identity).await);
}

#[tokio::test]
async fn a_certificate_in_which_any_byte_was_changed_is_not_taken() {
    let server = Server::start(Stage::Secured).await;
    let honest = server.node("a", 0);
    let der = credentials_tls::certificates(&honest.certificate).unwrap();
    let der = der[0].as_ref();
    let mut taken = Vec::new();
    // Each connection is a handshake; every seventh byte meets every field.
    for at in (0..der.len()).step_by(7) {
        let mut forged = der.to_vec();
        forged[at] ^= 0x01;
        let forged = mesh_credentials::trust::pem_of(&CertificateDer::from(forged));
        let identity = NodeIdentity {
            certificate: forged,
            ..honest.clone()
        };
        if !is_cut_off(&server, &identity).await {
            taken.push(at);
        }
    }
    assert_eq!(taken, Vec::<usize>::new());
}

#[tokio::test]
async fn a_huge_certificate_is_not_taken_and_holds_nothing() {
    let server = Server::start(Stage::Secured).await;
    let honest = server.node("a", 0);
    let chain = |more: usize| {
        let mut chain = honest.certificate.clone();
        for _ in 0..more {
            chain.push_str(&server.authority.trusted().pem());
        }
        NodeIdentity {
            certificate: chain,
            ..honest.clone()
        }
    };
    assert!(!is_cut_off(&server, &chain(1)).await);
    for more in [50, 1000] {
        assert!(is_cut_off(&server, &chain(more)).await, "{more}");
    }
    assert!(!is_cut_off(&server, &honest).await);
}

#[tokio::test]
async fn whoever_has_another_key_or_was_revoked_is_refused_on_connections_that_are_there_as_well() {
    let server = Server::start(Stage::Secured).await;
    let (first, other) = (server.node("a", 0), server.node("b", 0));
    let beat = |id: &str| request("POST", &format!("/api/nodes/{id}/heartbeat"), "");
    let mut connection = tls(&server, Some(&first)).await;
    assert_eq!(connection.ask(&beat("a")).await.kind(), "unknown-node");
    // Another host joins as the same node.
    let second = server.node("a", 0);
    assert_eq!(connection.ask(&beat("a")).await.kind(), "unauthorized");
    assert!(connection.is_over().await);
    let mut connection = tls(&server, Some(&second)).await;
    assert_eq!(connection.ask(&beat("a")).await.kind(), "unknown-node");
    server.revoke("a");
    assert_eq!(connection.ask(&beat("a")).await.kind(), "unauthorized");
    assert_eq!(
        tls(&server, Some(&other))
            .await
            .ask(&beat("a"))
            .await
            .kind(),
        "forbidden"
    );
}

#[tokio::test]
async fn only_tls_1_3_is_spoken_and_nothing_is_negotiated_anew() {
    let server = Server::start(Stage::Secured).await;
    // The first message of a client that knows TLS 1.2 at most: a hello without the extension that offers 1.3.
    let mut hello = vec![0x03, 0x03];
    hello.extend([7; 32]);
    hello.extend([0, 0, 4, 0xc0, 0x2b, 0xc0, 0x2f, 1, 0]);
    hello.extend([0, 18]);
    hello.extend([0, 10, 0, 4, 0, 2, 0, 23]);
    hello.extend([0, 13, 0, 6, 0, 4, 4, 3, 4, 1]);
    let length = u8::try_from(hello.len()).unwrap();
    let mut record = vec![0x16, 3, 1, 0, length + 4, 1, 0, 0, length];
    record.extend(hello);
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(&record).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer));
    read.await.unwrap().unwrap();
    // A fatal alert: protocol_version (RFC 8446 section 6.2).
    assert_eq!(answer, [0x15, 3, 3, 0, 2, 2, 70], "{answer:?}");
}

#[tokio::test]
async fn a_session_is_not_taken_up_again() {
    let server = Server::start(Stage::Secured).await;
    let identity = server.node("a", 0);
    let check = mesh_credentials::control_plane_check::ControlPlaneCheck::new(
        mesh_credentials::control_plane_check::KnownBy::Trust(server.trust()),
    );
    let config = credentials_tls::client(Arc::new(check), Some(identity.pem())).unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    for _ in 0..3 {
        let stream = TcpStream::connect(server.address).await.unwrap();
        let stream = connector.connect(server.address.ip().into(), stream);
        let mut connection = super::client::Connection::new(stream.await.unwrap());
        assert_eq!(
            connection.ask(&request("GET", "/health", "")).await.status,
            200
        );
        let kind = connection.stream.get_ref().1.handshake_kind();
        assert_eq!(kind, Some(rustls::HandshakeKind::Full));
    }
}

#[tokio::test]
async fn a_certificate_of_ones_own_is_shown_to_those_who_do_not_ask_for_the_meshs() {
    let server = Server::start(Stage::Secured).await;
    let own = Authority::make(MeshId::make(), now()).unwrap();
    let shown = own
        .sign_control_plane(&["control".to_owned()], &[], now())
        .unwrap();
    server.tls.show_own(&shown.certificate, &shown.key).unwrap();
    // Agents find the mesh's.
    assert_eq!(
        tls(&server, None)
            .await
            .ask(&request("GET", "/health", ""))
            .await
            .status,
        200
    );
    let config = credentials_tls::client_of_own_authority(&own.trusted().pem(), None).unwrap();
    let ask = async |name: &'static str| -> io::Result<()> {
        let stream = TcpStream::connect(server.address).await?;
        let connector = TlsConnector::from(Arc::new(config.clone()));
        connector.connect(name.try_into().unwrap(), stream).await?;
        Ok(())
    };
    ask("control").await.unwrap();
    assert!(ask("other").await.is_err());
    // And after it was exchanged, others.
    let shown = own
        .sign_control_plane(&["other".to_owned()], &[], now())
        .unwrap();
    server.tls.show_own(&shown.certificate, &shown.key).unwrap();
    ask("other").await.unwrap();
    assert!(ask("control").await.is_err());
}
