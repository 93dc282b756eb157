//! Two hosts, what is planted there, and the comparison.

use std::{
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    os::fd::AsRawFd as _,
    time::{Duration, Instant},
};

use ipnet::Ipv4Net;
use mesh_runtime::trace::{Ground, Protocol, Question, Trace, Verdict, look};
use mesh_testbed::{Daemon, DaemonOptions, Host, NetNs, Signal};

use crate::pair::{Pair, SOON};

/// Where packets are sent to.
pub(crate) const PORT: u16 = 7777;

/// Long enough for a packet that arrives.
const ARRIVES: Duration = Duration::from_millis(1500);

/// A packet, and by whom it is really sent.
#[derive(Clone)]
pub(crate) struct Packet<'a> {
    pub(crate) from: &'a NetNs,
    pub(crate) source: Ipv4Addr,
    pub(crate) to: &'a NetNs,
    pub(crate) destination: Ipv4Addr,
    pub(crate) port: u16,
    /// From the IPv4 header on.
    pub(crate) length: usize,
    pub(crate) may_be_fragmented: bool,
    /// The port by which it comes, where that is not its sender's.
    pub(crate) from_interface: String,
}

impl<'a> Packet<'a> {
    pub(crate) fn new(
        (from, source): (&'a NetNs, Ipv4Addr),
        (to, destination): (&'a NetNs, Ipv4Addr),
    ) -> Self {
        Self {
            from,
            source,
            to,
            destination,
            port: PORT,
            length: 100,
            may_be_fragmented: false,
            from_interface: String::new(),
        }
    }

    fn question(&self) -> Question {
        Question {
            source: self.source,
            destination: self.destination,
            protocol: Protocol::Udp,
            port: self.port,
            length: u32::try_from(self.length).unwrap(),
            may_be_fragmented: self.may_be_fragmented,
            from_interface: self.from_interface.clone(),
        }
    }

    /// Sends some, and says whether any arrives, at that port.
    pub(crate) fn arrives_at(&self, port: u16) -> bool {
        let bind = |at: &NetNs, address, port| {
            let bound = at.run(move || UdpSocket::bind((address, port))).unwrap();
            bound.unwrap_or_else(|error| panic!("{address}:{port}: {error}"))
        };
        let receiver = bind(self.to, Ipv4Addr::UNSPECIFIED, port);
        let sender = bind(self.from, self.source, 0);
        let how = match self.may_be_fragmented {
            true => libc::IP_PMTUDISC_DONT,
            // With the mark, and whatever the sender's own kernel has learnt.
            false => libc::IP_PMTUDISC_PROBE,
        };
        // SAFETY: the option is an int, and its length is that of one.
        let set = unsafe {
            libc::setsockopt(
                sender.as_raw_fd(),
                libc::IPPROTO_IP,
                libc::IP_MTU_DISCOVER,
                (&raw const how).cast(),
                size_of_val(&how) as libc::socklen_t,
            )
        };
        assert_eq!(set, 0);
        let payload = vec![0x51; self.length - 28];
        let mut buffer = vec![0; 65_536];
        let began = Instant::now();
        receiver
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        while began.elapsed() < ARRIVES {
            // The first may be lost where somebody has to be asked for his address; and a sender is told what a router
            // says by the next call.
            let _ = sender.send_to(&payload, SocketAddrV4::new(self.destination, self.port));
            if receiver
                .recv(&mut buffer)
                .is_ok_and(|length| length == payload.len())
            {
                return true;
            }
        }
        false
    }
}

/// Two hosts, of which one serves 10.42.1.0/24 and the other 10.42.2.0/24.
pub(crate) struct Scene {
    pub(crate) pair: Pair,
}

impl Scene {
    pub(crate) async fn start(options: &[&str]) -> Self {
        let options = DaemonOptions::new().args(options.iter().copied());
        let pair = Pair::start(&options).await;
        pair.wait_fast().await;
        Self { pair }
    }

    /// Nobody repairs anything any more.
    pub(crate) async fn without_runtimes(self) -> Self {
        for host in [self.pair.host_a(), self.pair.host_b()] {
            host.stop(Daemon::Runtime, Signal::SIGKILL, SOON)
                .await
                .unwrap();
        }
        self
    }

    pub(crate) fn a(&self) -> &Host {
        self.pair.host_a()
    }

    pub(crate) fn b(&self) -> &Host {
        self.pair.host_b()
    }

    /// From the one container to the other.
    pub(crate) fn there(&self) -> Packet<'_> {
        let (a, b) = (&self.pair.a, &self.pair.b);
        Packet::new((a.netns(), a.address()), (b.netns(), b.address()))
    }

    pub(crate) fn trace_on(&self, host: &Host, packet: &Packet<'_>) -> Trace {
        let subnet = |third| Ipv4Net::new_assert(Ipv4Addr::new(10, 42, third, 0), 24);
        let hosts = [(subnet(1), self.a()), (subnet(2), self.b())];
        let own = hosts
            .iter()
            .find(|(_, it)| it.name() == host.name())
            .unwrap();
        let peers = hosts.iter().filter(|(_, it)| it.name() != host.name());
        let ground = Ground {
            cluster: "10.42.0.0/16".parse().unwrap(),
            subnet: own.0,
            host_address: host.address(),
            peers: peers
                .map(|(subnet, it)| (*subnet, (it.address(), it.name().to_owned())))
                .collect(),
            bridge: "quilt0".to_owned(),
            overlay: "vxlan100".to_owned(),
            vxlan_port: 4789,
            vni: 100,
            routed_from: Vec::new(),
            masquerade: true,
            bpffs: host.bpffs_dir(),
            rules: None,
        };
        let question = packet.question();
        host.netns()
            .run(|| look(&ground, &question))
            .unwrap()
            .unwrap()
    }

    /// Asks both hosts about a packet from the one to the other, sends it, and compares. Returns what the first said.
    pub(crate) fn compare_between(
        &self,
        what: &str,
        packet: &Packet<'_>,
        expected: Verdict,
    ) -> Trace {
        let traces = [
            self.trace_on(self.a(), packet),
            self.trace_on(self.b(), packet),
        ];
        compare(what, &traces, packet.arrives_at(packet.port), expected);
        let [first, _] = traces;
        first
    }

    /// The same of a packet that does not leave the first host, or comes to it from outside.
    pub(crate) fn compare_here(&self, what: &str, packet: &Packet<'_>, expected: Verdict) -> Trace {
        self.compare_arriving(what, packet, packet.port, expected)
    }

    /// The same, of what arrives at another port than it was sent to.
    pub(crate) fn compare_arriving(
        &self,
        what: &str,
        packet: &Packet<'_>,
        port: u16,
        expected: Verdict,
    ) -> Trace {
        let trace = self.trace_on(self.a(), packet);
        compare(
            what,
            std::slice::from_ref(&trace),
            packet.arrives_at(port),
            expected,
        );
        trace
    }
}

/// What several nodes say together: one that drops is enough.
fn together(traces: &[Trace]) -> Verdict {
    let any = |verdict| traces.iter().any(|trace| trace.verdict() == verdict);
    if any(Verdict::Drops) {
        Verdict::Drops
    } else if any(Verdict::NotEvaluated) {
        Verdict::NotEvaluated
    } else {
        Verdict::Passes
    }
}

fn compare(what: &str, traces: &[Trace], arrives: bool, expected: Verdict) {
    let said = together(traces);
    assert_eq!(said, expected, "{what}: {traces:#?}");
    match said {
        Verdict::Passes => assert!(arrives, "{what}: it does not arrive: {traces:#?}"),
        Verdict::Drops => assert!(!arrives, "{what}: it arrives: {traces:#?}"),
        Verdict::NotEvaluated | Verdict::Elsewhere => {}
    }
}

/// The place where it ends, and what was decided there.
pub(crate) fn end(trace: &Trace) -> String {
    let ends = |verdict| verdict == Verdict::Drops || verdict == Verdict::NotEvaluated;
    let hop = trace.hops.iter().find(|hop| ends(hop.verdict));
    hop.map_or_else(String::new, |hop| {
        format!("{}: {} {}", hop.place, hop.decision, hop.evidence.join(" "))
    })
}

/// Runs a program on a host.
pub(crate) fn run(host: &NetNs, words: &str) {
    let mut words = words.split_whitespace();
    let mut command = host.command(words.next().unwrap());
    let output = command.args(words).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Runs nft with a text.
pub(crate) fn nft(host: &NetNs, text: &str) {
    let output = host.command("nft").arg(text).output().unwrap();
    assert!(output.status.success(), "{text}: {output:?}");
}

/// Takes an entry out of a map.
pub(crate) fn forget(host: &Host, map: &str, key: Ipv4Addr) {
    let pin = host.bpffs_dir().join("quilt-mesh").join(map);
    let key = key.octets().map(|byte| byte.to_string()).join(" ");
    let words = format!("bpftool map delete pinned {} key {key}", pin.display());
    run(host.netns(), &words);
}
