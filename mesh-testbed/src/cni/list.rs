//! A list of plugins, and what each of them is told.

use serde_json::{Map, Value, json};

use super::{
    attachment::{CniAttachment, check_identifier},
    error::CniError,
    version::Version,
};

#[derive(Debug)]
pub(super) struct List {
    name: String,
    version: Version,
    top: Map<String, Value>,
    plugins: Vec<Map<String, Value>>,
}

/// The `type` of a plugin, which [`List::read`] has seen.
pub(super) fn kind(plugin: &Map<String, Value>) -> &str {
    plugin
        .get("type")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

impl List {
    /// Reads a list for an engine that speaks no version newer than `speaks`.
    pub(super) fn read(list: &Value, speaks: Version) -> Result<Self, CniError> {
        let wrong = |what: &str| CniError::List(format!("{what}: {list}"));
        let top = list.as_object().ok_or_else(|| wrong("not an object"))?;
        let name = top.get("name").and_then(Value::as_str);
        let name = name.ok_or_else(|| wrong("no name"))?;
        check_identifier("name of a network", name)?;
        let plugins = top.get("plugins").and_then(Value::as_array);
        let plugins: Option<Vec<_>> = plugins
            .into_iter()
            .flatten()
            .map(|plugin| plugin.as_object().cloned())
            .collect();
        let plugins = plugins.ok_or_else(|| wrong("a plugin that is no object"))?;
        if plugins.is_empty() {
            return Err(wrong("no plugins"));
        }
        if plugins.iter().any(|plugin| kind(plugin).is_empty()) {
            return Err(wrong("a plugin without a type"));
        }
        Ok(Self {
            name: name.to_owned(),
            version: version(top, speaks)?,
            top: top.clone(),
            plugins,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn version(&self) -> Version {
        self.version
    }

    pub(super) fn plugins(&self) -> &[Map<String, Value>] {
        &self.plugins
    }

    /// Whether a switch of the list is on: a boolean, or the word for one.
    pub(super) fn disables(&self, switch: &str) -> Result<bool, CniError> {
        match self.top.get(switch) {
            None => Ok(false),
            Some(Value::Bool(on)) => Ok(*on),
            Some(Value::String(word)) if word.eq_ignore_ascii_case("true") => Ok(true),
            Some(Value::String(word)) if word.eq_ignore_ascii_case("false") => Ok(false),
            Some(other) => Err(CniError::List(format!("{switch}: {other} is no boolean"))),
        }
    }

    /// What a plugin is told, whoever it is about.
    pub(super) fn own_config(&self, plugin: &Map<String, Value>) -> Map<String, Value> {
        let mut config = plugin.clone();
        config.insert("name".to_owned(), json!(self.name));
        config.insert("cniVersion".to_owned(), json!(self.version.to_string()));
        config
    }

    /// What a plugin is told about an attachment: of the engine's capabilities those that it declares.
    pub(super) fn config(
        &self,
        plugin: &Map<String, Value>,
        attachment: &CniAttachment,
        previous: Option<&Value>,
    ) -> Map<String, Value> {
        let mut config = self.own_config(plugin);
        if let Some(previous) = previous {
            config.insert("prevResult".to_owned(), previous.clone());
        }
        if let Some(args) = attachment.args_of_config() {
            config.insert("args".to_owned(), args.clone());
        }
        let declared = |name: &str| {
            let capabilities = plugin.get("capabilities");
            capabilities.and_then(|it| it.get(name)) == Some(&Value::Bool(true))
        };
        let told: Map<String, Value> = attachment
            .capabilities()
            .iter()
            .filter(|(name, _)| declared(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        if !told.is_empty() {
            config.insert("runtimeConfig".to_owned(), Value::Object(told));
        }
        config
    }

    /// What a plugin answered to ADD, in the list's version: a plugin that names none means that one.
    pub(super) fn result(
        &self,
        plugin: &Map<String, Value>,
        mut answer: Value,
    ) -> Result<Value, CniError> {
        let broken = |reason: String, answer: &Value| CniError::Broken {
            plugin: kind(plugin).to_owned(),
            reason,
            stdout: answer.to_string(),
            stderr: String::new(),
        };
        let wanted = self.version.to_string();
        let Some(result) = answer.as_object_mut() else {
            return Err(broken("its result is no object".to_owned(), &answer));
        };
        let version = result.entry("cniVersion").or_insert(json!(wanted));
        match version.as_str() == Some(&wanted) {
            true => Ok(answer),
            false => {
                let reason = format!("its result has not the version {wanted} that it was told");
                Err(broken(reason, &answer))
            }
        }
    }
}

/// The highest of `cniVersions` and `cniVersion` that the engine speaks. Without the former the engine passes on
/// what it is given, also what it does not know.
fn version(top: &Map<String, Value>, speaks: Version) -> Result<Version, CniError> {
    let read = |version: &Value| match version.as_str() {
        Some(text) => text.parse::<Version>(),
        None => Err(CniError::List(format!("{version} is not a version"))),
    };
    let one = top.get("cniVersion").map(read).transpose()?;
    let Some(several) = top.get("cniVersions") else {
        return one.ok_or_else(|| CniError::List("the list has no cniVersion".to_owned()));
    };
    let several = several.as_array();
    let several = several.ok_or_else(|| CniError::List("cniVersions is no array".to_owned()))?;
    let several: Vec<Version> = several.iter().map(read).collect::<Result<_, _>>()?;
    let spoken = several.into_iter().chain(one).filter(|it| *it <= speaks);
    let highest = spoken.max();
    highest.ok_or_else(|| CniError::List(format!("no version that is at most {speaks}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEAKS: Version = Version(1, 0, 0);

    fn read(list: Value) -> Result<List, CniError> {
        List::read(&list, SPEAKS)
    }

    #[test]
    fn the_highest_version_that_list_and_engine_know_is_spoken() {
        let plugins = json!([{"type": "a"}]);
        let versions = json!(["0.4.0", "1.1.0", "1.0.0", "0.3.1"]);
        let list = json!({"name": "n", "cniVersions": versions, "plugins": plugins});
        assert_eq!(read(list).unwrap().version(), SPEAKS);
        let list = json!({"name": "n", "cniVersions": ["0.3.1"], "cniVersion": "0.4.0",
            "plugins": plugins});
        assert_eq!(read(list).unwrap().version(), Version(0, 4, 0));
        let list = json!({"name": "n", "cniVersions": ["1.1.0"], "plugins": plugins});
        assert!(read(list).is_err());
        let list = json!({"name": "n", "cniVersion": "9.0.0", "plugins": plugins});
        assert_eq!(read(list).unwrap().version(), Version(9, 0, 0));
    }

    #[test]
    fn a_plugin_is_told_of_the_capabilities_that_it_declares_and_no_others() {
        let list = json!({"name": "n", "cniVersion": "1.0.0", "plugins": [
            {"type": "a", "name": "mine", "capabilities": {"ips": true, "mac": false}, "key": 1}]});
        let list = read(list).unwrap();
        let attachment = CniAttachment::by_path("c", "/n")
            .capability("ips", json!(["10.42.1.9"]))
            .capability("mac", json!("02:00:00:00:00:01"))
            .capability("aliases", json!(["web"]))
            .config_args(json!({"cni": {"ips": ["10.42.1.9"]}}));
        let previous = json!({"cniVersion": "1.0.0"});
        let config = list.config(&list.plugins()[0], &attachment, Some(&previous));
        let expected = json!({"type": "a", "name": "n", "cniVersion": "1.0.0", "key": 1,
            "capabilities": {"ips": true, "mac": false}, "prevResult": previous,
            "args": {"cni": {"ips": ["10.42.1.9"]}}, "runtimeConfig": {"ips": ["10.42.1.9"]}});
        assert_eq!(Value::Object(config), expected);
    }

    #[test]
    fn a_switch_is_a_boolean_or_its_word() {
        let switch = |value: Value| {
            let list = json!({"name": "n", "cniVersion": "1.0.0", "disableCheck": value,
                "plugins": [{"type": "a"}]});
            read(list).unwrap().disables("disableCheck")
        };
        assert!(switch(json!(true)).unwrap() && switch(json!("True")).unwrap());
        assert!(!switch(json!("false")).unwrap());
        assert!(switch(json!(1)).is_err());
    }

    #[test]
    fn a_result_of_another_version_than_was_asked_for_is_not_taken() {
        let list = json!({"name": "n", "cniVersion": "1.0.0", "plugins": [{"type": "a"}]});
        let list = read(list).unwrap();
        let result = |answer: Value| list.result(&list.plugins()[0], answer);
        assert_eq!(result(json!({})).unwrap(), json!({"cniVersion": "1.0.0"}));
        assert!(result(json!({"cniVersion": "0.4.0"})).is_err());
        assert!(result(Value::Null).is_err());
    }
}
