//! Everybody who may say something, before it is known what it means.

use std::sync::Arc;

use crate::configuration::Layers;
use crate::document::{self, MAX_BYTES};
use crate::keys::keys;
use crate::layer::{Document, Reading};
use crate::{ConfigError, Configuration, Origin, Problem, nearest};

/// What was typed, by whom.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file, if there is one.
    pub file: Option<ConfigFile>,
    /// Variables of the environment, all of them or those that may matter. An empty one counts as unset.
    pub environment: Vec<(String, String)>,
    /// Flags: the key's path and the value as it was typed.
    pub arguments: Vec<(&'static str, String)>,
}

/// A configuration file.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    /// As messages call it.
    pub path: Arc<str>,
    /// What is in it.
    pub text: String,
}

impl ConfigFile {
    /// Bytes of a file at most; there is no point in reading more.
    pub const MAX_BYTES: usize = MAX_BYTES;
}

impl Sources {
    /// What it means together.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn resolve(self) -> Result<Configuration, ConfigError> {
        let mut reading = Reading::default();
        let mut layers = Layers::default();
        let Self { file, environment, arguments } = self;
        if let Some(file) = file {
            reading = self::file(file, reading);
            layers.file = std::mem::take(&mut reading.layer);
        }
        reading.environment(&environment, &arguments);
        layers.environment = std::mem::take(&mut reading.layer);
        for (path, text) in &arguments {
            let flag = keys().iter().find(|key| key.path == *path).and_then(|key| key.flag).unwrap_or(path);
            reading.typed(path, text, Origin::Argument(flag));
        }
        layers.arguments = std::mem::take(&mut reading.layer);
        if reading.problems.is_empty() {
            Configuration::new(layers, reading.notes)
        } else {
            Err(ConfigError { problems: reading.problems })
        }
    }
}

/// Reads a file.
pub(crate) fn file(file: ConfigFile, mut reading: Reading) -> Reading {
    let document = Document::File(file.path.clone());
    match document::parse(&file.text) {
        Ok(root) => reading.document(&root, &document),
        Err(error) => {
            let origin = Origin::File { path: file.path, line: error.line };
            reading.problems.push(Problem::new(Some(origin), "this", error.given, error.rule, error.cure));
        }
    }
    reading
}

impl Reading {
    /// Reads the variables that belong to keys, but for those that an argument goes before.
    fn environment(&mut self, variables: &[(String, String)], arguments: &[(&'static str, String)]) {
        let set = variables.iter().filter(|(_, value)| !value.is_empty());
        for (name, value) in set {
            match keys().iter().find(|key| key.variable() == *name) {
                Some(key) if arguments.iter().any(|(path, _)| *path == key.path) => {}
                Some(key) => {
                    let problems = self.problems.len();
                    self.typed(key.path, value, Origin::Environment(name.clone()));
                    // Kubernetes' links of a service that is called as we are.
                    if value.starts_with("tcp://")
                        && let Some(problem) = self.problems.get_mut(problems)
                    {
                        problem.cure = "Kubernetes sets it for a Service of this name: set \
                                        `enableServiceLinks: false`, or call the Service something else"
                            .to_owned();
                    }
                }
                None => self.unknown_variable(name),
            }
        }
    }

    /// A name that only can be meant for us. Others may begin with BESSEMER_: Kubernetes puts such there for a
    /// Service of that name.
    fn unknown_variable(&mut self, name: &str) {
        if !["METAL_OPTIMIZATIONS_", "METAL_ACCELERATION_"].iter().any(|begin| name.starts_with(begin)) {
            return;
        }
        let lower = |key: &crate::Key| key.variable().to_ascii_lowercase();
        let variables: Vec<String> = keys().iter().map(lower).collect();
        let near = nearest(name, variables.iter().map(String::as_str)).map(str::to_ascii_uppercase);
        let cure = near.map_or("unset it".to_owned(), |near| format!("did you mean {near}?"));
        let origin = Some(Origin::Environment(name.to_owned()));
        self.problems.push(Problem::new(origin, "this", "set", "there is no such key", cure));
    }
}
