//! Which name an interface has by now, asked without the kernel's network configuration lock, which a deletion holds while
//! it waits; and by its index: for a name that it does not know the kernel starts modprobe (`dev_load`).

use nix::{errno::Errno, net::if_::if_indextoname};

/// The name of an interface; `None` if the kernel knows none of that index.
///
/// # Errors
///
/// It could not be asked.
pub(crate) fn interface_name(index: u32) -> Result<Option<String>, Errno> {
    let name = match if_indextoname(index) {
        // What nix 0.31 makes of an error.
        Ok(name) if name.is_empty() => Err(Errno::last()),
        other => other,
    };
    match name {
        Ok(name) => Ok(Some(name.to_string_lossy().into_owned())),
        // The kernel's, and what C libraries make of it.
        Err(Errno::ENODEV | Errno::ENXIO) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the kernel knows an interface of that index, or may know one.
pub(crate) fn is_listed(index: u32) -> bool {
    !matches!(interface_name(index), Ok(None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_has_a_name_and_what_is_none_has_none() {
        assert_eq!(interface_name(1), Ok(Some("lo".to_owned())));
        assert!(is_listed(1));
        let none = i32::MAX.unsigned_abs();
        assert_eq!(interface_name(none), Ok(None));
        assert!(!is_listed(none));
    }
}
