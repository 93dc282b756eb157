//! How programs are attached, as the kernel shows it.

use std::{fs, io};

use anyhow::{Context as _, bail, ensure};
use mesh_vm::{ATTACH_VARIABLE, NO_FAST_PATH};

/// The kernel shows filters where they are the way to attach.
pub(super) fn attached_as_expected() -> anyhow::Result<()> {
    let (filters, expected) = (filters()?, attach_variable()?);
    ensure!(
        (filters > 0) == (expected == "clsact"),
        "{filters} uses of the module cls_bpf, attached with {expected}"
    );
    Ok(())
}

/// How this kernel attaches.
pub(super) fn attach_variable() -> anyhow::Result<String> {
    std::env::var(ATTACH_VARIABLE)
        .with_context(|| format!("the host does not say in {ATTACH_VARIABLE} what to expect"))
}

/// Whether programs load on this kernel.
pub(crate) fn has_fast_path() -> anyhow::Result<bool> {
    Ok(attach_variable()? != NO_FAST_PATH)
}

/// How many filters hold the module behind clsact's: the third column of /proc/modules, zero
/// if it is not loaded.
pub(super) fn filters() -> anyhow::Result<u32> {
    if fs::exists("/sys/module/cls_bpf")? {
        let count = fs::read_to_string("/sys/module/cls_bpf/refcnt");
        return match count {
            Ok(count) => Ok(count.trim().parse()?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                bail!("this kernel has cls_bpf built in, and does not count its filters")
            }
            Err(error) => Err(error.into()),
        };
    }
    Ok(0)
}
