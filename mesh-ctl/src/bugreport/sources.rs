//! What a report is made of: what is asked, and of whom.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::Command,
    time::timeout,
};

use super::secrets;

/// How long each question may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// More than that of one answer is cut off, in bytes.
const MOST: u64 = 4 << 20;

/// One file of a report.
pub(crate) struct Source {
    /// Its name in the report.
    pub(crate) name: &'static str,
    what: What,
}

enum What {
    /// This program, with these arguments.
    Ourselves(&'static [&'static str]),
    Program(&'static str, &'static [&'static str]),
    Files(&'static [&'static str]),
    /// Processes of ours, and how they were started.
    Processes,
}

const fn program(
    name: &'static str,
    program: &'static str,
    arguments: &'static [&'static str],
) -> Source {
    Source {
        name,
        what: What::Program(program, arguments),
    }
}

const fn ourselves(name: &'static str, arguments: &'static [&'static str]) -> Source {
    Source {
        name,
        what: What::Ourselves(arguments),
    }
}

/// Everything that is asked. No file of keys, tokens or leases is among it, and of IPsec no state, which has keys.
pub(crate) const ALL: &[Source] = &[
    ourselves("mesh/status.json", &["status", "--json"]),
    ourselves("mesh/status.txt", &["status"]),
    ourselves("mesh/peers.json", &["peers", "--json"]),
    ourselves("mesh/endpoints.json", &["endpoints", "--json"]),
    ourselves("mesh/routes.json", &["routes", "--json"]),
    ourselves("mesh/addresses.json", &["addresses", "--json"]),
    Source {
        name: "mesh/processes.txt",
        what: What::Processes,
    },
    program(
        "log/journal.txt",
        "journalctl",
        &[
            "--no-pager",
            "--output=short-iso-precise",
            "--lines=5000",
            "--unit=quilt-runtime",
            "--unit=quilt-mesh-agent",
            "--unit=quilt-mesh-control",
            "--unit=quilt-docker",
        ],
    ),
    program("log/kernel.txt", "dmesg", &["--ctime"]),
    program(
        "network/links.txt",
        "ip",
        &["-details", "-statistics", "link"],
    ),
    program("network/addresses.txt", "ip", &["address"]),
    program(
        "network/routes.txt",
        "ip",
        &["-details", "route", "show", "table", "all"],
    ),
    program("network/rules.txt", "ip", &["rule"]),
    program("network/neighbours.txt", "ip", &["-details", "neighbour"]),
    program("network/forwarding.txt", "bridge", &["-details", "fdb"]),
    program("network/ipsec-policies.txt", "ip", &["xfrm", "policy"]),
    program("network/packet-filter.txt", "nft", &["list", "ruleset"]),
    program("network/queueing.txt", "tc", &["-statistics", "qdisc"]),
    program("network/programs.txt", "bpftool", &["net"]),
    program("network/sockets.txt", "ss", &["-lntup"]),
    program("network/counters.txt", "nstat", &["-asz"]),
    program("host/kernel.txt", "uname", &["-a"]),
    program(
        "host/interfaces-managed.txt",
        "networkctl",
        &["--no-pager", "list"],
    ),
    program("host/docker.txt", "docker", &["version"]),
    Source {
        name: "host/settings.txt",
        what: What::Files(&[
            "/etc/os-release",
            "/proc/meminfo",
            "/proc/loadavg",
            "/proc/net/softnet_stat",
            "/proc/sys/net/ipv4/ip_forward",
            "/proc/sys/net/ipv4/conf/all/rp_filter",
            "/proc/sys/net/ipv4/conf/all/forwarding",
            "/proc/sys/net/ipv4/neigh/default/gc_thresh1",
            "/proc/sys/net/ipv4/neigh/default/gc_thresh2",
            "/proc/sys/net/ipv4/neigh/default/gc_thresh3",
            "/proc/sys/net/netfilter/nf_conntrack_count",
            "/proc/sys/net/netfilter/nf_conntrack_max",
            "/proc/sys/net/bridge/bridge-nf-call-iptables",
            "/proc/sys/net/core/bpf_jit_enable",
            "/proc/sys/kernel/unprivileged_bpf_disabled",
        ]),
    },
];

impl Source {
    /// What is asked, as somebody would ask it.
    pub(crate) fn asked(&self) -> String {
        match &self.what {
            What::Ourselves(arguments) => format!("meshctl {}", arguments.join(" ")),
            What::Program(program, arguments) => format!("{program} {}", arguments.join(" ")),
            What::Files(files) => format!("cat {}", files.join(" ")),
            What::Processes => "ps of quilt-*".to_owned(),
        }
    }

    /// The answer; or why there is none. `place` are the options that say where our daemons are.
    pub(crate) async fn answer(&self, place: &[String]) -> Result<String, String> {
        match &self.what {
            What::Ourselves(arguments) => {
                let program = std::env::current_exe().map_err(|why| why.to_string())?;
                let arguments = arguments.iter().map(|it| (*it).to_owned());
                run(&program, place.iter().cloned().chain(arguments)).await
            }
            What::Program(program, arguments) => {
                let arguments = arguments.iter().map(|it| (*it).to_owned());
                run(Path::new(program), arguments).await
            }
            What::Files(files) => Ok(files.iter().map(|file| shown(file)).collect()),
            What::Processes => processes().map_err(|why| why.to_string()),
        }
    }
}

async fn run(program: &Path, arguments: impl Iterator<Item = String>) -> Result<String, String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|why| format!("{}: {why}", program.display()))?;
    let (Some(said), Some(complained)) = (child.stdout.take(), child.stderr.take()) else {
        return Err("it has no output".to_owned());
    };
    let (answer, complaint) = tokio::join!(read(said), read(complained));
    let mut text = answer.text;
    if !complaint.text.is_empty() {
        text.push_str("\n[standard error]\n");
        text.push_str(&complaint.text);
    }
    match (text.is_empty(), answer.late) {
        (true, true) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
        (false, true) => {
            text.push_str(&format!("\n[no more within {} s]\n", PATIENCE.as_secs()));
            Ok(text)
        }
        (_, false) => Ok(text),
    }
}

/// What was read in time.
struct Read {
    text: String,
    late: bool,
}

/// Reads to the end, or as much as is taken: whoever goes on writing then finds nobody who reads.
async fn read(pipe: impl AsyncRead + Unpin) -> Read {
    let mut pipe = pipe.take(MOST);
    let mut bytes = Vec::new();
    let ended = timeout(PATIENCE, pipe.read_to_end(&mut bytes)).await;
    let mut text = String::from_utf8_lossy(&bytes).into_owned();
    if bytes.len() as u64 >= MOST {
        text.push_str("\n[cut off]\n");
    }
    Read {
        text,
        late: ended.is_err(),
    }
}

fn shown(file: &str) -> String {
    match fs::read_to_string(file) {
        Ok(text) => format!("# {file}\n{text}\n"),
        Err(why) => format!("# {file}: {why}\n\n"),
    }
}

/// Processes whose names begin as those of our daemons, with their arguments. Their environment may have secrets, and is not
/// read.
fn processes() -> io::Result<String> {
    let mut text = String::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let directory: PathBuf = entry.path();
        let Ok(line) = fs::read(directory.join("cmdline")) else {
            continue;
        };
        let line = String::from_utf8_lossy(&line);
        let arguments = || line.trim_end_matches('\0').split('\0');
        let name = arguments().next().and_then(|it| it.rsplit('/').next());
        if !name.is_some_and(|it| it.starts_with("quilt-")) {
            continue;
        }
        let number = entry.file_name();
        let shown = secrets::arguments(arguments());
        text.push_str(&format!("{} {shown}\n", number.to_string_lossy()));
        for file in ["status", "limits"] {
            text.push_str(&fs::read_to_string(directory.join(file)).unwrap_or_default());
        }
        text.push('\n');
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn told(words: &str) -> String {
        let arguments = ["-c", words].map(str::to_owned).into_iter();
        run(Path::new("sh"), arguments).await.unwrap()
    }

    #[tokio::test]
    async fn of_an_answer_that_does_not_end_as_much_is_kept_as_is_taken() {
        let text = told("yes").await;
        assert!(text.len() as u64 > MOST && text.contains("[cut off]"));
        let text = told("echo it; echo why >&2").await;
        assert_eq!(text, "it\n\n[standard error]\nwhy\n");
    }
}
