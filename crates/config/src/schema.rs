//! The JSON Schema of the file, for editors. Draft 7, which all of them know.

use serde_json::{Map, Value as Json, json};

use crate::keys::keys;
use crate::{Acts, Key, Kind, PRESETS, Settings};

/// The schema. Other names of keys are in it as deprecated ones, so that a file with them is not marked as wrong.
pub fn schema() -> Json {
    let mut root = section("The configuration of bessemer. Every key may be left out.");
    let defaults = Settings::default();
    for key in keys() {
        let mut map = &mut root;
        for name in key.section().split('.').filter(|name| !name.is_empty()) {
            let Some(inner) = properties(map) else { return Json::Null };
            map = inner.entry(name).or_insert_with(|| section(about_section(name)));
        }
        let Some(properties) = properties(map) else { return Json::Null };
        for alias in key.aliases {
            let mut other = property(key, &defaults);
            other["deprecated"] = json!(true);
            other["description"] = json!(format!("Another name of {}.", key.name()));
            properties.insert((*alias).to_owned(), other);
        }
        properties.insert(key.name().to_owned(), property(key, &defaults));
    }
    root["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    root["title"] = json!("bessemer runtime configuration");
    root
}

fn section(description: &str) -> Json {
    // A section whose keys are all commented out is nothing in YAML.
    json!({
        "type": ["object", "null"],
        "description": description,
        "additionalProperties": false,
        "properties": {},
    })
}

fn about_section(name: &str) -> &'static str {
    match name {
        "admin" => "The listener for the operator: configuration, statistics, metrics, health.",
        "log" => "What the server says of itself.",
        "tracing" => "Traces of requests.",
        "metal_optimizations" => "Memory pool, transfer queue and command ring.",
        "memory_pool" => "Transient memory from heaps that are reserved once.",
        "blit_queue" => "Transfers beside compute.",
        "command_buffer_ring" => "Submissions in flight.",
        "auto_rollback" => "Going back to the plain path by itself.",
        "rollout" => "New settings in stages.",
        "metal_acceleration" => "Faster forms of operations.",
        "features" => "Which of them.",
        _ => "",
    }
}

fn properties(node: &mut Json) -> Option<&mut Map<String, Json>> {
    node.get_mut("properties").and_then(Json::as_object_mut)
}

fn property(key: &Key, defaults: &Settings) -> Json {
    let mut node = match &key.kind {
        Kind::Flag => json!({"type": "boolean"}),
        Kind::Switch => json!({"enum": [false, true, "auto"]}),
        Kind::Whole(range) => json!({"type": "integer", "minimum": range.start(), "maximum": range.end()}),
        Kind::WholeOrZero(range) => json!({"anyOf": [
            {"type": "integer", "minimum": range.start(), "maximum": range.end()},
            {"const": 0},
        ]}),
        Kind::Number(range) => json!({"type": "number", "minimum": range.start(), "maximum": range.end()}),
        Kind::Bytes(_) => json!({"anyOf": [
            {"type": "integer", "minimum": 1},
            {"type": "string", "pattern": "^[0-9]+ *([KkMmGgTt][Ii]?[Bb])?$"},
        ]}),
        // Digits alone are a text to us, as in a revision.
        Kind::Text | Kind::Secret => json!({"type": ["string", "number"], "minLength": 1}),
        Kind::Name(names) => json!({"enum": names}),
        Kind::Preset => json!({"enum": PRESETS.iter().map(|preset| preset.name).collect::<Vec<_>>()}),
        Kind::Device => json!({"type": "string", "pattern": "^(auto|cpu|metal|vulkan(:[0-9]+)?)$"}),
        Kind::Wholes(range) => json!({
            "type": "array",
            "items": {"type": "integer", "minimum": range.start(), "maximum": range.end()},
        }),
        Kind::Texts => json!({"type": "array", "items": {"type": "string", "minLength": 1}}),
    };
    if key.absent.is_some() {
        let nothing = if key.absent_word() == "auto" {
            json!({"enum": ["auto", null]})
        } else {
            json!({"type": "null"})
        };
        node = json!({"anyOf": [node, nothing]});
    }
    let mut about = format!("{}: {}.", sentence(key.about), key.rule());
    match key.acts {
        Acts::AtOnce => about.push_str(" A change counts at once."),
        Acts::AtStart => about.push_str(" A change counts at the next start."),
        Acts::NotYet(why) => about = format!("{about} Nothing acts on it yet: {why}."),
    }
    node["description"] = json!(about);
    node["default"] = key.json(&key.value(defaults));
    node
}

/// With a capital.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}
