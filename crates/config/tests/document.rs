//! The page of the documentation knows the keys that the program knows, and so does the schema.

use std::path::Path;

use bessemer_config::{Key, PRESETS, keys, schema, table};
use serde_json::Value;

const BEGIN: &str = "<!-- keys -->\n";
const END: &str = "<!-- end of keys -->";

#[test]
fn the_page_lists_the_keys_as_they_are() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the page has a place for the tables");
    let (written, after) = rest.split_once(END).expect("the place has an end");
    let made = format!("{}\n", table());
    if std::env::var_os("UPDATE_KEYS").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{made}{END}{after}")).unwrap();
        return;
    }
    assert!(
        written == made,
        "docs/configuration.md is not up to date: UPDATE_KEYS=1 cargo test -p bessemer-config --test document"
    );
    for preset in PRESETS {
        assert!(before.contains(&format!("`{}`", preset.name)), "{} is not described", preset.name);
    }
}

/// The part of the schema about a key or one of its other names.
fn property<'a>(schema: &'a Value, key: &Key, name: &str) -> &'a Value {
    let sections = key.section().split('.').filter(|name| !name.is_empty());
    let section = sections.fold(schema, |node, name| &node["properties"][name]);
    assert_eq!(section["additionalProperties"], false, "{}", key.path);
    &section["properties"][name]
}

#[test]
fn the_schema_knows_every_key_and_every_other_name() {
    let schema = schema();
    for key in keys() {
        let own = property(&schema, key, key.name());
        let about = own["description"].as_str().unwrap_or_else(|| panic!("{} is not there", key.path));
        assert!(about.contains(&key.rule()), "{about}");
        assert!(own.get("default").is_some(), "{}", key.path);
        for alias in key.aliases {
            assert_eq!(property(&schema, key, alias)["deprecated"], true, "{alias}");
        }
    }
    let heap = &schema["properties"]["metal_optimizations"]["properties"]["memory_pool"]["properties"]["heap_size_mb"];
    assert_eq!((heap["minimum"].as_u64(), heap["maximum"].as_u64()), (Some(64), Some(2048)));
}
