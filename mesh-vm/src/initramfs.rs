//! What is in the guest: a shell, the product, and the kernel modules it asks for.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    cpio::Archive,
    error::{Error, Result},
    package::{Kernel, file},
};

/// The first program of the guest.
const INIT: &str = include_str!("init.sh");

/// What the product makes the kernel load: devices, for clsact the queueing discipline and its
/// filters, what its nftables tables ask for, and what one runtime holds so that there is no second; what others make at a container's port; and what stands between
/// the checks' hosts. Those they depend on come with them.
pub const MODULES: [&str; 22] = [
    "vxlan",
    "veth",
    "bridge",
    "sch_ingress",
    "cls_bpf",
    "act_bpf",
    "cls_u32",
    "act_gact",
    "act_mirred",
    "ifb",
    "sch_tbf",
    "8021q",
    "bonding",
    "sch_netem",
    "nf_tables",
    "nft_chain_nat",
    "nft_nat",
    "nft_masq",
    "nft_ct",
    "nft_fib_inet",
    "nft_meta_bridge",
    "nfnetlink_log",
];

/// What newer kernels have as a part of another module. (Linux 5.10 asks for one that is missing again
/// and again, and nft waits for it as long.)
const OLDER_MODULES: [&str; 2] = ["nft_objref", "nft_counter"];

/// Folders of the guest that nothing is put into.
const MOUNT_POINTS: [&str; 5] = ["dev", "proc", "run", "sys", "tmp"];

/// A program for the guest, and where it goes.
#[derive(Clone, Debug)]
pub struct Program {
    /// The file on the host.
    pub from: PathBuf,
    /// Its path in the guest, without the leading slash.
    pub to: &'static str,
}

/// Builds the archive.
///
/// # Errors
///
/// A file that is missing, or a module that the kernel does not have.
pub fn build(kernel: &Kernel, busybox: &Path, programs: &[Program]) -> Result<Vec<u8>> {
    let mut tree = Tree::default();
    for dir in MOUNT_POINTS {
        tree.add_directories(&format!("{dir}/"));
    }
    tree.add("init", Node::Content(INIT.as_bytes().to_vec()));
    tree.add("bin/busybox", Node::Content(read(busybox)?));
    for program in programs {
        tree.add(program.to, Node::Content(stripped(&program.from)?));
        for library in libraries(&program.from)? {
            let name = library.trim_start_matches('/').to_owned();
            // The loader finds libraries by these names; links on the way to them do not matter.
            let content = read(Path::new(&library))?;
            tree.add(&name, Node::Content(content));
        }
    }
    for name in modules(kernel)? {
        let content = read(&kernel.modules.join(&name))?;
        let name = format!("lib/modules/{}/{name}", kernel.release);
        tree.add(&name, Node::Content(content));
    }
    tree.archive()
}

/// Files by name, with the folders they are in.
#[derive(Debug, Default)]
struct Tree(BTreeMap<String, Node>);

#[derive(Debug, PartialEq, Eq)]
enum Node {
    Directory,
    Content(Vec<u8>),
}

impl Tree {
    fn add(&mut self, name: &str, node: Node) {
        self.add_directories(name);
        self.0.insert(name.to_owned(), node);
    }

    fn add_directories(&mut self, name: &str) {
        for (end, _) in name.match_indices('/') {
            self.0.insert(name[..end].to_owned(), Node::Directory);
        }
    }

    /// In the order of names a folder comes before what is in it.
    fn archive(self) -> Result<Vec<u8>> {
        let mut archive = Archive::default();
        for (name, node) in &self.0 {
            match node {
                Node::Directory => archive.directory(name)?,
                Node::Content(content) => archive.file(name, content)?,
            }
        }
        archive.finish()
    }
}

/// A program without its symbols, which are most of it and would be unpacked into the guest's
/// memory.
fn stripped(program: &Path) -> Result<Vec<u8>> {
    let scratch = std::env::temp_dir().join(format!("mesh-vm-{}-stripped", std::process::id()));
    let output = output(
        "strip",
        "binutils",
        Command::new("strip").arg("-o").arg(&scratch).arg(program),
    );
    let content = output.and_then(|_| read(&scratch));
    // It may not have been made.
    let _ = fs::remove_file(&scratch);
    content
}

/// The libraries that a program is linked to and the loader that brings them, as paths.
fn libraries(program: &Path) -> Result<BTreeSet<String>> {
    let output = output("ldd", "libc-bin", Command::new("ldd").arg(program))?;
    parse_ldd(&output).map_err(|library| Error::Library {
        program: program.to_owned(),
        library,
    })
}

/// The paths in ldd's output, or the name of a library that it did not find.
fn parse_ldd(output: &str) -> Result<BTreeSet<String>, String> {
    let mut paths = BTreeSet::new();
    for line in output.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            [name, "=>", "not", "found"] => return Err(name.to_owned()),
            [_, "=>", path, _] | [path, _] if path.starts_with('/') => {
                paths.insert(path.to_owned());
            }
            // The kernel's own vdso, which is no file.
            _ => {}
        }
    }
    Ok(paths)
}

/// The modules that the guest needs and the indexes by which they are found, as paths in the
/// kernel's folder of modules.
fn modules(kernel: &Kernel) -> Result<BTreeSet<String>> {
    let text = |name: &str| {
        let path = kernel.modules.join(name);
        fs::read_to_string(&path).map_err(|source| file("read", &path, source))
    };
    let (dependencies, built_in) = (text("modules.dep")?, text("modules.builtin")?);
    let mut wanted = BTreeSet::new();
    for name in MODULES {
        if built_in.lines().any(|path| module_name(path) == name) {
            continue;
        }
        wanted.extend(
            with_dependencies(&dependencies, name).ok_or_else(|| Error::Missing {
                what: format!("module {name}"),
                dir: kernel.modules.clone(),
            })?,
        );
    }
    let older = OLDER_MODULES.into_iter();
    wanted.extend(
        older
            .filter_map(|name| with_dependencies(&dependencies, name))
            .flatten(),
    );
    let indexes = fs::read_dir(&kernel.modules)
        .map_err(|source| file("read", &kernel.modules, source))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with("modules."));
    wanted.extend(indexes);
    Ok(wanted)
}

/// A module's line of modules.dep(5): its path, and those of all it depends on.
fn with_dependencies(index: &str, name: &str) -> Option<Vec<String>> {
    let (path, needed) = index
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(path, _)| module_name(path) == name)?;
    let all = std::iter::once(path).chain(needed.split_whitespace());
    Some(all.map(str::to_owned).collect())
}

/// `cls_bpf` for `kernel/net/sched/cls_bpf.ko.xz`. Files may have dashes where names have
/// underscores.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    let name = file.split_once(".ko").map_or(file, |(name, _)| name);
    name.replace('-', "_")
}

fn output(program: &'static str, package: &'static str, command: &mut Command) -> Result<String> {
    let output = command
        .env("LC_ALL", "C")
        .output()
        .map_err(|source| Error::Start {
            program,
            package,
            source,
        })?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(Error::Command {
            command: format!("{command:?}"),
            status: output.status.to_string(),
            stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        }),
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|source| file("read", path, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_comes_with_all_it_depends_on_however_it_is_compressed() {
        let index = "\
kernel/net/sched/cls_bpf.ko.xz:
kernel/drivers/net/vxlan/vxlan.ko.xz: kernel/net/ipv4/udp_tunnel.ko.xz kernel/net/ipv6/ip6_udp_tunnel.ko.xz
kernel/net/sched/sch-ingress.ko:
";
        assert_eq!(
            with_dependencies(index, "vxlan").unwrap(),
            [
                "kernel/drivers/net/vxlan/vxlan.ko.xz",
                "kernel/net/ipv4/udp_tunnel.ko.xz",
                "kernel/net/ipv6/ip6_udp_tunnel.ko.xz"
            ]
        );
        assert_eq!(
            with_dependencies(index, "sch_ingress").unwrap(),
            ["kernel/net/sched/sch-ingress.ko"]
        );
        assert_eq!(with_dependencies(index, "vx"), None);
    }

    #[test]
    fn libraries_are_read_from_ldd_and_a_missing_one_is_named() {
        let found = "\tlinux-vdso.so.1 (0x00007f)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let paths: Vec<_> = parse_ldd(found).unwrap().into_iter().collect();
        assert_eq!(
            paths,
            [
                "/lib/x86_64-linux-gnu/libc.so.6",
                "/lib64/ld-linux-x86-64.so.2"
            ]
        );
        assert_eq!(
            parse_ldd("\tlibzstd.so.1 => not found\n"),
            Err("libzstd.so.1".to_owned())
        );
        assert_eq!(parse_ldd("\tstatically linked\n"), Ok(BTreeSet::new()));
    }

    #[test]
    fn folders_come_before_what_is_in_them() {
        let mut tree = Tree::default();
        tree.add("a/b/c", Node::Content(Vec::new()));
        tree.add("a-b", Node::Content(Vec::new()));
        tree.add_directories("run/");
        let names: Vec<_> = tree.0.keys().map(String::as_str).collect();
        assert_eq!(names, ["a", "a-b", "a/b", "a/b/c", "run"]);
    }
}
