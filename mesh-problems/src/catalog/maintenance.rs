//! What an operator has said of a node, and others shall see.

use crate::{Kind, Severity};

kinds! {
    NODE_DRAINED = "node-drained", Notice, "This node takes no new containers",
        breaks "nothing: what is here keeps its traffic, and may be taken off; what is to be started here is refused, and told to try again",
        remedy "move what is left (meshctl drain lists it), or let it take new ones again (meshctl drain --undo)";
    NODE_LEFT = "node-left", Notice, "This host has left its mesh",
        breaks "it is no node of it: no other node reaches what runs here, and its subnet may become another's",
        remedy "nothing, or let it join again (meshctl leave --undo)";
}
