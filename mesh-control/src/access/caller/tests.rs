use axum::http::HeaderValue;
use mesh_credentials::key_digest::KeyDigest;
use mesh_credentials::name::MeshId;
use mesh_credentials::secret::Secret;
use mesh_rest::security::Stage;

use super::super::credentials::{NodeCredential, OperatorCredential};
use super::super::known::Known;
use super::*;

const NOW: i64 = 1_900_000_000;

fn certificate(node_id: &str, key: &[u8], from: i64, until: i64) -> Presented {
    Presented {
        name: Name::Node {
            mesh: MeshId::make(),
            node_id: node_id.to_owned(),
        },
        key: KeyDigest::of(key),
        issuer: "authority".to_owned(),
        not_before: NOW + from,
        not_after: NOW + until,
    }
}

fn known() -> Known {
    let known = Known::new(Stage::Secured);
    for (node_id, revoked) in [("a", false), ("gone", true)] {
        let key = KeyDigest::of(b"key");
        known.set_node(node_id, Some(NodeCredential { key, revoked }));
    }
    known
}

fn by(certificate: Presented) -> Result<Caller, Kind> {
    let origin = Origin {
        certificate: Some(Certificate::Mesh(certificate)),
        way: Way::Tls,
        ..Origin::plain("192.0.2.1:1".parse().unwrap())
    };
    Caller::identify(&origin, &Shown::Nothing, &known(), NOW, false).map_err(|refused| refused.kind)
}

#[test]
fn a_node_is_its_key_in_its_time() {
    let node = NodeId::from("a".to_owned());
    assert_eq!(
        by(certificate("a", b"key", 0, 0)),
        Ok(Caller::Node(node.clone()))
    );
    assert_eq!(by(certificate("a", b"key", 1, 9)), Err(Kind::Clock));
    let renewing = Ok(Caller::Renewing(node));
    assert_eq!(by(certificate("a", b"key", -9, -1)), renewing);
    assert_eq!(by(certificate("a", b"key", -9 - GRACE, -GRACE)), renewing);
    let expired = Err(Kind::CertificateExpired);
    assert_eq!(
        by(certificate("a", b"key", -9 - GRACE, -GRACE - 1)),
        expired
    );
    let no = Err(Kind::Unauthorized);
    assert_eq!(by(certificate("a", b"other", 0, 9)), no);
    // Given before the database was lost: it holds as long as it says, and is not renewed afterwards.
    let unknown = Caller::Node(NodeId::from("b".to_owned()));
    assert_eq!(by(certificate("b", b"key", 0, 9)), Ok(unknown));
    assert_eq!(by(certificate("b", b"key", -9, -1)), expired);
    assert_eq!(by(certificate("gone", b"key", 0, 9)), no);
    let mut other = certificate("a", b"key", 0, 9);
    other.name = Name::ControlPlane {
        mesh: MeshId::make(),
    };
    assert_eq!(by(other), no);
}

#[test]
fn a_node_with_a_certificate_of_ones_own_is_its_name_in_its_time() {
    let own = |common: &str, not_after: i64| {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let names = &mut params.distinguished_name;
        names.push(rcgen::DnType::CommonName, common);
        let key = rcgen::KeyPair::generate().unwrap();
        let signed = params.self_signed(&key).unwrap();
        let certificate = OwnCertificate::read(signed.der()).unwrap();
        OwnCertificate {
            not_after: NOW + not_after,
            ..certificate
        }
    };
    let known = known();
    let name = own("known", 0).identity.digest();
    let called = |key, revoked| Some(NodeCredential { key, revoked });
    known.set_node("before", called(name, false));
    let out = own("out", 0).identity.digest();
    known.set_node("revoked", called(out, true));
    let joined = own_certificate::node_id(own("joined", 0).identity.digest());
    known.set_node(&joined, called(KeyDigest::of(b"key"), false));
    let by = |certificate| {
        let origin = Origin {
            certificate: Some(Certificate::Own(certificate)),
            way: Way::Tls,
            ..Origin::plain("192.0.2.1:1".parse().unwrap())
        };
        Caller::identify(&origin, &Shown::Nothing, &known, NOW, false)
            .map_err(|refused| refused.kind)
    };
    let node = |node_id: &str| Ok(Caller::Node(NodeId::from(node_id.to_owned())));
    assert_eq!(by(own("known", 0)), node("before"));
    assert_eq!(by(own("known", -1)), Err(Kind::CertificateExpired));
    let new = own_certificate::node_id(own("new", 0).identity.digest());
    assert_eq!(by(own("new", 9)), node(&new));
    assert_eq!(by(own("out", 9)), Err(Kind::Unauthorized));
    assert_eq!(by(own("joined", 9)), Err(Kind::Unauthorized));
}

#[test]
fn times_that_do_not_fit_are_said_with_both_clocks() {
    let origin = Origin {
        certificate: Some(Certificate::Mesh(certificate("a", b"key", 60, 90))),
        ..Origin::plain("192.0.2.1:1".parse().unwrap())
    };
    let refused = Caller::identify(&origin, &Shown::Nothing, &known(), NOW, false).unwrap_err();
    for time in ["2030-03-17T17:46:40Z", "2030-03-17T17:47:40Z"] {
        assert!(refused.detail.contains(time), "{}", refused.detail);
    }
}

#[test]
fn an_operator_is_the_secret_of_a_token_that_was_not_revoked() {
    let token = |id: &str| OperatorToken {
        id: id.to_owned(),
        secret: Secret::make().unwrap(),
    };
    let (a, gone) = (token("a"), token("gone"));
    let known = Known::new(Stage::Secured);
    for (token, revoked) in [(&a, false), (&gone, true)] {
        let credential = OperatorCredential {
            digest: token.secret.digest(),
            role: Role::Read,
            name: "Ada".to_owned(),
            revoked,
        };
        known.set_operator(&token.id, credential);
    }
    let origin = Origin::plain("192.0.2.1:1".parse().unwrap());
    let by = |value: &str| {
        let value = HeaderValue::from_str(value).unwrap();
        let headers = HeaderMap::from_iter([(AUTHORIZATION, value)]);
        let shown = Shown::in_headers(&headers);
        Caller::identify(&origin, &shown, &known, NOW, false).map_err(|refused| refused.kind)
    };
    let ada = Caller::Operator {
        id: "a".to_owned(),
        name: "Ada".to_owned(),
        role: Role::Read,
    };
    assert_eq!(by(&format!("Bearer {a}")), Ok(ada.clone()));
    assert_eq!(by(&format!("bearer {a}")), Ok(ada));
    let other = OperatorToken {
        secret: gone.secret.clone(),
        ..a.clone()
    };
    for wrong in [
        format!("Bearer {gone}"),
        format!("Bearer {other}"),
        format!("Bearer {}", token("b")),
        format!("Bearer {}x", a),
        format!("Bearer{a}"),
        "Bearer ".to_owned(),
        "Bearer".to_owned(),
        String::new(),
    ] {
        assert_eq!(by(&wrong), Err(Kind::Unauthorized), "{wrong}");
    }
    assert_eq!(by("Basic YTpi"), Ok(Caller::Nobody));
    let twice = [&a, &gone].map(|token| {
        let value = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
        (AUTHORIZATION, value)
    });
    let mut headers = HeaderMap::new();
    for (name, value) in twice {
        headers.append(name, value);
    }
    assert_eq!(Shown::in_headers(&headers), Shown::Garbage);
}

#[test]
fn whoever_opens_the_admin_socket_is_the_admin() {
    let caller = Caller::identify(&Origin::admin(), &Shown::Garbage, &known(), NOW, false);
    assert_eq!(caller, Ok(Caller::Admin));
}
