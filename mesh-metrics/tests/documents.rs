//! What is written about metrics, and made of them, is of those that there are.
#![allow(
    clippy::unwrap_used,
    reason = "functions of tests, which may panic like tests"
)]

use std::{collections::BTreeSet, fmt::Write as _, fs, path::PathBuf};

use mesh_metrics::{Kind, catalog};

fn checkout(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(checkout(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The tables as docs/METRICS.md has them.
fn tables() -> String {
    let mut text = String::new();
    for chapter in catalog::CHAPTERS {
        write!(
            text,
            "### {}\n\n| metric | kind | labels | says |\n|---|---|---|---|\n",
            chapter.title
        )
        .unwrap();
        for definition in chapter.metrics {
            let labels = definition.labels.iter().map(|label| format!("`{label}`"));
            let labels = labels.collect::<Vec<_>>().join(", ");
            let kind = definition.kind.as_str();
            let (name, help) = (definition.name, definition.help);
            writeln!(text, "| `{name}` | {kind} | {labels} | {help} |").unwrap();
        }
        text.push('\n');
    }
    text
}

#[test]
fn every_metric_is_described_in_the_documentation() {
    const BEGIN: &str = "<!-- metrics: begin -->\n\n";
    const END: &str = "<!-- metrics: end -->";
    let path = "docs/METRICS.md";
    let text = read(path);
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (written, after) = rest.split_once(END).unwrap();
    if written == tables() {
        return;
    }
    if std::env::var_os("QUILT_MESH_WRITE_DOCUMENTS").is_some() {
        let text = [before, BEGIN, &tables(), END, after].concat();
        fs::write(checkout(path), text).unwrap();
        return;
    }
    panic!(
        "the tables of {path} are not those of the code; QUILT_MESH_WRITE_DOCUMENTS=1 cargo test -p mesh-metrics writes them:\n{}",
        tables()
    );
}

/// The names of our metrics in a text, as somebody asks for them.
fn names(text: &str) -> BTreeSet<&str> {
    let is_of_a_name = |it: char| it.is_ascii_alphanumeric() || it == '_';
    text.split(|it| !is_of_a_name(it))
        .filter(|word| word.starts_with("quilt_mesh_"))
        .collect()
}

/// The series that there are.
fn series() -> BTreeSet<String> {
    let mut series = BTreeSet::new();
    for definition in catalog::all() {
        match definition.kind {
            Kind::Histogram(_) => series.extend(
                ["bucket", "sum", "count"].map(|part| format!("{}_{part}", definition.name)),
            ),
            Kind::Counter | Kind::Gauge => {
                series.insert(definition.name.to_owned());
            }
        }
    }
    series
}

#[test]
fn alerts_and_dashboard_ask_for_what_there_is() {
    let series = series();
    for path in [
        "deploy/prometheus/alerts.yml",
        "deploy/prometheus/alerts_test.yml",
        "deploy/grafana/quilt-mesh.json",
    ] {
        let text = read(path);
        let names = names(&text);
        assert!(!names.is_empty(), "{path}");
        for name in names {
            assert!(
                series.contains(name),
                "{path} asks for {name}, which nobody serves"
            );
        }
    }
}

#[test]
fn every_alert_is_described_and_tried() {
    let alerts = read("deploy/prometheus/alerts.yml");
    let (tried, described) = (
        read("deploy/prometheus/alerts_test.yml"),
        read("docs/METRICS.md"),
    );
    let alerts: Vec<&str> = alerts
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    assert!(alerts.len() > 10, "{alerts:?}");
    for alert in alerts {
        assert!(described.contains(&format!("`{alert}`")), "{alert}");
        // One that fires, not only one that does not.
        let fires = format!("alertname: {alert}\n        exp_alerts:");
        assert!(tried.contains(&fires), "{alert} never fires in its tests");
    }
}
