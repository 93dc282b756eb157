//! The node list, and what changed in it.
//!
//! What is optional here was not told by control planes of earlier versions, which have no feed or no settings.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::{node::NodeEntry, node_id::NodeId};

/// The body of `GET /api/nodes`: every node that was ever registered and not removed since, ordered by subnet. Asked
/// with `since`, what changed after that revision.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = NodeList))]
pub struct NodesAnswer<'a> {
    /// Rises with every change of a node other than its `last_heartbeat`, also over restarts. The revision that the
    /// asker has afterwards.
    #[cfg_attr(feature = "openapi", schema(required))]
    #[serde(default)]
    pub revision: i64,
    /// Which database `revision` is one of: random, made with the database.
    #[cfg_attr(feature = "openapi", schema(value_type = String, required))]
    #[serde(default)]
    pub database: Cow<'a, str>,
    /// Of five fields of the whole list at `revision`, so that an agent that knows no etags can prove its copy right:
    /// 16 hexadecimal digits, see `mesh_rest::digest`.
    #[cfg_attr(feature = "openapi", schema(value_type = String, required))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Of the ids and etags of the whole list at `revision`, so that the asker can prove its copy right: 16 hexadecimal
    /// digits, see `mesh_rest::proof`.
    #[cfg_attr(feature = "openapi", schema(value_type = String, required))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proof: Option<String>,
    /// The UDP port on which all nodes speak VXLAN (`--vxlan-port`).
    #[cfg_attr(
        feature = "openapi",
        schema(value_type = u16, required, minimum = 1, example = 4789)
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vxlan_port: Option<u64>,
    /// The VXLAN network identifier that all nodes use (`--vni`).
    #[cfg_attr(
        feature = "openapi",
        schema(value_type = u32, required, minimum = 1, maximum = 16_777_215, example = 100)
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vni: Option<u64>,
    /// Whether `nodes` is the whole list, so that whatever else the asker has is gone. Only when asked with `since`.
    #[cfg_attr(feature = "openapi", schema(value_type = bool, required = false))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full: Option<bool>,
    /// Every node, or those that changed or are new.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<NodeEntry<'_>>))]
    pub nodes: Vec<NodeEntry<'a>>,
    /// The ids of nodes that were removed; may name some that the asker never had. Only when asked with `since`.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<NodeId>, required = false))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub removed: Option<Vec<NodeId>>,
}

/// Describes the body of `GET /api/nodes?since=R`: a [`NodesAnswer`] that has `full` and `removed`.
#[cfg(feature = "openapi")]
#[derive(Debug)]
pub struct NodeChanges;

#[cfg(feature = "openapi")]
mod description {
    use utoipa::{
        PartialSchema, ToSchema,
        openapi::{ObjectBuilder, Ref, RefOr, schema::AllOfBuilder, schema::Schema},
    };

    use super::{NodeChanges, NodesAnswer};

    impl ToSchema for NodeChanges {
        fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
            schemas.push((
                NodesAnswer::name().into_owned(),
                <NodesAnswer<'_> as PartialSchema>::schema(),
            ));
            <NodesAnswer<'_> as ToSchema>::schemas(schemas);
        }
    }

    impl PartialSchema for NodeChanges {
        fn schema() -> RefOr<Schema> {
            let told = ObjectBuilder::new().required("full").required("removed");
            AllOfBuilder::new()
                .description(Some(
                    "What changed after a revision: of the list, what is new or different, and who is gone",
                ))
                .item(Ref::from_schema_name(NodesAnswer::name()))
                .item(told)
                .into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_may_hold_fields_and_words_of_a_later_version_and_lack_those_of_this_one() {
        let list: NodesAnswer<'_> = serde_json::from_str(
            r#"{"revision": 7, "weather": "fine", "nodes": [{"node_id": "a", "host_ip": "192.0.2.1",
                "subnet": "10.42.1.0/24", "status": "draining", "zone": "x"}]}"#,
        )
        .unwrap();
        let entry = &list.nodes[0];
        assert_eq!(entry.status(), None);
        assert_eq!(entry.digested().status, "draining");
        assert!(!entry.left);
        assert_eq!((list.digest, list.full), (None, None));
        assert_eq!((list.vxlan_port, list.vni), (None, None));
        assert_eq!(list.removed, None);
    }
}
