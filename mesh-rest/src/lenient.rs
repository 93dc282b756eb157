//! Reading what others wrote: a field that cannot be read counts as one that was not told, so that one of them does not
//! make all the rest unreadable.

use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;

/// What was told, or else the default.
pub(crate) fn or_default<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: DeserializeOwned + Default,
    D: Deserializer<'de>,
{
    Value::deserialize(deserializer).map(|value| T::deserialize(value).unwrap_or_default())
}
