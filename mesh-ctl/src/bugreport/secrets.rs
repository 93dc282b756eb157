//! Takes secrets out of text that is given to others.
//!
//! It is the second line of defence: the report asks for nothing that is a secret. What is taken out is what people put where
//! it does not belong: a token on a command line, a password in a URL, a key pasted into a rule's comment.

use std::sync::LazyLock;

use regex::{Captures, Regex};

/// What stands in the place of a secret.
pub(crate) const REMOVED: &str = "[removed]";

/// Private keys in PEM (RFC 7468), whole, or cut off at the end of the text; also with the newlines of JSON.
const PEM: &str =
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----(?s:.)*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\z)";
/// Join tokens (`qm1.`) and operators' (`qmo1.`) of this product.
const TOKEN: &str = r"\bqmo?1\.[A-Za-z0-9._~+/=-]+";
/// Who asks for a URL (RFC 3986, 3.2.1), up to the last `@`: some write one into their passwords.
const USER_INFO: &str = r#"\b([A-Za-z][A-Za-z0-9+.-]*://)[^\s/?#"']*@"#;
/// Options whose values are secrets, whatever these look like.
const OPTION: &str =
    r"(?i)^--?[a-z0-9_-]*(?:password|passwd|passphrase|secret|token|key|psk|join)$";
/// `Authorization` of HTTP (RFC 9110, 11.6.2), whatever the scheme.
const AUTHORIZATION: &str =
    r#"(?i)\b((?:proxy-)?authorization["']?\s*[:=]\s*["']?)(?:\w+\s+)?[^\s"',]+"#;
const BEARER: &str = r#"(?i)\b(bearer\s+)[^\s"',]+"#;
/// What is called a secret: `NAME=value`, `--name value`, `"name": "value"`.
const NAMED: &str = r#"(?i)((?:\b|--|_)[a-z0-9_-]*(?:password|passwd|passphrase|secret|token|private[_-]?key|node[_-]?key|api[_-]?key|psk)["']?(?:\s*[=:]\s*|\s+)["']?)([^\s"',;}]+)"#;
/// Of `ip xfrm` and of WireGuard, which are not asked for: what follows the name of an algorithm.
const KEYS: &str = r"(?i)\b((?:auth(?:-trunc)?|enc|aead)\s+\S+\s+)0x[0-9a-f]+";

struct Rules {
    option: Regex,
    whole: Vec<Regex>,
    behind: Vec<Regex>,
}

/// `None` if one of them is no rule, which a test rules out: then nothing is given away at all.
static RULES: LazyLock<Option<Rules>> = LazyLock::new(|| {
    let compile = |rules: &[&str]| rules.iter().map(|rule| Regex::new(rule).ok()).collect();
    let whole: Option<Vec<Regex>> = compile(&[PEM, TOKEN]);
    let behind: Option<Vec<Regex>> = compile(&[USER_INFO, AUTHORIZATION, BEARER, KEYS, NAMED]);
    Some(Rules {
        option: Regex::new(OPTION).ok()?,
        whole: whole?,
        behind: behind?,
    })
});

/// The text without secrets.
pub(crate) fn removed(text: &str) -> String {
    let Some(rules) = RULES.as_ref() else {
        return REMOVED.to_owned();
    };
    let mut text = text.to_owned();
    for rule in &rules.whole {
        text = rule.replace_all(&text, REMOVED).into_owned();
    }
    for rule in &rules.behind {
        let behind = |found: &Captures<'_>| {
            let at = if found[0].ends_with('@') { "@" } else { "" };
            format!("{}{REMOVED}{at}", &found[1])
        };
        text = rule.replace_all(&text, behind).into_owned();
    }
    text
}

/// The arguments of a process without secrets. Each is looked at by itself: where one ends is not known of a line.
pub(crate) fn arguments<'a>(arguments: impl Iterator<Item = &'a str>) -> String {
    let Some(rules) = RULES.as_ref() else {
        return REMOVED.to_owned();
    };
    let mut is_value = false;
    let shown = arguments.map(|argument| {
        if std::mem::replace(&mut is_value, rules.option.is_match(argument)) {
            return REMOVED.to_owned();
        }
        match argument.split_once('=') {
            Some((name, _)) if rules.option.is_match(name) => format!("{name}={REMOVED}"),
            _ => removed(argument),
        }
    });
    shown.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_is_one() {
        assert!(RULES.is_some());
    }

    #[test]
    fn secrets_go_and_the_rest_stays() {
        let pem = "a -----BEGIN EC PRIVATE KEY-----\nMHcCAQ\nEEIK\n-----END EC PRIVATE KEY----- b";
        for (text, expected) in [
            (pem, "a [removed] b"),
            (
                "postgres://mesh:p@ss@db/mesh",
                "postgres://[removed]@db/mesh",
            ),
            ("k=-----BEGIN PRIVATE KEY-----\\nMHcC", "k=[removed]"),
            (
                "quilt-mesh-agent --join qm1.abc.def.s3cret --x",
                "quilt-mesh-agent --join [removed] --x",
            ),
            ("t \"qmo1.ab.cdef\" u", "t \"[removed]\" u"),
            (
                "--database-url postgres://mesh:pa55@db/mesh?x=1",
                "--database-url postgres://[removed]@db/mesh?x=1",
            ),
            (
                "Authorization: Basic bWU6cHc=\n",
                "Authorization: [removed]\n",
            ),
            ("with Bearer s3cret, then", "with Bearer [removed], then"),
            ("QUILT_MESH_TOKEN=s3cret x", "QUILT_MESH_TOKEN=[removed] x"),
            ("--password s3cret", "--password [removed]"),
            (
                r#"{"node_key": "s3cret", "a": 1}"#,
                r#"{"node_key": "[removed]", "a": 1}"#,
            ),
            ("enc cbc(aes) 0x0123ab", "enc cbc(aes) [removed]"),
        ] {
            assert_eq!(removed(text), expected, "{text}");
        }
    }

    #[test]
    fn an_argument_is_removed_whole_however_it_is_written() {
        let given = [
            "quilt-mesh-agent",
            "--join",
            "a secret of several words",
            "--password=another one",
            "--token-file",
            "/etc/token",
            "--control-plane",
            "https://192.0.2.1:8080",
        ];
        assert_eq!(
            arguments(given.into_iter()),
            "quilt-mesh-agent --join [removed] --password=[removed] --token-file /etc/token \
             --control-plane https://192.0.2.1:8080"
        );
    }

    #[test]
    fn what_a_report_is_for_stays() {
        for text in [
            "10.42.2.0/24 via 10.42.2.0 dev vxlan100 proto 142 onlink",
            r#"{"hostname": "host2", "subnet": "10.42.2.0/24", "control_plane": "https://192.0.2.1:8080"}"#,
            "iifname \"quilt0\" ip saddr 10.42.1.0/24 counter packets 3 bytes 252 accept",
            "WARN cannot-join: cannot join; trying again until it succeeds code=\"cannot-join\"",
            "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
        ] {
            assert_eq!(removed(text), text);
        }
    }
}
