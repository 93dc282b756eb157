//! The host's side with a real process, whatever the machine does: apt and the emulator are
//! scripts here that stand for good and bad days.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed, and says where"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use mesh_testbed::write_script;
use mesh_vm::{Check, Doing, Outcome, initramfs::MODULES};
use tempfile::TempDir;

const RELEASE: &str = "6.1.0-56-cloud-amd64";

/// How many checks a kernel has.
const CHECKS: usize = 21;

/// Those of the kernels here.
fn checks() -> &'static [Check] {
    let checks = Check::with(true);
    assert_eq!(checks.len(), CHECKS);
    checks
}

/// The result's words of so many.
fn counts(passed: usize, failed: usize) -> String {
    format!("FAILED. {passed} passed; {failed} failed;")
}

/// A package of each kind; all modules are built into its kernel. Lists of other releases have what
/// this machine's do not: an old kernel, a new one, and a newer name without a package.
const APT_CACHE: &str = r#"case "${APT_CONFIG:+releases }$1 $2" in
"pkgnames linux-image-6.1.") printf '%s\n' linux-image-6.1.0-9-cloud-amd64 linux-image-6.1.0-56-cloud-amd64 ;;
"pkgnames linux-image-6.12.") echo linux-image-6.12.100-cloud-amd64 ;;
"releases pkgnames linux-image-5.10.") echo linux-image-5.10.0-46-cloud-amd64 ;;
"releases pkgnames linux-image-7.3.") echo linux-image-7.3.4+deb13-cloud-amd64 ;;
"releases pkgnames linux-image-7.10.") echo linux-image-7.10.1-cloud-amd64 ;;
"releases pkgnames linux-image-") printf '%s\n' linux-image-5.10.0-46-cloud-amd64 linux-image-7.10.1-cloud-amd64 \
    linux-image-7.3.4+deb13-cloud-amd64 linux-image-cloud-amd64 ;;
"releases policy linux-image-7.10.1-cloud-amd64") echo "  Candidate: (none)" ;;
*policy*) echo "  Candidate: 1:6.1.192-2" ;;
esac"#;
const APT_GET: &str =
    r#"echo "apt-get $*" >>"$APT_LOG"; case $* in *download*) : >"${5%%=*}.deb" ;; esac"#;
/// Since 7.3 a kernel comes in parts.
const DPKG_DEB: &str = r#"package=${2##*/}; package=${package%.deb}
release=${package#linux-*-}; lib=$3/lib; boot=$3/boot/vmlinuz-$release
case $package in *-7.3.*) lib=$3/usr/lib; boot=$lib/modules/$release/vmlinuz ;; esac
modules=$lib/modules/$release
mkdir -p "$3/bin"
case $package in
busybox*) : >"$3/bin/busybox"; exit ;;
linux-image-7.3.*) exit ;;
esac
mkdir -p "$modules" "${boot%/*}"
case $package in linux-image-* | linux-binary-*) : >"$boot" ;; esac
case $package in linux-image-* | linux-modules-*) : >"$modules/modules.dep" ;; esac
case $package in linux-image-* | linux-base-*)
    for module in $MODULES; do
        echo "kernel/net/$module.ko" >>"$modules/modules.builtin"
    done ;;
esac"#;

/// A machine with these programs in front of the real ones.
struct Machine {
    dir: TempDir,
}

impl Machine {
    fn with_emulator(script: &str) -> Self {
        let machine = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        fs::create_dir(machine.path("bin")).unwrap();
        machine.program("apt-cache", APT_CACHE);
        machine.program("apt-get", APT_GET);
        machine.program("dpkg-deb", DPKG_DEB);
        machine.program("depmod", "exit 0");
        machine.program("qemu-system-x86_64", script);
        // Anything that is linked to libraries.
        for name in [
            "quilt-runtime",
            "quilt-mesh-agent",
            "quilt-mesh-control",
            "mesh-faults",
            "quilt-cni",
            "mesh-vm-guest",
        ] {
            fs::copy("/bin/true", machine.path("bin").join(name)).unwrap();
        }
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn program(&self, name: &str, script: &str) {
        let path = self.path("bin").join(name);
        write_script(&path, script).unwrap();
    }

    /// Runs `mesh-vm` for a series.
    fn boot(&self, series: &str, deadline: u32) -> Booted {
        Booted(self.command(series, deadline).output().unwrap())
    }

    fn command(&self, series: &str, deadline: u32) -> Command {
        let path = std::env::var("PATH").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_mesh-vm"));
        command
            .args(["--kernel", series, "--deadline", &deadline.to_string()])
            .env("QUILT_MESH_DIR", self.path("vm"))
            .env("PATH", format!("{}:{path}", self.path("bin").display()))
            .env_remove("APT_CONFIG")
            .env("MODULES", MODULES.join(" "))
            .env("APT_LOG", self.path("apt.log"))
            .env("PID_FILE", self.path("pid"))
            .env("QUILT_MESH_BIN_DIR", self.path("bin"));
        command
    }

    fn apt_calls(&self) -> String {
        fs::read_to_string(self.path("apt.log")).unwrap_or_default()
    }
}

struct Booted(Output);

impl Booted {
    fn stdout(&self) -> String {
        String::from_utf8(self.0.stdout.clone()).unwrap()
    }

    fn stderr(&self) -> String {
        String::from_utf8(self.0.stderr.clone()).unwrap()
    }
}

/// A line of shell that reports these checks as the guest's driver does.
fn report(checks: &[Check]) -> String {
    let lines = checks.iter().map(|&check| {
        let failure = None;
        let line = Outcome { check, failure }.to_line().unwrap();
        format!("printf '%s\\r\\n' '{line}'\n")
    });
    lines.collect()
}

#[test]
fn a_guest_that_reports_every_check_has_passed() {
    let machine = Machine::with_emulator(&report(checks()));
    let booted = machine.boot("6.1", 60);
    assert!(booted.0.status.success(), "{}", booted.stderr());
    let stdout = booted.stdout();
    assert!(
        stdout.starts_with(&format!("running {CHECKS} tests\n")),
        "{stdout}"
    );
    assert!(
        stdout.contains("test 6.1::the_programs_load_and_attach ... ok\n"),
        "{stdout}"
    );
    assert!(
        stdout.contains(&format!("test result: ok. {CHECKS} passed; 0 failed;")),
        "{stdout}"
    );
    let dir = machine.path("vm");
    assert!(dir.join(format!("initramfs-{RELEASE}")).is_file());
}

#[test]
fn a_relative_folder_is_one_below_where_the_process_is() {
    let machine = Machine::with_emulator(&report(checks()));
    let mut command = machine.command("6.1", 60);
    let booted = command
        .args(["--dir", "here"])
        .current_dir(machine.dir.path());
    let booted = Booted(booted.output().unwrap());
    assert!(booted.0.status.success(), "{}", booted.stderr());
    let initramfs = machine.path("here").join(format!("initramfs-{RELEASE}"));
    assert!(initramfs.is_file());
}

#[test]
fn a_package_is_downloaded_once() {
    let machine = Machine::with_emulator(&report(checks()));
    machine.boot("6.1", 60);
    let first = machine.apt_calls();
    assert_eq!(first.lines().count(), 2, "{first}");
    machine.boot("6.1", 60);
    assert_eq!(machine.apt_calls(), first);
}

#[test]
fn checks_that_a_dying_guest_did_not_reach_have_failed_and_its_console_is_shown() {
    // The console is the argument after the first `-serial`, and begins with `file:`.
    let panic = format!(
        "{}for word; do case $word in file:*) echo 'Kernel panic - not syncing' >\"${{word#file:}}\" ;; esac; done",
        report(&checks()[..2])
    );
    let booted = Machine::with_emulator(&panic).boot("6.1", 60);
    assert_eq!(booted.0.status.code(), Some(1));
    let (stdout, stderr) = (booted.stdout(), booted.stderr());
    assert!(stdout.contains(&counts(2, CHECKS - 2)), "{stdout}");
    assert!(
        stdout.contains("\nfailures:\n    6.1::the_packet_filter_holds_its_tables\n"),
        "{stdout}"
    );
    assert!(stderr.contains("Kernel panic - not syncing"), "{stderr}");
}

#[test]
fn a_guest_that_hangs_is_killed_at_its_deadline() {
    let hang = format!(
        "{}echo $$ >\"$PID_FILE\"; exec sleep 600",
        report(&checks()[..1])
    );
    let machine = Machine::with_emulator(&hang);
    let booted = machine.boot("6.1", 2);
    assert_eq!(booted.0.status.code(), Some(1));
    let stdout = booted.stdout();
    assert!(stdout.contains(&counts(1, CHECKS - 1)), "{stdout}");
    assert!(
        booted.stderr().contains("not reached in 2 s"),
        "{}",
        booted.stderr()
    );
    let pid = fs::read_to_string(machine.path("pid")).unwrap();
    assert!(!is_alive(&Path::new("/proc").join(pid.trim())));
}

#[test]
fn a_guest_that_says_nothing_is_killed_and_its_last_word_is_shown() {
    let doing = Doing {
        check: Check::ABondCarriesTheFastPathOverWhicheverCardIsLeft,
        step: "packets over the second card".to_owned(),
        seconds: 5,
    };
    // What is no word of the driver's does not count as one, however often it comes.
    let hang = format!(
        "printf '%s\\r\\n' '{}'\necho $$ >\"$PID_FILE\"\nwhile sleep 0.1; do echo 'rcu: INFO: stall'; done",
        doing.to_line().unwrap()
    );
    let machine = Machine::with_emulator(&hang);
    let booted = Booted(
        machine
            .command("6.1", 600)
            .args(["--silence", "1"])
            .output()
            .unwrap(),
    );
    assert_eq!(booted.0.status.code(), Some(1));
    let stderr = booted.stderr();
    assert!(
        stderr.contains("the guest fell silent for 1 s; its last word: a_bond_carries"),
        "{stderr}"
    );
    assert!(
        stderr.contains("packets over the second card, for 5 s"),
        "{stderr}"
    );
    let pid = fs::read_to_string(machine.path("pid")).unwrap();
    assert!(!is_alive(&Path::new("/proc").join(pid.trim())));
}

#[test]
fn whoever_kills_the_host_side_kills_the_emulator() {
    // Renamed when it is whole, so that nobody reads half of it.
    let machine = Machine::with_emulator(
        "echo $$ >\"$PID_FILE.new\"; mv \"$PID_FILE.new\" \"$PID_FILE\"; exec sleep 600",
    );
    let mut host = machine.command("6.1", 600).spawn().unwrap();
    let appears = || fs::read_to_string(machine.path("pid")).ok();
    let pid = eventually("the emulator's start", appears);
    host.kill().unwrap();
    host.wait().unwrap();
    let process = Path::new("/proc").join(pid.trim());
    eventually("the emulator's end", || (!is_alive(&process)).then_some(()));
}

/// Looks until there is something.
fn eventually<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < until, "{what} does not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether a process is there and no zombie, whose new parent may be slow to take note.
fn is_alive(process: &Path) -> bool {
    fs::read_to_string(process.join("stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn an_emulator_that_fails_is_not_taken_for_a_guest_that_ended() {
    let booted = Machine::with_emulator("echo 'no accelerator' >&2; exit 3").boot("6.1", 60);
    assert_eq!(booted.0.status.code(), Some(1));
    let stderr = booted.stderr();
    assert!(stderr.contains("no accelerator"), "{stderr}");
    assert!(
        stderr.contains("the emulator ended before, with exit status: 3"),
        "{stderr}"
    );
}

#[test]
fn a_series_that_apt_does_not_know_is_named_with_what_to_do() {
    let machine = Machine::with_emulator("exit 1");
    let booted = machine.boot("6.6", 60);
    assert_eq!(booted.0.status.code(), Some(1));
    assert_eq!(booted.stdout(), "");
    let stderr = booted.stderr();
    assert!(
        stderr.contains("no package linux-image-6.6.…-cloud-amd64"),
        "{stderr}"
    );
    assert!(stderr.contains("sudo apt-get update"), "{stderr}");
}

#[test]
fn a_kernel_that_only_another_release_of_debian_has_is_booted_and_asked_for_what_it_can() {
    let machine = Machine::with_emulator(&report(Check::with(false)));
    let booted = machine.boot("5.10", 60);
    assert!(booted.0.status.success(), "{}", booted.stderr());
    let stdout = booted.stdout();
    let all = Check::with(false).len();
    assert!(
        stdout.starts_with(&format!("running {all} tests\n")),
        "{stdout}"
    );
    assert!(
        stdout.contains("test 5.10::the_kernel_path_carries_alone ... ok\n"),
        "{stdout}"
    );
    assert!(!stdout.contains("the_programs_load_and_attach"), "{stdout}");
}

#[test]
fn the_newest_backport_is_the_newest_that_has_a_package_and_its_parts_are_put_together() {
    let machine = Machine::with_emulator(&report(checks()));
    let booted = machine.boot("newest", 60);
    assert!(booted.0.status.success(), "{}", booted.stderr());
    let stdout = booted.stdout();
    assert!(
        stdout.contains("test 7.3::the_programs_load_and_attach ... ok\n"),
        "{stdout}"
    );
    let initramfs = machine.path("vm/initramfs-7.3.4+deb13-cloud-amd64");
    assert!(initramfs.is_file(), "{}", machine.apt_calls());
}

#[test]
fn what_the_guest_tells_of_its_kernel_becomes_a_row_of_the_table() {
    let line = r#"{"release":"6.1.0-56-cloud-amd64","attach_mode":"clsact","programs":["encapsulate"],"tables":["inet quilt_mesh"],"reason":""}"#;
    let script = format!("printf '%s\\r\\n' '{line}'\n{}", report(checks()));
    let booted = Machine::with_emulator(&script).boot("6.1", 60);
    let stdout = booted.stdout();
    let row = "| 6.1.0-56-cloud-amd64 | fast path (clsact) | encapsulate | inet quilt_mesh |  |\n";
    assert!(stdout.contains(row), "{stdout}");
}

#[test]
fn a_kernel_that_cannot_be_downloaded_is_named_with_what_is_missing() {
    let machine = Machine::with_emulator("exit 1");
    machine.program("apt-get", "echo 'E: Failed to fetch' >&2; exit 100");
    let booted = machine.boot("6.1", 60);
    assert_eq!(booted.0.status.code(), Some(1));
    assert_eq!(booted.stdout(), "");
    let stderr = booted.stderr();
    assert!(
        stderr.contains("cannot download linux-image-6.1.0-56-cloud-amd64"),
        "{stderr}"
    );
    assert!(
        stderr.contains("E: Failed to fetch. apt has to reach its archive"),
        "{stderr}"
    );
}

#[test]
fn several_kernels_boot_at_once_and_one_that_fails_fails_the_run() {
    // Each of the two emulators waits for the other; one alone would not end.
    let meeting = format!(
        "for word; do case $word in */vmlinuz-6.1.*) me=one other=two ;; */vmlinuz-6.12*) me=two other=one ;; esac; done\n\
         : >\"$PID_FILE.$me\"; until [ -e \"$PID_FILE.$other\" ]; do sleep 0.05; done\n{}\
         if [ $me = two ]; then exit 3; fi\n{}",
        report(&checks()[..1]),
        report(&checks()[1..]),
    );
    let machine = Machine::with_emulator(&meeting);
    let booted = Booted(
        machine
            .command("6.1", 60)
            .args(["--kernel", "6.12"])
            .output()
            .unwrap(),
    );
    let stdout = booted.stdout();
    assert_eq!(booted.0.status.code(), Some(1), "{}", booted.stderr());
    assert!(
        stdout.starts_with(&format!("running {} tests\n", 2 * CHECKS)),
        "{stdout}"
    );
    assert!(stdout.contains(&counts(CHECKS + 1, CHECKS - 1)), "{stdout}");
    assert!(!stdout.contains("\n    6.1::"), "{stdout}");
}
