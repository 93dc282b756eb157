//! Errors as the API tells them: `application/problem+json` (RFC 9457). A document of somebody else is read as far as it
//! has this form.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{lenient, node_id::NodeId, problem_kind::Kind};

/// The member of a `slow-down` that says after how many seconds to try again, as the header `Retry-After` does.
pub const RETRY_AFTER_MEMBER: &str = "retry_after_seconds";

/// An error (RFC 9457). Some kinds have more members, such as `errors`, `holder` or `subnets`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct ProblemDocument {
    /// What kind of problem it is; the part after the last colon is the kind's name.
    #[cfg_attr(
        feature = "openapi",
        schema(
            required,
            pattern = "^urn:quilt-mesh:problem:[a-z-]+$",
            example = "urn:quilt-mesh:problem:in-use"
        )
    )]
    #[serde(deserialize_with = "lenient::or_default")]
    pub r#type: String,
    /// The kind in words.
    #[cfg_attr(feature = "openapi", schema(required))]
    #[serde(deserialize_with = "lenient::or_default")]
    pub title: String,
    /// The status code, once more.
    #[cfg_attr(feature = "openapi", schema(required, minimum = 400, maximum = 599))]
    #[serde(deserialize_with = "lenient::or_default")]
    pub status: u16,
    /// What is wrong here: the value, the rule, and what to do.
    #[cfg_attr(feature = "openapi", schema(required, min_length = 1))]
    #[serde(deserialize_with = "lenient::or_default")]
    pub detail: String,
    /// Of `invalid-fields`: each field that is missing or wrong.
    #[serde(
        deserialize_with = "lenient::or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub errors: Vec<FieldError>,
    /// Of `in-use`, `address-kept` and `copy`: the node that has what was asked for.
    #[serde(
        deserialize_with = "lenient::or_default",
        skip_serializing_if = "Option::is_none"
    )]
    pub holder: Option<Holder>,
    /// What else there is to know (RFC 9457 section 3.2), by name.
    #[cfg_attr(feature = "openapi", schema(ignore))]
    #[serde(flatten)]
    pub members: Map<String, Value>,
}

impl ProblemDocument {
    /// A problem; `detail` tells the value, the rule, and what to do.
    #[must_use]
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self {
            r#type: kind.type_uri(),
            title: kind.title().to_owned(),
            status: kind.status(),
            detail: detail.into(),
            ..Self::default()
        }
    }

    /// What kind it is. `None`: one that this version does not know.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        Kind::of_type(&self.r#type)
    }
}

/// A field that is missing or wrong, as in the example of RFC 9457 section 3.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FieldError {
    /// The value and the rule.
    pub detail: String,
    /// Which field: a JSON Pointer in URI fragment form (RFC 6901 section 6).
    pub pointer: String,
}

/// The node that has what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Holder {
    /// Its underlay address, where that matters.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = "ipv4"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<Ipv4Addr>,
    /// Its hostname.
    pub hostname: String,
    /// Its id.
    pub node_id: NodeId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_what_the_kind_says_and_then_what_it_is_about() {
        let mut problem = ProblemDocument::new(Kind::Copy, "d");
        problem.holder = Some(Holder {
            host_ip: None,
            hostname: "a".to_owned(),
            node_id: NodeId::from("n".to_owned()),
        });
        problem.members.insert("x".to_owned(), 7.into());
        let text = serde_json::to_string(&problem).unwrap();
        assert_eq!(
            text,
            r#"{"type":"urn:quilt-mesh:problem:copy","title":"A copy of a live node","status":409,"detail":"d","holder":{"hostname":"a","node_id":"n"},"x":7}"#
        );
        let read: ProblemDocument = serde_json::from_str(&text).unwrap();
        assert_eq!(read, problem);
        assert_eq!(read.kind(), Some(Kind::Copy));
    }

    #[test]
    fn fields_that_are_wrong_stand_in_the_order_of_their_names() {
        let mut problem = ProblemDocument::new(Kind::InvalidFields, "d");
        problem.errors.push(FieldError {
            pointer: "#/a".to_owned(),
            detail: "d".to_owned(),
        });
        let text = serde_json::to_string(&problem).unwrap();
        let end = r##""status":422,"detail":"d","errors":[{"detail":"d","pointer":"#/a"}]}"##;
        assert!(text.ends_with(end), "{text}");
    }

    #[test]
    fn of_somebody_elses_document_there_is_what_can_be_read() {
        let text =
            r#"{"type":7,"title":"Gone","status":"many","errors":["x"],"holder":7,"detail":null}"#;
        let read: ProblemDocument = serde_json::from_str(text).unwrap();
        assert_eq!(
            read,
            ProblemDocument {
                title: "Gone".to_owned(),
                ..ProblemDocument::default()
            }
        );
        assert_eq!(read.kind(), None);
    }
}
