//! gRPC code generated from `proto/`.
//!
//! [`quilt`] is the frozen contract with container runtimes, [`mesh`] what this project
//! adds to it. The comments of the `.proto` files are the documentation of both.

mod finding;
#[cfg(feature = "checks")]
pub mod way;

/// Package `quilt`: the three calls every runtime serves.
#[allow(
    missing_docs,
    clippy::all,
    unreachable_pub,
    unused_qualifications,
    reason = "generated; documented in quilt.proto"
)]
pub mod quilt {
    tonic::include_proto!("quilt");
}

/// Package `mesh`: the whole peer set in one call, and the data plane's state.
#[allow(
    missing_docs,
    clippy::all,
    unreachable_pub,
    unused_qualifications,
    reason = "generated; documented in mesh.proto"
)]
pub mod mesh {
    tonic::include_proto!("mesh");
}

/// The encoded `FileDescriptorSet` of what a runtime serves, for gRPC server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
