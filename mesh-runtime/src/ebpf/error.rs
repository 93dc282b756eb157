//! What can go wrong with the fast path, and what to do about it.

use std::{io, path::PathBuf};

use aya::{EbpfError, maps::MapError, programs::ProgramError};

/// What can go wrong with the fast path.
#[derive(Debug, thiserror::Error)]
pub enum FastPathError {
    /// The BPF file system is not there and cannot be mounted.
    #[error(
        "no BPF file system at {path} and mounting one failed ({source}): mount it with \
         `mount -t bpf bpf {path}`, or name another mount point with --bpffs"
    )]
    Bpffs {
        /// Where it was looked for.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A directory or symlink in the pin directory could not be made, read or removed.
    #[error("cannot {action} {path} in the pin directory: {source}")]
    PinDirectory {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another runtime holds the pin directory.
    #[error(
        "the pin directory {path} is held by another runtime: stop it, or give this one a BPF \
         file system of its own with --bpffs"
    )]
    PinDirectoryInUse {
        /// The pin directory.
        path: PathBuf,
    },
    /// The object or one of its maps was refused.
    #[error("the kernel refused the eBPF object or one of its maps ({hint}): {source}")]
    Load {
        /// The usual reason for this error.
        hint: &'static str,
        /// What was refused.
        source: Box<EbpfError>,
    },
    /// A program was refused.
    #[error("the kernel refused program {program} ({hint}): {answer}")]
    Program {
        /// The program.
        program: &'static str,
        /// The usual reason for this error.
        hint: &'static str,
        /// What the kernel said, with the end of the verifier's log where there is one. The
        /// whole log goes to the debug level: it has hundreds of lines.
        answer: String,
    },
    /// The kernel is older than what the programs need.
    #[error(
        "this kernel is Linux {release}, older than {}.{}, from which on the eBPF programs load \
         ({answer})", OLDEST_KERNEL.0, OLDEST_KERNEL.1
    )]
    KernelTooOld {
        /// What `uname -r` says.
        release: String,
        /// What was refused, and what the kernel said.
        answer: String,
    },
    /// A program could not be attached.
    #[error("cannot attach {program} to {interface} by {mode}: {source}")]
    Attach {
        /// The program.
        program: &'static str,
        /// The interface.
        interface: String,
        /// `tcx` or `clsact`.
        mode: &'static str,
        /// What the kernel said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A map could not be read or written.
    #[error("map {map}: {source}")]
    Map {
        /// The map.
        map: &'static str,
        /// What the kernel said.
        source: MapError,
    },
    /// There are more peers than the map holds.
    #[error(
        "{wanted} peers do not fit a map of {capacity}: the map is as large as the cluster CIDR \
         has subnets, so check --cluster-cidr and --node-prefix"
    )]
    TooManyPeers {
        /// Peers asked for.
        wanted: usize,
        /// Entries the map has.
        capacity: u32,
    },
    /// The object lacks something this runtime needs: they are of different versions.
    #[error("the eBPF object has no {what} {name}: object and runtime are of different versions")]
    Missing {
        /// `map` or `program`.
        what: &'static str,
        /// Its name.
        name: &'static str,
    },
    /// The drop events and the programs' log cannot be read.
    #[error("cannot read events of the programs: {0}")]
    Events(String),
}

/// The first kernel that has all that the programs ask for. The last to come was
/// `BPF_F_ADJ_ROOM_ENCAP_L2_ETH` (commit d01b59c9ae94); `bpf_check_mtu` is from 5.12.
const OLDEST_KERNEL: (u32, u32) = (5, 13);

impl FastPathError {
    /// Names the kernel's age where that is why it refused. It is asked of a refusal alone: vendors
    /// put what is newer into older kernels.
    pub(super) fn or_kernel_too_old(self, release: &str) -> Self {
        let refused = matches!(self, Self::Load { .. } | Self::Program { .. });
        match refused && version(release).is_some_and(|it| it < OLDEST_KERNEL) {
            true => Self::KernelTooOld {
                release: release.to_owned(),
                answer: match self {
                    Self::Program {
                        program, answer, ..
                    } => format!("{program}: {answer}"),
                    other => other.to_string(),
                },
            },
            false => self,
        }
    }

    /// The kernel refused `program`.
    pub(super) fn program(program: &'static str, error: &ProgramError) -> Self {
        let (errno, answer) = match error {
            ProgramError::LoadError {
                io_error,
                verifier_log,
            } => {
                let log = verifier_log.to_string();
                tracing::debug!(name: "verifier-log", program, log, "the verifier's log");
                (
                    io_error.raw_os_error(),
                    format!("{io_error}; {}", verdict(&log)),
                )
            }
            ProgramError::SyscallError(error) => (error.io_error.raw_os_error(), error.to_string()),
            other => (None, other.to_string()),
        };
        Self::Program {
            program,
            hint: hint(errno),
            answer,
        }
    }
}

/// Major and minor number of what `uname -r` says.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|it: char| !it.is_ascii_digit());
    let mut number = || numbers.next()?.parse().ok();
    Some((number()?, number()?))
}

/// The verifier's complaint: the last line of its log that is not one of its statistics.
fn verdict(log: &str) -> &str {
    log.lines()
        .rev()
        .map(str::trim)
        .find(|line| {
            !line.is_empty()
                && ![
                    "verification time",
                    "stack depth",
                    "processed",
                    "max_states",
                ]
                .iter()
                .any(|statistic| line.starts_with(statistic))
        })
        .unwrap_or("the verifier said nothing")
}

/// The usual reason for an error number of the bpf system call, in words an operator can use.
pub(super) fn hint(errno: Option<i32>) -> &'static str {
    match errno {
        Some(libc::EPERM | libc::EACCES) => {
            "it needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, or the verifier found a fault"
        }
        Some(libc::EINVAL) => "the kernel lacks something, or the verifier found a fault",
        Some(libc::E2BIG | libc::ENOSPC) => "the program is too large for this kernel",
        Some(libc::ENOMEM) => "out of memory, or the locked-memory limit (ulimit -l) is too low",
        Some(libc::ENOSYS) => "the kernel is built without CONFIG_BPF_SYSCALL",
        _ => "see the kernel's answer",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> FastPathError {
        FastPathError::Program {
            program: "encapsulate",
            hint: hint(Some(libc::EINVAL)),
            answer: "Invalid argument (os error 22); invalid func unknown#163".to_owned(),
        }
    }

    #[test]
    fn a_kernel_too_old_for_the_programs_is_named_with_the_first_that_is_not() {
        let said = refused().or_kernel_too_old("5.10.0-46-cloud-amd64");
        assert_eq!(
            said.to_string(),
            "this kernel is Linux 5.10.0-46-cloud-amd64, older than 5.13, from which on the eBPF \
             programs load (encapsulate: Invalid argument (os error 22); invalid func unknown#163)"
        );
    }

    #[test]
    fn age_is_no_reason_where_the_kernel_is_new_enough_or_refused_nothing() {
        for release in ["5.13.0", "6.1.0-56-cloud-amd64", "7.3.4+deb13", "unknown"] {
            let said = refused().or_kernel_too_old(release);
            assert!(matches!(said, FastPathError::Program { .. }), "{release}");
        }
        let missing = FastPathError::Missing {
            what: "map",
            name: "peers",
        };
        let said = missing.or_kernel_too_old("5.10.0");
        assert!(matches!(said, FastPathError::Missing { .. }));
    }

    #[test]
    fn of_a_verifier_log_the_complaint_is_shown_and_not_its_statistics() {
        let log = "95: (63) *(u32 *)(r10 -64) = r6\n96: (bf) r8 = r5\nR5 !read_ok\n\
            verification time 3180 usec\nstack depth 120+0\nprocessed 451 insns (limit 1000000)\n";
        assert_eq!(verdict(log), "R5 !read_ok");
        assert_eq!(verdict(""), "the verifier said nothing");
    }
}
