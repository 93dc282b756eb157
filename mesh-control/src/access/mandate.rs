//! The mandate of a request: by what it was let in, to be judged again.
//!
//! A request is let in by its head. Its body may follow seconds later, and what it asks for may wait behind other changes;
//! meanwhile its sender may have been revoked, here or at another replica. So it is judged again when its body is there,
//! and once more in the transaction that makes the change, where no credential changes until that ends.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::caller::Caller;
use super::origin::Origin;
use super::{Access, Asked, Refused};

/// See the module.
#[derive(Clone, Default)]
pub struct Mandate(Option<Arc<LetInBy>>);

struct LetInBy {
    access: Arc<Access>,
    origin: Arc<Origin>,
    asked: Asked,
}

impl std::fmt::Debug for Mandate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let who = self.0.as_ref().map(|it| (&it.origin, &it.asked.needs));
        f.debug_tuple("Mandate").field(&who).finish()
    }
}

impl Mandate {
    /// That of the control plane itself, which asks on its own account.
    pub fn own() -> Self {
        Self::default()
    }

    /// That of a request from `origin`, which `access` let in. What was `asked` holds no secret any more.
    pub(crate) fn new(access: Arc<Access>, origin: Arc<Origin>, asked: Asked) -> Self {
        Self(Some(Arc::new(LetInBy {
            access,
            origin,
            asked,
        })))
    }

    /// Judges again whether this may be asked, by what is known of credentials now. `None`: the control plane itself asks.
    ///
    /// # Errors
    ///
    /// Why not any more.
    pub(crate) fn judge(&self) -> Result<Option<Caller>, Refused> {
        let Some(by) = &self.0 else { return Ok(None) };
        by.access.judge(&by.origin, &by.asked).map(Some)
    }

    /// The call, as it stands in the table.
    pub(crate) fn what(&self) -> String {
        let by = self.0.as_ref();
        match by.and_then(|by| by.asked.needs.entry) {
            Some(entry) => format!("{} {}", entry.method, entry.path),
            None => String::new(),
        }
    }

    /// By what it was judged, and where it comes from.
    pub(crate) fn judged_by(&self) -> Option<(&Access, &Origin)> {
        let by = self.0.as_ref()?;
        Some((&by.access, &by.origin))
    }

    /// The address that its connection comes from, as the control plane sees it. It is not that of a host behind a proxy.
    pub(crate) fn from(&self) -> Option<Ipv4Addr> {
        let peer = self.0.as_ref()?.origin.peer?;
        match peer.ip().to_canonical() {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        }
    }
}
