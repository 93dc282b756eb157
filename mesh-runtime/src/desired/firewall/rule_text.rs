//! The rules one by one, for people.

use super::Ruleset;

impl Ruleset {
    /// The rule at a place of a chain, without what it does; `None` where there is none.
    pub(crate) fn rule(&self, family: &str, chain: &str, place: usize) -> Option<String> {
        let text = match family {
            "inet" => self.inet_table(),
            _ => self.bridge_table(),
        };
        let begin = format!("\tchain {chain} {{");
        let rules = text
            .lines()
            .skip_while(|line| *line != begin)
            .skip(1)
            .take_while(|line| *line != "\t}");
        // Deeper than the chain; its hook is no rule.
        let mut rules = rules
            .filter_map(|line| line.strip_prefix("\t\t"))
            .filter(|line| !line.starts_with("type "));
        let rule = rules.nth(place)?;
        let rule = rule.strip_suffix("counter drop").unwrap_or(rule).trim_end();
        // A rule that drops whatever comes to it.
        Some(match rule {
            "" => "everything else".to_owned(),
            rule => rule.to_owned(),
        })
    }
}
