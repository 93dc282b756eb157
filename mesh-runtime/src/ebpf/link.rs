//! One program on one interface: a pinned link where the kernel has links, a filter elsewhere.

use std::{fs, io, mem, path::Path};

use aya::{
    Ebpf,
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType,
        links::{FdLink, Link as _, LinkError, PinnedLink},
        tc::{
            NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact,
        },
    },
    sys::SyscallError,
};

use super::{
    FastPathError,
    bpf::{link_interface, open_pinned},
    hook::Role,
};

/// Priority and handle of our clsact filters: the same number as our routes' protocol, so
/// that `tc filter show` tells whose they are.
const FILTER_PRIORITY: u16 = 81;
const FILTER_HANDLE: TcHandle = TcHandle::new(0, 1);

/// Why an attachment failed; the caller adds what was to be attached where.
pub(super) type Failure = Box<dyn std::error::Error + Send + Sync>;

fn classifier(ebpf: &mut Ebpf, role: Role) -> Result<&mut SchedClassifier, Failure> {
    let name = role.program();
    let program = ebpf.program_mut(name).ok_or(FastPathError::Missing {
        what: "program",
        name,
    })?;
    Ok(program.try_into()?)
}

/// Puts the program into the pinned link of an earlier life, which replaces that life's
/// program between two packets; or attaches and pins a new link.
pub(super) fn attach_tcx(
    ebpf: &mut Ebpf,
    role: Role,
    side: TcAttachType,
    interface: &str,
    pin: &Path,
) -> Result<(), Failure> {
    let program = classifier(ebpf, role)?;
    let taken_over = take_over(pin, |link| {
        let id = program.attach_to_link(SchedClassifierLink::try_from(link)?)?;
        Ok(program.take_link(id)?.try_into()?)
    })?;
    if taken_over {
        return Ok(());
    }
    let order = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = program.attach_with_options(interface, side, order)?;
    let link: FdLink = program.take_link(id)?.try_into()?;
    link.pin(pin)?;
    Ok(())
}

/// Puts the new program into the pinned link; `false` if there is none, or none that works.
fn take_over(
    pin: &Path,
    replace: impl FnOnce(FdLink) -> Result<FdLink, Failure>,
) -> Result<bool, Failure> {
    match PinnedLink::from_pin(pin) {
        Ok(pinned) => match replace(FdLink::from(pinned)) {
            Ok(_) => Ok(true),
            Err(error) => {
                // ENOLINK: the interface it was on is gone, and the index was given again.
                tracing::debug!(name: "pinned-link-dead", pin = %pin.display(), error, "a pinned link is dead");
                fs::remove_file(pin)?;
                Ok(false)
            }
        },
        Err(LinkError::SyscallError(SyscallError { io_error, .. }))
            if io_error.kind() == io::ErrorKind::NotFound =>
        {
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether a pinned link is there, and on that interface.
pub(super) fn is_live(pin: &Path, interface: u32) -> bool {
    open_pinned(pin)
        .and_then(|link| link_interface(&link))
        .is_ok_and(|index| index == interface)
}

/// What attaching a filter has changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct FilterChange {
    /// The interface had no clsact qdisc, and has one now.
    pub(super) qdisc_made: bool,
    pub(super) filter_set: bool,
}

/// Adds a filter. One that is there already stays if it is `ours`, and is replaced atomically
/// if an earlier life made it.
pub(super) fn attach_clsact(
    ebpf: &mut Ebpf,
    role: Role,
    side: TcAttachType,
    interface: &str,
    ours: bool,
) -> Result<FilterChange, Failure> {
    let program = classifier(ebpf, role)?;
    let exists = Some(libc::EEXIST);
    let qdisc_made = match qdisc_add_clsact(interface) {
        Err(TcError::NetlinkError(error)) if error.raw_os_error() == exists => false,
        other => other.map(|()| true)?,
    };
    let options = TcAttachOptions::Netlink(NlOptions {
        priority: FILTER_PRIORITY,
        handle: FILTER_HANDLE,
        classid: None,
    });
    let id = match program.attach_with_options(interface, side, options) {
        Err(ProgramError::TcError(TcError::NetlinkError(error)))
            if error.raw_os_error() == exists =>
        {
            if ours {
                return Ok(FilterChange {
                    qdisc_made,
                    filter_set: false,
                });
            }
            program.attach_to_link(our_filter(side, interface)?)?
        }
        other => other?,
    };
    // Dropping the link would detach the filter, which is to outlive us.
    mem::forget(program.take_link(id)?);
    Ok(FilterChange {
        qdisc_made,
        filter_set: true,
    })
}

/// Removes our filter. It may be gone already, with the queueing discipline in which it stood.
pub(super) fn detach_clsact(side: TcAttachType, interface: &str) -> Result<(), String> {
    let filter = our_filter(side, interface).map_err(|error| error.to_string())?;
    match filter.detach() {
        Ok(()) => Ok(()),
        Err(ProgramError::NetlinkError(error))
            if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL)) =>
        {
            Ok(())
        }
        Err(error) => Err(error.to_string()),
    }
}

fn our_filter(side: TcAttachType, interface: &str) -> io::Result<SchedClassifierLink> {
    SchedClassifierLink::attached(interface, side, FILTER_PRIORITY, FILTER_HANDLE, None)
}
