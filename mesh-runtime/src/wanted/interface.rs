//! Names of interfaces, as the kernel and the contract allow them.

/// The longest name the kernel takes: `IFNAMSIZ` (16) less the terminating zero.
const MAX_NAME_LEN: usize = 15;

/// A name that no interface can have, by the rules of the kernel's `dev_valid_name`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InterfaceNameError {
    /// Nothing was given.
    #[error("the interface name is empty")]
    Empty,
    /// Longer than the kernel's names.
    #[error("interface {name:?} has {len} characters: the kernel takes at most {MAX_NAME_LEN}")]
    TooLong {
        /// The name.
        name: String,
        /// Its length in bytes.
        len: usize,
    },
    /// A character the kernel refuses, or a name that means something in a path.
    #[error(
        "interface {0:?} is not a name: '/', ':' and white space are not allowed, nor are \".\" \
         and \"..\""
    )]
    NotAName(String),
}

/// Why an interface is not accepted for a route.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum ViaInterfaceError {
    /// No interface could have this name.
    #[error("via_interface: {0}")]
    Name(#[from] InterfaceNameError),
    /// Another interface than the overlay's.
    #[error(
        "via_interface {name:?} is not the overlay interface: routes are accepted over \
         {overlay:?} alone, so that nobody can steer other traffic of this host"
    )]
    NotTheOverlay {
        /// The name in the request.
        name: String,
        /// The only name accepted.
        overlay: String,
    },
}

/// Checks that the kernel could have an interface named `name`.
pub(crate) fn check_name(name: &str) -> Result<(), InterfaceNameError> {
    if name.is_empty() {
        return Err(InterfaceNameError::Empty);
    }
    if name.len() > MAX_NAME_LEN {
        return Err(InterfaceNameError::TooLong {
            name: name.chars().take(64).collect(),
            len: name.len(),
        });
    }
    let bad = |c: char| c == '/' || c == ':' || c == '\0' || c.is_whitespace();
    if name == "." || name == ".." || name.contains(bad) {
        return Err(InterfaceNameError::NotAName(name.to_owned()));
    }
    Ok(())
}

/// Checks the `via_interface` of a request: only the overlay interface is accepted.
pub(crate) fn check_via(name: &str, overlay: &str) -> Result<(), ViaInterfaceError> {
    check_name(name)?;
    if name != overlay {
        return Err(ViaInterfaceError::NotTheOverlay {
            name: name.to_owned(),
            overlay: overlay.to_owned(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_overlay_interface_is_accepted_for_routes() {
        assert_eq!(check_via("vxlan100", "vxlan100"), Ok(()));
        for other in ["eth0", "lo", "vxlan10", "VXLAN100"] {
            let error = check_via(other, "vxlan100").unwrap_err();
            assert!(
                matches!(&error, ViaInterfaceError::NotTheOverlay { .. }),
                "{error}"
            );
            let text = error.to_string();
            assert!(text.contains(other) && text.contains("vxlan100"), "{text}");
        }
    }

    #[test]
    fn a_path_is_not_an_interface_name() {
        for name in ["../x", "a/b", ".", "..", "a b", "a\nb", "eth0:1"] {
            assert_eq!(
                check_name(name),
                Err(InterfaceNameError::NotAName(name.to_owned()))
            );
        }
    }

    #[test]
    fn sixteen_characters_are_one_too_many() {
        assert_eq!(check_name("abcdefghijklmno"), Ok(()));
        let error = check_name("abcdefghijklmnop").unwrap_err();
        assert!(error.to_string().contains("at most 15"), "{error}");
    }

    proptest! {
        #[test]
        fn no_input_makes_the_check_panic_and_nothing_but_the_overlay_passes(name in any::<String>()) {
            prop_assert_eq!(check_via(&name, "vxlan100").is_ok(), name == "vxlan100");
        }
    }
}
