//! What this runtime can do, in the words of `GetCapabilities`.

use nix::sys::utsname::uname;
use tonic::Status;

use super::command::FastPathView;

/// What it can do beyond what every runtime with `SyncPeers` can; `mesh.proto` says what each
/// name means.
pub(crate) const NAMES: [&str; 1] = ["peer-mtu"];

/// The kernel that it runs on.
///
/// # Errors
/// If the kernel does not say.
pub(crate) fn kernel_release() -> Result<String, Status> {
    let names = uname().map_err(|error| Status::internal(format!("uname: {error}")))?;
    Ok(names.release().to_string_lossy().into_owned())
}

/// How the fast path attaches, best first: where it uses tcx, an earlier life may have left
/// clsact filters that it replaces. None while it is not loaded.
pub(crate) fn fast_path_modes(view: &FastPathView) -> &'static [&'static str] {
    let report = match view {
        FastPathView::Active(report)
        | FastPathView::Off(Some(report))
        | FastPathView::Waiting {
            report: Some(report),
            ..
        } => report,
        FastPathView::Off(None)
        | FastPathView::Unavailable(_)
        | FastPathView::Waiting { report: None, .. } => return &[],
    };
    match report.attach_mode {
        "tcx" => &["tcx", "clsact"],
        _ => &["clsact"],
    }
}
