//! One event as one line.

use std::{
    error::Error,
    fmt::{self, Write as _},
};

use serde_json::Value;
use tracing::{
    Event, Level,
    field::{Field, Visit},
};

use crate::Format;

/// What an event says, without when.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Line {
    pub(crate) level: Level,
    /// The kind of event; of an event of somebody else's, which has none, its target.
    id: String,
    target: String,
    message: String,
    /// In the order in which they were written.
    fields: Vec<Told>,
}

/// A field.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Told {
    name: &'static str,
    value: Value,
    /// Whether it is a text as it was, and not what something else has made of itself: such stand in quotes.
    is_text: bool,
}

impl Line {
    pub(crate) fn of(event: &Event<'_>) -> Self {
        let metadata = event.metadata();
        let mut said = Said::default();
        event.record(&mut said);
        Self {
            level: *metadata.level(),
            id: match has_id(metadata.name()) {
                true => metadata.name().to_owned(),
                false => said
                    .target
                    .as_deref()
                    .unwrap_or(metadata.target())
                    .to_owned(),
            },
            target: said.target.unwrap_or_else(|| metadata.target().to_owned()),
            message: said.message,
            fields: said.fields,
        }
    }

    /// As it is written, with the newline. `repeated` is how many like it were held back since the last.
    pub(crate) fn written(
        &self,
        format: Format,
        colour: bool,
        time: &str,
        repeated: u64,
    ) -> String {
        let mut written = match format {
            Format::Text => self.text(colour, time, repeated),
            Format::Json => self.json(time, repeated),
        };
        written.push('\n');
        written
    }

    fn text(&self, colour: bool, time: &str, repeated: u64) -> String {
        let (on, off) = match (colour, self.level) {
            (false, _) => ("", ""),
            (true, Level::ERROR) => ("\x1b[31m", "\x1b[0m"),
            (true, Level::WARN) => ("\x1b[33m", "\x1b[0m"),
            (true, Level::INFO) => ("\x1b[32m", "\x1b[0m"),
            (true, _) => ("\x1b[2m", "\x1b[0m"),
        };
        let (level, id, message) = (self.level, &self.id, OneLine(&self.message));
        let mut text = format!("{time} {on}{level:>5}{off} {id}: {message}");
        for Told {
            name,
            value,
            is_text,
        } in &self.fields
        {
            // Writing to a string does not fail.
            let _ = match value {
                Value::String(value) if *is_text => write!(text, " {name}={value:?}"),
                Value::String(value) => write!(text, " {name}={}", OneLine(value)),
                value => write!(text, " {name}={value}"),
            };
        }
        if repeated > 0 {
            let _ = write!(text, " repeated={repeated}");
        }
        text
    }

    fn json(&self, time: &str, repeated: u64) -> String {
        let level = self.level.as_str().to_ascii_lowercase();
        let mut members: Vec<(&str, Value)> = vec![
            ("time", time.into()),
            ("level", level.into()),
            ("event", self.id.as_str().into()),
            ("message", self.message.as_str().into()),
            ("target", self.target.as_str().into()),
        ];
        if repeated > 0 {
            members.push(("repeated", repeated.into()));
        }
        let of_each_line = members.len();
        for Told { name, value, .. } in &self.fields {
            members.push((name, value.clone()));
        }
        let mut object = String::from("{");
        for (at, (name, value)) in members.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            // A field does not take the place of what each line has.
            let mut taken = members.iter().take(of_each_line);
            let name = match at >= of_each_line && taken.any(|it| it.0 == *name) {
                true => Value::from(format!("{name}_")),
                false => Value::from(*name),
            };
            // Writing to a string does not fail.
            let _ = write!(object, "{comma}{name}:{value}");
        }
        object.push('}');
        object
    }
}

/// An event without a name of its own is called `event FILE:LINE` by tracing, which changes with every edit, and one that
/// comes by the crate `log`, `log event`.
fn has_id(name: &str) -> bool {
    !name.starts_with("event ") && name != "log event"
}

/// What an event's fields say.
#[derive(Default)]
struct Said {
    message: String,
    /// That of a record of the crate `log`.
    target: Option<String>,
    fields: Vec<Told>,
}

impl Said {
    fn note(&mut self, field: &Field, value: Value, is_text: bool) {
        match (field.name(), value) {
            ("message", Value::String(message)) => self.message = message,
            ("message", value) => self.message = value.to_string(),
            ("log.target", Value::String(target)) => self.target = Some(target),
            // What else records of `log` carry about themselves.
            (name, _) if name.starts_with("log.") => {}
            (name, value) => self.fields.push(Told {
                name,
                value,
                is_text,
            }),
        }
    }
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.note(field, format!("{value:?}").into(), false);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.note(field, value.into(), true);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.note(field, value.to_string().into(), false);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.note(field, value.into(), false);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.note(field, value.into(), false);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.note(field, value.into(), false);
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.note(field, value.to_string().into(), false);
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.note(field, value.to_string().into(), false);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.note(field, value.into(), false);
    }
}

/// Text of which nothing begins another line, or speaks to a terminal: some of it comes from the network.
struct OneLine<'a>(&'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for it in self.0.chars() {
            match it.is_control() {
                true => write!(f, "{}", it.escape_default())?,
                false => f.write_char(it)?,
            }
        }
        Ok(())
    }
}
