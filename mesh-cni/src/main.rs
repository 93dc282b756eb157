//! `quilt-cni`: puts containers of whatever speaks CNI on the mesh.

fn main() {}
