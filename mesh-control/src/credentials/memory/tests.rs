use super::*;

fn changes(revision: i64, nodes: &[&str]) -> CredentialChanges {
    let key = KeyDigest::of(b"");
    let nodes = nodes.iter().map(|node_id| NodeCredential {
        node_id: (*node_id).to_owned(),
        key,
        issuer: key,
        expires_at: 0,
        only_hostname: None,
        revoked: false,
    });
    CredentialChanges {
        revision,
        is_whole: revision == 1,
        stage: Stage::Secured,
        had_credentials: false,
        authorities: Vec::new(),
        ended: Vec::new(),
        nodes: nodes.collect(),
        tokens: Vec::new(),
        operators: Vec::new(),
    }
}

#[test]
fn who_is_called_so_is_the_node_until_that_is_known_by_another_key() {
    let credentials = Credentials::default();
    let (name, key) = (KeyDigest::of(b"name"), KeyDigest::of(b"key"));
    let take_in = |revision, node_id: &str, key, issuer| {
        let mut changes = changes(revision, &[node_id]);
        changes.nodes[0].key = key;
        changes.nodes[0].issuer = issuer;
        credentials.take_in(changes);
    };
    let own = own_certificate::issuer();
    take_in(1, "a", name, own);
    assert_eq!(credentials.node_called(name).as_deref(), Some("a"));
    // The host joined; what it was called before is revoked, in whatever order they are read.
    take_in(2, "own", name, own);
    take_in(3, "a", key, KeyDigest::of(b"authority"));
    assert_eq!(credentials.node_called(name).as_deref(), Some("own"));
    assert_eq!(credentials.node_called(key), None);
    take_in(4, "own", key, KeyDigest::of(b"authority"));
    assert_eq!(credentials.node_called(name), None);
}

#[test]
fn questions_are_judged_again_for_what_may_end_them_and_not_for_every_certificate() {
    let credentials = Credentials::default();
    let mut narrowed = credentials.narrowings();
    let mut revision = 0;
    let mut ends = |change: &dyn Fn(&mut CredentialChanges)| {
        revision += 1;
        let mut changes = changes(revision, &[]);
        change(&mut changes);
        credentials.take_in(changes);
        let ends = narrowed.has_changed().unwrap();
        narrowed.mark_unchanged();
        ends
    };
    let node = |node_id: &str| changes(2, &[node_id]).nodes.remove(0);
    let operator = |revoked_at| StoredOperator {
        operator_id: "ada".to_owned(),
        name: String::new(),
        role: mesh_rest::operator::Role::Read,
        secret: mesh_credentials::secret::Secret::make().unwrap().digest(),
        created_at: 0,
        revoked_at,
    };
    assert!(ends(&|_| {}), "all is read anew");
    assert!(!ends(&|_| {}));
    assert!(ends(&|it| it.nodes = vec![node("first")]));
    assert!(!ends(&|it| it.nodes = vec![node("new")]));
    assert!(!ends(&|it| {
        it.nodes = vec![node("new")];
        it.nodes[0].expires_at = 7;
        it.nodes[0].issuer = KeyDigest::of(b"another authority");
    }));
    assert!(ends(&|it| {
        it.nodes = vec![node("new")];
        it.nodes[0].key = KeyDigest::of(b"another host");
    }));
    assert!(ends(&|it| {
        it.nodes = vec![node("new")];
        it.nodes[0].revoked = true;
    }));
    assert!(ends(&|it| {
        it.nodes = vec![node("own")];
        it.nodes[0].issuer = own_certificate::issuer();
    }));
    assert!(!ends(&|it| it.operators = vec![operator(None)]));
    assert!(ends(&|it| it.operators = vec![operator(Some(7))]));
    assert!(ends(&|it| it.stage = Stage::Moving));
    assert!(
        ends(&|it| {
            it.stage = Stage::Moving;
            it.nodes = vec![node("moved")];
        }),
        "it may have asked without a certificate until now"
    );
    let authority =
        mesh_credentials::authority::Authority::make(mesh_credentials::name::MeshId::make(), 0);
    let trusted = authority.unwrap().trusted().clone();
    assert!(ends(&|it| {
        it.stage = Stage::Moving;
        it.authorities = vec![StoredAuthority {
            trusted: trusted.clone(),
            state: AuthorityState::Signs,
        }];
    }));
}

#[test]
fn what_is_to_be_read_anew_is_not_overtaken_by_what_was_being_read_then() {
    let credentials = Credentials::default();
    let take_in = |known, changes| credentials.take_in_since(known, changes);
    take_in(credentials.known(), changes(1, &["a"])).unwrap();
    take_in(credentials.known(), changes(50, &["b"])).unwrap();
    let known = credentials.known();
    // Its database is another one by the time that it is taken in.
    credentials.read_anew();
    take_in(known, changes(51, &["c"])).unwrap_err();
    assert_eq!(credentials.known().revision, -1);
    assert!(credentials.node("c").is_none());
    take_in(credentials.known(), changes(1, &["d"])).unwrap();
    assert!(credentials.node("d").is_some() && credentials.node("b").is_none());
    // Of two that read everything, the later one reads again.
    let known = credentials.known();
    take_in(known, changes(1, &["e"])).unwrap();
    take_in(known, changes(1, &["d"])).unwrap_err();
    assert!(credentials.node("e").is_some());
}

#[test]
fn who_reads_beside_a_change_does_not_take_back_what_that_did() {
    let credentials = Credentials::default();
    let take_in = |known, changes| credentials.take_in_since(known, changes).unwrap();
    take_in(credentials.known(), changes(1, &["a"]));
    let known = credentials.known();
    let mut revoked = changes(3, &["a"]);
    revoked.nodes[0].revoked = true;
    take_in(known, revoked);
    take_in(known, changes(2, &["a"]));
    assert!(credentials.node("a").is_some_and(|node| node.revoked));
    assert_eq!(credentials.known().revision, 3);
}

#[test]
fn a_key_is_known_while_a_node_has_it() {
    let credentials = Credentials::default();
    let (key, other) = (KeyDigest::of(b"key"), KeyDigest::of(b"other"));
    let take_in = |revision, node_id: &str, key| {
        let mut changes = changes(revision, &[node_id]);
        changes.nodes[0].key = key;
        credentials.take_in(changes);
    };
    take_in(1, "a", key);
    take_in(2, "b", key);
    take_in(3, "a", other);
    assert!(credentials.knows_key(key) && credentials.knows_key(other));
    take_in(4, "b", other);
    assert!(!credentials.knows_key(key) && credentials.knows_key(other));
    // The database went back.
    take_in(1, "b", key);
    assert!(credentials.knows_key(key) && !credentials.knows_key(other));
}

#[test]
fn what_changed_is_added_and_a_database_that_went_back_is_taken_whole() {
    let credentials = Credentials::default();
    let mut heard = credentials.changes();
    credentials.take_in(changes(1, &["a"]));
    assert!(heard.has_changed().unwrap());
    heard.mark_unchanged();
    credentials.take_in(changes(2, &["b"]));
    assert!(credentials.node("a").is_some() && credentials.node("b").is_some());
    assert!(heard.has_changed().unwrap());
    credentials.take_in(changes(1, &["a"]));
    assert!(credentials.node("a").is_some() && credentials.node("b").is_none());
}
