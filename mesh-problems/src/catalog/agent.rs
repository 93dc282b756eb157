//! What keeps a node's agent from the control plane, or what it learns there from the runtime.

use crate::{Kind, Severity};

kinds! {
    HEARTBEAT_FAILED = "heartbeat-failed", Error, "Heartbeats do not reach the control plane",
        breaks "it takes this node for down when its node timeout is over, and tells it of no change; packets pass as before",
        remedy "see whether the control plane runs and this host reaches it (--control-plane); heartbeats go on by themselves";
    HELD_OFF_AS_COPY = "held-off-as-copy", Error, "Another host is this node, and this one is held off as its copy",
        breaks "this host is no part of the mesh: its peers stay as they are, and nobody hears of it",
        remedy "if it shall be a node of its own, stop the agent, remove what is in its --state-dir, and start it again, with a join \
                token where nodes have certificates (meshctl token create); if it is the original, stop the copy";
    REPORT_REFUSED = "report-refused", Warning, "The control plane does not take what heartbeats carry",
        breaks "the node counts as up, but its traffic and its findings are not seen there",
        remedy "see what the reason says: a proxy in between may take no large requests, or the control plane is of an older version";
    NOT_REGISTERED = "not-registered", Error, "This node cannot be registered",
        breaks "it is no part of the mesh until it is",
        remedy "see what the reason says; it is tried again by itself";
    NO_NODE_LIST = "no-node-list", Warning, "The control plane does not tell which nodes there are",
        breaks "the peers stay as they are: nodes that join, move or leave are not heard of",
        remedy "see what the reason says; it is asked again by itself";
    NODE_LIST_DIVERGES = "node-list-diverges", Warning, "The changes that the control plane tells do not lead to its node list",
        breaks "the whole list is fetched again and again, and changes arrive late",
        remedy "see whether all replicas of the control plane are on one database and of one version";
    FOREIGN_NODE_LIST = "foreign-node-list", Error, "The node list is not about this cluster",
        breaks "the peers stay as they are, and the node registers again and again",
        remedy "have --control-plane name the control plane of this cluster; one whose database was lost is right again once the \
                nodes have registered there";
    LISTED_SUBNET_UNUSABLE = "listed-subnet-unusable", Error, "Listed nodes have subnets that are none",
        breaks "they are no peers of this node",
        remedy "see what they registered with, and whether the control plane's --cluster-cidr is meant";
    LISTED_ADDRESS_UNUSABLE = "listed-address-unusable", Error, "Listed nodes have addresses at which no host is reached",
        breaks "they are no peers of this node",
        remedy "give their agents the right --host-ip";
    LISTED_STATUS_UNKNOWN = "listed-status-unknown", Warning, "Listed nodes have a status that this agent does not know",
        breaks "they neither become peers nor stop being some",
        remedy "upgrade the agent to the version of the control plane";
    OWN_SUBNET_CLAIMED = "own-subnet-claimed", Error, "Other listed nodes have this node's subnet",
        breaks "they are no peers of this node, and on other nodes they may be in its place",
        remedy "have one of them leave (meshctl leave, on it), or remove it (meshctl node remove NAME)";
    OWN_ADDRESS_CLAIMED = "own-address-claimed", Error, "Other listed nodes have this node's address",
        breaks "they are no peers of this node, and on other nodes they may be in its place",
        remedy "give each agent the --host-ip of its own host; remove a node that is no more (meshctl node remove NAME)";
    SUBNET_OF_TWO_NODES = "subnet-of-two-nodes", Error, "Listed nodes have the subnet of another one, or a part of it",
        breaks "only the first of them is a peer of this node",
        remedy "have one of them leave (meshctl leave, on it), or remove it (meshctl node remove NAME)";
    ADDRESS_OF_TWO_NODES = "address-of-two-nodes", Error, "Listed nodes have the address of another one",
        breaks "only the first of them is a peer of this node",
        remedy "give each agent the --host-ip of its own host; remove a node that is no more (meshctl node remove NAME)";
    NODE_ADDRESS_UNKNOWN = "node-address-unknown", Error, "The agent does not find this node's address",
        breaks "the node is not registered before it does",
        remedy "give it a way to the control plane, or give the address with --host-ip";
    LOOPBACK_ADDRESS = "loopback-address", Error, "This node's address is one of loopback",
        breaks "other hosts cannot reach it there",
        remedy "start the agent with --host-ip ADDRESS";
    CONNECTIONS_NOT_RENEWED = "connections-not-renewed", Warning, "The agent still has connections from an address that has changed",
        breaks "calls to the control plane may run into their deadlines",
        remedy "restart the agent";
    RUNTIME_LOST = "runtime-lost", Error, "The runtime does not answer the agent",
        breaks "the node's peers stay as they are; packets pass as before",
        remedy "start quilt-runtime, and see what its log says; --quilt-runtime says where the agent looks for it";
    RUNTIME_BY_LOOPBACK = "runtime-by-loopback", Notice, "The agent may not call the runtime's socket, and calls it over loopback",
        breaks "nothing; but another process may take that port while no runtime runs",
        remedy "start quilt-runtime with --socket-group GROUP, and the agent as a member of that group";
    SUBNET_REFUSED = "subnet-refused", Error, "The runtime does not take the node's subnet",
        breaks "containers here are not reached from other nodes until it does",
        remedy "see what the reason says; containers with addresses of an old subnet have to be made anew";
    SETTINGS_NOT_FOLLOWED = "settings-not-followed", Error, "The runtime cannot follow the cluster's settings",
        breaks "no peers are set up on this node",
        remedy "upgrade quilt-runtime on this node";
    PEERS_REFUSED = "peers-refused", Error, "The runtime does not take the peers",
        breaks "those that are new are not reached from here, and those that are gone stay",
        remedy "see what the reason says, and what the runtime finds (meshctl status); it is tried again by itself";
    PEERS_REJECTED = "peers-rejected", Error, "The runtime does not take some peers",
        breaks "their containers are not reached from here",
        remedy "see what the reason says; it is tried again by itself";
    PEERS_NOT_PROBED = "peers-not-probed", Warning, "The runtime does not tell which peers are alive",
        breaks "peers that the control plane does not call up are given up after --absent-peer-grace, even if they live",
        remedy "see what the reason says; it is asked again by itself";
    THREE_CALL_RUNTIME = "three-call-runtime", Notice, "The runtime serves the three calls of quilt.proto alone",
        breaks "there is no fast path, and routes whose nodes left while no agent ran stay until they are removed by hand",
        remedy "nothing, or use a runtime that serves mesh.MeshDataplane, such as quilt-runtime";
    ROUTES_MISSING = "routes-missing", Error, "The runtime does not make the routes to some peers",
        breaks "their containers are not reached from here",
        remedy "see what the reason says; it is tried again by itself";
    ROUTES_NOT_REMOVED = "routes-not-removed", Warning, "The runtime does not remove routes to nodes that are gone",
        breaks "what is for their containers leads nowhere, also once another node has their subnet",
        remedy "see what the reason says; it is tried again by itself";
    CANNOT_JOIN = "cannot-join", Error, "This host cannot join the mesh",
        breaks "without a certificate it is no part of it",
        remedy "see what the reason says; it is tried again by itself";
    JOIN_TOKEN_REFUSED = "join-token-refused", Error, "The control plane does not take the join token",
        breaks "without a certificate this host is no part of the mesh",
        remedy "make another there (quilt-mesh-control token create) and start the agent with it (--join, --join-file)";
    CERTIFICATE_REFUSED = "certificate-refused", Error, "The control plane does not take this node's certificate",
        breaks "nothing is told to the control plane or heard from it; the data plane stays as it is",
        remedy "make a token for this node there (quilt-mesh-control token create --node NAME) and start the agent with --join TOKEN";
    CERTIFICATE_NOT_RENEWED = "certificate-not-renewed", Warning, "This node's certificate cannot be renewed",
        breaks "it holds for more than a day yet; when it has expired the control plane takes nothing from this node",
        remedy "see what the reason says; it is tried again by itself";
    CERTIFICATE_ENDS_SOON = "certificate-ends-soon", Error, "This node's certificate cannot be renewed and expires within a day",
        breaks "when it has expired the control plane takes nothing from this node",
        remedy "see what the reason says; it is tried again by itself";
    CERTIFICATE_EXPIRED = "certificate-expired", Error, "This node's certificate has expired",
        breaks "the control plane takes nothing from this node until it is renewed; the data plane stays as it is",
        remedy "see that the control plane is reached, and that the clocks are right; if it does not renew it, let the host join \
                again with a token for this node (quilt-mesh-control token create --node NAME)";
    CERTIFICATE_UNUSABLE = "certificate-unusable", Error, "The agent cannot show its certificate",
        breaks "the control plane takes nothing from this node",
        remedy "restart the agent; if it stays, remove node.key, node.pem and ca.pem from its --state-dir and let the host join again";
    CERTIFICATE_NOT_KEPT = "certificate-not-kept", Error, "This node's certificate cannot be written to the disk",
        breaks "an agent that starts again goes on with what was kept before, or has to join again",
        remedy "make room, or permit writing to the agent's --state-dir; it is tried again by itself";
    CERTIFICATE_NOT_SHOWN = "certificate-not-shown", Warning, "This node has a certificate, which is not shown over http",
        breaks "a control plane that asks for credentials does not let the node in",
        remedy "write https:// in --control-plane";
    OWN_CERTIFICATE_UNUSABLE = "own-certificate-unusable", Warning, "The files of this node's own certificate are of no use",
        breaks "that from before is shown until it expires",
        remedy "see what the reason says about --tls-cert and --tls-key; they are read again when they change";
    TOKEN_NOT_KEPT = "token-not-kept", Warning, "The token by which this host goes on as its node cannot be written to the disk",
        breaks "an agent that starts again may be taken for a copy until the node timeout has passed",
        remedy "make room, or permit writing to the agent's --state-dir";
    NO_NODE_KEY = "no-node-key", Warning, "This node has no key",
        breaks "it is known by its address alone: with another one it is another node, with another subnet, and it cannot leave for good",
        remedy "make the agent's --state-dir, owned by its user, and restart the agent";
    CLOCKS_DIFFER = "clocks-differ", Warning, "This host's clock and the control plane's show different times",
        breaks "certificates count as expired, or as not valid yet",
        remedy "set the wrong one (timedatectl)";
    INSECURE_CONTROL_PLANE = "insecure-control-plane", Warning, "The control plane lets in whoever reaches it",
        breaks "anybody there can change this network",
        remedy "make a token there (quilt-mesh-control token create) and let the nodes join, and do not start it with --insecure";
    NO_AGENT_SOCKET = "no-agent-socket", Notice, "The agent serves no socket",
        breaks "meshctl on this host cannot ask the agent",
        remedy "make its directory, owned by the agent's user (RuntimeDirectory= of its unit), choose another path with --socket, or \
                --socket off, and restart the agent";
}
