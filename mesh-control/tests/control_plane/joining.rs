//! Joining, renewing, and what becomes of both when authorities, databases and clocks change: real processes, told what
//! to do by their own command line.

use std::time::{Duration, Instant};

use mesh_credentials::authority::{GRACE, NODE_LIFE};
use mesh_credentials::control_plane_check::KnownBy;
use mesh_credentials::join_token::JoinToken;
use mesh_testbed::{Postgres, PostgresOptions};
use serde_json::json;

use crate::access::client::{Answer, request, with_json};
use crate::process::Setup;
use crate::stepped_clock::SteppedClock;
pub(crate) use host::{Clock, Host, tell, token, told};

mod host;

#[tokio::test]
async fn a_host_joins_by_a_token_and_is_the_node_that_its_certificate_says() {
    let setup = Setup::new();
    let control = setup.start();
    let two = token(&setup, &["--uses", "2"]);
    let a = Host::join(&control, &two).await;
    let b = Host::join(&control, &two).await;
    assert_eq!(a.register(&control, "a", "192.0.2.1").await, "10.42.1.0/24");
    assert_eq!(b.register(&control, "b", "192.0.2.2").await, "10.42.2.0/24");
    assert_eq!(a.beat(&control).await.status, 200);
    // Its name and address may change, its certificate says who it is.
    assert_eq!(a.register(&control, "a", "192.0.2.3").await, "10.42.1.0/24");
    assert_eq!(a.register(&control, "c", "192.0.2.3").await, "10.42.1.0/24");
    // For another it does nothing.
    for verb in ["heartbeat", "deregister", "leave", "revoke"] {
        let path = format!("/api/nodes/{}/{verb}", b.node_id());
        let answer = a.call(&control, &path, &json!({"node_key": "k"})).await;
        assert_eq!(answer.status, 403, "{verb}: {answer:?}");
    }
    let answer = Host::new()
        .try_join(&control, &two, None)
        .await
        .unwrap_err();
    assert_eq!(
        (answer.status, answer.kind().as_str()),
        (403, "token-refused")
    );
    assert!(answer.body.contains("used up"), "{answer:?}");
    let list = told(&setup, &["token", "list"]).unwrap();
    assert!(
        list.contains("2 of 2") && list.contains("used up"),
        "{list}"
    );
    assert!(!list.contains(&two.to_string()), "{list}");
}

#[tokio::test]
async fn a_token_that_is_cut_revoked_expired_or_of_another_mesh_lets_nobody_in() {
    let clock = SteppedClock::new();
    let setup = clock.of(Setup::new());
    let control = setup.start();
    let other_setup = Setup::new();
    let other = other_setup.start();
    let foreign = token(&other_setup, &[]);
    let mut host = Host::new();
    // What it knows the control plane by is the other's key: it does not come so far as to show the token.
    let body = json!({"token": foreign.to_string(), "request": host.key.request().unwrap()});
    let request = with_json("POST", "/api/join", "", &body);
    let known_by = KnownBy::Key(foreign.authority);
    let error = host.ask(control.address(), known_by, &request).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("does not have the authority"), "{error}");
    drop(other);

    let ours = token(&setup, &[]);
    for wrong in [
        JoinToken {
            secret: foreign.secret.clone(),
            ..ours.clone()
        },
        JoinToken {
            id: "0000".to_owned(),
            ..ours.clone()
        },
    ] {
        let answer = host.try_join(&control, &wrong, None).await.unwrap_err();
        assert_eq!(answer.kind(), "token-refused", "{answer:?}");
        assert!(answer.body.contains("no such join token"), "{answer:?}");
    }
    // By a second.
    let short = token(&setup, &["--ttl", "30s"]);
    clock.step(31);
    let answer = host.try_join(&control, &short, None).await.unwrap_err();
    assert!(answer.body.contains("ended"), "{answer:?}");
    clock.step(0);
    told(&setup, &["token", "revoke", &ours.id]).unwrap();
    let answer = host.try_join(&control, &ours, None).await.unwrap_err();
    assert!(answer.body.contains("revoked"), "{answer:?}");
    let error = told(&setup, &["token", "revoke", &ours.id]).unwrap_err();
    assert!(error.contains("could be revoked"), "{error}");
    let audit = told(&setup, &["audit"]).unwrap();
    assert!(audit.contains("revoke token"), "{audit}");
}

#[tokio::test]
async fn a_token_for_a_node_replaces_the_key_that_was_lost_and_nothing_else_does() {
    let setup = Setup::new();
    let control = setup.start();
    let first = Host::join(&control, &token(&setup, &["--node", "alpha"])).await;
    let answer = first
        .try_register(&control, "beta", "192.0.2.1", json!({}))
        .await;
    assert_eq!((answer.status, answer.kind().as_str()), (403, "forbidden"));
    let keyed = json!({"node_key": "key-of-alpha"});
    let answer = first
        .try_register(&control, "alpha", "192.0.2.1", keyed)
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    // The key of today is no credential.
    let mut thief = Host::new();
    let any = token(&setup, &[]);
    thief
        .try_join(&control, &any, Some("key-of-alpha"))
        .await
        .unwrap();
    assert_ne!(thief.node_id(), first.node_id());
    // Its disk was made anew.
    let again = Host::join(&control, &token(&setup, &["--node", "alpha"])).await;
    assert_eq!(again.node_id(), first.node_id());
    assert_eq!(again.beat(&control).await.status, 200);
    let answer = first.beat(&control).await;
    assert_eq!(
        (answer.status, answer.kind().as_str()),
        (401, "unauthorized")
    );
    let subnet = again.register(&control, "alpha", "192.0.2.9").await;
    assert_eq!(subnet, "10.42.1.0/24");
}

#[tokio::test]
async fn a_revoked_node_does_nothing_until_it_joins_again() {
    let setup = Setup::new();
    let control = setup.start();
    let host = Host::join(&control, &token(&setup, &[])).await;
    host.register(&control, "alpha", "192.0.2.1").await;
    told(&setup, &["node", "revoke", host.node_id()]).unwrap();
    let mut host = host;
    assert_eq!(host.beat(&control).await.status, 401);
    assert_eq!(host.renew(&control).await.status, 401);
    // Nor does what is left of a token that is not for it bring it back.
    let left = token(&setup, &["--uses", "9"]);
    let mut same = Host {
        key: host.key,
        ..Host::new()
    };
    let answer = same.try_join(&control, &left, None).await.unwrap_err();
    assert_eq!(
        (answer.status, answer.kind().as_str()),
        (401, "unauthorized")
    );
    let host = Host {
        key: same.key,
        joined: host.joined,
        clock: host.clock,
        from: None,
    };
    let again = Host::join(&control, &token(&setup, &["--node", "alpha"])).await;
    assert_eq!(again.node_id(), host.node_id());
    assert_eq!(again.beat(&control).await.status, 200);
    // The old key stays worthless.
    assert_eq!(host.beat(&control).await.status, 401);
}

#[tokio::test]
async fn a_host_that_was_off_past_the_end_of_its_certificate_comes_back_on_the_one_route_that_lets_it()
 {
    let clock = SteppedClock::new();
    let setup = clock.of(Setup::new());
    let control = setup.start();
    let mut host = Host::join(&control, &token(&setup, &[])).await;
    host.register(&control, "alpha", "192.0.2.1").await;
    clock.step(NODE_LIFE + 60);
    // The certificate that the control plane itself shows is of its start, and holds for longer.
    let answer = host.beat(&control).await;
    assert_eq!(answer.kind(), "certificate-expired", "{answer:?}");
    assert_eq!(host.renew(&control).await.status, 200);
    assert_eq!(host.beat(&control).await.status, 200);
    // Set back to where it does not hold yet, the clock is named.
    clock.step(0);
    let answer = host.beat(&control).await;
    assert_eq!((answer.status, answer.kind().as_str()), (401, "clock"));
    // It was the control plane's that was ahead: who has the key gets another certificate.
    assert_eq!(host.renew(&control).await.status, 200);
    assert_eq!(host.beat(&control).await.status, 200);
    // Longer than that, only a token helps.
    clock.step(2 * NODE_LIFE + GRACE + 3600);
    let answer = host.renew(&control).await;
    assert_eq!(answer.kind(), "certificate-expired", "{answer:?}");
    assert!(answer.body.contains("token create"), "{answer:?}");
    let node_id = host.node_id().to_owned();
    let made = token(&setup, &["--node", "alpha"]);
    host.clock = Clock(2 * NODE_LIFE + GRACE + 3600);
    // Until the control plane shows a certificate that holds by the clock of now, which it makes a moment later.
    let until = Instant::now() + Duration::from_secs(30);
    let health = request("GET", "/health", "");
    while let Err(error) = host
        .ask(control.address(), KnownBy::Key(made.authority), &health)
        .await
    {
        assert!(Instant::now() < until, "{error}");
    }
    host.try_join(&control, &made, None).await.unwrap();
    assert_eq!(host.node_id(), node_id);
    assert_eq!(host.beat(&control).await.status, 200);
}

#[tokio::test]
async fn one_authority_takes_the_place_of_another_and_no_node_is_shut_out() {
    let setup = Setup::new();
    let control = setup.start();
    let mut host = Host::join(&control, &token(&setup, &[])).await;
    host.register(&control, "alpha", "192.0.2.1").await;
    let digest = |answer: &Answer| answer.header("quilt-mesh-authorities").map(str::to_owned);
    let before = digest(&host.beat(&control).await).unwrap();
    assert_eq!(before, host.joined.as_ref().unwrap().authorities_digest);

    told(&setup, &["ca", "rotate", "prepare"]).unwrap();
    let error = told(&setup, &["ca", "rotate", "prepare"]).unwrap_err();
    assert!(error.contains("already"), "{error}");
    // In whatever a node hears: one that only waits for news as well as one that beats.
    let prepared = digest(&host.beat(&control).await).unwrap();
    assert_ne!(prepared, before);
    let question = format!("/api/nodes?since=0&wait=0&node={}", host.node_id());
    let answer = host.get(&control, &question).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(digest(&answer), Some(prepared.clone()));
    let error = told(&setup, &["ca", "rotate", "activate"]).unwrap_err();
    assert!(error.contains("alpha"), "{error}");
    // In the same second: it has heard of the next one.
    assert_eq!(host.renew(&control).await.status, 200);
    told(&setup, &["ca", "rotate", "activate"]).unwrap();
    let activated = digest(&host.beat(&control).await).unwrap();
    assert_ne!(activated, prepared);
    // Another host joins by the new one.
    let new = token(&setup, &[]);
    let mut other = Host::join(&control, &new).await;
    other.register(&control, "beta", "192.0.2.2").await;
    let error = told(&setup, &["ca", "rotate", "finish"]).unwrap_err();
    assert!(
        error.contains("alpha") && !error.contains("beta"),
        "{error}"
    );
    assert_eq!(host.renew(&control).await.status, 200);
    told(&setup, &["ca", "rotate", "finish"]).unwrap();
    for node in [&mut host, &mut other] {
        assert_eq!(node.beat(&control).await.status, 200);
        assert_eq!(node.renew(&control).await.status, 200);
    }
    let shown = told(&setup, &["ca", "show"]).unwrap();
    assert_eq!(shown.matches("yes").count(), 1, "{shown}");
    assert!(!shown.contains(" no "), "{shown}");
    // And after a start.
    drop(control);
    let control = setup.start();
    assert_eq!(host.beat(&control).await.status, 200);
}

#[tokio::test]
async fn a_database_that_was_lost_or_restored_shuts_no_node_out() {
    let setup = Setup::new();
    let control = setup.start();
    let host = Host::join(&control, &token(&setup, &[])).await;
    let subnet = host.register(&control, "alpha", "192.0.2.1").await;
    assert!(control.stop().success());
    let backup = std::fs::read(setup.db_path()).unwrap();
    let control = setup.start();
    let later = Host::join(&control, &token(&setup, &[])).await;
    later.register(&control, "beta", "192.0.2.2").await;
    assert!(control.stop().success());
    // Restored: one node joined after the backup.
    std::fs::write(setup.db_path(), &backup).unwrap();
    let control = setup.start();
    assert_eq!(host.beat(&control).await.status, 200);
    let held = json!({"subnet": "10.42.2.0/24"});
    let answer = later
        .try_register(&control, "beta", "192.0.2.2", held)
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.body.contains(later.node_id()) && answer.body.contains("10.42.2.0/24"));
    assert!(control.stop().success());
    // Lost, while the authority's file was not.
    std::fs::remove_file(setup.db_path()).unwrap();
    let control = setup.start();
    let held = json!({"subnet": subnet});
    let answer = host
        .try_register(&control, "alpha", "192.0.2.1", held)
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.body.contains(host.node_id()) && answer.body.contains(&subnet));
    // What it shows is known again: nobody is it without, and it can be revoked.
    assert_eq!(
        crate::answer::Api::of(&control)
            .heartbeat(host.node_id())
            .await
            .status,
        401
    );
    told(&setup, &["node", "revoke", host.node_id()]).unwrap();
    assert_eq!(host.beat(&control).await.status, 401);
}

/// Whoever has the key of an authority that is being replaced can make certificates for nodes that never were.
#[tokio::test]
async fn a_node_that_is_not_known_is_taken_by_a_certificate_of_the_authority_that_signs_alone() {
    let setup = Setup::new();
    let control = setup.start();
    let mut known = Host::join(&control, &token(&setup, &[])).await;
    known.register(&control, "alpha", "192.0.2.1").await;
    assert!(control.stop().success());
    let backup = std::fs::read(setup.db_path()).unwrap();
    let control = setup.start();
    let mut later = Vec::new();
    for (name, host_ip) in [("beta", "192.0.2.2"), ("gamma", "192.0.2.3")] {
        let host = Host::join(&control, &token(&setup, &[])).await;
        host.register(&control, name, host_ip).await;
        later.push(host);
    }
    assert!(control.stop().success());
    std::fs::write(setup.db_path(), &backup).unwrap();
    let control = setup.start();
    let [beta, gamma] = &mut later[..] else {
        unreachable!()
    };
    // While the authority signs, it is, and that is shown.
    let security = told(&setup, &["security"]).unwrap();
    assert!(!security.contains("certificate alone"), "{security}");
    assert_eq!(beta.renew(&control).await.status, 200);
    beta.register(&control, "beta", "192.0.2.2").await;
    let shown = format!("beta ({})", beta.node_id());
    let security = told(&setup, &["security"]).unwrap();
    assert!(
        security.contains("certificate alone") && security.contains(&shown),
        "{security}"
    );
    let audit = told(&setup, &["audit"]).unwrap();
    let joined = audit
        .lines()
        .filter(|line| line.contains("join") && line.contains(beta.node_id()));
    assert_eq!(joined.count(), 1, "{audit}");
    told(&setup, &["ca", "rotate", "prepare"]).unwrap();
    // What it trusts is no secret; a thief would not look at what the control plane shows.
    assert_eq!(beta.renew(&control).await.status, 200);
    let authorities = beta.joined.as_ref().unwrap().authorities.clone();
    gamma.joined.as_mut().unwrap().authorities = authorities;
    assert_eq!(known.renew(&control).await.status, 200);
    told(&setup, &["ca", "rotate", "activate"]).unwrap();
    // From then on it is not, and whoever is known goes on.
    for answer in [
        gamma.beat(&control).await,
        gamma.renew(&control).await,
        gamma.get(&control, "/api/nodes").await,
        gamma
            .try_register(&control, "gamma", "192.0.2.3", json!({}))
            .await,
    ] {
        assert_eq!(
            (answer.status, answer.kind().as_str()),
            (401, "join-again"),
            "{answer:?}"
        );
        assert!(answer.body.contains("token create"), "{answer:?}");
    }
    for host in [&mut known, beta] {
        assert_eq!(host.beat(&control).await.status, 200);
        assert_eq!(host.renew(&control).await.status, 200);
    }
    let security = told(&setup, &["security"]).unwrap();
    assert!(!security.contains(gamma.node_id()), "{security}");
    gamma
        .try_join(&control, &token(&setup, &[]), None)
        .await
        .unwrap();
    gamma.register(&control, "gamma", "192.0.2.3").await;
}

#[tokio::test]
async fn a_token_for_a_node_is_for_the_one_that_was_meant_whatever_others_call_themselves() {
    let setup = Setup::new();
    let control = setup.start();
    let alpha = Host::join(&control, &token(&setup, &[])).await;
    let subnet = alpha.register(&control, "alpha", "192.0.2.1").await;
    let other = Host::join(&control, &token(&setup, &[])).await;
    other.register(&control, "beta", "192.0.2.2").await;
    // Made while there is one of that name, it is for that one.
    let made = token(&setup, &["--node", "alpha"]);
    other.register(&control, "alpha", "192.0.2.2").await;
    alpha.register(&control, "renamed", "192.0.2.1").await;
    let again = Host::join(&control, &made).await;
    assert_eq!(again.node_id(), alpha.node_id());
    assert_eq!(again.register(&control, "alpha", "192.0.2.1").await, subnet);
    assert_eq!(other.beat(&control).await.status, 200);
    // Now two have it, and somebody has to say which is meant; another one may call itself by an id.
    let error = told(&setup, &["token", "create", "--node", "alpha"]).unwrap_err();
    for (host, address) in [(&again, "192.0.2.1"), (&other, "192.0.2.2")] {
        let listed = format!("{} ({address}, up)", host.node_id());
        assert!(error.contains(&listed), "{error}");
    }
    other.register(&control, alpha.node_id(), "192.0.2.2").await;
    let by_id = Host::join(&control, &token(&setup, &["--node", alpha.node_id()])).await;
    assert_eq!(by_id.node_id(), alpha.node_id());
    // Made before there was any, it is for nobody who took the name meanwhile.
    let made = token(&setup, &["--node", "gamma"]);
    other.register(&control, "gamma", "192.0.2.2").await;
    let gamma = Host::join(&control, &made).await;
    assert_ne!(gamma.node_id(), other.node_id());
    gamma.register(&control, "gamma", "192.0.2.3").await;
    assert_eq!(other.beat(&control).await.status, 200);
}

#[tokio::test]
async fn an_authority_that_was_lost_is_named_restored_or_replaced() {
    let setup = Setup::new();
    let control = setup.start();
    let mut host = Host::join(&control, &token(&setup, &[])).await;
    let keyed = json!({"node_key": "key-of-alpha"});
    host.try_register(&control, "alpha", "192.0.2.1", keyed.clone())
        .await;
    let exported = told(&setup, &["ca", "export"]).unwrap();
    assert!(control.stop().success());
    let file = setup.folder().join("authority.key.pem");
    std::fs::remove_file(&file).unwrap();
    let said = setup.start_refused();
    assert!(
        said.contains("ca import") && said.contains("--new-authority"),
        "{said}"
    );
    // From the backup.
    let backup = setup.folder().join("backup.pem");
    std::fs::write(&backup, &exported).unwrap();
    told(&setup, &["ca", "import", backup.to_str().unwrap()]).unwrap();
    let control = setup.start();
    assert_eq!(host.beat(&control).await.status, 200);
    assert!(control.stop().success());
    // Without any.
    std::fs::remove_file(&file).unwrap();
    let setup = setup.with_environment("QUILT_MESH_NEW_AUTHORITY", "true");
    let control = setup.start();
    let error = host
        .try_call(&control, "/api/renew", &json!({"request": ""}))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");
    let node_id = host.node_id().to_owned();
    let many = token(&setup, &["--uses", "10"]);
    host.try_join(&control, &many, Some("key-of-alpha"))
        .await
        .unwrap();
    assert_eq!(host.node_id(), node_id);
    let answer = host
        .try_register(&control, "alpha", "192.0.2.1", keyed)
        .await;
    assert!(answer.body.contains("10.42.1.0/24"), "{answer:?}");
}

#[tokio::test]
async fn replicas_that_start_at_once_have_one_authority_and_the_others_are_given_it() {
    let postgres = Postgres::new(&PostgresOptions::new()).await.unwrap();
    let url = postgres.create_database().unwrap();
    let setups = [(); 3].map(|()| Setup::new().on(&url));
    let running = Setup::start_all(&setups);
    let has_one = |setup: &&Setup| setup.folder().join("authority.key.pem").exists();
    assert_eq!(setups.iter().filter(has_one).count(), 1);
    let first = setups.iter().position(|setup| has_one(&setup)).unwrap();
    let other = (first + 1) % 3;
    let said = running[other].log().join("\n");
    assert!(said.contains("ca import"), "{said}");
    let error = told(&setups[other], &["token", "create"]).unwrap_err();
    assert!(error.contains("ca import"), "{error}");

    let exported = told(&setups[first], &["ca", "export"]).unwrap();
    let file = setups[other].folder().join("given.pem");
    std::fs::write(&file, exported).unwrap();
    told(&setups[other], &["ca", "import", file.to_str().unwrap()]).unwrap();
    // Made at one, used at the other.
    let made = token(&setups[first], &[]);
    let host = Host::join(&running[other], &made).await;
    host.register(&running[other], "alpha", "192.0.2.1").await;
    assert_eq!(host.beat(&running[first]).await.status, 200);
    // And used up at both.
    let answer = Host::new()
        .try_join(&running[first], &made, None)
        .await
        .unwrap_err();
    assert!(answer.body.contains("used up"), "{answer:?}");
    // Revoked at one, it is out at the other within a second or so.
    told(&setups[first], &["node", "revoke", host.node_id()]).unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    while host.beat(&running[other]).await.status != 401 {
        assert!(Instant::now() < until, "it is still let in");
    }
}

#[tokio::test]
async fn a_cluster_from_before_is_moved_over_node_by_node() {
    let setup = Setup::new();
    let control = setup.start();
    // As a database from before there were credentials.
    told(&setup, &["secure", "--undo"]).unwrap();
    let plain = crate::answer::Api::of(&control);
    let keyed = |name: &str, ip: &str| crate::answer::keyed(&format!("key-of-{name}"), name, ip);
    let (alpha, alpha_subnet) = plain.register(keyed("alpha", "192.0.2.1")).await.admitted();
    let (beta, _) = plain.register(keyed("beta", "192.0.2.2")).await.admitted();
    assert!(told(&setup, &["security"]).unwrap().contains("open"));

    told(&setup, &["secure"]).unwrap();
    // Those that were there go on, nobody new comes, and operators need a token.
    assert_eq!(plain.heartbeat(&alpha).await.status, 200);
    let answer = plain.register(keyed("gamma", "192.0.2.3")).await;
    assert_eq!(answer.status, 401, "{answer:?}");
    let error = told(&setup, &["secure", "--finish"]).unwrap_err();
    assert!(error.contains("alpha") && error.contains("beta"), "{error}");
    // One joins, and is the node that it was; from then on it needs its certificate.
    let mut host = Host::new();
    host.try_join(&control, &token(&setup, &[]), Some("key-of-alpha"))
        .await
        .unwrap();
    assert_eq!(host.node_id(), alpha);
    let subnet = host.register(&control, "alpha", "192.0.2.1").await;
    assert_eq!(subnet, alpha_subnet);
    assert_eq!(plain.heartbeat(&alpha).await.status, 401);
    assert_eq!(plain.heartbeat(&beta).await.status, 200);
    let answer = plain.register(keyed("alpha", "192.0.2.1")).await;
    assert_eq!(answer.status, 401, "{answer:?}");
    let mut other = Host::new();
    other
        .try_join(&control, &token(&setup, &["--node", "beta"]), None)
        .await
        .unwrap();
    assert_eq!(other.node_id(), beta);
    other.register(&control, "beta", "192.0.2.2").await;
    let said = told(&setup, &["secure", "--finish"]).unwrap();
    assert!(said.contains("secured"), "{said}");
    assert_eq!(plain.heartbeat(&beta).await.status, 401);
    assert_eq!(host.beat(&control).await.status, 200);
    assert_eq!(other.beat(&control).await.status, 200);
}
