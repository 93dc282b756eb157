//! Who a certificate is for, as the URI in it says (RFC 5280 section 4.2.1.6; the scheme is SPIFFE's).

use std::fmt;
use std::str::FromStr;

/// The longest id of a mesh or a node.
const LONGEST_ID: usize = 64;

/// Which mesh it is: made with its first authority, and kept when that is replaced by another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MeshId(String);

impl MeshId {
    /// That of a new mesh.
    #[must_use]
    pub fn make() -> Self {
        Self(uuid::Uuid::new_v4().to_string())
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MeshId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who is meant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Name {
    /// An authority of the mesh: `spiffe://MESH`.
    Authority {
        /// Which.
        mesh: MeshId,
    },
    /// A control plane of the mesh: `spiffe://MESH/control-plane`.
    ControlPlane {
        /// Which.
        mesh: MeshId,
    },
    /// A node: `spiffe://MESH/node/ID`.
    Node {
        /// Of which mesh.
        mesh: MeshId,
        /// By what the control plane knows it.
        node_id: String,
    },
}

/// The text names nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no part of a mesh")]
pub struct NameError(String);

impl Name {
    /// The mesh that it belongs to.
    #[must_use]
    pub fn mesh(&self) -> &MeshId {
        let (Self::Authority { mesh } | Self::ControlPlane { mesh } | Self::Node { mesh, .. }) =
            self;
        mesh
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authority { mesh } => write!(f, "spiffe://{mesh}"),
            Self::ControlPlane { mesh } => write!(f, "spiffe://{mesh}/control-plane"),
            Self::Node { mesh, node_id } => write!(f, "spiffe://{mesh}/node/{node_id}"),
        }
    }
}

/// Whether the text may stand in a name. What may, may stand in a path of the REST interface as well.
#[must_use]
pub fn is_id(text: &str) -> bool {
    (1..=LONGEST_ID).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

impl FromStr for MeshId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match is_id(text) {
            true => Ok(Self(text.to_owned())),
            false => Err(NameError(text.chars().take(2 * LONGEST_ID).collect())),
        }
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let wrong = || NameError(text.chars().take(4 * LONGEST_ID).collect());
        let mut parts = text.strip_prefix("spiffe://").ok_or_else(wrong)?.split('/');
        let mesh: MeshId = parts
            .next()
            .unwrap_or_default()
            .parse()
            .map_err(|_| wrong())?;
        match (parts.next(), parts.next(), parts.next()) {
            (None, None, None) => Ok(Self::Authority { mesh }),
            (Some("control-plane"), None, None) => Ok(Self::ControlPlane { mesh }),
            (Some("node"), Some(node_id), None) if is_id(node_id) => Ok(Self::Node {
                mesh,
                node_id: node_id.to_owned(),
            }),
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_is_read_as_it_was_written() {
        let mesh = MeshId::make();
        for name in [
            Name::Authority { mesh: mesh.clone() },
            Name::ControlPlane { mesh: mesh.clone() },
            Name::Node {
                mesh,
                node_id: "n-1".to_owned(),
            },
        ] {
            assert_eq!(name.to_string().parse(), Ok(name));
        }
    }

    #[test]
    fn what_is_nearly_a_name_is_none() {
        for text in [
            "",
            "spiffe://",
            "spiffe:///node/1",
            "http://m/node/1",
            "spiffe://m/node",
            "spiffe://m/node/",
            "spiffe://m/node/1/",
            "spiffe://m/node/1/control-plane",
            "spiffe://m/control-plane/",
            "spiffe://m/Control-Plane",
            "spiffe://m/node/..",
            "spiffe://m/node/a%2fb",
            "spiffe://m/node/a b",
            "spiffe://m:1/node/1",
            "spiffe://m/",
        ] {
            assert!(text.parse::<Name>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "(spiffe://)?[a-z/.%-]{0,90}") {
            let _ = text.parse::<Name>();
        }
    }
}
