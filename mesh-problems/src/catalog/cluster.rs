//! What the control plane sees of the cluster.

use crate::{Kind, Severity};

kinds! {
    NODES_SILENT = "nodes-silent", Error, "Nodes are silent",
        breaks "other nodes keep them while their packets arrive, and nobody knows how they fare; what is newly started there may not be \
                reached",
        remedy "see on these hosts whether the agent runs and reaches the control plane (meshctl status there); remove those that are \
                gone for good (meshctl node remove NAME)";
    NODES_STOPPED = "nodes-stopped", Notice, "Nodes were stopped",
        breaks "nothing else than what runs there; they keep their subnets",
        remedy "start their agents, or remove those that do not come back (meshctl node remove NAME)";
    SUBNETS_OF_DEPARTED = "subnets-of-departed", Notice, "Nodes that left still have their subnets",
        breaks "these subnets are leased to nobody else",
        remedy "remove them (meshctl node remove NAME), or have that done by --release-after";
    HOST_CLONED = "host-cloned", Error, "A host comes as a node that is another host",
        breaks "it is held off: its containers are on no other host's map",
        remedy "on the copy, stop the agent, remove what is in its --state-dir, and start it again, with a join token where nodes have \
                certificates (meshctl token create); it becomes a node of its own";
    CLUSTER_OPEN = "cluster-open", Warning, "The control plane lets somebody in without credentials",
        breaks "whoever reaches it can change this network",
        remedy "secure the cluster (docs/SECURITY_SETUP.md), and start it without --insecure";
    SUBNETS_SCARCE = "subnets-scarce", Warning, "Few subnets are left",
        breaks "soon no further node can join",
        remedy "remove nodes that do not come back (meshctl nodes lists them, meshctl node remove NAME), or give a new cluster a larger \
                --cluster-cidr";
    SUBNETS_EXHAUSTED = "subnets-exhausted", Error, "No subnet is left",
        breaks "no further node can join",
        remedy "remove nodes that do not come back (meshctl nodes lists them, meshctl node remove NAME), or give a new cluster a larger \
                --cluster-cidr";
    VERSIONS_DIFFER = "versions-differ", Notice, "Runtimes of several versions run",
        breaks "what only the newer ones can do is not done everywhere",
        remedy "bring all nodes to one version (meshctl nodes shows which each has)";
}
