//! All keys as a table in Markdown, for the documentation.

use std::fmt::Write;

use crate::keys::keys;
use crate::{Acts, Key, Settings};

/// A table for each group of keys.
pub fn table() -> String {
    let mut text = String::new();
    let defaults = Settings::default();
    let mut before = None;
    for key in keys() {
        if before != Some(key.section()) {
            let title = if key.section().is_empty() {
                "At the top".to_owned()
            } else {
                format!("`{}`", key.section())
            };
            let _ = write!(
                text,
                "\n### {title}\n\n| key | what it must be | default | what it does | counts | environment, argument |\n\
                 |---|---|---|---|---|---|\n"
            );
            before = Some(key.section());
        }
        row(&mut text, key, &defaults);
    }
    text
}

fn row(text: &mut String, key: &Key, defaults: &Settings) {
    let mut names = format!("`{}`", key.name());
    for alias in key.aliases {
        let _ = write!(names, ", also `{alias}`");
    }
    let default = match key.absent {
        Some(absent) => format!("`{}`: {absent}", key.absent_word()),
        None => format!("`{}`", key.spelled(&key.value(defaults))),
    };
    let counts = match key.acts {
        Acts::AtOnce => "at once".to_owned(),
        Acts::AtStart => "at start".to_owned(),
        Acts::NotYet(why) => format!("not yet: {why}"),
    };
    let mut ways = format!("`{}`", key.variable());
    if let Some(flag) = key.flag {
        let _ = write!(ways, ", `{flag}`");
    }
    let _ = writeln!(text, "| {names} | {} | {default} | {} | {counts} | {ways} |", key.rule(), key.about);
}
