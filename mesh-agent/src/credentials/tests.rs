//! Tests of what is taken for this node's credentials, and of what is kept of them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use mesh_credentials::{
    authority::{Authority, Request},
    name::MeshId,
};

use super::{
    files::{AUTHORITIES_FILE, CERTIFICATE_FILE, CredentialFileError, CredentialFiles, KEY_FILE},
    *,
};

const NOW: i64 = 1_796_000_000;

fn authority(mesh: &MeshId) -> Authority {
    Authority::make(mesh.clone(), NOW).unwrap()
}

fn answer(signs: &Authority, trusted: &[&Authority], key: &NodeKeyPair, node_id: &str) -> Joined {
    let request = Request::read(&key.request().unwrap()).unwrap();
    Joined {
        node_id: node_id.to_owned(),
        mesh_id: signs.mesh().to_string(),
        certificate: signs.sign_node(&request, node_id, NOW).unwrap(),
        authorities: trusted.iter().map(|of| of.trusted().pem()).collect(),
        authorities_digest: "abc".to_owned(),
        time: NOW,
    }
}

fn key() -> Arc<NodeKeyPair> {
    Arc::new(NodeKeyPair::make().unwrap())
}

#[test]
fn an_answer_is_taken_that_fits_to_token_and_key_and_no_other() {
    let mesh = MeshId::make();
    let (ours, next, foreign) = (
        authority(&mesh),
        authority(&mesh),
        authority(&MeshId::make()),
    );
    let key = key();
    let pinned = Expected::Joining(ours.trusted().key());
    fn taken(
        key: &Arc<NodeKeyPair>,
        answer: &Joined,
        expected: Expected<'_>,
    ) -> Result<Credentials, CredentialsError> {
        Credentials::answered(Arc::clone(key), answer, expected)
    }
    let good = answer(&ours, &[&ours, &next], &key, "n1");
    let joined = taken(&key, &good, pinned).unwrap();
    assert_eq!(
        (joined.node_id.as_str(), joined.trust.iter().count()),
        ("n1", 2)
    );
    assert_eq!(joined.joined_by, Some(ours.trusted().key()));

    let refused = |answer: &Joined, expected: Expected<'_>, why: &str| {
        let error = taken(&key, answer, expected).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    };
    // Whoever has the token need not have the mesh's authority.
    refused(
        &answer(&next, &[&next], &key, "n1"),
        pinned,
        "the join token is for",
    );
    refused(
        &answer(&next, &[&ours], &key, "n1"),
        pinned,
        "UnknownIssuer",
    );
    refused(
        &answer(&ours, &[&ours, &foreign], &key, "n1"),
        pinned,
        "two meshes",
    );
    refused(
        &answer(&ours, &[&ours], &NodeKeyPair::make().unwrap(), "n1"),
        pinned,
        "this host's is",
    );
    refused(
        &Joined {
            node_id: "n2".to_owned(),
            ..good.clone()
        },
        pinned,
        "it speaks of \"n2\"",
    );
    refused(
        &Joined {
            certificate: String::new(),
            ..good.clone()
        },
        pinned,
        "no certificate",
    );
    refused(
        &Joined {
            authorities: String::new(),
            ..good.clone()
        },
        pinned,
        "0 authorities",
    );
    let names = ([], []);
    let control_plane = ours.sign_control_plane(&names.0, &names.1, NOW).unwrap();
    refused(
        &Joined {
            certificate: control_plane.certificate,
            ..good
        },
        pinned,
        "and not for a node",
    );

    // What is renewed stays the same node of the same mesh, whoever signs.
    let renewing = Expected::Renewing(&joined);
    let renewed = taken(&key, &answer(&next, &[&next], &key, "n1"), renewing).unwrap();
    assert_eq!(renewed.joined_by, Some(ours.trusted().key()));
    assert!(
        renewed.may_come_from(ours.trusted().key()) && renewed.may_come_from(next.trusted().key())
    );
    assert!(!renewed.may_come_from(foreign.trusted().key()));
    refused(
        &answer(&ours, &[&ours], &key, "n2"),
        renewing,
        "and it speaks of \"n1\"",
    );
    refused(
        &answer(&foreign, &[&foreign], &key, "n1"),
        renewing,
        "of the mesh",
    );
}

#[test]
fn what_is_kept_is_read_again_and_is_the_owners_alone() {
    let directory = tempfile::tempdir().unwrap();
    let files = CredentialFiles::in_directory(directory.path());
    let nothing = files.read().unwrap();
    assert!(nothing.key.is_none() && nothing.credentials.unwrap().is_none());
    let key = files.key().unwrap();
    assert_eq!(files.key().unwrap().digest(), key.digest());

    let authority = authority(&MeshId::make());
    let answer = answer(&authority, &[&authority], &key, "n1");
    let joining = Expected::Joining(authority.trusted().key());
    let joined = Credentials::answered(key, &answer, joining).unwrap();
    files.write(&joined).unwrap();
    let kept = files.read().unwrap().credentials.unwrap().unwrap();
    assert_eq!(kept.certificate, joined.certificate);
    assert_eq!(kept.trust, joined.trust);
    assert_eq!(kept.joined_by, joined.joined_by);
    assert_eq!(kept.authorities_digest, Some("abc".to_owned()));
    let mut names: Vec<_> = fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, [AUTHORITIES_FILE, KEY_FILE, CERTIFICATE_FILE]);
    let mode = fs::metadata(directory.path().join(KEY_FILE))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn files_that_do_not_fit_together_are_named_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let files = CredentialFiles::in_directory(directory.path());
    let authority = authority(&MeshId::make());
    let write = || {
        let _none = fs::remove_file(path(KEY_FILE));
        let key = files.key().unwrap();
        let answer = answer(&authority, &[&authority], &key, "n1");
        let joining = Expected::Joining(authority.trusted().key());
        files
            .write(&Credentials::answered(key, &answer, joining).unwrap())
            .unwrap();
    };
    let unusable = |why: &str| {
        let error = files.read().unwrap().credentials.unwrap_err().to_string();
        assert!(
            error.contains(why) && error.contains(CERTIFICATE_FILE),
            "{error}"
        );
    };
    for name in [KEY_FILE, AUTHORITIES_FILE] {
        write();
        fs::remove_file(path(name)).unwrap();
        unusable(&format!("{name} beside it is gone"));
    }
    for damage in [
        &b""[..],
        b"-----BEGIN CERTIFICATE-----\n",
        b"\xff\xfe",
        &[b'a'; 2_000_000],
    ] {
        for (name, why) in [
            (CERTIFICATE_FILE, "its certificate"),
            (AUTHORITIES_FILE, "its authorities"),
        ] {
            write();
            fs::write(path(name), damage).unwrap();
            unusable(why);
            assert_eq!(fs::read(path(name)).unwrap(), damage);
        }
    }
    write();
    fs::write(path(KEY_FILE), NodeKeyPair::make().unwrap().pem()).unwrap();
    unusable("this host's is");

    fs::write(path(KEY_FILE), "no key").unwrap();
    let error = files.read().unwrap_err();
    assert!(matches!(error, CredentialFileError::Key(_)), "{error}");
    write();
    fs::set_permissions(path(KEY_FILE), fs::Permissions::from_mode(0o644)).unwrap();
    let error = files.read().unwrap_err().to_string();
    assert!(error.contains("may be read by others"), "{error}");
    fs::set_permissions(path(KEY_FILE), fs::Permissions::from_mode(0o600)).unwrap();
    // The others are no secret.
    fs::set_permissions(path(AUTHORITIES_FILE), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(files.read().unwrap().credentials.unwrap().is_some());
}

#[test]
fn without_a_directory_there_is_no_key() {
    let missing = CredentialFiles::in_directory("/nonexistent".as_ref());
    let error = missing.key().unwrap_err().to_string();
    assert!(error.contains("a certificate has to be kept"), "{error}");
}
