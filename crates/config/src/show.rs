//! A configuration as a file: the one in force, and one to begin with.

use std::fmt::Write;

use crate::keys::keys;
use crate::{Acts, Configuration, Key, PRESETS, Settings};

/// Columns before the origin of a value.
const COLUMN: usize = 52;

impl Configuration {
    /// All values as a file that means the same, with the origin of each behind it. Secrets are left out.
    pub fn yaml(&self) -> String {
        let mut text = String::new();
        sections(&mut text, |text, key, indent| {
            let value = key.value(self.settings());
            let said = format!("{indent}{}: {}", key.name(), key.spelled(&value));
            let origin = self.origin(key);
            let _ = match &value {
                crate::Value::Text(_) if key.is_secret() => {
                    writeln!(text, "{indent}# {} is set and not shown  # {origin}", key.name())
                }
                _ => writeln!(text, "{said:COLUMN$}  # {origin}"),
            };
        });
        text
    }
}

/// A file in which every key stands with what it does, commented out at its default. With a preset, its values count.
/// `schema`: where the schema lies, seen from the file.
pub fn template(preset: Option<&str>, schema: Option<&str>) -> String {
    let mut text = String::new();
    if let Some(schema) = schema {
        let _ = writeln!(text, "# yaml-language-server: $schema={schema}");
    }
    text.push_str(
        "# The configuration of bessemer serve. Every key is here with its default; take the # away to change one.\n\
         # An argument of the command line goes before an environment variable, that before this file, this file before\n\
         # a preset. `bessemer config check` tells what is wrong, `bessemer config show` what is in force and why.\n#\n",
    );
    for preset in PRESETS {
        let _ = writeln!(text, "# preset {}: {}", preset.name, preset.about);
    }
    let defaults = Settings::default();
    sections(&mut text, |text, key, indent| {
        let _ = writeln!(text, "\n{indent}# {}: {}", key.about, key.rule());
        if let Some(absent) = key.absent {
            let _ = writeln!(text, "{indent}# {}: {absent}", key.absent_word());
        }
        if let Acts::NotYet(why) = key.acts {
            let _ = writeln!(text, "{indent}# nothing acts on it yet: {why}");
        }
        let _ = match (key.path, preset) {
            ("preset", Some(preset)) => writeln!(text, "{indent}preset: {preset}"),
            _ => writeln!(text, "{indent}# {}: {}", key.name(), key.spelled(&key.value(&defaults))),
        };
    });
    text
}

/// Writes all keys below the headings of their sections.
fn sections(text: &mut String, mut write: impl FnMut(&mut String, &Key, &str)) {
    let mut before: Vec<&str> = Vec::new();
    for key in keys() {
        let section: Vec<&str> = key.section().split('.').filter(|name| !name.is_empty()).collect();
        let common = section.iter().zip(&before).take_while(|(a, b)| a == b).count();
        for (depth, name) in section.iter().enumerate().skip(common) {
            let _ = writeln!(text, "{}{name}:", "  ".repeat(depth));
        }
        write(text, key, &"  ".repeat(section.len()));
        before = section;
    }
}
