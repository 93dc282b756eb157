//! Every metric there is, by who serves it.

use crate::Definition;

/// Defines metrics, and lists them.
macro_rules! metrics {
    ($($name:ident = $kind:expr, $metric:literal [$($label:ident),*], $help:literal;)*) => {
        $(
            #[doc = $help]
            pub static $name: crate::Definition = crate::Definition {
                name: $metric,
                kind: $kind,
                labels: &[$(stringify!($label)),*],
                help: $help,
            };
        )*

        /// All of these, in this order.
        pub static ALL: &[&crate::Definition] = &[$(&$name),*];
    };
}

pub mod agent;
pub mod common;
pub mod control;
pub mod runtime;

/// The metrics of one daemon.
#[derive(Clone, Copy, Debug)]
pub struct Chapter {
    /// The daemon, or that it is all of them.
    pub title: &'static str,
    /// The metrics.
    pub metrics: &'static [&'static Definition],
}

/// All metrics.
pub static CHAPTERS: &[Chapter] = &[
    Chapter {
        title: "All daemons",
        metrics: common::ALL,
    },
    Chapter {
        title: "quilt-runtime",
        metrics: runtime::ALL,
    },
    Chapter {
        title: "quilt-mesh-agent",
        metrics: agent::ALL,
    },
    Chapter {
        title: "quilt-mesh-control",
        metrics: control::ALL,
    },
];

/// All metrics, one after the other.
pub fn all() -> impl Iterator<Item = &'static Definition> {
    CHAPTERS.iter().flat_map(|chapter| chapter.metrics).copied()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::Kind;

    #[test]
    fn names_follow_the_conventions_and_are_there_once() {
        let mut names = BTreeSet::new();
        for definition in all() {
            let Definition {
                name, kind, labels, ..
            } = definition;
            assert!(names.insert(name), "{name} is there twice");
            assert!(name.starts_with("quilt_mesh_"), "{name}");
            let words = name.bytes().all(|it| it.is_ascii_lowercase() || it == b'_');
            assert!(words, "{name}");
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            // Those are parts of histograms and summaries.
            for ending in ["_count", "_sum", "_bucket"] {
                assert!(!name.ends_with(ending), "{name}");
            }
            for scaled in ["milliseconds", "_ms", "kilobytes", "_percent"] {
                assert!(!name.contains(scaled), "{name} is in no base unit");
            }
            let reserved = ["job", "instance", "le", "quantile"];
            assert!(labels.iter().all(|it| !reserved.contains(it)), "{name}");
            if let Kind::Histogram(buckets) = kind {
                assert!(buckets.is_sorted() && labels.is_empty(), "{name}");
            }
        }
    }

    #[test]
    fn every_help_is_one_sentence_without_a_full_stop() {
        for Definition { name, help, .. } in all() {
            assert!(!help.is_empty() && !help.ends_with('.'), "{name}: {help}");
            assert!(!help.contains(['\n', '|']), "{name}: {help}");
            assert!(!help.contains("  "), "{name}: {help}");
        }
    }
}
