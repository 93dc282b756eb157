//! Loading, filling, running, reading.

use std::collections::BTreeMap;

use aya::{
    Ebpf, EbpfLoader, Pod, TestRun as _, TestRunOptions,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, RingBuf},
    programs::SchedClassifier,
};
use mesh_layout::{
    Config, DropReason, Drops, Endpoint, EndpointKey, MacHolder, MacKey, PRIORITY_ANOTHERS_CLAIM,
    PacketEvent, PassReason, Passes, Peer, PeerKey, PeerStats, PortKey, StrictPort, Underlay,
    UnderlayKey, Vtep, VtepKey, map_names,
};
use mesh_model::{Arrival, Ledger, Node, Program};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    time::{ClockId, clock_gettime},
    unistd::Pid,
};

/// Capacity of the peer maps; the counters' indices are below it.
const MAX_PEERS: u32 = 16;
/// The longest packet that comes out: a page in, and what encapsulation adds.
const LONGEST: usize = 8192;

/// The loaded programs and their maps. Everything runs on one CPU, so that its counters and
/// its samples of drops can be foretold.
pub(crate) struct Programs {
    ebpf: Ebpf,
    peers: HashMap<MapData, PeerKey, Peer>,
    vteps: HashMap<MapData, VtepKey, Vtep>,
    underlays: HashMap<MapData, UnderlayKey, Underlay>,
    endpoints: HashMap<MapData, EndpointKey, Endpoint>,
    macs: HashMap<MapData, MacKey, MacHolder>,
    strict_ports: HashMap<MapData, PortKey, StrictPort>,
    config: Array<MapData, Config>,
    stats: PerCpuArray<MapData, PeerStats>,
    drops: PerCpuArray<MapData, Drops>,
    passes: PerCpuArray<MapData, Passes>,
    events: RingBuf<MapData>,
    output: Vec<u8>,
}

/// What a program did.
#[derive(Debug)]
pub(crate) struct Ran<'a> {
    /// What it returned to the hook.
    pub(crate) action: i32,
    /// The packet afterwards.
    pub(crate) packet: &'a [u8],
}

fn take<T: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &str) -> T {
    T::try_from(ebpf.take_map(name).unwrap()).unwrap()
}

impl Programs {
    /// Loads the object as the runtime does, but pins nothing, and binds the calling thread
    /// to one CPU.
    pub(crate) fn load() -> Self {
        let mut here = CpuSet::new();
        here.set(0).unwrap();
        sched_setaffinity(Pid::from_raw(0), &here).unwrap();

        let mut loader = EbpfLoader::new();
        loader.btf(None);
        for name in [
            map_names::PEERS,
            map_names::VTEPS,
            map_names::PEER_STATS,
            map_names::PATHS,
            map_names::ENDPOINTS,
            map_names::MACS,
            map_names::STRICT_PORTS,
        ] {
            loader.map_max_entries(name, MAX_PEERS);
        }
        loader.override_global(aya_log::LEVEL, &0_u8, true);
        let mut ebpf = loader
            .load(mesh_runtime::ebpf::OBJECT)
            .expect("loading eBPF needs root");
        for program in Program::ALL {
            classifier(&mut ebpf, program).load().unwrap();
        }
        Self {
            peers: take(&mut ebpf, map_names::PEERS),
            vteps: take(&mut ebpf, map_names::VTEPS),
            underlays: take(&mut ebpf, map_names::UNDERLAYS),
            endpoints: take(&mut ebpf, map_names::ENDPOINTS),
            macs: take(&mut ebpf, map_names::MACS),
            strict_ports: take(&mut ebpf, map_names::STRICT_PORTS),
            config: take(&mut ebpf, map_names::CONFIG),
            stats: take(&mut ebpf, map_names::PEER_STATS),
            drops: take(&mut ebpf, map_names::DROPS),
            passes: take(&mut ebpf, map_names::PASSES),
            events: take(&mut ebpf, map_names::EVENTS),
            output: vec![0; LONGEST],
            ebpf,
        }
    }

    /// The program, to attach it.
    pub(crate) fn classifier(&mut self, program: Program) -> &mut SchedClassifier {
        classifier(&mut self.ebpf, program)
    }

    /// Makes the maps show what `node` knows. The counters stay.
    pub(crate) fn show(&mut self, node: &Node) {
        self.config.set(0, node.config, 0).unwrap();
        show(&mut self.peers, &node.peers);
        show(&mut self.vteps, &node.vteps);
        show(&mut self.underlays, &node.underlays);
        show(&mut self.endpoints, &node.endpoints);
        show(&mut self.macs, &node.macs);
        show(&mut self.strict_ports, &node.strict_ports);
    }

    /// Runs a program on a packet, in the network namespace of the calling thread.
    pub(crate) fn run(&mut self, program: Program, arrival: &Arrival<'_>) -> Ran<'_> {
        let skb = skb_context(arrival);
        let options = TestRunOptions {
            data_in: Some(arrival.packet),
            data_out: Some(&mut self.output),
            ctx_in: Some(&skb),
            ..TestRunOptions::new()
        };
        let result = classifier(&mut self.ebpf, program).test_run(options);
        let result = result.unwrap_or_else(|error| {
            panic!("{program:?} on {}: {error:?}", super::hex(arrival.packet))
        });
        Ran {
            action: result.return_value.cast_signed(),
            packet: &self.output[..result.data_size_out as usize],
        }
    }

    /// What the programs have counted since they were loaded, and when each peer was heard of.
    pub(crate) fn ledger(&self) -> (Ledger, BTreeMap<u32, u64>) {
        let mut ledger = Ledger::default();
        for cpu in self.drops.get(&0, 0).unwrap().iter() {
            for reason in DropReason::ALL {
                *ledger.drops.get_mut(*reason) += cpu.get(*reason);
            }
        }
        for cpu in self.passes.get(&0, 0).unwrap().iter() {
            for reason in PassReason::ALL {
                *ledger.passes.get_mut(*reason) += cpu.get(*reason);
            }
        }
        let mut heard = BTreeMap::new();
        for index in 0..MAX_PEERS {
            for cpu in self.stats.get(&index, 0).unwrap().iter() {
                if *cpu == PeerStats::default() {
                    continue;
                }
                let stats = PeerStats {
                    last_seen_ns: 0,
                    ..*cpu
                };
                let before = ledger.peers.insert(index, stats);
                assert_eq!(before, None, "counted on more than one CPU");
                if cpu.last_seen_ns != 0 {
                    ledger.heard.insert(index);
                    heard.insert(index, cpu.last_seen_ns);
                }
            }
        }
        (ledger, heard)
    }

    /// Takes the sampled drops out of the ring buffer. Their time is checked and set to zero.
    pub(crate) fn events(&mut self) -> Vec<PacketEvent> {
        let mut events = Vec::new();
        while let Some(item) = self.events.next() {
            let event = drop_event(&item);
            assert!((1..=coarse_now()).contains(&event.time_ns), "{event:?}");
            events.push(PacketEvent {
                time_ns: 0,
                ..event
            });
        }
        events
    }
}

fn classifier(ebpf: &mut Ebpf, program: Program) -> &mut SchedClassifier {
    ebpf.program_mut(program.name())
        .unwrap()
        .try_into()
        .unwrap()
}

fn show<K: Pod + Ord, V: Pod>(map: &mut HashMap<MapData, K, V>, wanted: &BTreeMap<K, V>) {
    let shown: Vec<K> = map.keys().map(Result::unwrap).collect();
    for key in shown {
        if !wanted.contains_key(&key) {
            map.remove(&key).unwrap();
        }
    }
    for (key, value) in wanted {
        map.insert(key, value, 0).unwrap();
    }
}

/// `struct __sk_buff` (linux/bpf.h) with the fields that BPF_PROG_TEST_RUN lets a caller set.
fn skb_context(arrival: &Arrival<'_>) -> [u8; 192] {
    const PRIORITY: usize = 32;
    const IFINDEX: usize = 40;
    const GSO_SIZE: usize = 176;
    let mut context = [0; 192];
    if arrival.claims_anothers {
        context[PRIORITY..PRIORITY + 4].copy_from_slice(&PRIORITY_ANOTHERS_CLAIM.to_ne_bytes());
    }
    context[IFINDEX..IFINDEX + 4].copy_from_slice(&arrival.link.to_ne_bytes());
    let size = u32::from(arrival.segment_size);
    context[GSO_SIZE..GSO_SIZE + 4].copy_from_slice(&size.to_ne_bytes());
    context
}

fn drop_event(bytes: &[u8]) -> PacketEvent {
    assert_eq!(bytes.len(), size_of::<PacketEvent>());
    let four = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
    let two = |at: usize| u16::from_ne_bytes(bytes[at..at + 2].try_into().unwrap());
    let address = |number: usize| bytes[40 + number * 16..][..16].try_into().unwrap();
    PacketEvent {
        time_ns: u64::from_ne_bytes(bytes[..8].try_into().unwrap()),
        version: bytes[8],
        kind: bytes[9],
        program: bytes[10],
        verdict: bytes[11],
        reason: four(12),
        link: four(16),
        length: four(20),
        vni: four(24),
        source_port: two(28),
        destination_port: two(30),
        protocol: bytes[32],
        pad: bytes[33..40].try_into().unwrap(),
        outer_source: address(0),
        outer_destination: address(1),
        inner_source: address(2),
        inner_destination: address(3),
    }
}

/// The clock of the programs' time stamps, in nanoseconds.
pub(crate) fn coarse_now() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).unwrap();
    u64::try_from(now.tv_sec()).unwrap() * 1_000_000_000 + u64::try_from(now.tv_nsec()).unwrap()
}
