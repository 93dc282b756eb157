//! What a check of the ways between all nodes finds beside what is wrong with a way.

use crate::{Kind, Severity};

kinds! {
    CHECK_NOT_ANSWERED = "check-not-answered", Warning, "A node has not answered a check of all nodes",
        breaks "nothing is known of its ways to others; what others say of theirs to it holds",
        remedy "see whether its agent runs and reaches the control plane (meshctl status on that node), and upgrade it: one of an earlier version takes no notice";
    CHECK_NOT_ASKED = "check-not-asked", Error, "A node's agent cannot have its runtime ask",
        breaks "nothing is known of its ways to others; what others say of theirs to it holds",
        remedy "see whether quilt-runtime runs there (meshctl status on that node), and upgrade it: one of an earlier version cannot ask";
    PEER_UNKNOWN = "peer-unknown", Error, "A node does not have another one among its peers",
        breaks "nothing of its containers' reaches those there",
        remedy "ask again in a few seconds if that one is new; otherwise see what its agent and its runtime say (meshctl status on that node)";
}
