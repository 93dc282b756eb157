//! The calls by which a container runtime says what it knows of a container.

use std::net::Ipv4Addr;

use super::Reconciler;
use crate::{
    api::command::{EndpointView, Refusal},
    diff::change::DisplayMac,
    observed::{Observed, dirty::Dirty},
    wanted::{
        Wanted,
        endpoint::AttachedEndpoint,
        endpoint_request::{EndpointRequest, check, matching},
    },
};

impl Reconciler {
    pub(super) async fn attach_endpoint(
        &mut self,
        request: &EndpointRequest,
    ) -> Result<EndpointView, Refusal> {
        let subnet = self.subnet_before("AttachEndpoint")?;
        self.read(self.containers_unheard())
            .await
            .map_err(Refusal::because)?;
        let (address, endpoint) = check(
            request,
            &self.observed,
            &self.settings.bridge,
            subnet,
            &self.wanted.endpoints,
        )
        .map_err(Refusal::because)?;
        let view = self.view_of(address, &endpoint);
        let interface = endpoint.interface.clone();
        if self.wanted.endpoints.insert(address, endpoint.clone()) != Some(endpoint) {
            self.state_writer.changed(self.wanted.generation);
            tracing::info!(name: "endpoint-attached", %address, interface, mac = view.mac, "endpoint attached");
        }
        self.round(Dirty::default()).await;
        Ok(view)
    }

    fn view_of(&self, address: Ipv4Addr, endpoint: &AttachedEndpoint) -> EndpointView {
        let mac = endpoint.mac.or_else(|| {
            let container = self.observed.containers.get(&endpoint.link)?;
            container.interface.as_ref()?.mac
        });
        EndpointView {
            address,
            mac: mac.map_or_else(String::new, |mac| DisplayMac(mac).to_string()),
            interface: endpoint.interface.clone(),
            shaped: self.observed.shaping.shaped.contains(&endpoint.link),
        }
    }

    pub(super) async fn detach_endpoint(
        &mut self,
        interface: &str,
        address: &str,
    ) -> Result<(), Refusal> {
        let endpoints =
            matching(interface, address, &self.wanted.endpoints).map_err(Refusal::because)?;
        for address in endpoints {
            if let Some(endpoint) = self.wanted.endpoints.remove(&address) {
                self.state_writer.changed(self.wanted.generation);
                tracing::info!(name: "endpoint-detached", %address, interface = endpoint.interface, "endpoint detached");
            }
        }
        self.round(Dirty::default()).await;
        Ok(())
    }
}

/// Forgets the endpoints whose interfaces are gone, and says whether there were any. The kernel gives an index again only
/// after billions of others, or after a restart of the host, when the name tells.
pub(super) fn forget_gone(wanted: &mut Wanted, observed: &Observed) -> bool {
    let before = wanted.endpoints.len();
    wanted.endpoints.retain(|address, endpoint| {
        let there = observed
            .links
            .get(&endpoint.link)
            .is_some_and(|link| link.name == endpoint.interface);
        if !there {
            tracing::info!(name: "endpoint-gone-interface", %address, interface = endpoint.interface, "endpoint gone with its interface");
        }
        there
    });
    wanted.endpoints.len() < before
}
