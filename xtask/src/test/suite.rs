//! Which test programs there are, and which of them need root.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Packages all of whose integration tests have hosts made of network namespaces.
const ON_THE_KERNEL: [&str; 4] = ["mesh-cni", "mesh-docker", "mesh-netavark", "mesh-testbed"];

/// What a test program was compiled from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// The modules of a library.
    Library,
    /// The modules of a program.
    Program(String),
    /// A file under `tests/`.
    Integration(String),
    /// An example with tests of its own.
    Example(String),
}

/// A test program.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Suite {
    pub(crate) package: String,
    pub(crate) kind: Kind,
    pub(crate) executable: PathBuf,
    /// Folder of the package, in which cargo runs its tests.
    pub(crate) dir: PathBuf,
}

impl Suite {
    /// Reads a line of `cargo test --no-run --message-format=json`; nothing if it tells of no test program.
    pub(crate) fn from_cargo_message(line: &str) -> Option<Self> {
        let message: Value = serde_json::from_str(line).ok()?;
        let is_test =
            message["reason"] == "compiler-artifact" && message["profile"]["test"] == true;
        let executable = message["executable"].as_str().filter(|_| is_test)?;
        let target = &message["target"];
        let name = target["name"].as_str()?.to_owned();
        let kind = match target["kind"][0].as_str()? {
            "bin" => Kind::Program(name),
            "test" => Kind::Integration(name),
            "example" => Kind::Example(name),
            _ => Kind::Library,
        };
        Some(Self {
            package: package_name(message["package_id"].as_str()?)?.to_owned(),
            kind,
            executable: executable.into(),
            dir: Path::new(message["manifest_path"].as_str()?)
                .parent()?
                .to_owned(),
        })
    }

    /// Tests on the real kernel are those under `tests/` named `kernel` or `kernel_*`, and everything under `tests/` of
    /// [`ON_THE_KERNEL`].
    pub(crate) fn needs_root(&self) -> bool {
        match &self.kind {
            Kind::Integration(name) => {
                name == "kernel"
                    || name.starts_with("kernel_")
                    || ON_THE_KERNEL.contains(&self.package.as_str())
            }
            _ => false,
        }
    }

    /// Tests of other distributions' engines and plugins are those named `distributions`. They are run when they are asked
    /// for.
    pub(crate) fn is_of_distributions(&self) -> bool {
        self.kind == Kind::Integration("distributions".to_owned())
    }

    /// The program, as cargo would run it.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.executable);
        command
            .current_dir(&self.dir)
            .env("CARGO_MANIFEST_DIR", &self.dir)
            .env("CARGO_MANIFEST_PATH", self.dir.join("Cargo.toml"))
            .env("CARGO_PKG_NAME", &self.package);
        command
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { package, kind, .. } = self;
        match kind {
            Kind::Library => write!(f, "{package} (library)"),
            Kind::Program(name) => write!(f, "{package} (program {name})"),
            Kind::Integration(name) => write!(f, "{package}/tests/{name}"),
            Kind::Example(name) => write!(f, "{package}/examples/{name}"),
        }
    }
}

/// The name in a package id: `path+file:///checkout/mesh-agent#0.1.0`, or `…/dir#mesh-agent@0.1.0` where the
/// folder is called otherwise.
fn package_name(id: &str) -> Option<&str> {
    let (url, fragment) = id.rsplit_once('#')?;
    match fragment.split_once('@') {
        Some((name, _)) => Some(name),
        None => url.rsplit('/').next(),
    }
}

/// Names of the tests in `program --list --format terse`.
pub(crate) fn parse_list(output: &str) -> Vec<String> {
    output
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(package: &str, kind: &str, name: &str) -> String {
        format!(
            r#"{{"reason":"compiler-artifact","package_id":"path+file:///q/{package}#0.1.0","manifest_path":"/q/{package}/Cargo.toml","target":{{"kind":["{kind}"],"crate_types":["bin"],"name":"{name}","src_path":"/q/x.rs","edition":"2024","test":true}},"profile":{{"opt_level":"0","debuginfo":1,"test":true}},"features":[],"filenames":["/q/target/debug/deps/{name}-1"],"executable":"/q/target/debug/deps/{name}-1","fresh":true}}"#
        )
    }

    #[test]
    fn a_test_program_is_read_from_cargos_message() {
        let suite =
            Suite::from_cargo_message(&message("mesh-runtime", "test", "kernel_bridge")).unwrap();
        assert_eq!(suite.to_string(), "mesh-runtime/tests/kernel_bridge");
        assert_eq!(
            suite.executable,
            Path::new("/q/target/debug/deps/kernel_bridge-1")
        );
        assert_eq!(suite.dir, Path::new("/q/mesh-runtime"));
    }

    #[test]
    fn what_is_no_test_program_is_passed_over() {
        for line in [
            r#"{"reason":"build-finished","success":true}"#,
            r#"{"reason":"build-script-executed"}"#,
            "not json",
            &message("mesh-agent", "bin", "x")
                .replace(r#""test":true},"features""#, r#""test":false},"features""#),
        ] {
            assert_eq!(Suite::from_cargo_message(line), None, "{line}");
        }
    }

    #[test]
    fn only_tests_on_the_kernel_need_root() {
        let needs_root = |package: &str, kind: &str, name: &str| {
            Suite::from_cargo_message(&message(package, kind, name))
                .unwrap()
                .needs_root()
        };
        assert!(needs_root("mesh-runtime", "test", "kernel_bridge"));
        assert!(needs_root("mesh-runtime", "test", "kernel"));
        assert!(needs_root("mesh-testbed", "test", "underlay"));
        assert!(needs_root("mesh-cni", "test", "cni"));
        assert!(needs_root("mesh-netavark", "test", "netavark"));
        assert!(needs_root("mesh-docker", "test", "docker"));
        assert!(!needs_root("mesh-netavark", "bin", "quilt-netavark"));
        assert!(!needs_root("mesh-testbed", "lib", "mesh_testbed"));
        assert!(!needs_root("mesh-control", "test", "rest"));
        assert!(!needs_root("mesh-control", "test", "kernels"));
        assert!(!needs_root("mesh-agent", "lib", "kernel_of_the_matter"));
    }

    #[test]
    fn tests_of_other_distributions_are_told_by_their_name() {
        let is_of_distributions = |kind: &str, name: &str| {
            let message = message("mesh-cni", kind, name);
            Suite::from_cargo_message(&message)
                .unwrap()
                .is_of_distributions()
        };
        assert!(is_of_distributions("test", "distributions"));
        assert!(!is_of_distributions("test", "cni"));
        assert!(!is_of_distributions("bin", "distributions"));
    }

    #[test]
    fn a_package_is_named_by_its_id_wherever_it_lies() {
        assert_eq!(
            package_name("path+file:///q/mesh-agent#0.1.0"),
            Some("mesh-agent")
        );
        assert_eq!(
            package_name("path+file:///q/agent#mesh-agent@0.1.0"),
            Some("mesh-agent")
        );
    }

    #[test]
    fn a_list_holds_tests_and_no_benches() {
        assert_eq!(
            parse_list("a::b: test\nc: benchmark\nd: test\n\n2 tests\n"),
            ["a::b", "d"]
        );
    }
}
