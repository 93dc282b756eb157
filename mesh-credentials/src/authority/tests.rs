//! What is signed, shown and checked, as TLS does it.

use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::{ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier as _;
use std::time::Duration;

use super::*;
use crate::authority_file::{self, FiledAuthority};
use crate::authority_state::AuthorityState;
use crate::certificate::Presented;
use crate::control_plane_check::{ControlPlaneCheck, KnownBy};
use crate::node_check::NodeCheck;
use crate::node_key_pair::NodeKeyPair;
use crate::trust::Trust;

const NOW: i64 = 1_800_000_000;

fn at(seconds: i64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(seconds).unwrap()))
}

fn authority() -> Authority {
    Authority::make(MeshId::make(), NOW).unwrap()
}

fn trust(authorities: &[&Authority]) -> Trust {
    let trusted = authorities.iter().map(|it| it.trusted().clone());
    Trust::new(trusted.collect()).unwrap()
}

fn der(pem: &str) -> CertificateDer<'static> {
    tls::certificates(pem).unwrap().remove(0)
}

fn node(authority: &Authority, key: &NodeKeyPair) -> CertificateDer<'static> {
    let request = Request::read(&key.request().unwrap()).unwrap();
    assert_eq!(request.key, key.digest());
    der(&authority.sign_node(&request, "n-1", NOW).unwrap())
}

fn control_plane(authority: &Authority) -> CertificateDer<'static> {
    let names = ["control.example".to_owned(), "no host name".to_owned()];
    let addresses = ["192.0.2.10".parse().unwrap()];
    der(&authority
        .sign_control_plane(&names, &addresses, NOW)
        .unwrap()
        .certificate)
}

fn checked(
    known_by: KnownBy,
    certificate: &CertificateDer<'_>,
    chain: &[CertificateDer<'_>],
    now: i64,
) -> Result<(), String> {
    let name = ServerName::try_from("198.51.100.7").unwrap();
    ControlPlaneCheck::new(known_by)
        .verify_server_cert(certificate, chain, &name, &[], at(now))
        .map(drop)
        .map_err(|error| error.to_string())
}

#[test]
fn a_nodes_certificate_says_who_it_is_and_from_when_to_when() {
    let (authority, key) = (authority(), NodeKeyPair::make().unwrap());
    let presented = Presented::read(&node(&authority, &key)).unwrap();
    let mesh = authority.mesh().clone();
    let node_id = "n-1".to_owned();
    assert_eq!(presented.name, Name::Node { mesh, node_id });
    assert_eq!(presented.key, key.digest());
    let subject = format!("authority {}", authority.trusted().key().short());
    assert_eq!(presented.issuer, subject);
    let life = (presented.not_before, presented.not_after);
    assert_eq!(life, (NOW - BACKDATED, NOW + NODE_LIFE));
    let renewed_after = presented.renew_at() - NOW;
    assert!((4 * DAY..5 * DAY).contains(&renewed_after));
}

#[test]
fn a_node_is_taken_at_any_time_and_nobody_else_ever() {
    let (ours, key) = (authority(), NodeKeyPair::make().unwrap());
    let check = NodeCheck::new(trust(&[&ours]));
    let shown = |certificate: &CertificateDer<'_>, now| {
        check.verify_client_cert(certificate, &[], at(now)).is_ok()
    };
    let node = node(&ours, &key);
    for now in [0, NOW, NOW + 100 * NODE_LIFE] {
        assert!(shown(&node, now));
        assert!(!shown(&control_plane(&ours), now));
        assert!(!shown(&ours.trusted().der, now));
        // Another authority that says it is of the same mesh.
        let forged = Authority::make(ours.mesh().clone(), NOW).unwrap();
        assert!(!shown(&self::node(&forged, &key), now));
    }
    // A bit of it changed.
    for at in (0..node.len()).step_by(7) {
        let mut bytes = node.to_vec();
        bytes[at] ^= 1;
        assert!(!shown(&bytes.into(), NOW), "{at}");
    }
}

#[test]
fn both_of_two_authorities_are_trusted_while_one_takes_the_place_of_the_other() {
    let (old, key) = (authority(), NodeKeyPair::make().unwrap());
    let new = Authority::make(old.mesh().clone(), NOW).unwrap();
    let check = NodeCheck::new(trust(&[&old]));
    let shown = |authority| {
        let certificate = node(authority, &key);
        check.verify_client_cert(&certificate, &[], at(NOW)).is_ok()
    };
    assert!(shown(&old) && !shown(&new));
    check.go_by(trust(&[&old, &new]));
    assert!(shown(&old) && shown(&new));
    check.go_by(trust(&[&new]));
    assert!(!shown(&old) && shown(&new));
    let both = trust(&[&old, &new]);
    let digests = [
        trust(&[&old]).digest(old.trusted().key()),
        both.digest(old.trusted().key()),
        both.digest(new.trusted().key()),
        trust(&[&new]).digest(new.trusted().key()),
    ];
    for (i, digest) in digests.iter().enumerate() {
        assert!(!digests[..i].contains(digest));
    }
    let reversed = trust(&[&new, &old]);
    assert_eq!(reversed.digest(old.trusted().key()), digests[1]);
}

#[test]
fn a_control_plane_is_known_by_authority_and_role_and_not_by_name() {
    let ours = authority();
    let known = || KnownBy::Trust(trust(&[&ours]));
    assert_eq!(checked(known(), &control_plane(&ours), &[], NOW), Ok(()));
    let key = NodeKeyPair::make().unwrap();
    assert!(checked(known(), &node(&ours, &key), &[], NOW).is_err());
    let other = Authority::make(ours.mesh().clone(), NOW).unwrap();
    let error = checked(known(), &control_plane(&other), &[], NOW).unwrap_err();
    assert!(error.contains("UnknownIssuer"), "{error}");
    let chain = [other.trusted().der.clone()];
    assert!(checked(known(), &control_plane(&other), &chain, NOW).is_err());
}

#[test]
fn a_clock_that_is_wrong_is_named() {
    let ours = authority();
    for now in [86_400, NOW + CONTROL_PLANE_LIFE + 1] {
        let known = KnownBy::Trust(trust(&[&ours]));
        let error = checked(known, &control_plane(&ours), &[], now).unwrap_err();
        assert!(error.contains("set the clock"), "{error}");
    }
    let known = KnownBy::Trust(trust(&[&ours]));
    let error = checked(known, &control_plane(&ours), &[], 86_400).unwrap_err();
    assert!(error.contains("1970-01-02T00:00:00Z"), "{error}");
    assert!(error.contains("2027-01-15T07:00:00Z"), "{error}");
}

#[test]
fn who_joins_knows_the_control_plane_by_the_key_of_its_authority() {
    let ours = authority();
    let known = || KnownBy::Key(ours.trusted().key());
    let shown = control_plane(&ours);
    let chain = [ours.trusted().der.clone()];
    assert_eq!(checked(known(), &shown, &chain, NOW), Ok(()));
    let error = checked(known(), &shown, &[], NOW).unwrap_err();
    assert!(error.contains("does not have the authority"), "{error}");
    // Whoever stands between shows the right authority, and has not its key.
    let other = authority();
    assert!(checked(known(), &control_plane(&other), &chain, NOW).is_err());
    let both = [other.trusted().der.clone(), ours.trusted().der.clone()];
    assert!(checked(known(), &control_plane(&other), &both, NOW).is_err());
}

#[test]
fn what_a_request_says_beside_its_key_is_not_signed() {
    let (authority, key) = (authority(), KeyPair::generate().unwrap());
    let mut forged = CertificateParams::new(vec!["control.example".to_owned()]).unwrap();
    let mesh = authority.mesh().clone();
    let name = uri(&Name::ControlPlane { mesh }).unwrap();
    forged.subject_alt_names.push(name);
    forged.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    forged.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let pem = forged.serialize_request(&key).unwrap().pem().unwrap();
    let request = Request::read(&pem).unwrap();
    let signed = der(&authority.sign_node(&request, "n-1", NOW).unwrap());
    let presented = Presented::read(&signed).unwrap();
    assert!(matches!(presented.name, Name::Node { .. }));
    let known = KnownBy::Trust(trust(&[&authority]));
    assert!(checked(known, &signed, &[], NOW).is_err());
    let text = String::from_utf8_lossy(&signed).into_owned();
    assert!(!text.contains("control.example"));
}

#[test]
fn a_request_without_its_key_or_with_another_kind_of_key_is_refused() {
    let key = NodeKeyPair::make().unwrap();
    let pem = key.request().unwrap();
    let mut bytes = data_encoding::BASE64
        .decode(
            pem.lines()
                .filter(|line| !line.starts_with('-'))
                .collect::<String>()
                .as_bytes(),
        )
        .unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let forged = crate::trust::pem("CERTIFICATE REQUEST", &bytes);
    assert!(Request::read(&forged).is_err());
    for kind in [&rcgen::PKCS_ED25519, &rcgen::PKCS_ECDSA_P384_SHA384] {
        let key = KeyPair::generate_for(kind).unwrap();
        let other = CertificateParams::default()
            .serialize_request(&key)
            .unwrap();
        assert!(Request::read(&other.pem().unwrap()).is_err());
    }
    for text in [
        "",
        "x",
        "-----BEGIN CERTIFICATE REQUEST-----\nAA==\n-----END CERTIFICATE REQUEST-----\n",
    ] {
        assert!(Request::read(text).is_err());
    }
}

#[test]
fn authorities_are_read_from_their_file_as_they_were_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("authority.key.pem");
    assert!(authority_file::read(&path).unwrap().is_empty());
    let old = authority();
    let new = Authority::make(old.mesh().clone(), NOW).unwrap();
    let keys = [old.trusted().key(), new.trusted().key()];
    let text = authority_file::text(&[
        FiledAuthority::new(old, AuthorityState::Last),
        FiledAuthority::from(new),
    ]);
    assert!(text.starts_with("# state: last\n-----BEGIN CERTIFICATE-----"));
    authority_file::replace(&path, &authority_file::parse(&text).unwrap()).unwrap();
    let read = authority_file::read(&path).unwrap();
    let read_keys: Vec<KeyDigest> = read.iter().map(|it| it.trusted().key()).collect();
    assert_eq!(read_keys, keys);
    let states: Vec<_> = read.iter().map(|it| it.state).collect();
    assert_eq!(states, [Some(AuthorityState::Last), None]);
    for damaged in [&text[..text.len() / 3], &text[text.len() / 3..], "x"] {
        if let Ok(authorities) = authority_file::parse(damaged) {
            assert!(authorities.is_empty(), "{damaged}");
        }
    }
    // The certificate of one with the key of the other.
    let parts: Vec<&str> = text
        .split_inclusive("-----END PRIVATE KEY-----\n")
        .collect();
    let certificate = |text: &str| text.find("-----BEGIN PRIVATE").unwrap();
    let mixed = format!(
        "{}{}",
        &parts[0][..certificate(parts[0])],
        &parts[1][certificate(parts[1])..]
    );
    assert!(authority_file::parse(&mixed).is_err());
}

#[test]
fn a_client_can_be_set_up_with_what_was_signed() {
    let (authority, key) = (authority(), NodeKeyPair::make().unwrap());
    let certificate = pem_of(&node(&authority, &key));
    let check = || Arc::new(ControlPlaneCheck::new(KnownBy::Trust(trust(&[&authority]))));
    tls::client(check(), Some((&certificate, &key.pem()))).unwrap();
    let other = NodeKeyPair::make().unwrap();
    assert!(tls::client(check(), Some((&certificate, &other.pem()))).is_err());
    assert!(tls::client(check(), Some(("", &key.pem()))).is_err());
}
