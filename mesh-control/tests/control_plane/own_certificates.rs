//! Certificates of one's own, by an authority that knows nothing of meshes.

use std::time::{Duration, Instant};

use mesh_testbed::{Postgres, PostgresOptions};
use rcgen::{ExtendedKeyUsagePurpose, date_time_ymd};
use serde_json::json;

use crate::answer::{Api, keyed};
use crate::joining::{self, token, told};
use crate::process::{ControlPlane, Setup};
use crate::stepped_clock::SteppedClock;
use pki::{Host, Pki, client, dns, named, uri, write};

mod pki;

#[tokio::test]
async fn a_node_is_what_its_certificate_calls_it_and_acts_for_itself_alone() {
    let pki = Pki::of_three();
    let setup = pki.of(Setup::new());
    let control = setup.start();
    let alpha = pki.host(&client("any", vec![dns("a.example"), uri("spiffe://x/a")]));
    let beta = pki.host(&client("any", vec![dns("b.example")]));
    let gamma = pki.host(&client("gamma", Vec::new()));
    let (a, a_subnet) = alpha.register(&control, "alpha", "192.0.2.1").await;
    let (b, b_subnet) = beta.register(&control, "beta", "192.0.2.2").await;
    let (c, c_subnet) = gamma.register(&control, "gamma", "192.0.2.3").await;
    assert_eq!(
        [a_subnet.as_str(), &b_subnet, &c_subnet],
        ["10.42.1.0/24", "10.42.2.0/24", "10.42.3.0/24"]
    );
    for (host, own) in [(&alpha, &a), (&beta, &b), (&gamma, &c)] {
        for node in [&a, &b, &c] {
            let expected = if node == own { 200 } else { 403 };
            assert_eq!(host.beat(&control, node).await, expected);
        }
    }
    // Another key, and other names beside the one that counts.
    let again = pki.host(&client(
        "other",
        vec![uri("spiffe://x/a"), uri("spiffe://x/b")],
    ));
    assert_eq!(again.beat(&control, &a).await, 200);
    let node = again.register(&control, "alpha", "192.0.2.9").await;
    assert_eq!(node, (a.clone(), a_subnet));
    let names = pki.host(&client("gamma", vec![dns("B.example")]));
    assert_eq!(names.beat(&control, &b).await, 200);
    // Whoever shows nothing is nobody, also on this host: the cluster has credentials.
    assert_eq!(pki.stranger().beat(&control, &a).await, 401);
    assert_eq!(Api::of(&control).heartbeat(&a).await.status, 401);
    // And after a start.
    assert!(control.stop().success());
    let control = setup.start();
    assert_eq!(alpha.beat(&control, &a).await, 200);
    let audit = told(&setup, &["audit"]).unwrap();
    assert!(audit.contains("spiffe://x/a"), "{audit}");
}

/// What TLS says to a host that is not let in.
async fn refused(host: &Host, control: &ControlPlane) -> String {
    let body = json!({"hostname": "x", "host_ip": "192.0.2.99"});
    let answer = host.try_call(control, "/api/nodes/register", &body).await;
    answer.unwrap_err().to_string()
}

#[tokio::test]
async fn what_the_authority_did_not_sign_for_a_client_that_is_now_is_no_credential() {
    let (pki, other, namesake) = (Pki::of_three(), Pki::called("other root"), Pki::new());
    let setup = pki.of(Setup::new());
    let control = setup.start();
    let good = client("alpha", Vec::new());
    let mut expired = good.clone();
    expired.not_before = date_time_ymd(2020, 1, 1);
    expired.not_after = date_time_ymd(2021, 1, 1);
    let mut early = good.clone();
    early.not_before = date_time_ymd(2090, 1, 1);
    let mut server = good.clone();
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let said = |what: &'static str, host: Host| {
        let control = &control;
        async move {
            let said = refused(&host, control).await;
            assert!(said.contains(what), "{what}: {said}");
        }
    };
    said("CertificateExpired", pki.host(&expired)).await;
    said("alert", pki.host(&early)).await;
    said("alert", pki.host(&server)).await;
    said("UnknownCA", other.host(&good).trusting(&pki)).await;
    said("alert", namesake.host(&good).trusting(&pki)).await;
    said("UnknownCA", pki.host_alone(&good)).await;
    said("alert", pki.host(&client("", Vec::new()))).await;
    said("alert", pki.host(&client("a\u{7}", Vec::new()))).await;
    // Without a use it is for any.
    pki.host(&named("alpha"))
        .register(&control, "alpha", "192.0.2.1")
        .await;
    assert_eq!(Api::of(&control).heartbeat("x").await.status, 401);
}

#[tokio::test]
async fn certificates_with_rsa_keys_count_as_well() {
    let pki = Pki::of_rsa();
    let setup = pki.of(Setup::new());
    let control = setup.start();
    let alpha = pki.host(&client("alpha", Vec::new()));
    let (node, _) = alpha.register(&control, "alpha", "192.0.2.1").await;
    assert_eq!(alpha.beat(&control, &node).await, 200);
    assert_eq!(pki.stranger().beat(&control, &node).await, 401);
}

#[tokio::test]
async fn a_certificate_that_expires_ends_what_its_connection_may() {
    let clock = SteppedClock::new();
    let pki = Pki::new();
    let setup = clock.of(pki.of(Setup::new()));
    let control = setup.start();
    let mut params = client("alpha", Vec::new());
    params.not_after = date_time_ymd(2050, 1, 1);
    let alpha = pki.host(&params);
    let (node, _) = alpha.register(&control, "alpha", "192.0.2.1").await;
    let mut connection = alpha.connect(&control).await.unwrap();
    let path = format!("/api/nodes/{node}/heartbeat");
    let beat = crate::access::client::with_json("POST", &path, "", &json!({}));
    assert_eq!(connection.ask(&beat).await.status, 200);
    clock.step(40 * 366 * 24 * 60 * 60);
    let answer = connection.ask(&beat).await;
    assert_eq!(answer.kind(), "certificate-expired", "{answer:?}");
}

#[tokio::test]
async fn what_a_certificate_of_ones_own_says_of_the_mesh_means_nothing() {
    let pki = Pki::new();
    let setup = pki.of(Setup::new());
    let control = setup.start();
    let joined = joining::Host::join(&control, &token(&setup, &[])).await;
    joined.register(&control, "alpha", "192.0.2.1").await;
    let mesh = joined.mesh_id();
    let node_id = joined.node_id();
    let named_so = |name: String| pki.host(&client(node_id, vec![uri(&name)]));
    let forged = named_so(format!("spiffe://{mesh}/node/{node_id}"));
    assert_eq!(forged.beat(&control, node_id).await, 404);
    let (id, _) = forged.register(&control, "beta", "192.0.2.2").await;
    assert_ne!(id, node_id);
    assert_eq!(forged.beat(&control, node_id).await, 403);
    // Nor is it the authority, or the control plane.
    for name in ["", "/control-plane"] {
        let forged = named_so(format!("spiffe://{mesh}{name}"));
        assert_eq!(forged.beat(&control, node_id).await, 404);
    }
}

#[tokio::test]
async fn nodes_that_joined_and_nodes_with_certificates_of_ones_own_are_one_cluster() {
    let pki = Pki::new();
    let setup = pki.of(Setup::new());
    let control = setup.start();
    let mut joined = joining::Host::join(&control, &token(&setup, &[])).await;
    let own = pki.host(&client("beta", Vec::new()));
    joined.register(&control, "alpha", "192.0.2.1").await;
    let (node, subnet) = own.register(&control, "beta", "192.0.2.2").await;
    assert_eq!(subnet, "10.42.2.0/24");
    assert_eq!(joined.beat(&control).await.status, 200);
    assert_eq!(own.beat(&control, &node).await, 200);
    assert_eq!(joined.renew(&control).await.status, 200);
    let request = json!({"request": ""});
    let answer = own.call(&control, "/api/renew", &request).await;
    assert_eq!(answer.kind(), "forbidden", "{answer:?}");
    assert!(answer.body.contains("authority of your own"), "{answer:?}");
    // One that is up with such a certificate keeps no authority of the mesh from taking another's place.
    told(&setup, &["ca", "rotate", "prepare"]).unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        assert_eq!(joined.renew(&control).await.status, 200);
        match told(&setup, &["ca", "rotate", "activate"]) {
            Ok(_) => break,
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
    }
    assert_eq!(joined.renew(&control).await.status, 200);
    told(&setup, &["ca", "rotate", "finish"]).unwrap();
    assert_eq!(own.beat(&control, &node).await, 200);
    // And where that is lost, it stays what it is.
    assert!(control.stop().success());
    std::fs::remove_file(setup.folder().join("authority.key.pem")).unwrap();
    let setup = setup.with_environment("QUILT_MESH_NEW_AUTHORITY", "true");
    let control = setup.start();
    assert_eq!(own.beat(&control, &node).await, 200);
    assert_eq!(pki.stranger().beat(&control, &node).await, 401);
}

#[tokio::test]
async fn a_revoked_node_stays_out_with_every_certificate_of_its_name() {
    let pki = Pki::new();
    let setup = pki.of(Setup::new());
    let control = setup.start();
    let alpha = pki.host(&client("alpha", Vec::new()));
    let (node, _) = alpha.register(&control, "alpha", "192.0.2.1").await;
    told(&setup, &["node", "revoke", &node]).unwrap();
    let renewed = pki.host(&client("alpha", Vec::new()));
    for host in [&alpha, &renewed] {
        assert_eq!(host.beat(&control, &node).await, 401);
        let answer = host.try_register(&control, "alpha", "192.0.2.1", "k").await;
        assert_eq!(answer.kind(), "unauthorized", "{answer:?}");
        assert!(answer.body.contains("revoked"), "{answer:?}");
    }
    // A token for the node lets a host be it again, and what it was called before stays out.
    let made = token(&setup, &["--node", "alpha"]);
    let joined = joining::Host::join(&control, &made).await;
    assert_eq!(joined.node_id(), node);
    joined.register(&control, "alpha", "192.0.2.1").await;
    assert_eq!(renewed.beat(&control, &node).await, 401);
}

/// A control plane as from before there were credentials, with nodes.
async fn from_before(setup: &Setup) -> (ControlPlane, Api, [(String, String); 2]) {
    let control = setup.start();
    told(setup, &["secure", "--undo"]).unwrap();
    let plain = Api::of(&control);
    let register = async |name: &str, ip: &str| {
        let keyed = keyed(&format!("key-of-{name}"), name, ip);
        plain.register(keyed).await.admitted()
    };
    let nodes = [
        register("alpha", "192.0.2.1").await,
        register("beta", "192.0.2.2").await,
    ];
    (control, plain, nodes)
}

#[tokio::test]
async fn a_cluster_from_before_moves_over_to_certificates_of_ones_own_and_keeps_its_subnets() {
    let pki = Pki::new();
    let setup = pki.of(Setup::new());
    let (control, plain, [alpha, beta]) = from_before(&setup).await;
    let backup = {
        assert!(control.stop().success());
        std::fs::read(setup.db_path()).unwrap()
    };
    let control = setup.start();
    let plain_now = Api::of(&control);
    told(&setup, &["secure"]).unwrap();
    let host = pki.host(&client("host-1", Vec::new()));
    let node = host.register(&control, "alpha", "192.0.2.1").await;
    assert_eq!(node, alpha);
    assert_eq!(host.beat(&control, &alpha.0).await, 200);
    assert_eq!(plain_now.heartbeat(&alpha.0).await.status, 401);
    assert_eq!(plain_now.heartbeat(&beta.0).await.status, 200);
    // The key of a node with credentials is worth nothing.
    let thief = pki.host(&client("host-9", Vec::new()));
    let answer = thief
        .try_register(&control, "gamma", "192.0.2.9", "key-of-alpha")
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(!answer.body.contains(&alpha.0), "{answer:?}");
    let error = told(&setup, &["secure", "--finish"]).unwrap_err();
    assert!(
        error.contains("beta") && !error.contains("alpha"),
        "{error}"
    );
    let other = pki.host(&client("host-2", Vec::new()));
    let node = other.register(&control, "beta", "192.0.2.2").await;
    assert_eq!(node, beta);
    told(&setup, &["secure", "--finish"]).unwrap();
    // One that was revoked and joined by a token does not come back as another node.
    told(&setup, &["node", "revoke", &beta.0]).unwrap();
    assert_eq!(other.beat(&control, &beta.0).await, 401);
    let made = token(&setup, &["--node", "beta"]);
    let joined = joining::Host::join(&control, &made).await;
    assert_eq!(joined.node_id(), beta.0);
    let answer = other
        .try_register(&control, "delta", "192.0.2.2", "key-of-delta")
        .await;
    assert_eq!(answer.kind(), "unauthorized", "{answer:?}");
    // A database that goes back to before all that does not know them: they register, and are what they were.
    assert!(control.stop().success());
    std::fs::write(setup.db_path(), backup).unwrap();
    drop(plain);
    let control = setup.start();
    assert_eq!(host.beat(&control, &alpha.0).await, 404);
    let node = host.register(&control, "alpha", "192.0.2.1").await;
    assert_eq!(node, alpha);
    assert_eq!(host.beat(&control, &alpha.0).await, 200);
}

#[tokio::test]
async fn every_replica_comes_to_the_same_node() {
    let postgres = Postgres::new(&PostgresOptions::new()).await.unwrap();
    let url = postgres.create_database().unwrap();
    let pki = Pki::new();
    let setups = [(); 2].map(|()| pki.of(Setup::new().on(&url)));
    let running = Setup::start_all(&setups);
    let alpha = pki.host(&client("alpha", Vec::new()));
    let node = alpha.register(&running[0], "alpha", "192.0.2.1").await;
    assert_eq!(alpha.beat(&running[1], &node.0).await, 200);
    let again = alpha.register(&running[1], "alpha", "192.0.2.1").await;
    assert_eq!(again, node);
    told(&setups[0], &["node", "revoke", &node.0]).unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    while alpha.beat(&running[1], &node.0).await != 401 {
        assert!(Instant::now() < until, "it is still let in");
    }
}

/// Waits until a host is answered as expected.
async fn until(control: &ControlPlane, host: &Host, expected: bool) {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let body = json!({});
        let answer = host.try_call(control, "/api/nodes/x/heartbeat", &body);
        if answer.await.is_ok() == expected {
            return;
        }
        assert!(Instant::now() < until, "nothing was read again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn files_that_are_replaced_are_read_again_and_what_is_of_no_use_is_not() {
    let (pki, next) = (Pki::new(), Pki::new());
    let setup = pki.of(Setup::new());
    let control = setup.start();
    let folder = setup.folder();
    let old = pki.host(&client("alpha", Vec::new()));
    let (node, _) = old.register(&control, "alpha", "192.0.2.1").await;
    // The control plane's own certificate.
    next.write(folder, &pki);
    let old = old.trusting(&next);
    until(&control, &old, true).await;
    assert_eq!(old.beat(&control, &node).await, 200);
    // The hosts' authority: while one takes the place of another, both.
    let new = next.host(&client("alpha", Vec::new()));
    let both = format!("{}{}", pki.root(), next.root());
    write(&folder.join("own-ca.pem"), &both, 0o644);
    until(&control, &new, true).await;
    assert_eq!(new.beat(&control, &node).await, 200);
    assert_eq!(old.beat(&control, &node).await, 200);
    // Connections that are there: nobody connects meanwhile, so that nobody but the control plane itself looks.
    let [mut of_old, mut of_new] = [
        old.connect(&control).await.unwrap(),
        new.connect(&control).await.unwrap(),
    ];
    let path = format!("/api/nodes/{node}/heartbeat");
    let beat = crate::access::client::with_json("POST", &path, "", &json!({}));
    assert_eq!(of_old.ask(&beat).await.status, 200);
    assert_eq!(of_new.ask(&beat).await.status, 200);
    write(&folder.join("own-ca.pem"), next.root(), 0o644);
    let until_ended = Instant::now() + Duration::from_secs(60);
    while of_old.send(&beat).await.is_ok() && of_old.answer().await.is_ok() {
        assert!(
            Instant::now() < until_ended,
            "one of an authority that is gone"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    until(&control, &old, false).await;
    assert_eq!(new.beat(&control, &node).await, 200);
    // Of no use.
    write(&folder.join("own-ca.pem"), "nothing", 0o644);
    let warned = async |what: &str| {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            assert_eq!(new.beat(&control, &node).await, 200);
            let log = control.log();
            if log.iter().any(|line| line.contains(what)) {
                return;
            }
            assert!(Instant::now() < until, "{log:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    warned("own-ca.pem: ").await;
    write(&folder.join("own-ca.pem"), next.root(), 0o644);
    let key = std::fs::read_to_string(folder.join("own.key")).unwrap();
    write(&folder.join("own.key"), &key, 0o644);
    warned("chmod 600").await;
    // Nor does it start with them.
    assert!(control.stop().success());
    let said = setup.start_refused();
    assert!(
        said.contains("--tls-key") && said.contains("chmod 600"),
        "{said}"
    );
    write(&folder.join("own.key"), &key, 0o600);
    let control = setup.start();
    assert_eq!(new.beat(&control, &node).await, 200);
}
