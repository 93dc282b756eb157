//! A problem as others are told of it.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, MapAccess, Visitor, value::MapAccessDeserializer},
};

use crate::{Problem, Severity};

/// A problem as others are told of it, in words, so that also those can show it who do not know its kind.
///
/// It is read from objects alone; what is missing in one is empty, and a severity that this version does not know is the
/// gravest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Finding {
    /// Its kind's code, see docs/PROBLEMS.md.
    #[cfg_attr(feature = "openapi", schema(example = "foreign-route"))]
    pub code: String,
    /// How grave it is: `error`, `warning` or `notice`.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "error"))]
    pub severity: Severity,
    /// What it is, in a few words.
    pub title: String,
    /// What was observed, with values.
    pub observed: String,
    /// What does not work because of it.
    pub breaks: String,
    /// What to do.
    pub remedy: String,
    /// Since when it is there, in Unix seconds.
    pub since: u64,
}

impl Finding {
    /// A problem that is there since then, in Unix seconds.
    #[must_use]
    pub fn of(problem: &Problem, since: u64) -> Self {
        let kind = problem.kind;
        Self {
            code: kind.code.to_owned(),
            severity: kind.severity,
            title: kind.title.to_owned(),
            observed: problem.observed.clone(),
            breaks: kind.breaks.to_owned(),
            remedy: problem.remedy().into_owned(),
            since,
        }
    }
}

impl<'de> Deserialize<'de> for Finding {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Finding;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a finding, which is an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Finding, A::Error> {
                Fields::deserialize(MapAccessDeserializer::new(map)).map(Into::into)
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// As a finding is written.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Fields {
    code: String,
    severity: String,
    title: String,
    observed: String,
    breaks: String,
    remedy: String,
    #[serde(deserialize_with = "unix_seconds")]
    since: u64,
}

/// A number that everybody can count to: that of `int64`, as the description has it.
fn unix_seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let number = u64::deserialize(deserializer)?;
    match i64::try_from(number) {
        Ok(_) => Ok(number),
        Err(_) => Err(D::Error::custom(format!(
            "{number} is more than {}",
            i64::MAX
        ))),
    }
}

impl From<Fields> for Finding {
    fn from(fields: Fields) -> Self {
        Self {
            code: fields.code,
            severity: Severity::of_word(&fields.severity),
            title: fields.title,
            observed: fields.observed,
            breaks: fields.breaks,
            remedy: fields.remedy,
            since: fields.since,
        }
    }
}

/// In one line: what was observed, what it breaks, what to do.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            observed,
            breaks,
            remedy,
            ..
        } = self;
        write!(f, "{observed}: {breaks}; {remedy}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::dataplane::FOREIGN_ROUTE;

    #[test]
    fn a_finding_is_read_as_it_was_written_and_from_objects_alone() {
        let finding = Finding::of(&Problem::new(&FOREIGN_ROUTE, "to 10.42.2.0/24"), 7);
        let json = serde_json::to_string(&finding).unwrap();
        assert_eq!(serde_json::from_str::<Finding>(&json).unwrap(), finding);
        let later = json.replace("\"error\"", "\"catastrophe\"");
        assert_eq!(serde_json::from_str::<Finding>(&later).unwrap(), finding);
        let array = r#"["foreign-route", "error", "", "", "", "", 7]"#;
        serde_json::from_str::<Finding>(array).unwrap_err();
        let beyond = json.replace("\"since\":7", "\"since\":9223372036854775808");
        serde_json::from_str::<Finding>(&beyond).unwrap_err();
        let empty: Finding = serde_json::from_str("{}").unwrap();
        assert_eq!((empty.code.as_str(), empty.since), ("", 0));
    }
}
