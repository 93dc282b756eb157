//! The node's own endpoint for probes, in the loop: made where it is missing, and gone where it may not be.
//!
//! It is made beside the loop, by a thread of its own: the kernel may take its time.

use std::{collections::BTreeSet, net::Ipv4Addr, time::Duration};

use tokio::{task::JoinHandle, time::Instant};

use super::Reconciler;
use crate::{
    netlink::answer,
    observed::{
        LinkKind,
        dirty::{Dirty, Parts},
    },
    probe_endpoint::{self, Made, NAME, Plan, WhyNone, Wish, address_in},
    problem::Problem,
};

/// How soon after one was begun another one may be: whoever deletes it at once every time shall not keep this busy.
/// Who has to wait waits for the next round.
const AGAIN: Duration = Duration::from_secs(1);

/// How soon after one that failed.
const AFTER_FAILURE: Duration = Duration::from_secs(30);

/// What the registry says of its address, for whoever wants it.
pub(super) const OCCUPANT: &str = "quilt-probe (the mesh's own, for meshctl ping)";

/// The endpoint for probes.
#[derive(Debug, Default)]
pub(super) struct ProbeEndpoint {
    made: Option<Made>,
    /// What is being made.
    making: Option<JoinHandle<Result<Made, WhyNone>>>,
    /// Why there is none.
    why: Option<WhyNone>,
    not_before: Option<Instant>,
}

impl ProbeEndpoint {
    /// Waits for what is being made; for ever if nothing is. Cancel safe.
    pub(super) async fn done(&mut self) -> Result<Made, WhyNone> {
        let Some(making) = &mut self.making else {
            return std::future::pending().await;
        };
        let ended = making.await;
        self.making = None;
        ended.unwrap_or_else(|error| Err(WhyNone::Failed(error.to_string())))
    }

    /// It, or why there is none.
    pub(super) fn get(&self) -> Result<&Made, WhyNone> {
        match (&self.made, &self.why) {
            (Some(made), _) => Ok(made),
            (None, why) => Err(why.clone().unwrap_or(WhyNone::NotYet)),
        }
    }

    /// That there is none, where somebody can do something about it.
    pub(super) fn problem(&self) -> Option<Problem> {
        let why = self.why.as_ref().filter(|why| why.is_problem())?;
        Some(Problem::NoProbeEndpoint(why.to_string()))
    }

    fn may_begin(&self) -> bool {
        self.making.is_none() && self.not_before.is_none_or(|at| at <= Instant::now())
    }
}

impl Reconciler {
    /// Has the endpoint for probes be as it is to be.
    pub(super) async fn keep_probe_endpoint(&mut self) {
        if self.probe_endpoint.making.is_some() {
            return;
        }
        let wish = self.wished_probe_endpoint();
        let made = self.probe_endpoint.made.as_ref();
        let planned = probe_endpoint::plan(&self.observed, made, wish.as_ref().copied());
        match planned {
            Ok(Plan::Nothing) => {
                if let Err(why) = wish {
                    self.probe_endpoint.made = None;
                    self.probe_endpoint.why = Some(why);
                }
            }
            Ok(Plan::Delete(index)) => {
                self.probe_endpoint.made = None;
                self.probe_endpoint.why = wish.err();
                let deleted = answer(self.netlink.handle.link().del(index).execute()).await;
                match deleted {
                    Ok(()) => tracing::info!(name: "probe-endpoint-deleted", "deleted {NAME}"),
                    Err(error) if error.errno() == Some(libc::ENODEV) => {}
                    Err(error) => {
                        tracing::warn!(name: "probe-endpoint-not-deleted", %error, "cannot delete {NAME}")
                    }
                }
                self.outdated = Dirty::all();
            }
            Ok(Plan::Make { wish, delete }) => {
                // What was made is not as it should be, or gone.
                self.probe_endpoint.made = None;
                if self.probe_endpoint.may_begin() {
                    self.probe_endpoint.not_before = Some(Instant::now() + AGAIN);
                    let make = move || probe_endpoint::make(wish, delete);
                    self.probe_endpoint.making = Some(tokio::task::spawn_blocking(make));
                }
            }
            Err(why) => {
                self.probe_endpoint.made = None;
                self.probe_endpoint.why = Some(why);
            }
        }
    }

    /// Takes what was made, or why nothing was.
    pub(super) async fn note_probe_endpoint(&mut self, made: Result<Made, WhyNone>) {
        match made {
            Ok(made) => {
                tracing::info!(name: "probe-endpoint-made", address = %made.wish.address, "made {NAME}, this node's endpoint for probes");
                self.probe_endpoint.made = Some(made);
                self.probe_endpoint.why = None;
            }
            Err(why) => {
                if self.probe_endpoint.why.as_ref() != Some(&why) && !why.is_problem() {
                    tracing::info!(name: "no-endpoint-probes", "no endpoint for probes: {why}");
                }
                self.probe_endpoint.why = Some(why);
                self.probe_endpoint.not_before = Some(Instant::now() + AFTER_FAILURE);
            }
        }
        // What was seen of it while it was being made is old by now.
        self.round(Parts::CONTAINERS.into()).await;
    }

    /// Its address, if it is there and programs and rules know it.
    pub(super) fn shown_probe_endpoint(&self) -> Option<Ipv4Addr> {
        let made = self.probe_endpoint.made.as_ref()?;
        let path = self.desired.containers.endpoints.get(&made.wish.address)?;
        (path.link == made.index).then_some(made.wish.address)
    }

    /// The address that it has or is to have.
    pub(super) fn probe_address(&self) -> Option<Ipv4Addr> {
        let address = address_in(self.wanted.subnet?)?;
        let is_free = self.holder_of(address).is_none();
        (self.options.probe_endpoint && is_free).then_some(address)
    }

    /// What it is to be, or why there is to be none.
    fn wished_probe_endpoint(&self) -> Result<Wish, WhyNone> {
        if !self.options.probe_endpoint {
            return Err(WhyNone::TurnedOff);
        }
        let subnet = self.wanted.subnet.ok_or(WhyNone::NotYet)?;
        let address = address_in(subnet).ok_or(WhyNone::Small(subnet))?;
        if let Some(holder) = self.holder_of(address) {
            return Err(WhyNone::Taken { address, holder });
        }
        let underlay = self.desired.underlay.as_ref().ok_or(WhyNone::NotYet)?;
        let bridge = self.observed.link_named(&self.settings.bridge);
        let bridge = bridge.filter(|link| link.kind == LinkKind::Bridge && link.up);
        let bridge = bridge.ok_or(WhyNone::NotYet)?;
        Ok(Wish {
            subnet,
            address,
            cluster: self.settings.cluster.cidr,
            mtu: underlay.overlay_mtu,
            bridge: (bridge.index, bridge.mtu),
        })
    }

    /// Who else has an address: by a lease, or behind another port.
    fn holder_of(&self, address: Ipv4Addr) -> Option<String> {
        if let Some(lease) = self
            .registered
            .ipam()
            .and_then(|ipam| ipam.lease_at(address))
        {
            return Some(lease.owner.to_string());
        }
        let own = self.observed.link_named(NAME).map(|link| link.index);
        let told = self.wanted.endpoints.get(&address).map(|it| it.link);
        let found = self.observed.containers.iter().find(|(_, container)| {
            let interface = container.interface.as_ref();
            interface.is_some_and(|it| it.addresses.contains(&address))
        });
        let ports: BTreeSet<u32> = told
            .into_iter()
            .chain(found.map(|(&port, _)| port))
            .collect();
        let other = ports.into_iter().find(|&port| Some(port) != own)?;
        Some(format!(
            "the container behind {}",
            self.observed.name_of(other)
        ))
    }

    /// Whether nothing but the endpoint for probes answers at an address of this node's subnet.
    pub(super) fn is_probe_endpoint(&self, address: Ipv4Addr) -> bool {
        let made = self.probe_endpoint.made.as_ref();
        made.is_some_and(|made| made.wish.address == address)
    }
}
