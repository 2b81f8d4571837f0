//! What one source says.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::document::{Content, Entry, Node};
use crate::keys::{index, keys};
use crate::preset::Preset;
use crate::problem::shortened;
use crate::{Key, Origin, Problem, Value, nearest};

/// Mistakes of a document that are told; who has made so many has given another document.
const MAX_PROBLEMS: usize = 50;

/// The values that a source gives, by the key's place in the table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layer {
    pub given: BTreeMap<usize, Given>,
}

/// A value and where it is from.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    pub value: Value,
    pub origin: Origin,
}

/// What came of reading a source.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    pub layer: Layer,
    /// What the log should say.
    pub notes: Vec<String>,
    pub problems: Vec<Problem>,
    /// Sections and keys that were set to nothing.
    pub cleared: Vec<String>,
}

/// Which document is read.
#[derive(Clone, Debug)]
pub(crate) enum Document {
    /// A file of this name.
    File(Arc<str>),
    /// A change at run time, in which `null` takes back.
    Patch,
}

impl Document {
    fn origin(&self, line: usize) -> Origin {
        match self {
            Self::File(path) => Origin::File { path: path.clone(), line },
            Self::Patch => Origin::Admin,
        }
    }
}

impl Layer {
    pub(crate) fn of_preset(preset: &Preset) -> Self {
        let mut reading = Reading::default();
        for (path, text) in preset.settings() {
            reading.typed(path, text, Origin::Preset(preset.name));
        }
        debug_assert!(reading.problems.is_empty(), "{:?}", reading.problems);
        reading.layer
    }
}

impl Reading {
    /// Reads one value as the environment and the command line spell it.
    pub(crate) fn typed(&mut self, path: &str, text: &str, origin: Origin) {
        let Some(at) = index(path) else { return };
        let node = keys()[at].kind.typed(text);
        self.value(at, &node, origin);
    }

    /// Reads a whole document.
    pub(crate) fn document(&mut self, root: &Node, document: &Document) {
        self.section("", root, document.origin(root.line.max(1)), document);
    }

    fn section(&mut self, section: &str, node: &Node, origin: Origin, document: &Document) {
        // A section whose keys are all commented out.
        if node.is_null() && matches!(document, Document::File(_)) {
            return;
        }
        let Content::Map(entries) = &node.content else {
            let field = if section.is_empty() { "the document" } else { section };
            let rule = "it must hold keys with their values";
            let cure = match document {
                Document::Patch => "write an object such as {\"metal_optimizations\": {}}".to_owned(),
                Document::File(_) if section.is_empty() => "write `key: value` lines".to_owned(),
                Document::File(_) => format!("write them indented below `{}:`", last(section)),
            };
            return self.problems.push(Problem::new(Some(origin), field, node.shown(), rule, cure));
        };
        for entry in entries {
            if self.problems.len() >= MAX_PROBLEMS {
                return;
            }
            self.entry(section, entry, document);
        }
    }

    fn entry(&mut self, section: &str, entry: &Entry, document: &Document) {
        let origin = document.origin(entry.line);
        let path = join(section, &entry.name.replace('-', "_"));
        let is_section = keys().iter().any(|key| is_within(key.section(), &path));
        if is_section {
            self.note_name(&origin, section, &entry.name, last(&path));
            if entry.value.is_null() && matches!(document, Document::Patch) {
                self.cleared.push(path);
                return;
            }
            return self.section(&path, &entry.value, origin, document);
        }
        let by_name = |key: &&Key| key.path == path;
        let by_alias = |key: &&Key| {
            key.section() == section && key.aliases.iter().any(|alias| join(section, alias) == path)
        };
        let key = keys().iter().find(by_name).or_else(|| keys().iter().find(by_alias));
        let Some(key) = key else { return self.problems.push(unknown(section, &entry.name, origin)) };
        self.note_name(&origin, section, &entry.name, key.name());
        let Some(at) = index(key.path) else { return };
        if entry.value.is_null() && matches!(document, Document::Patch) {
            self.cleared.push(key.path.to_owned());
            return;
        }
        if let Some(before) = self.layer.given.get(&at) {
            let given = match document {
                Document::Patch => "given twice".to_owned(),
                Document::File(_) => format!("given twice, first in {}", before.origin),
            };
            let rule = "a key is given once, by one of its names";
            return self.problems.push(Problem::new(
                Some(origin),
                key.path,
                given,
                rule,
                "remove one of them",
            ));
        }
        self.value(at, &entry.value, origin);
    }

    /// Notes that a name is read as another one.
    fn note_name(&mut self, origin: &Origin, section: &str, written: &str, name: &str) {
        if written != name {
            let written = join(section, &shortened(written));
            self.notes.push(format!("{origin}: {written} is another name of {name}: write {name}"));
        }
    }

    fn value(&mut self, at: usize, node: &Node, origin: Origin) {
        let key = &keys()[at];
        let nothing = node.is_null()
            || matches!(&node.content, Content::Scalar { text, .. } if text == "auto" && key.absent_word() == "auto");
        if key.absent.is_some() && nothing {
            self.layer.given.insert(at, Given { value: Value::Absent, origin });
            return;
        }
        match key.kind.read(node) {
            Ok(value) => drop(self.layer.given.insert(at, Given { value, origin })),
            Err(refusal) => {
                let given = if key.is_secret() { "(hidden)".to_owned() } else { node.shown() };
                let rule = match key.absent {
                    Some(_) => format!("{}, or {}", refusal.rule, key.absent_word()),
                    None => refusal.rule,
                };
                self.problems.push(Problem::new(Some(origin), key.path, given, rule, refusal.cure));
            }
        }
    }
}

/// Whether `section` is `path` or lies in it.
pub(crate) fn is_within(section: &str, path: &str) -> bool {
    section.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn join(section: &str, name: &str) -> String {
    if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") }
}

fn last(section: &str) -> &str {
    section.rsplit_once('.').map_or(section, |(_, name)| name)
}

/// A key that nobody knows: the nearest name of its section, else where such a name belongs.
fn unknown(section: &str, name: &str, origin: Origin) -> Problem {
    let mut here: Vec<&str> = Vec::new();
    for key in keys() {
        if key.section() == section {
            here.push(key.name());
        } else if let Some(rest) = key.section().strip_prefix(section) {
            here.push(rest.trim_start_matches('.').split('.').next().unwrap_or_default());
        }
    }
    let normal = name.replace('-', "_");
    let elsewhere = keys().iter().find(|key| key.name() == normal || key.aliases.contains(&normal.as_str()));
    let cure = match (elsewhere, nearest(name, here.iter().copied())) {
        (Some(key), _) => {
            let place = if key.section().is_empty() { "at the top" } else { key.section() };
            format!("{} belongs to {place}", key.name())
        }
        (None, Some(near)) => format!("did you mean {near}?"),
        (None, None) => "remove it; `bessemer config schema` lists all keys".to_owned(),
    };
    let place = if section.is_empty() { "the top".to_owned() } else { section.to_owned() };
    Problem::new(Some(origin), shortened(name), "given", format!("there is no such key in {place}"), cure)
}
