//! Every problem there is, by who finds it.

use crate::Kind;

/// Defines kinds, and lists them.
macro_rules! kinds {
    ($($name:ident = $code:literal, $severity:ident, $title:literal, breaks $breaks:literal, remedy $remedy:literal;)*) => {
        $(
            #[doc = $title]
            pub static $name: Kind = Kind {
                code: $code,
                severity: Severity::$severity,
                title: $title,
                breaks: $breaks,
                remedy: $remedy,
            };
        )*

        /// All of these, in this order.
        pub static ALL: &[&Kind] = &[$(&$name),*];
    };
}

pub mod agent;
pub mod check;
pub mod cluster;
pub mod dataplane;
pub mod host;
pub mod local;
pub mod maintenance;
pub mod metrics;
pub mod path;

/// Kinds that one part of the product finds.
#[derive(Clone, Copy, Debug)]
pub struct Chapter {
    /// What these are about, as a heading.
    pub title: &'static str,
    /// Who finds them, and where they are shown.
    pub about: &'static str,
    /// The kinds.
    pub kinds: &'static [&'static Kind],
}

/// All kinds.
pub static CHAPTERS: &[Chapter] = &[
    Chapter {
        title: "The data plane",
        about: "The runtime finds these whenever it compares the kernel with what is wanted, at once after a change and every \
            few seconds besides.",
        kinds: dataplane::ALL,
    },
    Chapter {
        title: "The agent",
        about: "The agent finds these in what it does anyway: calling the control plane and the runtime, and keeping its files. \
                It tells them on its socket, and the control plane with its heartbeats.",
        kinds: agent::ALL,
    },
    Chapter {
        title: "The cluster",
        about: "The control plane finds these; `meshctl nodes` and `GET /api/findings` tell them, and what each node reported last.",
        kinds: cluster::ALL,
    },
    Chapter {
        title: "The daemons of a host",
        about: "`meshctl status` and `meshctl doctor` find these when they ask runtime and agent.",
        kinds: local::ALL,
    },
    Chapter {
        title: "The way to a peer",
        about: "`meshctl ping`, `meshctl check` and `meshctl peers --probe` find these when they are run, by sending probes along the way.",
        kinds: path::ALL,
    },
    Chapter {
        title: "Checks of all nodes",
        about: "`meshctl check --all` finds these, from what nodes answer, beside what they find on the ways to their peers.",
        kinds: check::ALL,
    },
    Chapter {
        title: "Metrics",
        about: "Each daemon finds these when it starts, and says so in its log.",
        kinds: metrics::ALL,
    },
    Chapter {
        title: "This host",
        about: "`meshctl doctor` finds these when it is run, by looking at what the host has beside the mesh. It tells what the \
            daemons find as well.",
        kinds: host::ALL,
    },
    Chapter {
        title: "Maintenance",
        about: "An operator has said these; runtime and agent tell them for as long as they hold.",
        kinds: maintenance::ALL,
    },
];

/// The kind with that code, if this version knows it.
#[must_use]
pub fn find(code: &str) -> Option<&'static Kind> {
    let mut kinds = CHAPTERS.iter().flat_map(|chapter| chapter.kinds);
    kinds.find(|kind| kind.code == code).copied()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_are_words_of_their_own_and_every_kind_says_what_it_breaks_and_what_to_do() {
        let mut codes = BTreeSet::new();
        for kind in CHAPTERS.iter().flat_map(|chapter| chapter.kinds) {
            let Kind { code, title, .. } = kind;
            assert!(codes.insert(code), "{code} is there twice");
            let well_formed = code
                .split('-')
                .all(|word| !word.is_empty() && word.chars().all(|it| it.is_ascii_lowercase()));
            assert!(well_formed && code.len() <= 32, "{code}");
            for text in [title, &kind.breaks, &kind.remedy] {
                assert!(!text.is_empty(), "{code}");
                assert!(!text.ends_with(['.', ';', ':']), "{code}: {text}");
                // They stand one behind the other in one line.
                assert_eq!(text.trim(), *text, "{code}");
                assert!(
                    !text.contains(['\n', '\t']) && !text.contains("  "),
                    "{code}: {text}"
                );
            }
            assert_eq!(find(code), Some(*kind));
        }
        assert_eq!(find("none"), None);
    }
}
