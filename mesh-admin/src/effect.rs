//! What a credential that is made changes for those who have none.

use mesh_rest::security::{Security, Stage};

/// What a credential that was made changes, given how it was before, and said beside it.
pub fn say_effect(before: &Security) {
    say(credential_effect(before));
}

/// Says it beside what is printed.
pub fn say(effect: Option<String>) {
    if let Some(effect) = effect {
        eprintln!("{effect}");
    }
}

/// For nodes without credentials, and for this host.
fn credential_effect(before: &Security) -> Option<String> {
    let who = without(before);
    match (before.stage, who) {
        (Stage::Secured, _) if before.has_credentials => None,
        (Stage::Secured, None) => Some(
            "from now on nobody is let in without credentials, also not processes of this host over plain HTTP".to_owned(),
        ),
        (Stage::Secured, Some(who)) => Some(format!(
            "from now on nobody is let in without credentials. Shut out until they join (their agent's --join): {who}"
        )),
        (Stage::Open, Some(who)) => {
            Some(format!(
                "goes on without credentials as before, also after quilt-mesh-control secure and until secure --finish: {who}"
            ))
        }
        (Stage::Moving, Some(who)) => Some(format!(
            "goes on without credentials as before, until quilt-mesh-control secure --finish: {who}"
        )),
        (Stage::Open | Stage::Moving, None) => None,
    }
}

/// The nodes that are up without credentials, at most five by name; `None`: there are none.
#[must_use]
pub fn without(security: &Security) -> Option<String> {
    const MOST: usize = 5;
    let count = security.nodes_up_without_credentials_count;
    let names = &security.nodes_up_without_credentials;
    let shown = names[..names.len().min(MOST)].join(", ");
    match usize::try_from(count).unwrap_or(usize::MAX) {
        0 => None,
        count if count > MOST => Some(format!("{shown} and {} more", count - MOST)),
        _ => Some(shown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn before(stage: Stage, has_credentials: bool, names: &[&str]) -> Security {
        let up: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let count = u32::try_from(up.len()).unwrap();
        Security {
            stage,
            has_credentials,
            insecure: None,
            mesh_id: None,
            nodes_with_credentials: 0,
            nodes_without_credentials: up.clone(),
            nodes_without_credentials_count: count,
            nodes_by_certificate_alone: Vec::new(),
            nodes_by_certificate_alone_count: 0,
            nodes_up_without_credentials: up,
            nodes_up_without_credentials_count: count,
        }
    }

    #[test]
    fn who_makes_a_credential_is_told_whom_it_shuts_out_and_who_goes_on() {
        let said = |stage, has, names: &[&str]| credential_effect(&before(stage, has, names));
        let six = ["a", "b", "c", "d", "e", "f"];
        let shut_out = said(Stage::Secured, false, &six).unwrap();
        assert!(shut_out.contains("a, b, c, d, e and 1 more"), "{shut_out}");
        let host = said(Stage::Secured, false, &[]).unwrap();
        assert!(host.contains("processes of this host"), "{host}");
        let on = said(Stage::Moving, true, &["a"]).unwrap();
        assert!(on.contains("secure --finish: a"), "{on}");
        assert_eq!(said(Stage::Secured, true, &six), None);
        assert_eq!(said(Stage::Open, false, &[]), None);
    }
}
