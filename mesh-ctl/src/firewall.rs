//! `meshctl firewall check`: do our guards stand as they should, and who else decides where they do?

use std::time::Duration;

use mesh_client::mesh::{CheckFirewallResponse, ForeignChain};
use serde::Serialize;
use tokio::time::sleep;

use crate::{
    Verdict,
    output::{GOOD, Table, printable, say, say_json, style_of, styled},
    place::Place,
};

/// How often rules that are being written are looked at again, and after what time.
const LOOKS: usize = 6;
const AGAIN: Duration = Duration::from_millis(500);

/// The packet filter.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum What {
    /// Compares the rules, sets and programs that guard with what the kernel has, and lists the chains of others at the same
    /// hooks.
    Check {
        /// Print a document for a machine.
        #[arg(long)]
        json: bool,
    },
}

/// Prints what is found.
pub(crate) async fn run(place: &Place, options: &Options) -> anyhow::Result<Verdict> {
    let What::Check { json } = options.what;
    let mut inspector = place.runtime_socket().await?;
    let mut looked = inspector.firewall().await?;
    // Containers and peers that come and go change the sets: for a moment they lag.
    for _ in 1..LOOKS {
        if looked.untouched || !looked.refused.is_empty() || !looked.wanted {
            break;
        }
        sleep(AGAIN).await;
        looked = inspector.firewall().await?;
    }
    let check = check(looked);
    match json {
        true => say_json(&check)?,
        false => say(text(&check))?,
    }
    Ok(match check.state {
        State::InPlace if check.programs.unguarded.is_none() => Verdict::Fine,
        State::NothingWanted => Verdict::Unknown,
        _ => Verdict::Wrong,
    })
}

/// The packet filter, as a document. Fields are added to it, and never taken away or changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Check {
    state: State,
    /// Why it is not `in-place`; empty where it is.
    reason: String,
    rules: Rules,
    sets: Vec<Set>,
    programs: Programs,
    /// What others have at the hooks that our chains are at. What their rules mean is not evaluated.
    not_evaluated: Foreign,
}

/// How our rules stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    /// The kernel shows what is wanted, and nothing else.
    InPlace,
    /// It does, but refuses what translates addresses.
    GuardsAlone,
    /// It refuses them.
    Refused,
    /// It shows something else.
    Changed,
    /// None are wanted before the node has a subnet.
    NothingWanted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Rules {
    wanted: u32,
    found: u32,
    /// How often they were put right since the runtime started, because somebody had changed them.
    repairs: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Set {
    name: String,
    wanted: u32,
    /// How many of these are not there.
    missing: u32,
    /// How many are there that nobody wants.
    foreign: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Programs {
    /// `interface: program`.
    attached: Vec<String>,
    /// Why none guards; `None`: they do.
    unguarded: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Foreign {
    chains: Vec<Chain>,
    /// Tables of the older iptables, which only it lists.
    legacy_tables: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Chain {
    /// `table ip filter, chain FORWARD`.
    name: String,
    hook: String,
    /// Lower ones are asked before higher ones.
    priority: i32,
    /// `accept`, `drop` or empty.
    policy: String,
    has_rules: bool,
    /// Of a chain of one interface's.
    interface: String,
}

fn check(told: CheckFirewallResponse) -> Check {
    let (state, reason) = judge(&told);
    Check {
        state,
        reason,
        rules: Rules {
            wanted: told.wanted_rules,
            found: told.rules,
            repairs: told.repairs,
        },
        sets: told
            .sets
            .into_iter()
            .map(|set| Set {
                name: set.name,
                wanted: set.wanted,
                missing: set.missing,
                foreign: set.foreign,
            })
            .collect(),
        programs: Programs {
            attached: told.guards,
            unguarded: (!told.unguarded.is_empty()).then_some(told.unguarded),
        },
        not_evaluated: Foreign {
            chains: told.foreign_chains.into_iter().map(chain).collect(),
            legacy_tables: told.legacy_tables,
        },
    }
}

fn judge(told: &CheckFirewallResponse) -> (State, String) {
    if !told.wanted {
        let why = "this node has no subnet yet, and nothing is to be guarded";
        return (State::NothingWanted, why.to_owned());
    }
    if !told.refused.is_empty() {
        return (State::Refused, told.refused.clone());
    }
    if !told.untouched {
        return (State::Changed, changed(told));
    }
    if !told.narrowed.is_empty() {
        return (State::GuardsAlone, told.narrowed.clone());
    }
    (State::InPlace, String::new())
}

/// In what the kernel differs from what is wanted.
fn changed(told: &CheckFirewallResponse) -> String {
    let mut parts = Vec::new();
    if told.rules != told.wanted_rules {
        parts.push(format!(
            "{} rules instead of {}",
            told.rules, told.wanted_rules
        ));
    }
    for set in &told.sets {
        if set.missing + set.foreign > 0 {
            parts.push(format!(
                "set {}: {} missing, {} of somebody else",
                set.name, set.missing, set.foreign
            ));
        }
    }
    match parts.is_empty() {
        true => "others than those that were written stand in their place".to_owned(),
        false => parts.join("; "),
    }
}

fn chain(told: ForeignChain) -> Chain {
    Chain {
        name: told.name,
        hook: told.hook,
        priority: told.priority,
        policy: told.policy,
        has_rules: told.has_rules,
        interface: told.interface,
    }
}

fn text(check: &Check) -> String {
    let wrong = style_of(mesh_problems::Severity::Error);
    let (style, words) = match check.state {
        State::InPlace => (GOOD, "in place, as they were written"),
        State::GuardsAlone => (
            style_of(mesh_problems::Severity::Warning),
            "the guards are in place, what translates addresses is not",
        ),
        State::Refused => (wrong, "not in place"),
        State::Changed => (wrong, "changed by somebody else"),
        State::NothingWanted => (style_of(mesh_problems::Severity::Notice), "none are wanted"),
    };
    let Rules {
        wanted,
        found,
        repairs,
    } = check.rules;
    let mut lines = vec![format!("Rules     {}", styled(style, words))];
    if !check.reason.is_empty() {
        lines.push(format!("          {}", printable(&check.reason)));
    }
    let put_right = match repairs {
        0 => "never put right since the runtime started".to_owned(),
        1 => "put right once since the runtime started".to_owned(),
        times => format!("put right {times} times since the runtime started"),
    };
    lines.push(format!(
        "          {found} of {wanted} in the tables quilt_mesh (inet, bridge); {put_right}"
    ));
    let elements: u32 = check.sets.iter().map(|set| set.wanted).sum();
    lines.push(format!(
        "Sets      {}, with {elements} elements",
        check.sets.len()
    ));
    lines.push(match &check.programs.unguarded {
        None => format!("Programs  {} attached", check.programs.attached.len()),
        Some(why) => format!("Programs  {}: {}", styled(wrong, "none"), printable(why)),
    });
    let foreign = &check.not_evaluated;
    if foreign.chains.is_empty() && foreign.legacy_tables.is_empty() {
        lines.push("Others    no chains at the same hooks".to_owned());
        return lines.join("\n");
    }
    lines.push(
        "Others    at the same hooks; not evaluated (nft list ruleset shows them)".to_owned(),
    );
    if !foreign.chains.is_empty() {
        lines.push(table(&foreign.chains));
    }
    if !foreign.legacy_tables.is_empty() {
        lines.push(format!(
            "tables of the older iptables: {} (iptables-legacy-save shows them)",
            printable(&foreign.legacy_tables.join(", "))
        ));
    }
    lines.join("\n")
}

fn table(chains: &[Chain]) -> String {
    let mut table = Table::new(["CHAIN", "HOOK", "PRIORITY", "POLICY", "RULES"]);
    for chain in chains {
        let hook = match chain.interface.as_str() {
            "" => chain.hook.clone(),
            interface => format!("{} of {interface}", chain.hook),
        };
        table.row([
            chain.name.clone(),
            hook,
            chain.priority.to_string(),
            chain.policy.clone(),
            if chain.has_rules { "yes" } else { "none" }.to_owned(),
        ]);
    }
    table.text()
}

#[cfg(test)]
mod tests {
    use mesh_client::mesh::CheckedSet;

    use super::*;
    use crate::output::held;

    fn told() -> CheckFirewallResponse {
        CheckFirewallResponse {
            wanted: true,
            wanted_rules: 40,
            rules: 40,
            sets: vec![CheckedSet {
                name: "peers".to_owned(),
                wanted: 2,
                missing: 0,
                foreign: 0,
            }],
            untouched: true,
            repairs: 1,
            guards: vec!["qm1: encapsulate".to_owned()],
            foreign_chains: vec![ForeignChain {
                name: "table ip filter, chain FORWARD".to_owned(),
                hook: "forward".to_owned(),
                priority: 0,
                policy: "drop".to_owned(),
                has_rules: true,
                interface: String::new(),
            }],
            legacy_tables: vec!["filter".to_owned()],
            ..CheckFirewallResponse::default()
        }
    }

    #[test]
    fn what_stands_in_the_place_of_ours_is_said_and_others_are_shown_unread() {
        let fine = text(&check(told()));
        for words in [
            "as they were written",
            "not evaluated",
            "FORWARD",
            "drop",
            "older iptables",
        ] {
            assert!(fine.contains(words), "{fine}");
        }
        let mut changed = told();
        changed.untouched = false;
        let replaced = judge(&changed);
        assert_eq!(replaced.0, State::Changed);
        assert!(replaced.1.contains("others than those"), "{replaced:?}");
        changed.rules = 39;
        changed.sets[0].foreign = 1;
        let (_, reason) = judge(&changed);
        assert_eq!(
            reason,
            "39 rules instead of 40; set peers: 0 missing, 1 of somebody else"
        );
        changed.refused = "nft: no".to_owned();
        assert_eq!(judge(&changed), (State::Refused, "nft: no".to_owned()));
        changed.wanted = false;
        assert_eq!(judge(&changed).0, State::NothingWanted);
    }

    #[test]
    fn the_document_for_machines_is_as_it_was() {
        held::is_as_it_was("firewall", &check(told()));
    }
}
