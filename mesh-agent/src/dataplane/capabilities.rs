//! What the runtime can do, and whether that is enough for the cluster's settings.

use std::collections::BTreeSet;

use mesh_problems::catalog::agent::SETTINGS_NOT_FOLLOWED;
use mesh_proto::mesh;
use mesh_rest::overlay::Overlay;
use tracing::{error, info};

use super::{Dataplane, Subject};
use crate::{
    excerpt::Excerpt,
    runtime_client::{CallError, RuntimeConnection, RuntimeLost, unless_lost},
};

/// What is said with a sync: nothing to a runtime from before there were settings.
pub(super) type NodeSettings = Option<mesh::NodeSettings>;

/// The names in `mesh.proto`.
const PORT: &str = "vxlan-port";
const VNI: &str = "vni";

/// What a runtime says that it can do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Capabilities {
    /// `None`, if it is from before the call that tells.
    version: Option<String>,
    names: BTreeSet<String>,
}

impl From<mesh::GetCapabilitiesResponse> for Capabilities {
    fn from(answer: mesh::GetCapabilitiesResponse) -> Self {
        Self {
            version: Some(answer.version),
            names: answer.capabilities.into_iter().collect(),
        }
    }
}

/// The runtime cannot follow the settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the nodes of this cluster use {overlay}, which the runtime on this node ({version}) cannot: \
     upgrade quilt-runtime"
)]
pub(super) struct CannotFollow {
    overlay: Overlay,
    version: String,
}

impl Capabilities {
    /// What to say with a sync so that the runtime uses `overlay`.
    fn settings(&self, overlay: Overlay) -> Result<NodeSettings, CannotFollow> {
        let before = Overlay::default();
        let can = |name| self.names.contains(name);
        let follows = (overlay.vxlan_port == before.vxlan_port || can(PORT))
            && (overlay.vni == before.vni || can(VNI));
        if !follows {
            let version = match &self.version {
                Some(version) => format!("version {}", Excerpt(version)),
                None => "an older version".to_owned(),
            };
            return Err(CannotFollow { overlay, version });
        }
        Ok(self.version.as_ref().map(|_| mesh::NodeSettings {
            vxlan_port: overlay.vxlan_port.into(),
            vni: overlay.vni,
        }))
    }
}

impl Dataplane {
    /// The settings for a sync; `None` if the runtime cannot follow those of the cluster, or does
    /// not say whether it can.
    pub(super) async fn node_settings(
        &mut self,
        runtime: &mut RuntimeConnection,
    ) -> Result<Option<NodeSettings>, RuntimeLost> {
        let capabilities = match &self.capabilities {
            Some(capabilities) => capabilities,
            None => match unless_lost(runtime.get_capabilities().await)? {
                Ok(answer) => self.capabilities.insert(answer.into()),
                Err(CallError::Unimplemented { .. }) => {
                    self.capabilities.insert(Capabilities::default())
                }
                // Asked again at the next sync. Every runtime has what was before there were settings.
                Err(_) if self.overlay == Overlay::default() => return Ok(Some(None)),
                Err(failure) => {
                    self.refuse(&failure.to_string());
                    return Ok(None);
                }
            },
        };
        match capabilities.settings(self.overlay) {
            Ok(settings) => {
                if self.reasons.resolve(&Subject::Overlay) {
                    info!(name: "runtime-can-follow-settings-overlay", "the runtime can follow the settings of the overlay");
                }
                Ok(Some(settings))
            }
            Err(refusal) => {
                // Asked again at every sync: nothing else would show that another runtime is there.
                self.capabilities = None;
                self.refuse(&refusal.to_string());
                Ok(None)
            }
        }
    }

    fn refuse(&mut self, reason: &str) {
        if self.reasons.note(Subject::Overlay, reason) {
            error!(name: "no-peers-set-up-node",
                code = SETTINGS_NOT_FOLLOWED.code,
                reason, "no peers are set up on this node; trying again at every sync"
            );
        }
        self.forget_peers();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(names: &[&str]) -> Capabilities {
        Capabilities::from(mesh::GetCapabilitiesResponse {
            version: "1.2.3".to_owned(),
            capabilities: names.iter().map(|&name| name.to_owned()).collect(),
            ..mesh::GetCapabilitiesResponse::default()
        })
    }

    #[test]
    fn a_runtime_follows_what_it_says_that_it_can_follow() {
        let (port, vni) = (
            Overlay {
                vxlan_port: 8472,
                ..Overlay::default()
            },
            Overlay {
                vni: 7,
                ..Overlay::default()
            },
        );
        let both = Overlay { vni: 7, ..port };
        let same = Overlay::default();
        for (capabilities, can, cannot) in [
            (Capabilities::default(), vec![same], vec![port, vni, both]),
            (with(&["later"]), vec![same], vec![port, vni, both]),
            (with(&[PORT]), vec![same, port], vec![vni, both]),
            (with(&[VNI]), vec![same, vni], vec![port, both]),
            (with(&[PORT, VNI]), vec![same, port, vni, both], vec![]),
        ] {
            for overlay in can {
                let settings = capabilities.settings(overlay).unwrap();
                // An older one is told nothing that it would pass over.
                assert_eq!(settings.is_some(), capabilities.version.is_some());
                if let Some(settings) = settings {
                    assert_eq!(settings.vxlan_port, u32::from(overlay.vxlan_port));
                    assert_eq!(settings.vni, overlay.vni);
                }
            }
            for overlay in cannot {
                assert!(capabilities.settings(overlay).is_err(), "{overlay}");
            }
        }
    }

    #[test]
    fn a_refusal_names_the_settings_the_runtime_and_what_to_do() {
        let overlay = Overlay {
            vxlan_port: 8472,
            vni: 7,
        };
        let error = with(&[]).settings(overlay).unwrap_err().to_string();
        for words in ["UDP port 8472 with VNI 7", "1.2.3", "upgrade quilt-runtime"] {
            assert!(error.contains(words), "{error}");
        }
        let older = Capabilities::default().settings(overlay).unwrap_err();
        assert!(older.to_string().contains("an older version"), "{older}");
    }
}
