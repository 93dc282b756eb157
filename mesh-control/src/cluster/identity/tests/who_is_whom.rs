//! The rules as a table: what a claim meets in each stored node, and what becomes of it.
//!
//! The table is the reference, filled in by hand from the rules and looked up, never computed. For each way in which a
//! stored node and a claim can relate it says what the claim is told where that node is the only one. Of several, the
//! node with the smallest number is the claim's, and the others are strangers to it, of whom a second table tells.

use proptest::prelude::*;

use super::*;

/// What has to come of a claim that meets a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cell {
    /// It is that node. Of several of which this is said it is the one with the smallest number; of equal ones the last.
    Is(u8),
    /// It has that node's key, but is another host.
    KeyUsed,
    /// That node has the address.
    AddressUsed,
    /// It is another node, and takes the address from that one.
    Takes,
    /// It has nothing to do with that node.
    New,
}
use Cell::{AddressUsed, Is, KeyUsed, New, Takes};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    /// The claim brings the stored node's key.
    Same,
    /// Both have a key, but not the same.
    Other,
    /// The claim brings none, the stored node has one.
    NotBrought,
    /// The claim brings one, the stored node has none.
    NotStored,
    /// Neither has a key.
    None,
}

/// Address and hostname of a claim, against those of a stored node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    SameBoth,
    SameAddress,
    SameName,
    Elsewhere,
}
use Place::{Elsewhere, SameAddress, SameBoth, SameName};

/// Which column a stored node stands in. There is no node that is up without holding its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Up,
    /// Silent: down, and its address is still its own.
    Silent,
    /// Down, and it deregistered or lost its address.
    Dismissed,
}

type Row = (Key, Place, [Cell; 3]);

#[rustfmt::skip]
const TABLE: [Row; 20] = [
    //                              up           silent  dismissed
    (Key::Same, SameBoth,          [Is(1),       Is(1),  Is(1)]),
    (Key::Same, SameAddress,       [Is(1),       Is(1),  Is(1)]),
    (Key::Same, SameName,          [Is(1),       Is(1),  Is(1)]),
    (Key::Same, Elsewhere,         [KeyUsed,     Is(1),  Is(1)]),
    (Key::Other, SameBoth,         [AddressUsed, Is(2),  Is(3)]),
    (Key::Other, SameAddress,      [AddressUsed, Takes,  New]),
    (Key::Other, SameName,         [New,         New,    New]),
    (Key::Other, Elsewhere,        [New,         New,    New]),
    (Key::NotStored, SameBoth,     [Is(2),       Is(2),  Is(3)]),
    (Key::NotStored, SameAddress,  [AddressUsed, Takes,  New]),
    (Key::NotStored, SameName,     [New,         New,    New]),
    (Key::NotStored, Elsewhere,    [New,         New,    New]),
    (Key::None, SameBoth,          [Is(1),       Is(1),  Is(2)]),
    (Key::None, SameAddress,       [AddressUsed, Is(5),  Is(6)]),
    (Key::None, SameName,          [New,         New,    New]),
    (Key::None, Elsewhere,         [New,         New,    New]),
    (Key::NotBrought, SameBoth,    [Is(3),       Is(3),  Is(4)]),
    (Key::NotBrought, SameAddress, [AddressUsed, Takes,  New]),
    (Key::NotBrought, SameName,    [New,         New,    New]),
    (Key::NotBrought, Elsewhere,   [New,         New,    New]),
];

/// The same for a node that the claim is not, because it is another one.
#[rustfmt::skip]
const STRANGERS: [(Place, [Cell; 3]); 4] = [
    //            up           silent dismissed
    (SameBoth,    [AddressUsed, Takes, New]),
    (SameAddress, [AddressUsed, Takes, New]),
    (SameName,    [New,         New,   New]),
    (Elsewhere,   [New,         New,   New]),
];

fn key(claim: &Claim<'_>, node: &Claimant) -> Key {
    match (claim.node_key, node.node_key.as_deref()) {
        (Some(brought), Some(stored)) if brought == stored => Key::Same,
        (Some(_), Some(_)) => Key::Other,
        (None, Some(_)) => Key::NotBrought,
        (Some(_), None) => Key::NotStored,
        (None, None) => Key::None,
    }
}

fn place(claim: &Claim<'_>, node: &Claimant) -> Place {
    match (
        claim.host_ip == node.host_ip,
        claim.hostname == node.hostname,
    ) {
        (true, true) => SameBoth,
        (true, false) => SameAddress,
        (false, true) => SameName,
        (false, false) => Elsewhere,
    }
}

fn state(node: &Claimant) -> State {
    match (node.up, node.holds_address) {
        (true, true) => State::Up,
        (false, true) => State::Silent,
        (false, false) => State::Dismissed,
        (true, false) => panic!("{node:?} is up without an address"),
    }
}

fn cell(claim: &Claim<'_>, node: &Claimant) -> Cell {
    let row = (key(claim, node), place(claim, node));
    let (_, _, cells) = TABLE
        .iter()
        .find(|(key, place, _)| (*key, *place) == row)
        .unwrap();
    cells[state(node) as usize]
}

fn stranger(claim: &Claim<'_>, node: &Claimant) -> Cell {
    let (_, cells) = STRANGERS
        .iter()
        .find(|(at, _)| *at == place(claim, node))
        .unwrap();
    cells[state(node) as usize]
}

/// What the tables say of a claim and all nodes there are, in the words of [`say`].
fn foretold(claim: &Claim<'_>, nodes: &[Claimant]) -> String {
    let mut cells: Vec<_> = nodes.iter().map(|node| (node, cell(claim, node))).collect();
    let number = |cell: Cell| match cell {
        Is(number) => Some(number),
        KeyUsed => Some(1),
        AddressUsed | Takes | New => None,
    };
    let smallest = cells.iter().filter_map(|(_, cell)| number(*cell)).min();
    let it = cells
        .iter()
        .rposition(|(_, cell)| smallest.is_some() && number(*cell) == smallest);
    for (at, (node, cell)) in cells.iter_mut().enumerate() {
        if Some(at) != it && number(*cell).is_some() {
            *cell = stranger(claim, node);
        }
    }
    let with = |wanted: Cell| {
        cells
            .iter()
            .find(|(_, cell)| *cell == wanted)
            .map(|(node, _)| &node.node_id)
    };
    if let Some(holder) = with(KeyUsed) {
        return format!("409 Key {holder}");
    }
    if let Some(holder) = with(AddressUsed) {
        return format!("409 Address {holder}");
    }
    let who = it.map_or("new", |at| nodes[at].node_id.as_str());
    match with(Takes) {
        Some(down) => format!("{who} displaces {down}"),
        None => who.to_owned(),
    }
}

const STATES: [State; 3] = [State::Up, State::Silent, State::Dismissed];

#[test]
fn a_claim_that_meets_one_node_is_told_what_stands_in_the_table() {
    for (key, at, cells) in TABLE {
        let (brought, stored) = match key {
            Key::Same => (Some("k"), Some("k")),
            Key::Other => (Some("l"), Some("k")),
            Key::NotBrought => (None, Some("k")),
            Key::NotStored => (Some("l"), None),
            Key::None => (None, None),
        };
        let (hostname, host_ip) = match at {
            SameBoth => ("a", X),
            SameAddress => ("b", X),
            SameName => ("a", Y),
            Elsewhere => ("b", Y),
        };
        for (state, expected) in STATES.into_iter().zip(cells) {
            let mut known = node("1", stored, "a", X, state == State::Up);
            known.holds_address = state != State::Dismissed;
            let expected = match expected {
                Is(_) => "1",
                KeyUsed => "409 Key 1",
                AddressUsed => "409 Address 1",
                Takes => "new displaces 1",
                New => "new",
            };
            let told = say(&decide(&claim(brought, hostname, host_ip), &[known]));
            assert_eq!(told, expected, "key {key:?}, {at:?}, {state:?}");
        }
    }
}

/// Nodes as they can be stored together: a key belongs to one of them, and so does an address to one that holds it.
fn nodes() -> impl Strategy<Value = Vec<Claimant>> {
    let one = (
        prop::option::of(0_u8..3),
        0_u8..2,
        0_u8..2,
        prop::sample::select(&STATES[..]),
    );
    prop::collection::vec(one, 0..6).prop_map(|drawn| {
        let (mut keys, mut held) = (BTreeSet::new(), BTreeSet::new());
        let mut nodes = Vec::new();
        for (key, hostname, address, state) in drawn {
            let holds_address = state != State::Dismissed && held.insert(address);
            nodes.push(Claimant {
                node_id: NodeId::from(nodes.len().to_string()),
                node_key: key
                    .filter(|key| keys.insert(*key))
                    .map(|key| format!("key-{key}")),
                hostname: format!("host-{hostname}"),
                host_ip: Ipv4Addr::new(192, 0, 2, address),
                up: holds_address && state == State::Up,
                holds_address,
                keeps_address: false,
            });
        }
        nodes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    /// All nodes are shown to it, also those that a database would not ask for: they must not matter.
    #[test]
    fn a_claim_that_meets_several_nodes_is_told_what_the_tables_say(
        nodes in nodes(), key in prop::option::of(0_u8..3), hostname in 0_u8..2, address in 0_u8..2,
    ) {
        let key = key.map(|key| format!("key-{key}"));
        let hostname = format!("host-{hostname}");
        let claim = claim(key.as_deref(), &hostname, Ipv4Addr::new(192, 0, 2, address));
        prop_assert_eq!(say(&decide(&claim, &nodes)), foretold(&claim, &nodes), "{:?} of {:#?}", claim, nodes);
    }
}
