//! The privileged part of a node.

pub mod fast_path;
