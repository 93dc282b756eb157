use mesh_credentials::secret::Secret;
use proptest::prelude::*;

use super::*;

fn named(node_id: &str) -> MeantNode {
    MeantNode {
        node_id: node_id.to_owned(),
        host_ip: Some("192.0.2.1".to_owned()),
        state: "up".to_owned(),
        has_credentials: true,
    }
}

fn node(node_id: &str, has_credentials: bool) -> Known {
    Known {
        node_id: node_id.to_owned(),
        has_credentials,
        up: true,
    }
}

fn known(node_id: &str) -> NodeCredential {
    NodeCredential {
        node_id: node_id.to_owned(),
        key: KeyDigest::of(b"key"),
        issuer: KeyDigest::of(b"issuer"),
        expires_at: 0,
        only_hostname: None,
        revoked: false,
    }
}

#[test]
fn a_nodes_key_is_worth_something_only_while_it_has_no_credentials() {
    let (with, without) = (node("a", true), node("b", false));
    assert_eq!(
        decide(None, &[], None, Some(&without)).unwrap(),
        Becomes::Node("b")
    );
    assert_eq!(decide(None, &[], None, Some(&with)).unwrap(), Becomes::New);
    assert_eq!(decide(None, &[], None, None).unwrap(), Becomes::New);
}

#[test]
fn the_key_that_signed_a_request_goes_before_the_node_key_that_it_names_and_after_the_token() {
    let (known, without) = (known("a"), node("b", false));
    assert_eq!(
        decide(None, &[], Some(&known), Some(&without)).unwrap(),
        Becomes::Node("a")
    );
    assert_eq!(
        decide(Some("gamma"), &[named("c")], Some(&known), None).unwrap(),
        Becomes::Node("c")
    );
    assert_eq!(
        decide(Some("gamma"), &[], Some(&known), None).unwrap(),
        Becomes::New
    );
}

#[test]
fn a_token_for_a_node_makes_its_bearer_that_node_whatever_key_it_shows() {
    let other = node("b", false);
    assert_eq!(
        decide(Some("alpha"), &[named("a")], None, Some(&other)).unwrap(),
        Becomes::Node("a")
    );
    assert_eq!(
        decide(Some("alpha"), &[], None, None).unwrap(),
        Becomes::New
    );
    let several = [named("a"), named("b")];
    let error = decide(Some("alpha"), &several, None, None).unwrap_err();
    let listed = "a (192.0.2.1, up), b (192.0.2.1, up)";
    assert!(error.to_string().contains(listed), "{error}");
}

proptest! {
    #[test]
    fn a_token_lets_in_exactly_while_it_holds(
        expires_at in 0..20_i64, now in 0..20_i64, revoked in any::<bool>(),
    ) {
        let token = StoredToken {
            token_id: "t".to_owned(),
            secret: Secret::make().unwrap().digest(),
            uses: 3,
            uses_left: 3,
            expires_at,
            only_hostname: None,
            only_node_id: None,
            created_at: 0,
            created_by: String::new(),
            revoked_at: revoked.then_some(0),
            authority: None,
        };
        let holds = !revoked && now < expires_at;
        prop_assert_eq!(check(&token, now).is_ok(), holds);
    }
}
