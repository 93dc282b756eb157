//! Rules of nftables, as `nft -j list ruleset` prints them (libnftables-json(5)), and the way of a packet through them.

use std::collections::BTreeMap;

use serde_json::Value;

use super::packet::Packet;

/// Tables of the mesh itself.
const OURS: &str = "quilt_mesh";
/// Families whose chains see IPv4 packets of the host.
const FAMILIES: [&str; 2] = ["ip", "inet"];
/// How deep chains may call each other (`NFT_JUMP_STACK_SIZE`).
const DEEPEST: usize = 16;
/// Targets of iptables that let a packet go on.
const PASSING_TARGETS: [&str; 12] = [
    "LOG", "NFLOG", "ULOG", "MARK", "CONNMARK", "TCPMSS", "CHECKSUM", "CT", "NOTRACK", "TRACE",
    "CLASSIFY", "SET",
];

/// Family, table and chain.
type Name = (String, String, String);

/// A chain that the kernel calls itself.
#[derive(Clone, Debug)]
struct Base {
    name: Name,
    hook: String,
    priority: i64,
    drops: bool,
}

/// All rules that are not ours.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules {
    bases: Vec<Base>,
    /// The statements of each rule, by chain.
    rules: BTreeMap<Name, Vec<Vec<Value>>>,
    /// How many tables of somebody else there are.
    pub(crate) tables: usize,
}

/// What becomes of a packet in a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Accepted,
    Dropped,
    /// The chain that called goes on.
    Returned,
    Unknown,
}

/// The same, where something that is not known may have dropped it before.
#[derive(Clone, Copy, Debug)]
struct Way {
    outcome: Outcome,
    maybe_dropped: bool,
}

impl Way {
    fn certain(self) -> Outcome {
        match (self.outcome, self.maybe_dropped) {
            (Outcome::Accepted | Outcome::Returned, true) => Outcome::Unknown,
            (outcome, _) => outcome,
        }
    }
}

impl Rules {
    /// Reads what nft has printed; `None` if that is nothing of the kind.
    pub(crate) fn read(document: &Value) -> Option<Self> {
        let mut read = Self::default();
        for object in document.get("nftables")?.as_array()? {
            let text =
                |of: &Value, key: &str| of.get(key).and_then(Value::as_str).map(str::to_owned);
            let concerns = |of: &Value, table: &str| {
                let family = text(of, "family").unwrap_or_default();
                FAMILIES.contains(&family.as_str()) && text(of, table).as_deref() != Some(OURS)
            };
            if let Some(table) = object.get("table").filter(|it| concerns(it, "name")) {
                read.tables += usize::from(table.is_object());
            }
            if let Some(chain) = object.get("chain").filter(|it| concerns(it, "table")) {
                let name = (
                    text(chain, "family")?,
                    text(chain, "table")?,
                    text(chain, "name")?,
                );
                let filters = text(chain, "type").as_deref() == Some("filter");
                if let Some(hook) = text(chain, "hook").filter(|_| filters) {
                    read.bases.push(Base {
                        name: name.clone(),
                        hook,
                        priority: chain.get("prio").and_then(Value::as_i64).unwrap_or(0),
                        drops: text(chain, "policy").as_deref() == Some("drop"),
                    });
                }
                read.rules.entry(name).or_default();
            }
            if let Some(rule) = object.get("rule").filter(|it| concerns(it, "table")) {
                let name = (
                    text(rule, "family")?,
                    text(rule, "table")?,
                    text(rule, "chain")?,
                );
                let statements = rule.get("expr").and_then(Value::as_array);
                let statements = statements.cloned().unwrap_or_default();
                read.rules.entry(name).or_default().push(statements);
            }
        }
        read.bases.sort_by_key(|base| base.priority);
        Some(read)
    }

    /// The first chain that certainly drops a packet on its way by some hooks, in words.
    pub(crate) fn drops(&self, hooks: &[&str], packet: &Packet) -> Option<String> {
        hooks.iter().find_map(|hook| {
            let mut bases = self.bases.iter().filter(|base| base.hook == *hook);
            bases.find_map(|base| {
                let early = *hook == "prerouting";
                let way = self.through(&base.name, packet, early, DEEPEST);
                let dropped = match way.certain() {
                    Outcome::Dropped => true,
                    Outcome::Returned => base.drops,
                    // With a policy to drop, what may have been dropped before is dropped in either case.
                    Outcome::Unknown => base.drops && way.outcome == Outcome::Returned,
                    Outcome::Accepted => false,
                };
                let (family, table, chain) = &base.name;
                dropped.then(|| format!("chain {chain} of table {family} {table}"))
            })
        })
    }

    fn through(&self, chain: &Name, packet: &Packet, early: bool, depth: usize) -> Way {
        let mut maybe_dropped = false;
        let end = |outcome, maybe_dropped| Way {
            outcome,
            maybe_dropped,
        };
        let Some(depth) = depth.checked_sub(1) else {
            return end(Outcome::Unknown, false);
        };
        for statements in self.rules.get(chain).into_iter().flatten() {
            let mut met = Some(true);
            for statement in statements {
                if met == Some(false) {
                    break;
                }
                if let Some(of) = statement.get("match") {
                    met = match (met, packet.holds(of, early)) {
                        (_, Some(false)) => Some(false),
                        (met, Some(true)) => met,
                        (_, None) => None,
                    };
                    continue;
                }
                let target = |key: &str| {
                    let name = statement.get(key)?.get("target")?.as_str()?;
                    Some((chain.0.clone(), chain.1.clone(), name.to_owned()))
                };
                let called = target("jump").or_else(|| target("goto"));
                let outcome = match called {
                    Some(called) => {
                        let way = self.through(&called, packet, early, depth);
                        maybe_dropped |= way.maybe_dropped;
                        match (way.outcome, statement.get("goto").is_some()) {
                            // From there it goes back to the caller of this chain.
                            (Outcome::Returned, true) => Some(Outcome::Returned),
                            (Outcome::Returned, false) => None,
                            (outcome, _) => Some(outcome),
                        }
                    }
                    None => verdict(statement),
                };
                match (met, outcome) {
                    (_, None) if is_condition(statement) => met = None,
                    (_, None) => {}
                    (Some(true), Some(outcome)) => return end(outcome, maybe_dropped),
                    (None, Some(Outcome::Dropped)) => {
                        maybe_dropped = true;
                        break;
                    }
                    (_, Some(_)) => return end(Outcome::Unknown, maybe_dropped),
                }
            }
        }
        end(Outcome::Returned, maybe_dropped)
    }
}

/// What a statement decides by itself; `None` for one that lets the packet go on.
fn verdict(statement: &Value) -> Option<Outcome> {
    let is = |key: &str| statement.get(key).is_some();
    if is("accept") {
        return Some(Outcome::Accepted);
    }
    if is("drop") || is("reject") {
        return Some(Outcome::Dropped);
    }
    if is("return") {
        return Some(Outcome::Returned);
    }
    if let Some(xt) = statement.get("xt") {
        let name = xt.get("name").and_then(Value::as_str).unwrap_or("");
        let target = xt.get("type").and_then(Value::as_str) == Some("target");
        return match (target, name) {
            (true, "REJECT") => Some(Outcome::Dropped),
            (true, name) if !PASSING_TARGETS.contains(&name) => Some(Outcome::Unknown),
            _ => None,
        };
    }
    let decides = [
        "vmap",
        "queue",
        "tproxy",
        "synproxy",
        "dnat",
        "snat",
        "masquerade",
        "redirect",
    ];
    decides.into_iter().any(is).then_some(Outcome::Unknown)
}

/// Whether a statement that decides nothing asks for something that is not read here.
fn is_condition(statement: &Value) -> bool {
    let of_iptables = statement.pointer("/xt/type").and_then(Value::as_str) == Some("match");
    of_iptables
        || ["limit", "quota", "meter", "ct count"]
            .iter()
            .any(|it| statement.get(it).is_some())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn drops(rules: &[Value], policy: &str) -> bool {
        let mut objects = vec![
            json!({"chain": {"family": "inet", "table": "fw", "name": "in", "type": "filter", "hook": "input", "prio": 0, "policy": policy}}),
        ];
        objects.extend(rules.iter().map(
            |expr| json!({"rule": {"family": "inet", "table": "fw", "chain": "in", "expr": expr}}),
        ));
        let rules = Rules::read(&json!({"nftables": objects})).unwrap();
        let [a, b] = ["192.0.2.3", "192.0.2.2"].map(|it| it.parse().unwrap());
        let packet = Packet::udp(a, b, 4789);
        rules.drops(&["input"], &packet).is_some()
    }

    #[test]
    fn only_what_is_certainly_dropped_is_dropped() {
        let unknown = json!({"match": {"op": "==", "left": {"meta": {"key": "mark"}}, "right": 1}});
        assert!(drops(&[], "drop") && !drops(&[], "accept"));
        assert!(drops(&[json!([{"drop": null}])], "accept"));
        assert!(!drops(&[json!([{"accept": null}])], "drop"));
        assert!(!drops(&[json!([unknown, {"drop": null}])], "accept"));
        // Dropped by the one or by the other.
        assert!(drops(&[json!([unknown, {"drop": null}])], "drop"));
        assert!(!drops(&[json!([unknown, {"accept": null}])], "drop"));
        assert!(!drops(
            &[json!([{"limit": {"rate": 5}}, {"accept": null}])],
            "drop"
        ));
        assert!(!drops(&[json!([{"vmap": {}}])], "drop"));
        assert!(drops(
            &[json!([{"xt": {"type": "target", "name": "LOG"}}])],
            "drop"
        ));
        assert!(drops(
            &[json!([{"xt": {"type": "target", "name": "REJECT"}}])],
            "accept"
        ));
        assert!(!drops(
            &[json!([{"xt": {"type": "match", "name": "set"}}, {"accept": null}])],
            "drop"
        ));
    }

    #[test]
    fn a_chain_that_calls_itself_ends() {
        assert!(!drops(&[json!([{"jump": {"target": "in"}}])], "drop"));
    }

    #[test]
    fn our_own_tables_are_nobodys() {
        let objects = json!({"nftables": [
            {"table": {"family": "inet", "name": OURS}},
            {"table": {"family": "ip", "name": "filter"}},
            {"table": {"family": "bridge", "name": "filter"}}]});
        assert_eq!(Rules::read(&objects).unwrap().tables, 1);
        assert!(Rules::read(&json!({})).is_none());
    }
}
