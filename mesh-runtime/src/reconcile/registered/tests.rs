use mesh_ipam::{Endpoint, Lifetime, NamedLabels, Owner};

use super::*;
use crate::{
    options::RuntimeOptions,
    reconcile::{FastPathSlot, StateWriter},
};

fn reconciler() -> Reconciler {
    let options = RuntimeOptions {
        // No such bridge can be there.
        bridge: "quilt-no-bridge".to_owned(),
        ..RuntimeOptions::default()
    };
    let none = FastPathSlot::Unavailable("a test".to_owned());
    Reconciler::new(options, none, StateWriter::default(), None).unwrap()
}

fn lease() -> Lease {
    let owner = Owner::new("test", "quilt", "web", "eth0").unwrap();
    Lease {
        address: [10, 42, 1, 2].into(),
        endpoint: Some(Endpoint {
            link: owner.link_name(),
            mac: [2, 0, 0, 0, 0, 1],
            mtu: 1450,
            default_route: true,
            published: Vec::new(),
            settled: false,
            namespace: None,
            moved_by_engine: false,
            leased_along: true,
        }),
        owner,
        named: NamedLabels::default(),
        namespace: None,
        lifetime: Lifetime::Released,
        since: 0,
    }
}

#[tokio::test]
async fn an_endpoint_whose_caller_has_gone_is_not_made() {
    let namespace = Namespace::own();
    let mut reconciler = reconciler();
    let (reply, gone) = oneshot::channel();
    drop(gone);
    reconciler
        .make_endpoint(&lease(), Some(&namespace), reply)
        .await;
    // Nobody has so much as looked where to make it.
    assert!(reconciler.observed.links.is_empty());

    let (reply, mut answer) = oneshot::channel();
    reconciler
        .make_endpoint(&lease(), Some(&namespace), reply)
        .await;
    assert!(!reconciler.observed.links.is_empty());
    let refusal = answer.try_recv().unwrap().unwrap_err();
    assert!(refusal.to_string().contains("quilt-no-bridge"), "{refusal}");
}
