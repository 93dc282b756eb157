//! By what a container is known.

use std::collections::BTreeMap;

use mesh_ipam::{MAX_LABELS, MAX_NAMES, NamedLabels};

/// Those of the names and labels that can be kept with a lease, the first ones first. What cannot be a name or a label is left
/// out: engines do not check it, and no container fails to start for it.
pub fn fitting<'a>(
    names: impl IntoIterator<Item = &'a String>,
    labels: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> NamedLabels {
    let mut kept = NamedLabels::default();
    for name in names {
        let one = NamedLabels {
            names: vec![name.clone()],
            labels: BTreeMap::new(),
        };
        if one.check().is_ok() && !kept.names.contains(name) && kept.names.len() < MAX_NAMES {
            kept.names.push(name.clone());
        }
    }
    for (key, value) in labels {
        if kept.labels.len() == MAX_LABELS || kept.labels.contains_key(key) {
            continue;
        }
        kept.labels.insert(key.clone(), value.clone());
        if kept.check().is_err() {
            kept.labels.remove(key);
        }
    }
    kept
}
