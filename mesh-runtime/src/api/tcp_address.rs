//! Where a program serves a runtime over TCP, which the runtime tells whoever asks for its state.

use std::sync::{Arc, Mutex, PoisonError};

/// The same for all its clones; empty at first.
#[derive(Clone, Debug, Default)]
pub struct TcpAddress(Arc<Mutex<String>>);

impl TcpAddress {
    /// Tells this from now on (`GetStatusResponse.grpc_address`).
    pub fn set(&self, address: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = address;
    }

    pub(crate) fn get(&self) -> String {
        let address = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        address.clone()
    }
}
