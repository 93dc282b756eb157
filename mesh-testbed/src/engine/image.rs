//! The image of the containers: busybox, from this machine and no registry.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// What containers run.
const APPLETS: [&str; 5] = ["sh", "sleep", "ping", "ip", "nc"];

/// Writes the files of the image to a new directory.
pub(crate) fn write(dir: &Path, busybox: &Path) -> io::Result<()> {
    fs::create_dir_all(dir.join("bin"))?;
    for mount_point in ["dev", "etc", "proc", "sys", "tmp"] {
        fs::create_dir_all(dir.join(mount_point))?;
    }
    fs::copy(busybox, dir.join("bin/busybox"))?;
    for applet in APPLETS {
        symlink("busybox", dir.join("bin").join(applet))?;
    }
    for library in libraries(busybox)? {
        let copy = dir.join(library.strip_prefix("/").unwrap_or(&library));
        if let Some(parent) = copy.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::copy(&library, copy)?;
    }
    Ok(())
}

/// None for busybox-static; those of the other package come along.
fn libraries(program: &Path) -> io::Result<Vec<PathBuf>> {
    let ldd = Command::new("ldd")
        .arg(program)
        .stdin(Stdio::null())
        .output()?;
    // It fails for a program that is not linked to any.
    let listed = match ldd.status.success() {
        true => String::from_utf8_lossy(&ldd.stdout).into_owned(),
        false => String::new(),
    };
    Ok(paths(&listed))
}

fn paths(listed: &str) -> Vec<PathBuf> {
    listed
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_the_paths_that_ldd_prints() {
        let listed = "\tlinux-vdso.so.1 (0x00007ffd)\n\
                      \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f22)\n\
                      \t/lib64/ld-linux-x86-64.so.2 (0x00007f23)\n";
        assert_eq!(
            paths(listed),
            [
                "/lib/x86_64-linux-gnu/libc.so.6",
                "/lib64/ld-linux-x86-64.so.2"
            ]
            .map(PathBuf::from)
        );
        assert!(paths("\tstatically linked\n").is_empty());
    }
}
