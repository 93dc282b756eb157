//! Nodes as the command line lists and names them.

use serde_json::Value;

use crate::answer::{Api, keyed};
use crate::joining::{Host, token, told};
use crate::process::Setup;

#[tokio::test]
async fn a_node_is_listed_with_what_it_is_known_by_and_revoked_by_its_name() {
    let setup = Setup::new();
    let control = setup.start();
    let three = token(&setup, &["--uses", "3"]);
    let alpha = Host::join(&control, &three).await;
    alpha.register(&control, "alpha", "192.0.2.1").await;
    let twins = [
        Host::join(&control, &three).await,
        Host::join(&control, &three).await,
    ];
    twins[0].register(&control, "twin", "192.0.2.2").await;
    twins[1].register(&control, "twin", "192.0.2.3").await;
    let waiting = Host::join(&control, &token(&setup, &["--node", "later"])).await;

    let list = told(&setup, &["node", "list"]).unwrap();
    let row = |id: &str| {
        let row = list.lines().find(|line| line.contains(id));
        let row = row.unwrap_or_else(|| panic!("{id} is not in\n{list}"));
        row.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let of_alpha = row(alpha.node_id());
    assert!(
        of_alpha.contains("alpha 192.0.2.1 10.42.1.0/24 up certificate 20"),
        "{of_alpha}"
    );
    let of_waiting = row(waiting.node_id());
    assert!(
        of_waiting.contains("later not registered certificate 20"),
        "{of_waiting}"
    );
    let json = told(&setup, &["node", "list", "--json"]).unwrap();
    let json: Value = serde_json::from_str(&json).unwrap();
    let nodes = json["nodes"].as_array().unwrap();
    assert_eq!(nodes.len(), 4);
    let entry = nodes
        .iter()
        .find(|it| it["node_id"] == alpha.node_id())
        .unwrap();
    assert_eq!(
        (&entry["state"], &entry["credential"]),
        (&"up".into(), &"valid".into())
    );

    told(&setup, &["node", "revoke", "alpha"]).unwrap();
    assert_eq!(alpha.beat(&control).await.status, 401);
    let list = told(&setup, &["node", "list"]).unwrap();
    assert_eq!(list.matches("revoked").count(), 1, "{list}");
    // Which of two is meant is not guessed.
    let error = told(&setup, &["node", "revoke", "twin"]).unwrap_err();
    for twin in &twins {
        assert!(error.contains(twin.node_id()), "{error}");
        assert_eq!(twin.beat(&control).await.status, 200);
    }
    assert!(
        error.contains("192.0.2.2, up") && error.contains("192.0.2.3, up"),
        "{error}"
    );
    let error = told(&setup, &["token", "create", "--node", "twin"]).unwrap_err();
    assert!(error.contains(twins[0].node_id()), "{error}");
    told(&setup, &["node", "revoke", twins[1].node_id()]).unwrap();
    assert_eq!(twins[1].beat(&control).await.status, 401);
    assert_eq!(twins[0].beat(&control).await.status, 200);
    // Who is nobody is said, and no token is made for an id that no node has.
    let error = told(&setup, &["node", "revoke", "nobody"]).unwrap_err();
    assert!(error.contains("nobody"), "{error}");
    let unknown = "00000000-0000-4000-8000-000000000000";
    let error = told(&setup, &["token", "create", "--node", unknown]).unwrap_err();
    assert!(error.contains("node list"), "{error}");
    // By the name it has comes back who was revoked by it.
    let again = Host::join(&control, &token(&setup, &["--node", "alpha"])).await;
    assert_eq!(again.node_id(), alpha.node_id());
}

#[tokio::test]
async fn nodes_without_credentials_are_listed_as_such() {
    let setup = Setup::new();
    let control = setup.start();
    let plain = Api::of(&control);
    let (alpha, _) = plain
        .register(keyed("k", "alpha", "192.0.2.1"))
        .await
        .admitted();
    plain.deregister(&alpha).await;
    let list = told(&setup, &["node", "list"]).unwrap();
    let row = list.lines().find(|line| line.contains(&alpha)).unwrap();
    assert!(row.contains("stopped") && row.contains("none"), "{list}");
}
