//! Heartbeats, and their absence.

use super::{Known, Life, Model};

impl Model {
    /// A heartbeat was answered 200 (`known`) or 404.
    pub(crate) fn heartbeat(&mut self, id: &str, known: bool, life: Life, prompt: bool) {
        let Some(node) = self.nodes.get_mut(id) else {
            return;
        };
        if known {
            // Another replica may not have heard yet; that it stays down is seen in the list.
            assert!(
                node.dismissed.may() && !prompt || node.dismissed != Known::Yes,
                "{id} was dismissed, and its heartbeat was taken"
            );
            if node.dismissed != Known::Yes {
                node.life = life;
            }
        } else {
            assert!(
                node.dismissed.may() || node.released.may(),
                "{id} was told that it is unknown: {node:?}"
            );
            node.life = Life::Unsure;
        }
    }

    /// A heartbeat or a deregistration got no answer.
    pub(crate) fn unsure_of(&mut self, id: &str, may_be_dismissed: bool) {
        if let Some(node) = self.nodes.get_mut(id) {
            node.life = Life::Unsure;
            if may_be_dismissed && node.dismissed == Known::No {
                node.dismissed = Known::Unsure;
            }
        }
    }

    /// A deregistration was answered 200 (`known`) or 404.
    pub(crate) fn deregistered(&mut self, id: &str, known: bool) {
        let node = self.nodes.get_mut(id).unwrap();
        if known {
            (node.dismissed, node.life) = (Known::Yes, Life::Down);
        } else {
            assert!(
                node.released.may(),
                "{id} deregistered and was told that it is unknown"
            );
        }
    }

    /// What is known of the life of nodes does not outlive the memory of a replica.
    pub(crate) fn forget_lives(&mut self) {
        for node in self
            .nodes
            .values_mut()
            .filter(|node| node.dismissed != Known::Yes)
        {
            node.life = Life::Unsure;
        }
    }

    /// Every node was seen down and nobody has sent anything since.
    pub(crate) fn all_are_down(&mut self) {
        for node in self.nodes.values_mut() {
            node.life = Life::Down;
        }
    }
}
