//! Where a model's template and token strings are found, and what is adapted in the template's text.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::TemplateError;

/// Strings of the named special tokens (`bos_token`, `eos_token`, …), which templates see as variables.
///
/// A token that the model lacks is no variable at all, as in `transformers`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenStrings {
    by_name: BTreeMap<String, String>,
}

impl TokenStrings {
    /// Every `*_token` of a parsed `tokenizer_config.json`, as a string or as an object with `content`.
    pub fn from_tokenizer_config(config: &Json) -> Self {
        let entries = config.as_object().into_iter().flatten();
        let named = entries.filter(|(name, _)| name.ends_with("_token"));
        named
            .filter_map(|(name, value)| {
                let text = value.as_str().or_else(|| value.get("content")?.as_str())?;
                Some((name.clone(), text.to_owned()))
            })
            .collect()
    }

    /// The string of a token, by name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.by_name.get(name).map(String::as_str)
    }

    /// Names and strings.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.by_name.iter().map(|(name, text)| (name.as_str(), text.as_str()))
    }
}

impl FromIterator<(String, String)> for TokenStrings {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        Self { by_name: pairs.into_iter().collect() }
    }
}

/// Template texts of a model.
pub(super) struct Sources<'a> {
    pub default: &'a str,
    /// Used instead when a request has tools.
    pub tool_use: Option<&'a str>,
}

impl<'a> Sources<'a> {
    /// Finds the templates; `None` when the model has none.
    pub fn of_model(jinja: Option<&'a str>, config: Option<&'a Json>) -> Result<Option<Self>, TemplateError> {
        if let Some(default) = jinja {
            return Ok(Some(Self { default, tool_use: None }));
        }
        match config.and_then(|config| config.get("chat_template")) {
            None | Some(Json::Null) => Ok(None),
            Some(Json::String(default)) => Ok(Some(Self { default, tool_use: None })),
            Some(Json::Array(list)) => Self::of_list(list).map(Some),
            Some(Json::Object(_)) => Err(TemplateError::Config { given: "an object".to_owned() }),
            Some(other) => Err(TemplateError::Config { given: other.to_string() }),
        }
    }

    fn of_list(list: &'a [Json]) -> Result<Self, TemplateError> {
        let text = |entry: &'a Json, key: &str| entry.get(key).and_then(Json::as_str);
        let named = |wanted: &str| {
            list.iter()
                .find(|entry| text(entry, "name") == Some(wanted))
                .and_then(|entry| text(entry, "template"))
        };
        // A single template needs no name to be the one that is meant.
        let single = if let [only] = list { text(only, "template") } else { None };
        let default = named("default").or(single).ok_or_else(|| {
            let names: Vec<&str> = list.iter().filter_map(|entry| text(entry, "name")).collect();
            TemplateError::Config { given: format!("a list of {} with the names {names:?}", list.len()) }
        })?;
        Ok(Self { default, tool_use: named("tool_use") })
    }
}

/// Ends every line with `\n`, string literals included: so Jinja reads its sources.
pub(super) fn with_plain_newlines(source: &str) -> String {
    source.replace("\r\n", "\n").replace('\r', "\n")
}

/// Turns `{% generation %}` … `{% endgeneration %}` into a block that is always rendered.
///
/// The marks tell a trainer which tokens are the assistant's; the rendered text is the same without them. Whitespace
/// control and line numbers are kept.
pub(super) fn without_generation_marks(source: &str) -> Cow<'_, str> {
    if !source.contains("generation") {
        return Cow::Borrowed(source);
    }
    let mut text = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        text.push_str(before);
        let end = tag.find("%}").map_or(tag.len(), |end| end + 2);
        let (tag, after) = tag.split_at(end);
        let word = tag.trim_start_matches("{%").trim_end_matches("%}").trim_matches(['-', '+']).trim();
        match word {
            "generation" => text.push_str(&tag.replacen("generation", "if true", 1)),
            "endgeneration" => text.push_str(&tag.replacen("endgeneration", "endif", 1)),
            _ => text.push_str(tag),
        }
        rest = after;
    }
    text.push_str(rest);
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generation_marks_become_plain_blocks() {
        let source = "a{%- generation -%}\nb{% endgeneration +%}{% if generation %}c{% endif %}";
        assert_eq!(
            without_generation_marks(source),
            "a{%- if true -%}\nb{% endif +%}{% if generation %}c{% endif %}"
        );
        assert_eq!(without_generation_marks("{% generation"), "{% if true");
        assert!(matches!(without_generation_marks("{% if x %}{% endif %}"), Cow::Borrowed(_)));
    }

    #[test]
    fn token_strings_of_both_spellings() {
        let config = serde_json::json!({
            "bos_token": null, "eos_token": {"content": "</s>", "lstrip": false}, "pad_token": "<pad>", "add_bos_token": true,
        });
        let tokens = TokenStrings::from_tokenizer_config(&config);
        assert_eq!(tokens.iter().collect::<Vec<_>>(), [("eos_token", "</s>"), ("pad_token", "<pad>")]);
        assert_eq!(tokens.get("bos_token"), None);
    }
}
