//! Whether a container's veth pair is there, and is the one that was made for it.

use std::os::fd::AsFd as _;

use mesh_ipam::Owner;

use super::ports;
use crate::{
    api::command::Refusal, apply::veth, ebpf::Mac, observed::namespace::Namespace,
    reconcile::Reconciler,
};

impl Reconciler {
    /// The interface of that name, if it is there: it has to be a port of the bridge with its other end in that
    /// namespace.
    pub(super) async fn find_in(
        &self,
        link: &str,
        namespace: &Namespace,
    ) -> Result<Option<u32>, Refusal> {
        let Some(found) = self.observed.link_named(link) else {
            return Ok(None);
        };
        let id = veth::namespace_id(&self.netlink, namespace.as_fd())
            .await
            .map_err(Refusal::because)?;
        let at_bridge = ports(&self.observed, &self.settings.bridge).contains_key(link);
        let inside = found.far_end.map(|end| end.namespace);
        if at_bridge && inside.is_some() && inside == id {
            return Ok(Some(found.index));
        }
        Err(Refusal::new(format!(
            "interface {link} is there already, and is not this container's end of {}: the container is \
             attached in another namespace, or somebody else made it; detach it first",
            self.settings.bridge
        )))
    }

    /// The interface of an owner whose engine moves the other end, if it is there: it has to be a port of the bridge with
    /// that end under its own name on this host, or in some namespace.
    pub(super) fn find_handed_over(&self, owner: &Owner) -> Result<Option<u32>, Refusal> {
        let (link, inside) = (owner.link_name(), owner.handed_over_name());
        let anothers = |name: &str| {
            Refusal::new(format!(
                "interface {name} is there already, and is not one of this container's pair at {}: somebody else made \
                 or changed it; delete or rename it first",
                self.settings.bridge
            ))
        };
        let Some(found) = self.observed.link_named(&link) else {
            return match self.observed.link_named(&inside) {
                Some(_) => Err(anothers(&inside)),
                None => Ok(None),
            };
        };
        let at_bridge = ports(&self.observed, &self.settings.bridge).contains_key(link.as_str());
        let near = found.near_end.and_then(|end| self.observed.links.get(&end));
        if at_bridge && (found.far_end.is_some() || near.is_some_and(|end| end.name == inside)) {
            return Ok(Some(found.index));
        }
        Err(anothers(&link))
    }

    /// The MAC address at the other end of a port.
    pub(super) fn inside_mac(&self, link: u32) -> Option<Mac> {
        if let Some(end) = self.observed.links.get(&link)?.near_end {
            return self.observed.links.get(&end)?.mac;
        }
        let container = self.observed.containers.get(&link)?;
        container.interface.as_ref()?.mac
    }
}
