//! Small disks that only this test, and what it starts, can see.

use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

/// A file system mounted in a mount namespace of the calling thread. Children that the thread starts
/// see it, too; when the thread and they are gone, so is it.
pub(crate) struct PrivateDisk {
    path: PathBuf,
}

impl PrivateDisk {
    /// A tmpfs of `size` ("1m") over `path`.
    pub(crate) fn tmpfs(path: &Path, size: &str) -> Self {
        enter_namespace();
        let options = format!("size={size}");
        mount(
            Some("tmpfs"),
            path,
            Some("tmpfs"),
            MsFlags::empty(),
            Some(options.as_str()),
        )
        .unwrap();
        Self {
            path: path.to_owned(),
        }
    }

    /// An ext4 in an image file, which turns itself read-only at the first error.
    pub(crate) fn ext4(path: &Path, image: &Path) -> Self {
        enter_namespace();
        std::fs::File::create(image)
            .unwrap()
            .set_len(16 << 20)
            .unwrap();
        run("mkfs.ext4", &["-q".as_ref(), image.as_ref()]);
        let options = [
            "-o".as_ref(),
            "loop,errors=remount-ro".as_ref(),
            image.as_ref(),
            path.as_ref(),
        ];
        run("mount", &options);
        Self {
            path: path.to_owned(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes all space that is left; dropping what is returned frees it.
    pub(crate) fn fill(&self) -> Filling {
        use std::io::Write as _;
        let path = self.path.join("filling");
        let mut file = std::fs::File::create(&path).unwrap();
        for size in [4096, 512, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
        Filling { path }
    }

    pub(crate) fn make_read_only(&self) {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(None::<&str>, &self.path, None::<&str>, flags, None::<&str>).unwrap();
    }

    /// Does to an ext4 what a failing disk does: an error, after which the kernel writes no more.
    pub(crate) fn fail(&self) {
        let mounts = std::fs::read_to_string("/proc/thread-self/mounts").unwrap();
        let device = mounts
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>())
            .find(|words| Path::new(words[1]) == self.path)
            .unwrap()[0]
            .trim_start_matches("/dev/");
        std::fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "test").unwrap();
    }
}

impl Drop for PrivateDisk {
    fn drop(&mut self) {
        // Detached at once, freed when the last process lets go; and with the namespace at the latest.
        let _ = umount2(&self.path, MntFlags::MNT_DETACH);
    }
}

/// A file that takes what space there was.
pub(crate) struct Filling {
    path: PathBuf,
}

impl Drop for Filling {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn enter_namespace() {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test mounts a file system of its own and needs root: run it with sudo"
    );
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    // Nothing that is mounted here reaches other namespaces.
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).unwrap();
}

fn run(program: &str, arguments: &[&std::ffi::OsStr]) {
    let output = std::process::Command::new(program)
        .args(arguments)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{program}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
