//! What is seen from beside the daemons of a host.

use crate::{Kind, Severity};

kinds! {
    RUNTIME_DOWN = "runtime-down", Error, "The runtime of this host does not run",
        breaks "packets pass as they did, and nothing is repaired, added or taken away any more",
        remedy "start quilt-runtime, and see what its log says last";
    AGENT_DOWN = "agent-down", Error, "The agent of this host does not run",
        breaks "this node hears of no other node that comes, goes or moves, and counts as down",
        remedy "start quilt-mesh-agent, and see what its log says last";
}
