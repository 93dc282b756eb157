//! The object of this checkout, built as everybody builds it.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use mesh_ebpf_build::{
    Architecture, Checkout, EbpfObject, Error, Settings, Step, build, inspect, read,
};

fn checkout() -> Checkout {
    let program = std::env::current_exe().unwrap();
    Checkout::containing(Path::new(env!("CARGO_MANIFEST_DIR")), &program).unwrap()
}

fn build_in(checkout: &Checkout, settings: &Settings) -> EbpfObject {
    build(checkout, &Architecture::host(), settings, &|step: &Step| {
        eprintln!("{step}")
    })
    .unwrap_or_else(|error| panic!("{error}"))
}

fn built() -> EbpfObject {
    build_in(&checkout(), &Settings::from_environment())
}

/// What changes when a file is written again, even with the same bytes.
fn identity(path: &Path) -> (u64, SystemTime) {
    let meta = fs::metadata(path).unwrap();
    (meta.ino(), meta.modified().unwrap())
}

fn linked(checkout: &Checkout) -> PathBuf {
    checkout
        .ebpf_dir()
        .join(Architecture::host().bpf_target())
        .join("ebpf/mesh-ebpf")
}

#[test]
fn the_object_holds_the_programs_and_the_maps_with_btf() {
    let object = built();
    let programs: Vec<_> = object
        .contents
        .programs
        .iter()
        .map(|program| program.name.as_str())
        .collect();
    for program in ["encapsulate", "catch_all", "decapsulate", "safety_net"] {
        assert!(
            programs.contains(&program),
            "no program {program} in {programs:?}"
        );
    }
    assert!(
        object
            .contents
            .programs
            .iter()
            .all(|program| matches!(program.section.as_str(), "classifier" | "xdp"))
    );
    for map in ["peers", "peer_stats", "endpoints", "drops", "config"] {
        assert!(
            object.contents.maps.iter().any(|name| name == map),
            "no map {map} in {:?}",
            object.contents.maps
        );
    }
    assert_eq!(
        object.size as u64,
        fs::metadata(&object.path).unwrap().len()
    );
    assert_eq!(object.sha256.to_string().len(), 64);
}

#[test]
fn a_second_build_writes_nothing() {
    let first = built();
    let before = (identity(&first.path), identity(&linked(&checkout())));
    let second = built();
    assert_eq!(first, second);
    assert_eq!(
        before,
        (identity(&second.path), identity(&linked(&checkout())))
    );
}

#[test]
fn builds_at_the_same_time_agree() {
    let objects: Vec<_> = std::thread::scope(|scope| {
        let builds: Vec<_> = (0..3).map(|_| scope.spawn(built)).collect();
        builds
            .into_iter()
            .map(|build| build.join().unwrap())
            .collect()
    });
    assert!(objects.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn another_checkout_gives_the_same_bytes_and_a_changed_source_gives_others() {
    let here = checkout();
    let original = built();
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("another place");
    copy_sources(&here.root, &root);
    let there = Checkout {
        target_dir: root.join("target"),
        root: root.clone(),
    };
    // The linker was installed here by the first build; a second installation would prove nothing more.
    let settings = Settings {
        linker: Some(installed_linker(&here)),
        ..Settings::from_environment()
    };
    let copy = build_in(&there, &settings);
    assert_eq!(copy.sha256, original.sha256);

    let main = root.join("mesh-ebpf/src/main.rs");
    let source = fs::read_to_string(&main).unwrap();
    let added = "\n#[cfg(target_arch = \"bpf\")]\n#[unsafe(no_mangle)]\n#[unsafe(link_section = \"classifier\")]\n\
        extern \"C\" fn added(_: *mut core::ffi::c_void) -> i32 {\n    0\n}\n";
    fs::write(&main, source.clone() + added).unwrap();
    let changed = build_in(&there, &settings);
    assert!(
        changed
            .contents
            .programs
            .iter()
            .any(|program| program.name == "added")
    );

    fs::write(&main, source).unwrap();
    assert_eq!(build_in(&there, &settings).sha256, original.sha256);
}

#[test]
fn a_finished_object_is_used_as_it_is_and_refused_if_it_is_none() {
    let object = built();
    let nowhere = Checkout {
        root: "/nonexistent".into(),
        target_dir: "/nonexistent/target".into(),
    };
    let settings = Settings {
        object: Some(object.path.clone()),
        ..Settings::default()
    };
    assert_eq!(build_in(&nowhere, &settings), object);

    let settings = Settings {
        object: Some(std::env::current_exe().unwrap()),
        ..Settings::default()
    };
    let error = build(&nowhere, &Architecture::host(), &settings, &|_| {}).unwrap_err();
    assert!(
        matches!(&error, Error::Object { reason, .. } if reason.contains("not for BPF")),
        "{error}"
    );

    let missing = read(Path::new("/nonexistent/mesh-ebpf.o"))
        .unwrap_err()
        .to_string();
    assert!(
        missing.starts_with("cannot read /nonexistent/mesh-ebpf.o: "),
        "{missing}"
    );
}

#[test]
fn an_object_without_btf_or_without_maps_is_refused() {
    let bytes = fs::read(built().path).unwrap();
    assert!(inspect(&bytes).is_ok());
    let without_btf = inspect(&replaced(&bytes, b".BTF", b".XXX")).unwrap_err();
    assert!(without_btf.contains("no section .BTF"), "{without_btf}");
    let without_maps = inspect(&replaced(&bytes, b"maps\0", b"xxxx\0")).unwrap_err();
    assert_eq!(without_maps, "it has no map");
    assert!(
        inspect(b"text")
            .unwrap_err()
            .starts_with("it is not an ELF object")
    );
}

#[test]
fn a_compiler_that_is_none_is_refused_by_the_name_of_the_variable() {
    let settings = Settings {
        rustc: Some("/bin/false".into()),
        ..Settings::default()
    };
    let error = build(&checkout(), &Architecture::host(), &settings, &|_| {})
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("QUILT_MESH_EBPF_RUSTC=/bin/false cannot be used: "),
        "{error}"
    );
}

fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = bytes.to_vec();
    let mut at = 0;
    while let Some(found) = bytes[at..]
        .windows(from.len())
        .position(|window| window == from)
    {
        bytes[at + found..at + found + to.len()].copy_from_slice(to);
        at += found + to.len();
    }
    assert!(at > 0, "nothing to replace");
    bytes
}

fn installed_linker(checkout: &Checkout) -> PathBuf {
    if let Some(linker) = Settings::from_environment().linker {
        return linker;
    }
    fs::read_dir(checkout.ebpf_dir())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with("bpf-linker-0.")
        })
        .map(|root| root.join("bpf-linker"))
        .find(|script| script.is_file())
        .expect("the build installed a linker")
}

/// What cargo needs of a checkout: everything but results and history.
fn copy_sources(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() && name != "target" && name != ".git" {
            copy_sources(&entry.path(), &to.join(&name));
        } else if kind.is_file() {
            fs::copy(entry.path(), to.join(&name)).unwrap();
        }
    }
}
