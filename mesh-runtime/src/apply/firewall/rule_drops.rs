//! How many packets each rule of our tables has dropped.
//!
//! linux/netfilter/nf_tables.h. In our tables a counter without a name stands before a `drop`, and nowhere else.

use std::{collections::BTreeMap, io};

use super::{TABLE, netlink::PacketFilter};
use crate::netlink::message::{attribute, attributes, text};

const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_HANDLE: u16 = 3;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_COUNTER_PACKETS: u16 = 2;

/// A rule of ours: its family, and its number there, which no other has had since the table was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RuleId {
    pub(crate) family: &'static str,
    handle: u64,
}

/// Where a rule stands, and what it has dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RuleCount {
    pub(crate) chain: String,
    /// Its place among all rules of the chain.
    pub(crate) place: usize,
    pub(crate) packets: u64,
}

/// The rules of ours that drop.
pub(crate) type RuleCounts = BTreeMap<RuleId, RuleCount>;

/// Reads the counters of our rules, of the network namespace of the calling thread: a system call for each table.
///
/// # Errors
///
/// A kernel that does not answer, or whose rules changed meanwhile. Without our tables there are none.
pub(crate) fn read() -> io::Result<RuleCounts> {
    let reader = PacketFilter::open()?;
    let mut counts = RuleCounts::new();
    for family in ["inet", "bridge"] {
        let mut rules_of: BTreeMap<String, usize> = BTreeMap::new();
        let whole = reader.rules(family, |rule| {
            let (chain, id, packets) = parse(family, rule)?;
            let Some(chain) = chain else { return Some(()) };
            let place = rules_of.entry(chain.clone()).or_default();
            if let Some(packets) = packets {
                let count = RuleCount {
                    chain,
                    place: *place,
                    packets,
                };
                counts.insert(id, count);
            }
            *place += 1;
            Some(())
        })?;
        if !whole {
            return Err(io::Error::other("the rules changed while they were read"));
        }
    }
    Ok(counts)
}

/// The chain of a rule, if it is of our table, and what its counter says, if it has one.
fn parse(family: &'static str, rule: &[u8]) -> Option<(Option<String>, RuleId, Option<u64>)> {
    let word = |kind| Some(String::from_utf8_lossy(text(attribute(rule, kind)?)).into_owned());
    let ours = word(NFTA_RULE_TABLE)? == TABLE;
    let handle = attribute(rule, NFTA_RULE_HANDLE)?.try_into().ok()?;
    let id = RuleId {
        family,
        handle: u64::from_be_bytes(handle),
    };
    let chain = word(NFTA_RULE_CHAIN).filter(|_| ours);
    let expressions = attribute(rule, NFTA_RULE_EXPRESSIONS).unwrap_or_default();
    let counter = attributes(expressions).find_map(|(_, expression)| {
        let name = text(attribute(expression, NFTA_EXPR_NAME)?);
        let data = attribute(expression, NFTA_EXPR_DATA).filter(|_| name == b"counter")?;
        let packets = attribute(data, NFTA_COUNTER_PACKETS)?.try_into().ok()?;
        Some(u64::from_be_bytes(packets))
    });
    Some((chain, id, counter))
}

/// What was dropped between two readings, rule by rule. A rule that was not there before has dropped all that since.
pub(crate) fn between(
    before: &RuleCounts,
    after: &RuleCounts,
) -> impl Iterator<Item = (RuleId, RuleCount)> {
    after.iter().filter_map(|(id, count)| {
        let counted = before.get(id).map_or(0, |before| before.packets);
        let packets = count.packets.saturating_sub(counted);
        (packets > 0).then(|| {
            let count = RuleCount {
                packets,
                ..count.clone()
            };
            (*id, count)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(of: &[(u64, u64)]) -> RuleCounts {
        let entry = |&(handle, packets): &(u64, u64)| {
            let id = RuleId {
                family: "inet",
                handle,
            };
            let count = RuleCount {
                chain: "routed".to_owned(),
                place: 0,
                packets,
            };
            (id, count)
        };
        of.iter().map(entry).collect()
    }

    #[test]
    fn what_was_dropped_since_is_told_of_old_rules_and_of_new_ones() {
        let (before, after) = (counts(&[(1, 5), (2, 7)]), counts(&[(1, 5), (2, 9), (3, 4)]));
        let told: Vec<_> = between(&before, &after)
            .map(|(id, count)| (id.handle, count.packets))
            .collect();
        assert_eq!(told, [(2, 2), (3, 4)]);
        // Somebody has set a counter back.
        assert_eq!(between(&after, &before).count(), 0);
    }
}
