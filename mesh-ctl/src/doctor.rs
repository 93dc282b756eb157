//! `meshctl doctor`: what of this host is in the way of the mesh, with what the daemons find, in one list.

mod daemons;
mod once;
mod text;
mod ways;

use std::time::Duration;

use anyhow::Context as _;
use mesh_doctor::Area;
use mesh_problems::Finding;
use serde::Serialize;
use tokio::time::timeout;

use crate::{
    Verdict, findings,
    output::{now, say, say_json},
    place::Place,
};

/// The longest that the host is looked at; what is not read by then is not looked at.
const HOST_DEADLINE: Duration = Duration::from_secs(10);

/// What of this host is in the way of the mesh, and what to do about it.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Print a document for a machine.
    #[arg(long)]
    json: bool,
}

/// What a look at the host came to, as a document. Fields are added to it, and never taken away or changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct Diagnosis {
    /// Whether everything works: no finding is an error.
    healthy: bool,
    /// Whether everything could be looked at.
    complete: bool,
    /// What is not as it should be, the gravest first. `since` is 0 where it is not known: of what this look has found.
    findings: Vec<Finding>,
    /// What was looked at, and what could not be.
    areas: Vec<Looked>,
}

/// A part of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct Looked {
    name: String,
    /// Whether it was looked at.
    looked: bool,
    /// What was seen, or why it was not looked at.
    said: String,
}

/// Looks, and prints what was found.
pub(crate) async fn run(place: &Place, options: &Options) -> anyhow::Result<Verdict> {
    let diagnosis = look(place).await?;
    match options.json {
        true => say_json(&diagnosis)?,
        false => say(text::text(&diagnosis, now()))?,
    }
    Ok(verdict(&diagnosis))
}

/// An error is a reason not to be fine; what could not be looked at is one not to know.
fn verdict(diagnosis: &Diagnosis) -> Verdict {
    match (diagnosis.healthy, diagnosis.complete) {
        (false, _) => Verdict::Wrong,
        (true, false) => Verdict::Unknown,
        (true, true) => Verdict::Fine,
    }
}

async fn look(place: &Place) -> anyhow::Result<Diagnosis> {
    let daemons = daemons::ask(place).await;
    let known = daemons.known.clone();
    let host = tokio::task::spawn_blocking(move || mesh_doctor::look(&known));
    let (host, ways) = tokio::join!(
        timeout(HOST_DEADLINE, host),
        ways::ask(place, &daemons.known)
    );
    let mut areas = daemons.areas;
    areas.push(match daemons.no_fast_path_wanted {
        true => ways::without_fast_path(ways),
        false => ways,
    });
    match host {
        Ok(host) => areas.extend(host.context("the look at the host ended early")?),
        Err(_) => areas.push(Area::not_looked(
            "host",
            format!("it took more than {} s", HOST_DEADLINE.as_secs()),
        )),
    }
    Ok(diagnosis(daemons.findings, &areas))
}

/// Since when something is there that is seen for the first time.
const NOT_KNOWN: u64 = 0;

/// Puts together what daemons told and what was found beside them. Pure.
fn diagnosis(told: Vec<Finding>, areas: &[Area]) -> Diagnosis {
    let found = areas.iter().flat_map(|area| &area.problems);
    let found = found.map(|problem| Finding::of(problem, NOT_KNOWN));
    let mut findings = once::once(told, found.collect());
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    let looked = |area: &Area| Looked {
        name: area.name.to_owned(),
        looked: area.outcome.is_ok(),
        said: match &area.outcome {
            Ok(said) | Err(said) => said.clone(),
        },
    };
    Diagnosis {
        healthy: !findings::is_wrong(&findings),
        complete: areas.iter().all(|area| area.outcome.is_ok()),
        findings,
        areas: areas.iter().map(looked).collect(),
    }
}

#[cfg(test)]
mod tests {
    use mesh_problems::{
        Problem,
        catalog::{
            dataplane::{FOREIGN_ROUTE, SMALL_MTU},
            host::{FORWARDING_OFF, HOST_VERSIONS_DIFFER},
        },
    };

    use super::*;
    use crate::output::held;

    fn some() -> Diagnosis {
        let told = Finding::of(&Problem::new(&SMALL_MTU, "containers have 1330 only"), 700);
        let areas = [
            Area::looked(
                "forwarding",
                "not as it should be",
                vec![Problem::new(
                    &FORWARDING_OFF,
                    "IPv4 forwarding is off on eth0",
                )],
            ),
            Area::not_looked("ipsec", "needs root"),
        ];
        diagnosis(vec![told], &areas)
    }

    #[test]
    fn what_is_found_stands_in_one_list_the_gravest_first() {
        let diagnosis = some();
        let codes: Vec<&str> = diagnosis
            .findings
            .iter()
            .map(|it| it.code.as_str())
            .collect();
        assert_eq!(codes, ["forwarding-off", "small-mtu"]);
        assert_eq!(diagnosis.findings[1].since, 700);
        assert_eq!(verdict(&diagnosis), Verdict::Wrong);
    }

    #[test]
    fn what_could_not_be_looked_at_is_not_taken_for_fine() {
        let complete = [Area::looked("routes", "none in the way", Vec::new())];
        assert_eq!(verdict(&diagnosis(Vec::new(), &complete)), Verdict::Fine);
        let partly = [Area::not_looked("ipsec", "needs root")];
        assert_eq!(verdict(&diagnosis(Vec::new(), &partly)), Verdict::Unknown);
        let told = |kind| vec![Finding::of(&Problem::new(kind, ""), 0)];
        assert_eq!(
            verdict(&diagnosis(told(&FOREIGN_ROUTE), &partly)),
            Verdict::Wrong
        );
        assert_eq!(
            verdict(&diagnosis(told(&HOST_VERSIONS_DIFFER), &complete)),
            Verdict::Fine
        );
    }

    #[test]
    fn the_document_for_machines_is_as_it_was() {
        held::is_as_it_was("doctor", &some());
    }

    #[test]
    fn a_person_reads_the_findings_and_then_what_was_looked_at() {
        let text = anstream::adapter::strip_str(&text::text(&some(), 1000)).to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0].starts_with("error  The host does not forward"),
            "{text}"
        );
        assert!(
            text.contains("forwarding       not as it should be"),
            "{text}"
        );
        assert!(
            text.contains("ipsec            not looked at: needs root"),
            "{text}"
        );
        assert!(
            text.ends_with("Findings         1 error, 1 warning"),
            "{text}"
        );
    }
}
