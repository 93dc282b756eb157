//! What a trace needs of the loop: what the node is. It looks for itself, beside the loop, and repairs nothing before.

use tokio::sync::oneshot;

use super::Reconciler;
use crate::{
    api::command::Refusal,
    trace::{Ground, Question, Trace, look},
};

impl Reconciler {
    /// Has the kernel looked at by a thread of its own, in the loop's network namespace.
    pub(super) fn trace(&self, question: Question, reply: oneshot::Sender<Result<Trace, Refusal>>) {
        let ground = match self.ground_of_traces() {
            Ok(ground) => ground,
            Err(refusal) => return drop(reply.send(Err(refusal))),
        };
        // Bound by the calls that wait at a time; who has gone meanwhile is no error.
        let _detached = tokio::task::spawn_blocking(move || {
            let traced = look(&ground, &question);
            reply.send(traced.map_err(|error| {
                Refusal::new(format!("the kernel's state cannot be read: {error}"))
            }))
        });
    }

    fn ground_of_traces(&self) -> Result<Ground, Refusal> {
        let unknown = |what| Refusal::for_now(format!("this node has no {what} yet"));
        let subnet = self.wanted.subnet.ok_or_else(|| unknown("subnet"))?;
        let underlay = self.desired.underlay.as_ref().map(|it| it.address);
        let host_address = underlay.or(self.wanted.host_address);
        let peers = self.wanted.peers.iter();
        Ok(Ground {
            cluster: self.settings.cluster.cidr,
            subnet,
            host_address: host_address.ok_or_else(|| unknown("underlay address"))?,
            peers: peers
                .map(|(subnet, peer)| (*subnet, (peer.address, peer.hostname.clone())))
                .collect(),
            bridge: self.settings.bridge.clone(),
            overlay: self.settings.overlay.clone(),
            vxlan_port: self.wanted.node_settings.vxlan_port,
            vni: self.wanted.node_settings.vni,
            routed_from: self.settings.routed_from.iter().copied().collect(),
            masquerade: self.settings.masquerade,
            bpffs: self.options.bpffs.clone(),
            rules: self.firewall.rules(),
        })
    }
}
