//! A directory that cannot be opened for now: what stands in for a kernel that takes its time.

use std::{
    ffi::CString,
    fs, io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

/// Whoever opens the directory waits until this is dropped, also by the end of this process
/// (fanotify(7): a permission event that nobody answers).
pub(crate) struct HeldShut(#[expect(dead_code, reason = "held, not read")] OwnedFd);

impl HeldShut {
    /// Makes the directory if it is not there.
    pub(crate) fn new(directory: &Path) -> Self {
        fs::create_dir_all(directory).unwrap();
        let path = CString::new(directory.as_os_str().as_bytes()).unwrap();
        let flags = libc::FAN_CLASS_CONTENT | libc::FAN_CLOEXEC;
        // SAFETY: takes numbers.
        let group = unsafe { libc::fanotify_init(flags, 0) };
        assert!(group >= 0, "{}", io::Error::last_os_error());
        // SAFETY: the descriptor has just been made, and is nobody else's.
        let group = unsafe { OwnedFd::from_raw_fd(group) };
        // SAFETY: the path ends with a zero, and outlives the call.
        let marked = unsafe {
            libc::fanotify_mark(
                group.as_raw_fd(),
                libc::FAN_MARK_ADD | libc::FAN_MARK_ONLYDIR,
                libc::FAN_OPEN_PERM | libc::FAN_ONDIR,
                libc::AT_FDCWD,
                path.as_ptr(),
            )
        };
        assert_eq!(marked, 0, "{}", io::Error::last_os_error());
        Self(group)
    }
}
