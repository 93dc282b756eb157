//! The versions of the specification, and what differs between them.

use serde_json::{Value, json};

use crate::failure::{Code, Failure};

/// A version that is spoken here. Later ones are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    V0_3_0,
    V0_3_1,
    V0_4_0,
    V1_0_0,
    V1_1_0,
}

impl Version {
    const ALL: [Self; 5] = [
        Self::V0_3_0,
        Self::V0_3_1,
        Self::V0_4_0,
        Self::V1_0_0,
        Self::V1_1_0,
    ];

    /// In which a failure is told that no version is known for.
    pub(crate) const LATEST: Self = Self::V1_1_0;

    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// Whether an address in a result says of which family it is.
    pub(crate) fn has_families(self) -> bool {
        self < Self::V1_0_0
    }

    /// Whether an interface in a result has its MTU.
    pub(crate) fn has_mtu(self) -> bool {
        self >= Self::V1_1_0
    }
}

/// The answer to VERSION, which engines ask for with an empty standard input as well.
pub(crate) fn supported(input: &[u8]) -> Value {
    let asked = of(input).unwrap_or(Version::LATEST);
    json!({
        "cniVersion": asked.text(),
        "supportedVersions": Version::ALL.map(Version::text),
    })
}

/// The version that a configuration is of.
pub(crate) fn of(input: &[u8]) -> Result<Version, Failure> {
    let config: Value = serde_json::from_slice(input).map_err(|error| {
        Failure::new(
            Code::Decode,
            format!("the configuration on standard input is not JSON: {error}"),
        )
    })?;
    let Value::Object(config) = config else {
        return Err(Failure::new(
            Code::Decode,
            "the configuration on standard input is not a JSON object",
        ));
    };
    let text = match config.get("cniVersion") {
        Some(Value::String(text)) => text.as_str(),
        Some(other) => {
            return Err(Failure::new(
                Code::Decode,
                format!("cniVersion is no text, but {}", shown(other)),
            ));
        }
        // Before there was such a field.
        None => "0.1.0",
    };
    let known = Version::ALL.into_iter().find(|it| it.text() == text);
    known.ok_or_else(|| {
        let known = Version::ALL.map(Version::text).join(", ");
        let text: String = text.chars().take(32).collect();
        Failure::new(
            Code::Version,
            format!("cniVersion {text:?} is not spoken here: write one of {known}"),
        )
    })
}

/// The beginning of a value, for a message.
pub(crate) fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(64) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(input: &str) -> Option<Code> {
        of(input.as_bytes()).err().map(|failure| failure.code)
    }

    #[test]
    fn a_configuration_is_of_a_version_that_is_spoken_or_refused_with_those_that_are() {
        for version in Version::ALL {
            let text = json!({ "cniVersion": version.text() }).to_string();
            assert_eq!(of(text.as_bytes()), Ok(version));
        }
        assert_eq!(code("{}"), Some(Code::Version));
        assert_eq!(code(r#"{"cniVersion":"0.2.0"}"#), Some(Code::Version));
        assert_eq!(code(r#"{"cniVersion":"2.0.0"}"#), Some(Code::Version));
        assert_eq!(code(r#"{"cniVersion":1}"#), Some(Code::Decode));
        assert_eq!(code("[]"), Some(Code::Decode));
        assert_eq!(code(""), Some(Code::Decode));
        let failure = of(br#"{"cniVersion":"9"}"#).unwrap_err();
        assert!(
            failure
                .to_string()
                .contains("0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0")
        );
    }

    #[test]
    fn versions_are_told_to_whoever_asks_with_nothing() {
        assert_eq!(supported(b"")["cniVersion"], "1.1.0");
        let answer = supported(br#"{"cniVersion":"0.4.0"}"#);
        assert_eq!(answer["cniVersion"], "0.4.0");
        assert_eq!(answer["supportedVersions"].as_array().unwrap().len(), 5);
    }
}
