//! The JSON Schema of the configuration file.
//!
//! Most of it is made from the [sections](super::sections); what is here is the rest: keys that are the
//! names of states, words that other modules know, and the daemon's sections, whose types are the daemon's.

use demux_common::{connection::State, ports::Algorithm};
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use super::sections::File;
use crate::settings::MAX_TIMEOUT;

/// The schema of the file.
#[must_use]
pub fn schema() -> Value {
    let mut schema = schemars::schema_for!(File);
    schema.insert("title".into(), "demux.toml".into());
    schema.into()
}

/// Seconds by the names of states.
pub(super) fn timeouts(_generator: &mut SchemaGenerator) -> Schema {
    let seconds = json!({ "type": "integer", "minimum": 1, "maximum": MAX_TIMEOUT });
    let states = State::ALL.iter().map(|state| state.name().to_lowercase());
    let properties: Map<String, Value> = states.map(|state| (state, seconds.clone())).collect();
    json_schema!({
        "description": "Seconds after which a row expires, by its state.",
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    })
}

/// The names of the algorithms.
pub(super) fn algorithm(_generator: &mut SchemaGenerator) -> Schema {
    let names: Vec<&str> = Algorithm::ALL.into_iter().map(Algorithm::name).collect();
    json_schema!({
        "description": "In which way source ports are chosen.",
        "enum": names,
    })
}

/// The section `[daemon]`.
pub(super) fn daemon(_generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "What the daemon does. Not looked at by demux apply, but to see whether it is right.",
        "type": "object",
        "properties": {
            "socket": { "description": "Where it listens: an absolute path.", "type": "string" },
            "sweep": { "description": "How often expired rows are swept out, such as 30s; or off.", "type": "string" },
            "metrics": { "description": "Where OpenMetrics are served over HTTP, such as 127.0.0.1:9478.", "type": "string" },
            "metrics_public": { "description": "Whether that may be an address that is not loopback.", "type": "boolean" },
            "metrics_bindings": { "description": "Whether there are series for each binding.", "type": "boolean" },
        },
        "additionalProperties": false,
    })
}

/// The sections `[[owner]]`.
pub(super) fn owners(_generator: &mut SchemaGenerator) -> Schema {
    let name = json!({ "type": ["string", "integer"], "minimum": 0 });
    json_schema!({
        "description": "Who may own sets of AF_XDP sockets by way of the daemon.",
        "type": "array",
        "items": {
            "type": "object",
            "properties": {
                "user": name,
                "group": name,
                "sets": { "description": "Names of sets; \"*\" is every name.", "type": "array", "items": { "type": "string" }, "minItems": 1 },
                "max_queues": { "description": "Queues of all sets together.", "type": "integer", "minimum": 0 },
                "max_memory_mib": { "description": "Memory of all regions together.", "type": "integer", "minimum": 0 },
            },
            "required": ["sets"],
            "additionalProperties": false,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keys that the parser takes in a section, as it says itself.
    fn accepted(section: &str) -> Vec<String> {
        let error = if section.starts_with("[daemon") || section.starts_with("[[owner") {
            let text = format!("{section}\nno-such-key = 1\n");
            crate::daemon::config::Config::parse(&text, "f".as_ref())
                .unwrap_err()
                .to_string()
        } else {
            let text = format!("{section}\nno-such-key = 1\n");
            toml::from_str::<File>(&text).unwrap_err().to_string()
        };
        let (_, list) = error.split_once("expected ").expect(&error);
        let mut keys: Vec<String> = list
            .split('`')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect();
        keys.sort_unstable();
        assert!(!keys.is_empty(), "{error}");
        keys
    }

    /// A schema, with `$ref` followed.
    fn resolve<'s>(root: &'s Value, schema: &'s Value) -> &'s Value {
        match schema.get("$ref").and_then(Value::as_str) {
            Some(reference) => root
                .pointer(reference.trim_start_matches('#'))
                .expect(reference),
            None => schema,
        }
    }

    fn described(root: &Value, way: &[&str]) -> Vec<String> {
        let mut schema = root;
        for step in way {
            schema = resolve(root, &schema["properties"][*step]);
            if let Some(items) = schema.get("items") {
                schema = resolve(root, items);
            }
        }
        assert_eq!(schema["additionalProperties"], false, "{way:?}: {schema}");
        let properties = schema["properties"].as_object().expect("properties");
        let mut keys: Vec<String> = properties.keys().cloned().collect();
        keys.sort_unstable();
        keys
    }

    #[test]
    fn the_schema_has_every_key_that_the_parser_takes() {
        let schema = schema();
        for (section, way) in [
            ("", &[][..]),
            ("[instance]", &["instance"]),
            ("[settings]", &["settings"]),
            ("[settings.ephemeral]", &["settings", "ephemeral"]),
            ("[[interface]]", &["interface"]),
            ("[[binding]]", &["binding"]),
        ] {
            assert_eq!(described(&schema, way), accepted(section), "{section}");
        }
        for (section, way) in [("[daemon]", "daemon"), ("[[owner]]", "owner")] {
            let described = described(&schema, &[way]);
            for key in accepted(section) {
                assert!(described.contains(&key), "{section} {key} is missing");
            }
        }
    }

    #[test]
    fn every_state_has_a_timeout_in_the_schema() {
        let schema = schema();
        let states = described(&schema, &["settings", "timeout"]);
        assert_eq!(states.len(), State::ALL.len());
        for state in states {
            let text = format!("[settings]\ntimeout.{state} = 7\n");
            assert!(toml::from_str::<File>(&text).is_ok(), "{state}");
        }
    }
}
