//! What the sources mean together.

use std::sync::Arc;

use bessemer_runtime::Optimizations;
use serde_json::{Map, Value as Json};

use crate::document::Node;
use crate::keys::{index, keys};
use crate::layer::{Document, Layer, Reading, is_within};
use crate::preset::PRESETS;
use crate::sources::file;
use crate::{Acts, ConfigError, ConfigFile, Key, Origin, Problem, Settings, Value};

/// What everybody says, one over the other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layers {
    pub file: Layer,
    pub environment: Layer,
    pub arguments: Layer,
    /// What was changed at run time.
    pub patch: Layer,
}

impl Layers {
    /// From the one that all others go before.
    fn ascending(&self) -> [&Layer; 4] {
        [&self.file, &self.environment, &self.arguments, &self.patch]
    }
}

/// A checked configuration, which knows where each of its values is from. It never changes: whoever wants another one
/// gets another one, or an error.
#[derive(Clone, Debug)]
pub struct Configuration {
    settings: Settings,
    origins: Vec<Origin>,
    layers: Layers,
    notes: Vec<String>,
}

/// A key that has another value now.
#[derive(Clone, Debug)]
pub struct Change {
    /// Which.
    pub key: &'static Key,
    /// Its value before.
    pub from: Value,
    /// Its value now.
    pub to: Value,
}

impl Configuration {
    /// Puts the layers over one another and checks what comes out.
    pub(crate) fn new(layers: Layers, notes: Vec<String>) -> Result<Self, ConfigError> {
        let mut made = Self {
            settings: Settings::default(),
            origins: vec![Origin::Default; keys().len()],
            layers,
            notes,
        };
        let preset = index("preset").and_then(|at| {
            let said = made.layers.ascending().into_iter().rev().find_map(|layer| layer.given.get(&at))?;
            PRESETS.iter().find(|preset| said.value == Value::Text(preset.name.to_owned()))
        });
        if let Some(preset) = preset {
            made.take(&Layer::of_preset(preset))?;
        }
        for layer in made.layers.clone().ascending() {
            made.take(layer)?;
        }
        made.check()?;
        Ok(made)
    }

    fn take(&mut self, layer: &Layer) -> Result<(), ConfigError> {
        for (at, given) in &layer.given {
            let key = &keys()[*at];
            if (key.place.set)(&mut self.settings, &given.value).is_none() {
                let (origin, shown) = (Some(given.origin.clone()), key.spelled(&given.value));
                let cure = "please report this as a bug";
                return Err(Problem::new(origin, key.path, shown, "its field cannot hold it", cure).into());
            }
            self.origins[*at] = given.origin.clone();
        }
        Ok(())
    }

    /// Everything that needs more than one key.
    fn check(&self) -> Result<(), ConfigError> {
        let mut problems = Vec::new();
        let Settings { engine, server, admin, optimizations, rollout, .. } = &self.settings;
        if let Err(error) = optimizations.validate() {
            let field = format!("metal_optimizations.{}", error.field);
            let origin = self.blamed(&field, &error.rule);
            problems.push(Problem::new(origin, field, error.value, error.rule, error.cure));
        }
        let mut impossible =
            |field: &'static str, given: &str, other: &'static str, rule: String, cure: &str| {
                let origin = self.blamed(field, other);
                problems.push(Problem::new(origin, field, given, rule, cure));
            };
        for (other, value) in [("activations", &engine.activations), ("kv_dtype", &engine.kv_dtype)] {
            if engine.exact && value != "auto" {
                let rule = format!("{other} is {value}, which it decides about itself");
                impossible("exact", "true", other, rule, "leave one of them out");
            }
        }
        if admin.enabled && admin.token.is_none() && !is_loopback(&admin.host) {
            let rule = "other machines can reach this address, and admin.token is not set".to_owned();
            let cure = "set BESSEMER_ADMIN_TOKEN, or listen on 127.0.0.1";
            impossible("admin.host", &admin.host, "admin.token", rule, cure);
        }
        let same_host = admin.host == server.host || server.host == "0.0.0.0";
        if admin.enabled && admin.port == server.port && admin.port != 0 && same_host {
            let rule = format!("port is {} too", server.port);
            impossible("admin.port", &admin.port.to_string(), "port", rule, "choose another for one of them");
        }
        if !rollout.stages.is_sorted_by(|a, b| a < b) {
            let (field, given) = ("metal_optimizations.rollout.stages", format!("{:?}", rollout.stages));
            impossible(field, &given, "", "each must be above the one before".into(), "sort them");
        }
        if problems.is_empty() { Ok(()) } else { Err(ConfigError { problems }) }
    }

    /// Who said `field`; where nobody did, who said what `rule` speaks of.
    fn blamed(&self, field: &str, rule: &str) -> Option<Origin> {
        let said = |at: usize| Some(&self.origins[at]).filter(|origin| **origin != Origin::Default);
        let own = index(field).and_then(said);
        let others = keys().iter().enumerate().filter(|(_, key)| {
            let short = key.path.strip_prefix("metal_optimizations.").unwrap_or(key.path);
            rule.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '.').any(|word| word == short)
        });
        own.or_else(|| others.filter_map(|(at, _)| said(at)).next()).cloned()
    }

    /// What it means.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Where the value of a key is from.
    pub fn origin(&self, key: &Key) -> &Origin {
        const DEFAULT: &Origin = &Origin::Default;
        index(key.path).map_or(DEFAULT, |at| &self.origins[at])
    }

    /// What the log should say of it: other names of keys, and keys that somebody set and nothing acts on.
    pub fn notes(&self) -> Vec<String> {
        let idle = keys().iter().zip(&self.origins).filter_map(|(key, origin)| match (key.acts, origin) {
            (_, Origin::Default) => None,
            (Acts::NotYet(why), origin) => {
                Some(format!("{origin}: {} is checked and kept, but nothing acts on it yet: {why}", key.path))
            }
            _ => None,
        });
        self.notes.iter().cloned().chain(idle).collect()
    }

    /// This configuration with a JSON merge patch (RFC 7396) over it. `null` takes back what was changed at run time,
    /// for a key or a whole section; what the other sources say counts again then.
    ///
    /// # Errors
    /// Everything that is wrong with the patch and with what would come of it, keys that count at the start among it.
    pub fn patched(&self, patch: &Json) -> Result<Self, ConfigError> {
        let mut reading = Reading::default();
        reading.document(&Node::from(patch), &Document::Patch);
        if !reading.problems.is_empty() {
            return Err(ConfigError { problems: reading.problems });
        }
        let mut layers = self.layers.clone();
        let taken_back =
            |at: &usize| reading.cleared.iter().any(|cleared| is_within(keys()[*at].path, cleared));
        layers.patch.given.retain(|at, _| !taken_back(at));
        layers.patch.given.extend(reading.layer.given);
        let fixed = |at: &usize| keys()[*at].acts == Acts::AtStart;
        let problems: Vec<Problem> = layers
            .patch
            .given
            .iter()
            .filter(|(at, _)| fixed(at))
            .filter_map(|(at, given)| {
                let (key, to) = (&keys()[*at], given.value.clone());
                let from = key.value(&self.settings);
                (from != to).then(|| at_start(&Change { key, from, to }))
            })
            .collect();
        if !problems.is_empty() {
            return Err(ConfigError { problems });
        }
        layers.patch.given.retain(|at, _| !fixed(at));
        let mut made = Self::new(layers, reading.notes)?;
        made.keep_start(self);
        made.check()?;
        Ok(made)
    }

    /// This configuration with `file` in place of the one before, and without what was changed at run time. Keys that
    /// count at the start keep their values; the second result tells of those that the file wants otherwise.
    ///
    /// # Errors
    /// Everything that is wrong with the file and with what would come of it.
    pub fn reloaded(&self, new: Option<ConfigFile>) -> Result<(Self, Vec<Change>), ConfigError> {
        let reading = new.map_or_else(Reading::default, |new| file(new, Reading::default()));
        if !reading.problems.is_empty() {
            return Err(ConfigError { problems: reading.problems });
        }
        let layers = Layers { file: reading.layer, patch: Layer::default(), ..self.layers.clone() };
        let mut made = Self::new(layers, reading.notes)?;
        let late = made.keep_start(self);
        // Two keys of which one was kept need not suit each other.
        made.check()?;
        Ok((made, late))
    }

    /// Keeps the values of `running` for keys that count at the start; what would have changed.
    fn keep_start(&mut self, running: &Self) -> Vec<Change> {
        let mut late = self.changes_from(running);
        late.retain(|change| change.key.acts == Acts::AtStart);
        for change in &late {
            if let Some(at) = index(change.key.path) {
                // It was in that place a moment ago, so it fits.
                let _ = (change.key.place.set)(&mut self.settings, &change.from);
                self.origins[at] = running.origins[at].clone();
            }
        }
        late
    }

    /// The keys whose values differ from those of an earlier configuration.
    pub fn changes_from(&self, before: &Self) -> Vec<Change> {
        let change = |key: &'static Key| {
            let (from, to) = (key.value(&before.settings), key.value(&self.settings));
            (from != to).then_some(Change { key, from, to })
        };
        keys().iter().filter_map(change).collect()
    }

    /// All values as JSON, in sections; secrets are hidden.
    pub fn json(&self) -> Json {
        tree(|key| Some(key.json(&key.value(&self.settings))))
    }

    /// As [`Configuration::json`], with other optimisations: those that somebody else says are in force.
    pub fn json_with(&self, optimizations: Optimizations) -> Json {
        let settings = Settings { optimizations, ..self.settings.clone() };
        tree(|key| Some(key.json(&key.value(&settings))))
    }

    /// Where all values are from, as JSON in the same sections.
    pub fn origins_json(&self) -> Json {
        tree(|key| Some(Json::from(self.origin(key).to_string())))
    }

    /// The file that was read, if there was one with something in it.
    pub fn file(&self) -> Option<Arc<str>> {
        self.layers.file.given.values().find_map(|given| match &given.origin {
            Origin::File { path, .. } => Some(path.clone()),
            _ => None,
        })
    }
}

impl Change {
    /// As JSON: the key, its value before and now.
    pub fn json(&self) -> Json {
        serde_json::json!({
            "key": self.key.path,
            "from": self.key.json(&self.from),
            "to": self.key.json(&self.to),
        })
    }
}

fn at_start(change: &Change) -> Problem {
    let shown = |value: &Value| match change.key.json(value) {
        Json::String(text) => text,
        other => other.to_string(),
    };
    let rule = format!("it counts when the program starts, and is {} now", shown(&change.from));
    let cure = "write it into the file and start again";
    Problem::new(Some(Origin::Admin), change.key.path, shown(&change.to), rule, cure)
}

/// Values of keys as a tree of their sections.
pub(crate) fn tree(value: impl Fn(&'static Key) -> Option<Json>) -> Json {
    let mut root = Map::new();
    for key in keys() {
        let Some(value) = value(key) else { continue };
        let mut map = &mut root;
        for section in key.section().split('.').filter(|section| !section.is_empty()) {
            let inner = map.entry(section).or_insert_with(|| Json::Object(Map::new()));
            // Sections and keys have different names, which a test of the table holds.
            let Json::Object(inner) = inner else { return Json::Null };
            map = inner;
        }
        map.insert(key.name().to_owned(), value);
    }
    Json::Object(root)
}

/// Whether only this machine reaches a server on `host`, as far as its name tells.
fn is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}
