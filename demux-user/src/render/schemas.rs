//! The JSON Schemas of what commands write with `-j`.

use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Value, json};

use super::{
    AllocationRow, BindingRow, ChangeRow, CheckRow, ConnectionRow, CounterRow, ErrorView,
    ExplanationRow, ExportRow, KilledRow, LoadedRow, MapRow, PortRow, Row, SettingRow, Status,
    XskRow,
};

/// A noun, and how the schema of its items is made.
type Noun = (&'static str, fn(&mut SchemaGenerator) -> schemars::Schema);

fn of<R: Row + JsonSchema>() -> Noun {
    (R::NOUN, SchemaGenerator::subschema_for::<R>)
}

fn nouns() -> Vec<Noun> {
    vec![
        of::<AllocationRow>(),
        of::<BindingRow>(),
        of::<ChangeRow>(),
        of::<CheckRow>(),
        of::<ConnectionRow>(),
        of::<CounterRow>(),
        of::<ExplanationRow>(),
        of::<ExportRow>(),
        of::<KilledRow>(),
        of::<LoadedRow>(),
        of::<MapRow>(),
        of::<PortRow>(),
        of::<SettingRow>(),
        of::<Status>(),
        of::<XskRow>(),
    ]
}

/// What a noun is called that has a schema, in the order in which they are listed.
#[must_use]
pub fn schema_nouns() -> Vec<&'static str> {
    let mut names: Vec<&str> = nouns().into_iter().map(|(name, _)| name).collect();
    names.push(ERROR);
    names.sort_unstable();
    names.dedup();
    names
}

/// What stands for the document of an error.
const ERROR: &str = "error";

/// The schema of the document that a command writes; `None` where there is no such noun.
#[must_use]
pub fn document_schema(noun: &str) -> Option<Value> {
    let mut generator = SchemaGenerator::default();
    if noun == ERROR {
        let error = generator.subschema_for::<ErrorView>();
        return Some(json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "error",
            "type": "object",
            "properties": { "error": error },
            "required": ["error"],
            "$defs": generator.take_definitions(true),
        }));
    }
    // `load --check` and `load` have one noun.
    let items: Vec<_> = nouns()
        .into_iter()
        .filter(|(name, _)| *name == noun)
        .map(|(_, item)| item(&mut generator))
        .collect();
    if items.is_empty() {
        return None;
    }
    let schema = format!("demux.v1.{noun}");
    Some(json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": schema,
        "type": "object",
        "properties": {
            "schema": { "const": schema },
            "items": { "type": "array", "items": { "anyOf": items } },
        },
        "required": ["schema", "items"],
        "$defs": generator.take_definitions(true),
    }))
}
