//! The start of the loop: what an earlier run left is taken over.

use super::Reconciler;
use crate::{
    ebpf::{shown_generation, shown_holders},
    observed::dirty::Dirty,
    wanted::{
        adopt::adopt,
        state::{Source, choose},
    },
};

impl Reconciler {
    /// Takes over what an earlier run left, then makes the first round.
    pub(super) async fn start(&mut self) {
        let found = self.state_writer.read().await;
        self.observed.holders = shown_holders(&self.options.bpffs);
        if let Err(error) = self.read(Dirty::all()).await {
            tracing::warn!(name: "cannot-read-what-earlier-run", %error, "cannot read what an earlier run left in the kernel");
        }
        let kept = found.kept.clone().filter(|_| !found.behind);
        let (wanted, source) = choose(
            adopt(&self.settings, &self.observed),
            shown_generation(&self.options.bpffs),
            found,
        );
        self.wanted = wanted;
        if let Some(subnet) = self.wanted.subnet {
            tracing::info!(name: "took-over-what-earlier-run",
                %subnet,
                peers = self.wanted.peers.len(),
                injected = self.wanted.injected.len(),
                from = match source {
                    Source::File => "the state directory",
                    Source::Kernel | Source::Nobody => "the kernel",
                },
                "took over what an earlier run left"
            );
            if let Err(refusal) = self.registered.serve(subnet).await {
                tracing::error!(name: "no-addresses-leased-until-node", reason = %refusal, "no addresses are leased until the node has their subnet again");
            }
        }
        if let Some(address) = self.options.host_address {
            self.wanted.host_address = Some(address);
        }
        if !self.settings.forwarding {
            tracing::info!(name: "fast-path-off",
                "--fast-path off: the kernel path carries everything, and programs guard"
            );
        }
        self.fast_path.begin(&self.options);
        self.adopt_generation();
        // Also a mark that a kill left behind is taken away by writing.
        if kept.as_ref() != Some(&self.wanted) {
            self.state_writer.changed(self.wanted.generation);
        }
        self.round(Dirty::default()).await;
    }

    /// Goes on from the generation that the fast path's maps show, so that a call from
    /// before this daemon's start cannot undo what a later one did.
    pub(super) fn adopt_generation(&mut self) {
        if self.wanted.generation == 0
            && self.wanted.subnet.is_some()
            && let Some(generation) = self.fast_path.generation()
        {
            self.wanted.generation = generation;
        }
    }
}
