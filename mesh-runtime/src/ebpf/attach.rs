//! Attaching programs to interfaces: tcx links, pinned so that they outlive the daemon and
//! are replaced atomically by the next one; clsact filters on kernels before 6.6.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use aya::{Ebpf, programs::tc::qdisc_detach_program, util::KernelVersion};
use nix::net::if_::if_nametoindex;

use super::{
    AttachMode, FastPathError,
    bpf::{self, open_pinned},
    hook::{Hook, Role},
    link::{Failure, attach_clsact, attach_tcx, detach_clsact, is_live},
    sequence::Attacher,
};
use crate::netlink::interface_name::{interface_name, is_listed};

/// What [`Attachments::mode`] says of filters.
pub(super) const CLSACT: &str = "clsact";

/// The way programs are attached on this kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mechanism {
    Tcx,
    Clsact,
}

/// What is attached.
#[derive(Debug)]
pub(super) struct Attachments {
    mechanism: Mechanism,
    links: PathBuf,
    /// Inode of this network namespace: interface indexes mean nothing outside it.
    namespace: u64,
    attached: BTreeMap<Hook, Attached>,
    /// Whether no filters of an earlier life are left that would run beside our links.
    filters_removed: bool,
}

#[derive(Debug)]
struct Attached {
    interface: String,
    /// The tcx link; a clsact filter has none.
    link: Option<OwnedFd>,
}

impl Attachments {
    pub(super) fn new(mode: AttachMode, links: PathBuf) -> Result<Self, FastPathError> {
        let mechanism = match mode {
            AttachMode::Tcx => Mechanism::Tcx,
            AttachMode::Clsact => Mechanism::Clsact,
            // tcx came with Linux 6.6 (commit e420bed02507).
            AttachMode::Auto
                if KernelVersion::current().is_ok_and(|it| it >= KernelVersion::new(6, 6, 0)) =>
            {
                Mechanism::Tcx
            }
            AttachMode::Auto => Mechanism::Clsact,
        };
        Ok(Self {
            mechanism,
            links,
            namespace: own_namespace()?,
            attached: BTreeMap::new(),
            filters_removed: false,
        })
    }

    /// `tcx` or `clsact`.
    pub(super) fn mode(&self) -> &'static str {
        match self.mechanism {
            Mechanism::Tcx => "tcx",
            Mechanism::Clsact => CLSACT,
        }
    }

    /// `interface: program` in the order of attaching.
    pub(super) fn list(&self) -> Vec<String> {
        self.attached
            .iter()
            .map(|(hook, attached)| format!("{}: {}", attached.interface, hook.role.program()))
            .collect()
    }

    /// Whether the kernel still shows an attachment of ours.
    fn holds(&self, hook: Hook) -> bool {
        // A filter is asked for when it is attached anew: it is there, or is made.
        let linked = self
            .attached
            .get(&hook)
            .is_some_and(|attached| attached.link.is_some());
        linked && is_live(&self.pin(hook), hook.link)
    }

    /// Those links whose pins somebody has removed. The programs stay attached for as long as this
    /// process holds the links.
    pub(super) fn unpinned(&self) -> Vec<Hook> {
        let links = self.attached.iter().filter(|(_, it)| it.link.is_some());
        links
            .map(|(hook, _)| *hook)
            .filter(|hook| !self.pin(*hook).exists())
            .collect()
    }

    /// Pins a link again.
    pub(super) fn pin_again(&self, hook: Hook) -> Result<(), FastPathError> {
        let Some(link) = self.attached.get(&hook).and_then(|it| it.link.as_ref()) else {
            return Ok(());
        };
        let path = self.pin(hook);
        bpf::pin(link, &path).map_err(|source| FastPathError::PinDirectory {
            action: "pin a link in",
            path,
            source,
        })
    }

    /// Remembers that a clsact qdisc is ours, for the day of the cleanup: the BPF file system
    /// keeps directories too. Without the mark the qdisc is left then, which does no harm.
    fn note_qdisc(&self, link: u32) {
        let mark = qdiscs(&self.links).join(format!("{}-{link}", self.namespace));
        if let Err(error) = fs::create_dir_all(&mark) {
            tracing::debug!(name: "cannot-mark-qdisc-ours", mark = %mark.display(), %error, "cannot mark a qdisc as ours");
        }
    }

    fn pin(&self, hook: Hook) -> PathBuf {
        pin(&self.links, self.namespace, hook)
    }

    fn attach(&mut self, ebpf: &mut Ebpf, hook: Hook, interface: &str) -> Result<bool, Failure> {
        // An old link goes first: the interface would run the program twice.
        let before = self.attached.remove(&hook);
        let pin = self.pin(hook);
        let mut done = true;
        let side = hook.role.side();
        let link = match self.mechanism {
            Mechanism::Tcx => {
                attach_tcx(ebpf, hook.role, side, interface, &pin)?;
                Some(open_pinned(&pin)?)
            }
            Mechanism::Clsact => {
                let ours = before.is_some();
                let change = attach_clsact(ebpf, hook.role, side, interface, ours)?;
                if change.qdisc_made {
                    self.note_qdisc(hook.link);
                }
                done = change.filter_set;
                None
            }
        };
        let interface = interface.to_owned();
        self.attached.insert(hook, Attached { interface, link });
        Ok(done)
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
            None => match interface_name(hook.link) {
                // It may have another name by now.
                Ok(Some(interface)) => detach_clsact(hook.role.side(), &interface),
                // A filter dies with its interface, which is the usual reason to be here.
                Ok(None) => Ok(()),
                Err(error) => Err(error.to_string()),
            },
        };
        let program = hook.role.program();
        let interface = attached.interface;
        match result {
            Ok(()) => tracing::info!(name: "detached", program, interface, "detached"),
            Err(error) => {
                tracing::warn!(name: "could-not-detach", program, interface, error, "could not detach")
            }
        }
    }

    /// Removes pins of links that no longer belong: interfaces that are gone, or that an
    /// earlier life attached to. The directory is ours alone while we hold its lock.
    pub(super) fn remove_stale_pins(&self) -> Result<(), FastPathError> {
        let wanted: BTreeSet<PathBuf> = self.attached.keys().map(|hook| self.pin(*hook)).collect();
        remove_pins(&self.links, |path| !wanted.contains(path))
    }

    /// Interfaces at which not everything that is wanted is attached.
    pub(super) fn missing(&self, wanted: &BTreeMap<Hook, String>) -> BTreeSet<u32> {
        let missing = wanted
            .keys()
            .filter(|hook| !self.attached.contains_key(*hook));
        missing.map(|hook| hook.link).collect()
    }

    /// Whether the kernel shows what is wanted and nothing that an earlier life left.
    pub(super) fn are_those_of(&self, wanted: &BTreeMap<Hook, String>) -> bool {
        let pins = fs::read_dir(&self.links).map(Iterator::count);
        self.filters_removed
            && self.attached.keys().eq(wanted.keys())
            && pins.is_ok_and(|pins| pins == wanted.len())
            && wanted.keys().all(|hook| self.holds(*hook))
    }

    /// Detaches the filters of an earlier life that attached by clsact while this one does
    /// not: an interface would run the program twice, or go on over a fast path that this life says
    /// it cannot have. It is looked for everywhere: marks of qdiscs are lost with the BPF file system. `whole` is
    /// whether what is attached instead is in place; then this was the last look.
    pub(super) fn remove_stale_filters(&mut self, wanted: &BTreeMap<Hook, String>, whole: bool) {
        if self.mechanism == Mechanism::Clsact || self.filters_removed {
            return;
        }
        self.filters_removed = whole;
        let interfaces: BTreeSet<&String> = wanted.values().collect();
        let interfaces: Vec<String> = interfaces.into_iter().cloned().collect();
        detach_filters(&interfaces);
    }
}

/// Attachments with the programs that they attach.
pub(super) struct Attaching<'a> {
    pub(super) attachments: &'a mut Attachments,
    pub(super) ebpf: &'a mut Ebpf,
}

impl Attacher for Attaching<'_> {
    type Error = FastPathError;

    fn attached(&self) -> BTreeSet<Hook> {
        self.attachments.attached.keys().copied().collect()
    }

    fn holds(&self, hook: Hook) -> bool {
        self.attachments.holds(hook)
    }

    fn attach(&mut self, hook: Hook, interface: &str) -> Result<bool, FastPathError> {
        if if_nametoindex(interface) != Ok(hook.link) {
            return Ok(false);
        }
        let program = hook.role.program();
        let mode = self.attachments.mode();
        let done = match self.attachments.attach(self.ebpf, hook, interface) {
            Ok(done) => done,
            // It went while the kernel had others wait.
            Err(_) if !is_listed(hook.link) => return Ok(false),
            Err(source) => {
                return Err(FastPathError::Attach {
                    program,
                    interface: interface.to_owned(),
                    mode,
                    source,
                });
            }
        };
        if done {
            tracing::info!(name: "attached", program, interface, mode, "attached");
        }
        Ok(done)
    }

    fn detach(&mut self, hook: Hook) {
        self.attachments.detach(hook);
    }
}

/// Where the link of a hook is pinned.
fn pin(links: &Path, namespace: u64, hook: Hook) -> PathBuf {
    links.join(format!("{namespace}-{}-{}", hook.link, hook.role.program()))
}

/// Whether a link of an earlier life stands at the bridge with that index. Of a filter that cannot be told.
pub(super) fn stands_at_bridge(links: &Path, bridge: u32) -> bool {
    let hook = Hook {
        role: Role::CatchAll,
        link: bridge,
    };
    own_namespace().is_ok_and(|namespace| is_live(&pin(links, namespace, hook), bridge))
}

/// Inode of the calling thread's network namespace.
fn own_namespace() -> Result<u64, FastPathError> {
    let namespace = PathBuf::from("/proc/thread-self/ns/net");
    match fs::metadata(&namespace) {
        Ok(metadata) => Ok(metadata.ino()),
        Err(source) => Err(FastPathError::PinDirectory {
            action: "read",
            path: namespace,
            source,
        }),
    }
}

/// Where the marks of our qdiscs are, beside the links.
fn qdiscs(links: &Path) -> PathBuf {
    links.with_file_name("qdiscs")
}

/// Interfaces of this namespace whose clsact qdisc we made.
pub(super) fn own_qdiscs(links: &Path) -> Result<Vec<u32>, FastPathError> {
    let namespace = format!("{}-", own_namespace()?);
    let Ok(marks) = fs::read_dir(qdiscs(links)) else {
        return Ok(Vec::new());
    };
    Ok(marks
        .flatten()
        .filter_map(|mark| {
            let name = mark.file_name();
            name.to_str()?.strip_prefix(&namespace)?.parse().ok()
        })
        .collect())
}

/// Detaches what an earlier life left: pinned links in `links`, and clsact filters with the
/// names of our programs on `interfaces`.
pub(super) fn detach_leftovers(links: &Path, interfaces: &[String]) -> Result<(), FastPathError> {
    remove_pins(links, |_| true)?;
    detach_filters(interfaces);
    Ok(())
}

/// Detaches clsact filters with the names of our programs.
pub(super) fn detach_filters(interfaces: &[String]) {
    for role in Role::ALL.into_iter().rev() {
        let side = role.side();
        for interface in interfaces {
            // Most interfaces have no clsact, and most that have one have no filter of ours;
            // the kernel answers both with an error.
            if qdisc_detach_program(interface, side, role.program()).is_ok() {
                tracing::info!(name: "detached", program = role.program(), interface, "detached");
            }
        }
    }
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
        let transmits = |role: &Role| role.transmits() && name.ends_with(role.program());
        !Role::ALL.iter().any(transmits)
    });
    for path in stale {
        fs::remove_file(&path).map_err(failed("clean"))?;
    }
    Ok(())
}
