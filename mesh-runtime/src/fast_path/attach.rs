//! Attaching programs to interfaces: tcx links, pinned so that they outlive the daemon and
//! are replaced atomically by the next one; clsact filters on kernels before 6.6.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    programs::{links::FdLink, tc::qdisc_detach_program},
    util::KernelVersion,
};
use nix::net::if_::if_nametoindex;

use super::{
    AttachMode, FastPathError, StrangerGuard,
    hook::{Hook, Role},
    link::{Failure, attach_clsact, attach_tcx, attach_xdp, detach_clsact},
};

/// The way programs are attached on this kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Tcx,
    Clsact,
}

/// What is attached.
#[derive(Debug)]
pub(super) struct Attachments {
    way: Way,
    guard: StrangerGuard,
    links: PathBuf,
    /// Inode of this network namespace: interface indexes mean nothing outside it.
    namespace: u64,
    attached: BTreeMap<Hook, Attached>,
}

#[derive(Debug)]
struct Attached {
    interface: String,
    /// The tcx link; a clsact filter has none.
    link: Option<FdLink>,
}

/// Counts of what [`Attachments::show`] did.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moved {
    pub(super) attached: u32,
    pub(super) detached: u32,
}

impl Attachments {
    pub(super) fn new(
        mode: AttachMode,
        guard: StrangerGuard,
        links: PathBuf,
    ) -> Result<Self, FastPathError> {
        let way = match mode {
            AttachMode::Tcx => Way::Tcx,
            AttachMode::Clsact => Way::Clsact,
            // tcx came with Linux 6.6 (commit e420bed02507).
            AttachMode::Auto
                if KernelVersion::current().is_ok_and(|it| it >= KernelVersion::new(6, 6, 0)) =>
            {
                Way::Tcx
            }
            AttachMode::Auto => Way::Clsact,
        };
        let namespace = PathBuf::from("/proc/thread-self/ns/net");
        let metadata = fs::metadata(&namespace).map_err(|source| FastPathError::PinDirectory {
            action: "read",
            path: namespace,
            source,
        })?;
        Ok(Self {
            way,
            guard,
            links,
            namespace: metadata.ino(),
            attached: BTreeMap::new(),
        })
    }

    /// `tcx` or `clsact`.
    pub(super) fn mode(&self) -> &'static str {
        match self.way {
            Way::Tcx => "tcx",
            Way::Clsact => "clsact",
        }
    }

    /// `interface: program` in the order of attaching.
    pub(super) fn list(&self) -> Vec<String> {
        self.attached
            .iter()
            .map(|(hook, attached)| format!("{}: {}", attached.interface, hook.role.program()))
            .collect()
    }

    /// Makes the attachments those of `wanted`. Interfaces that vanished in the meantime are
    /// passed over; what else fails takes the transmitting programs off, because half a fast
    /// path is worse than none.
    pub(super) fn show(
        &mut self,
        ebpf: &mut Ebpf,
        wanted: &BTreeMap<Hook, String>,
    ) -> Result<Moved, FastPathError> {
        let mut moved = Moved::default();
        // Transmit first, receive last.
        let gone: Vec<Hook> = self.attached.keys().rev().copied().collect();
        for hook in gone.into_iter().filter(|hook| !wanted.contains_key(hook)) {
            self.detach(hook);
            moved.detached += 1;
        }
        for (hook, interface) in wanted {
            if self.is_attached(*hook) {
                continue;
            }
            if if_nametoindex(interface.as_str()) != Ok(hook.link) {
                continue;
            }
            if let Err(source) = self.attach(ebpf, *hook, interface) {
                if hook.role != Role::DropStrangers {
                    self.detach_transmitting();
                }
                return Err(FastPathError::Attach {
                    program: hook.role.program(),
                    interface: interface.clone(),
                    mode: self.mode(),
                    source,
                });
            }
            tracing::info!(
                program = hook.role.program(),
                interface,
                mode = self.mode(),
                "attached"
            );
            moved.attached += 1;
        }
        self.remove_stale_pins()?;
        Ok(moved)
    }

    fn detach_transmitting(&mut self) {
        let hooks: Vec<Hook> = self.attached.keys().copied().collect();
        for hook in hooks {
            if hook.role == Role::Encapsulate {
                self.detach(hook);
            }
        }
    }

    /// Detaches everything, transmit first.
    pub(super) fn detach_all(&mut self) {
        while let Some(hook) = self.attached.keys().next_back().copied() {
            self.detach(hook);
        }
    }

    fn is_attached(&self, hook: Hook) -> bool {
        self.attached
            .get(&hook)
            // A pin that somebody removed is made again, so that the link outlives us.
            .is_some_and(|attached| attached.link.is_none() || self.pin(hook).exists())
    }

    fn pin(&self, hook: Hook) -> PathBuf {
        self.links.join(format!(
            "{}-{}-{}",
            self.namespace,
            hook.link,
            hook.role.program()
        ))
    }

    fn attach(&mut self, ebpf: &mut Ebpf, hook: Hook, interface: &str) -> Result<(), Failure> {
        // An old link goes first: the interface would run the program twice.
        self.attached.remove(&hook);
        let pin = self.pin(hook);
        let link = match (hook.role.attach_type(), self.way) {
            (None, _) => Some(attach_xdp(ebpf, self.guard, hook.role, interface, &pin)?),
            (Some(side), Way::Tcx) => Some(attach_tcx(ebpf, hook.role, side, interface, &pin)?),
            (Some(side), Way::Clsact) => {
                attach_clsact(ebpf, hook.role, side, interface)?;
                None
            }
        };
        let interface = interface.to_owned();
        self.attached.insert(hook, Attached { interface, link });
        Ok(())
    }

    fn detach(&mut self, hook: Hook) {
        let Some(attached) = self.attached.remove(&hook) else {
            return;
        };
        let result = match attached.link {
            Some(link) => {
                drop(link);
                match fs::remove_file(self.pin(hook)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.to_string()),
                    _ => Ok(()),
                }
            }
            // A filter dies with its interface, which is the usual reason to be here.
            None if if_nametoindex(attached.interface.as_str()) != Ok(hook.link) => Ok(()),
            None => match hook.role.attach_type() {
                Some(side) => detach_clsact(side, &attached.interface),
                // XDP is always a link.
                None => Ok(()),
            },
        };
        let program = hook.role.program();
        let interface = attached.interface;
        match result {
            Ok(()) => tracing::info!(program, interface, "detached"),
            Err(error) => tracing::warn!(program, interface, error, "could not detach"),
        }
    }

    /// Removes pins of links that no longer belong: interfaces that are gone, or that an
    /// earlier life attached to. The directory is ours alone while we hold its lock.
    fn remove_stale_pins(&self) -> Result<(), FastPathError> {
        let wanted: Vec<PathBuf> = self.attached.keys().map(|hook| self.pin(*hook)).collect();
        remove_pins(&self.links, |path| !wanted.iter().any(|pin| pin == path))
    }
}

/// Detaches what an earlier life left: pinned links in `links`, and clsact filters with the
/// names of our programs on `interfaces`.
pub(super) fn detach_leftovers(links: &Path, interfaces: &[String]) -> Result<(), FastPathError> {
    remove_pins(links, |_| true)?;
    for role in Role::ALL.into_iter().rev() {
        let Some(side) = role.attach_type() else {
            continue;
        };
        for interface in interfaces {
            // Most interfaces have no clsact, and most that have one have no filter of ours;
            // the kernel answers both with an error.
            if qdisc_detach_program(interface, side, role.program()).is_ok() {
                tracing::info!(program = role.program(), interface, "detached");
            }
        }
    }
    Ok(())
}

/// Removes the pins that `is_stale` names, transmitting programs first.
fn remove_pins(links: &Path, is_stale: impl Fn(&Path) -> bool) -> Result<(), FastPathError> {
    let failed = |action: &'static str| {
        move |source| FastPathError::PinDirectory {
            action,
            path: links.to_owned(),
            source,
        }
    };
    let mut stale = Vec::new();
    for entry in fs::read_dir(links).map_err(failed("read"))? {
        let path = entry.map_err(failed("read"))?.path();
        if is_stale(&path) {
            stale.push(path);
        }
    }
    stale.sort_by_key(|path| {
        let name = path.to_string_lossy();
        !name.ends_with(Role::Encapsulate.program())
    });
    for path in stale {
        fs::remove_file(&path).map_err(failed("clean"))?;
    }
    Ok(())
}
