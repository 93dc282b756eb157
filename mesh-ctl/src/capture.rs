//! `meshctl capture`.

mod decap;
mod filter;
mod pcap;
mod socket;

use std::{
    fs::OpenOptions,
    io::{self, BufWriter, IsTerminal as _, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, bail};
use mesh_client::{Client, mesh::GetStatusResponse};
use tokio::{io::unix::AsyncFd, time::Instant};

use crate::{moment::Moment, monitor::seconds, peer_named::peer_named};
use filter::{MOST_INTERFACES, Wanted};
use pcap::Pcap;
use socket::PacketSocket;

/// Captured unless something else is asked for.
const SECONDS: f64 = 60.0;
const PACKETS: u64 = 10_000;

/// One peer's traffic, into a file.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Capture {
    /// The peer: its host's name, subnet, underlay address, or an address in its subnet.
    #[arg(value_name = "PEER")]
    peer: String,
    /// Where to; - for standard output. A new file in the working directory if it is not given.
    #[arg(long, short, value_name = "FILE")]
    write: Option<PathBuf>,
    /// How long, in seconds. Without --count and --follow: 60.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    seconds: Option<f64>,
    /// How many packets. Without --seconds and --follow: 10000.
    #[arg(long, short, value_name = "PACKETS", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Go on until Ctrl-C.
    #[arg(long, short, conflicts_with_all = ["seconds", "count"])]
    follow: bool,
    /// The frames inside VXLAN, without what is around them.
    #[arg(long)]
    decap: bool,
    /// The interface to listen at, of which several may be given; those by which peers may be reached otherwise.
    #[arg(long, short, value_name = "NAME")]
    interface: Vec<String>,
}

/// Captures until enough has come.
pub(crate) async fn capture(client: &mut Client, options: Capture) -> anyhow::Result<()> {
    let status = client.status().await?;
    let peers = client.peers().await?.peers;
    let peer = peer_named(&options.peer, &peers)?;
    let names = match options.interface.is_empty() {
        true => interfaces(&status),
        false => options.interface.clone(),
    };
    if names.is_empty() || names.len() > MOST_INTERFACES {
        bail!(
            "{} interfaces lead to peers: name 1 to {MOST_INTERFACES} with --interface",
            names.len()
        );
    }
    let wanted = Wanted {
        interfaces: indexes(&names)?,
        peer: peer
            .host_address
            .parse()
            .with_context(|| format!("the peer's address {:?} is none", peer.host_address))?,
        port: u16::try_from(status.vxlan_port)
            .with_context(|| format!("{} is no UDP port", status.vxlan_port))?,
    };
    let mut socket = PacketSocket::open(&wanted.program()).map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::PermissionDenied => ": it takes CAP_NET_RAW, as root has it",
            _ => "",
        };
        anyhow::Error::new(error).context(format!("cannot open a packet socket{hint}"))
    })?;
    let (out, whereto) = output(&options, &peer.subnet)?;
    eprintln!(
        "capturing UDP {} from and to {} ({}) at {}, into {whereto}",
        wanted.port,
        peer.host_address,
        peer.subnet,
        names.join(" and ")
    );
    let mut capturing = Capturing {
        decap: options.decap.then_some((wanted.port, status.vni)),
        pcap: Pcap::begin(out).context("cannot write the capture")?,
        most: most(&options),
        written: 0,
        left: 0,
    };
    let ended = capturing.run(&mut socket, ends(&options)).await;
    let lost = socket.statistics();
    match ended {
        // Whoever reads has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        ended => ended.context("cannot go on capturing")?,
    }
    eprintln!("{}", capturing.summary(lost.map(|it| it.lost)));
    Ok(())
}

/// The interfaces by which peers may be reached: where the program for what arrives stands, and where the runtime says that
/// the host's address is.
fn interfaces(status: &GetStatusResponse) -> Vec<String> {
    let attachments = status.fast_path.iter().flat_map(|it| &it.attachments);
    let underlays = attachments.filter_map(|it| it.strip_suffix(": decapsulate"));
    let mut names: Vec<String> = underlays.map(str::to_owned).collect();
    let first = &status.underlay_interface;
    if !first.is_empty() && !names.contains(first) {
        names.push(first.clone());
    }
    names
}

fn indexes(names: &[String]) -> anyhow::Result<Vec<u32>> {
    let index = |name: &String| {
        nix::net::if_::if_nametoindex(name.as_str()).with_context(|| {
            format!("no interface {name} here: meshctl has to run in the host's network namespace")
        })
    };
    names.iter().map(index).collect()
}

fn ends(options: &Capture) -> Option<Instant> {
    let default = (!options.follow && options.count.is_none()).then_some(SECONDS);
    let seconds = options.seconds.or(default)?;
    Some(Instant::now() + Duration::from_secs_f64(seconds))
}

fn most(options: &Capture) -> u64 {
    let default = match options.follow || options.seconds.is_some() {
        true => u64::MAX,
        false => PACKETS,
    };
    options.count.unwrap_or(default)
}

/// Where the capture goes, and how that is called. What containers say is for whoever captured it alone.
fn output(options: &Capture, subnet: &str) -> anyhow::Result<(Box<dyn Write>, String)> {
    let mut open = OpenOptions::new();
    open.write(true).mode(0o600);
    let path = match &options.write {
        Some(path) if path.as_os_str() == "-" => {
            let out = io::stdout();
            if out.is_terminal() {
                bail!("a capture is not for a terminal: -w FILE, or | tcpdump -r -");
            }
            return Ok((Box::new(BufWriter::new(out)), "standard output".to_owned()));
        }
        Some(path) => {
            open.create(true).truncate(true);
            path.clone()
        }
        None => {
            // Nobody's file is written over that was not named.
            open.create_new(true);
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            let now = now.map_or(0, |now| u64::try_from(now.as_nanos()).unwrap_or(0));
            let now = Moment::of(now).time().replace([':', '.'], "");
            PathBuf::from(format!("mesh-{}-{now}.pcap", subnet.replace('/', "-")))
        }
    };
    let file = open
        .open(&path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    let shown = path.display().to_string();
    Ok((Box::new(BufWriter::new(file)), shown))
}

struct Capturing {
    /// UDP port and VNI, if what is inside is wanted.
    decap: Option<(u16, u32)>,
    pcap: Pcap<Box<dyn Write>>,
    most: u64,
    written: u64,
    /// Frames with nothing inside that could be read.
    left: u64,
}

impl Capturing {
    async fn run(&mut self, socket: &mut PacketSocket, ends: Option<Instant>) -> io::Result<()> {
        self.pcap.flush()?;
        // SAFETY: the descriptor is one of our own, which is never exchanged.
        let readable = unsafe { AsyncFd::register(socket.handle()?) };
        let readable = readable.map_err(io::Error::other)?;
        let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
        while self.written < self.most {
            let mut ready = tokio::select! {
                ready = readable.readable() => ready?,
                () = until(ends) => break,
                interrupted = &mut interrupted => {
                    interrupted?;
                    break;
                }
            };
            // As many as there are; and then whoever reads them shall have them.
            if self.take(socket)? {
                ready.clear_ready();
            }
            self.pcap.flush()?;
        }
        self.pcap.flush()
    }

    /// Takes what there is, but no more than a moment's. Returns whether there was no more.
    fn take(&mut self, socket: &mut PacketSocket) -> io::Result<bool> {
        const AT_ONCE: usize = 256;
        for _ in 0..AT_ONCE {
            if self.written == self.most {
                return Ok(false);
            }
            let frame = match socket.receive() {
                Ok(frame) => frame,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // An interface that went down says so to those who listen; the others go on.
                Err(error) if error.raw_os_error() == Some(libc::ENETDOWN) => continue,
                Err(error) => return Err(error),
            };
            match self.decap {
                None => self.pcap.add(frame.time, frame.bytes, frame.length)?,
                Some((port, vni)) => match decap::inner(frame.bytes, port, vni) {
                    None => {
                        self.left += 1;
                        continue;
                    }
                    Some(inner) => {
                        let around = frame.bytes.len() - inner.len();
                        let length = frame.length.saturating_sub(around);
                        self.pcap.add(frame.time, inner, length)?;
                    }
                },
            }
            self.written += 1;
        }
        Ok(false)
    }

    fn summary(&self, lost: io::Result<u32>) -> String {
        let left = match self.left {
            0 => String::new(),
            left => format!(", {left} fragments and others left out"),
        };
        let lost = match lost {
            Ok(lost) => format!("{lost} lost"),
            Err(error) => format!("how many were lost cannot be told ({error})"),
        };
        format!("{} packets captured{left}, {lost}", self.written)
    }
}

async fn until(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use mesh_client::mesh::FastPathStatus;

    use super::*;

    #[test]
    fn every_interface_of_the_underlay_is_listened_at_once() {
        let status = |underlay: &str, attachments: &[&str]| GetStatusResponse {
            underlay_interface: underlay.to_owned(),
            fast_path: Some(FastPathStatus {
                attachments: attachments.iter().map(|&it| it.to_owned()).collect(),
                ..FastPathStatus::default()
            }),
            ..GetStatusResponse::default()
        };
        let of = |underlay, attachments| interfaces(&status(underlay, attachments));
        let attachments = [
            "eth0: decapsulate",
            "veth1: encapsulate",
            "eth1: decapsulate",
        ];
        assert_eq!(of("eth0", &attachments), ["eth0", "eth1"]);
        assert_eq!(of("wg0", &attachments[1..2]), ["wg0"]);
        assert_eq!(of("", &[]), Vec::<String>::new());
    }
}
