//! `meshctl explain`: what a code means.

use anyhow::bail;
use mesh_problems::{
    Kind,
    catalog::{CHAPTERS, find},
};
use serde::Serialize;

use crate::output::{BOLD, Table, say, say_json, style_of, styled};

/// What a problem's code means; without one, all codes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// The code, such as foreign-route.
    #[arg(value_name = "CODE")]
    code: Option<String>,
    /// Print a document for a machine.
    #[arg(long)]
    json: bool,
}

/// A kind of problem, as a document.
#[derive(Serialize)]
struct Explained {
    code: &'static str,
    severity: &'static str,
    title: &'static str,
    breaks: &'static str,
    remedy: &'static str,
}

impl From<&'static Kind> for Explained {
    fn from(kind: &'static Kind) -> Self {
        Self {
            code: kind.code,
            severity: kind.severity.as_str(),
            title: kind.title,
            breaks: kind.breaks,
            remedy: kind.remedy,
        }
    }
}

/// Prints what a code means.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let Some(code) = &options.code else {
        let all = CHAPTERS.iter().flat_map(|chapter| chapter.kinds);
        let all: Vec<Explained> = all.map(|kind| Explained::from(*kind)).collect();
        return match options.json {
            true => say_json(&all),
            false => say(table(&all)),
        };
    };
    let Some(kind) = find(code) else {
        bail!("there is no problem {code:?}: meshctl explain lists all codes");
    };
    match options.json {
        true => say_json(&Explained::from(kind)),
        false => say(text(kind)),
    }
}

fn table(all: &[Explained]) -> String {
    let mut table = Table::new(["CODE", "SEVERITY", "WHAT IT IS"]);
    for kind in all {
        table.row([kind.code, kind.severity, kind.title].map(str::to_owned));
    }
    table.text()
}

fn text(kind: &Kind) -> String {
    format!(
        "{}  {} ({})\n  breaks  {}\n  do      {}",
        styled(style_of(kind.severity), kind.severity),
        styled(BOLD, kind.title),
        kind.code,
        kind.breaks,
        kind.remedy
    )
}
