//! The types of values, and how they are read.

use std::ops::RangeInclusive;

use bessemer_hal::DeviceSelect;

use crate::document::{Content, Node};
use crate::{PRESETS, Value, byte_size, nearest};

/// What a key takes.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// `true` or `false`.
    Flag,
    /// `false`, `true` or `auto`.
    Switch,
    /// A whole number of this range.
    Whole(RangeInclusive<u64>),
    /// A whole number of this range, or 0.
    WholeOrZero(RangeInclusive<u64>),
    /// A number of this range.
    Number(RangeInclusive<f64>),
    /// A number of bytes of this range, such as `8GiB`.
    Bytes(RangeInclusive<u64>),
    /// A text.
    Text,
    /// A text that is never shown.
    Secret,
    /// One of these names.
    Name(&'static [&'static str]),
    /// The name of a preset.
    Preset,
    /// The name of a device.
    Device,
    /// A list of whole numbers of this range.
    Wholes(RangeInclusive<u64>),
    /// A list of texts.
    Texts,
}

/// What holds for a value that was refused, and what to do.
pub(crate) struct Refusal {
    pub rule: String,
    pub cure: String,
}

impl Kind {
    /// What a value must be: what follows "it must be" in a message.
    pub fn rule(&self) -> String {
        match self {
            Self::Flag => "true or false".into(),
            Self::Switch => "false, true or auto".into(),
            Self::Whole(range) if *range.end() == u64::MAX => {
                format!("a whole number, at least {}", range.start())
            }
            Self::Whole(range) => format!("{} to {}", range.start(), range.end()),
            Self::WholeOrZero(range) => format!("{} to {}, or 0", range.start(), range.end()),
            Self::Number(range) => format!("a number from {} to {}", range.start(), range.end()),
            Self::Bytes(range) => format!("a number of bytes such as 8GiB, at least {}", range.start()),
            Self::Text | Self::Secret => "a text".into(),
            Self::Name(names) => one_of(names),
            Self::Preset => one_of(&preset_names()),
            Self::Device => "auto, cpu, vulkan, vulkan:N or metal".into(),
            Self::Wholes(range) => {
                format!("a list of whole numbers, each {} to {}", range.start(), range.end())
            }
            Self::Texts => "a list of texts".into(),
        }
    }

    /// A text of the environment or the command line, where a list is written with commas.
    pub(crate) fn typed(&self, text: &str) -> Node {
        if !matches!(self, Self::Wholes(_) | Self::Texts) {
            return Node::typed(text);
        }
        let items = text.split(',').map(|item| Node::typed(item.trim())).collect();
        Node { line: 0, content: Content::List(items) }
    }

    /// Reads a value.
    pub(crate) fn read(&self, node: &Node) -> Result<Value, Refusal> {
        let read = match (self, &node.content) {
            (Self::Wholes(range), Content::List(items)) => {
                let whole = |item| plain(item).and_then(|text| whole(text, range));
                items.iter().map(whole).collect::<Option<_>>().map(Value::Wholes)
            }
            (Self::Texts, Content::List(items)) => {
                items.iter().map(text).collect::<Option<_>>().map(Value::Texts)
            }
            (Self::Text | Self::Secret, _) => text(node).map(Value::Text),
            (Self::Name(names), _) => name(node, names),
            (Self::Preset, _) => name(node, &preset_names()),
            (Self::Device, _) => {
                text(node).filter(|text| text.parse::<DeviceSelect>().is_ok()).map(Value::Text)
            }
            (Self::Bytes(range), Content::Scalar { text, .. }) => {
                byte_size::parse(text).ok().filter(|bytes| range.contains(bytes)).map(Value::Whole)
            }
            // JSON has no plain `auto`.
            (Self::Switch, Content::Scalar { text, .. }) if text == "auto" => Some(Value::Text(text.clone())),
            (_, Content::Scalar { text, plain: true }) => self.plain(text),
            _ => None,
        };
        read.ok_or_else(|| self.refuse(node))
    }

    /// Reads what is written without quotes.
    fn plain(&self, text: &str) -> Option<Value> {
        match self {
            Self::Flag | Self::Switch => flag(text).map(Value::Flag),
            Self::Whole(range) => whole(text, range).map(Value::Whole),
            Self::WholeOrZero(range) => {
                whole(text, &(0..=u64::MAX)).filter(|n| *n == 0 || range.contains(n)).map(Value::Whole)
            }
            Self::Number(range) => {
                let digits = text.starts_with(|c: char| c.is_ascii_digit());
                let number = text.parse::<f64>().ok().filter(|number| digits && range.contains(number));
                number.map(Value::Number)
            }
            _ => None,
        }
    }

    fn refuse(&self, node: &Node) -> Refusal {
        let rule = format!("it must be {}", self.rule());
        Refusal { rule, cure: self.cure(node) }
    }

    fn cure(&self, node: &Node) -> String {
        let given = match &node.content {
            Content::Scalar { text, .. } => text.as_str(),
            Content::List(_) | Content::Map(_) => "",
        };
        let number = given.parse::<f64>().ok().filter(|number| !number.is_nan());
        match self {
            Self::Flag | Self::Switch => match given.to_ascii_lowercase().as_str() {
                "on" | "yes" | "y" | "1" | "true" => "write true, without quotes".into(),
                "off" | "no" | "n" | "0" | "false" => "write false, without quotes".into(),
                _ => "choose one of them, without quotes".into(),
            },
            Self::Whole(range) | Self::WholeOrZero(range) => match number {
                Some(number) if number < *range.start() as f64 => format!("set it to {}", range.start()),
                Some(number) if number > *range.end() as f64 => format!("set it to {}", range.end()),
                _ => "write a whole number without quotes".into(),
            },
            Self::Number(range) => match number {
                Some(number) if number < *range.start() => format!("set it to {}", range.start()),
                Some(number) if number > *range.end() => format!("set it to {}", range.end()),
                _ => "write a number without quotes".into(),
            },
            Self::Bytes(_) => "write a number of bytes such as 8GiB, 512MiB, 2GB or 1000000".into(),
            Self::Text | Self::Secret => {
                "write one, between quotes where it looks like something else".into()
            }
            Self::Name(names) => like(given, names),
            Self::Preset => like(given, &preset_names()),
            Self::Device => like(given, &["auto", "cpu", "vulkan", "metal"]),
            Self::Wholes(_) => "write a list such as [32, 128]".into(),
            Self::Texts => "write a list such as [\"https://chat.example.org\"]".into(),
        }
    }
}

fn preset_names() -> Vec<&'static str> {
    PRESETS.iter().map(|preset| preset.name).collect()
}

fn one_of(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

fn like(given: &str, names: &[&str]) -> String {
    // `warning` for `warn`.
    let longer = names.iter().find(|name| given.starts_with(**name)).copied();
    match longer.or_else(|| nearest(given, names.iter().copied())) {
        Some(name) => format!("did you mean {name}?"),
        None => "choose one of them".into(),
    }
}

fn flag(text: &str) -> Option<bool> {
    // The spellings of YAML 1.2; `yes` and `on` are texts there.
    match text {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

fn whole(text: &str, range: &RangeInclusive<u64>) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| digits && range.contains(number))
}

fn plain(node: &Node) -> Option<&str> {
    match &node.content {
        Content::Scalar { text, plain: true } => Some(text),
        _ => None,
    }
}

/// A text that is not empty. What YAML would call a number is one too: a revision may consist of digits.
fn text(node: &Node) -> Option<String> {
    match &node.content {
        Content::Scalar { text, .. } if !node.is_null() && !text.is_empty() => Some(text.clone()),
        _ => None,
    }
}

fn name(node: &Node, names: &[&str]) -> Option<Value> {
    text(node).filter(|text| names.contains(&text.as_str())).map(Value::Text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::parse;

    fn read(kind: &Kind, yaml: &str) -> Result<Value, String> {
        let Content::Map(entries) = parse(&format!("a: {yaml}")).unwrap().content else { panic!() };
        kind.read(&entries[0].value).map_err(|refusal| format!("{}: {}", refusal.rule, refusal.cure))
    }

    #[test]
    fn numbers_are_numbers_only_without_quotes_and_within_their_range() {
        let kind = Kind::Whole(64..=2048);
        assert_eq!(read(&kind, "64"), Ok(Value::Whole(64)));
        assert_eq!(read(&kind, "2048"), Ok(Value::Whole(2048)));
        let (low, high) = ("it must be 64 to 2048: set it to 64", "it must be 64 to 2048: set it to 2048");
        for (yaml, message) in [("63", low), ("-1", low), ("2049", high), ("1e9", high)] {
            assert_eq!(read(&kind, yaml).unwrap_err(), message);
        }
        for yaml in ["\"256\"", "256.0", "0x100", "1_000", "+256", "many", "[256]", "~", "{b: 1}", ".nan", ""]
        {
            let message = read(&kind, yaml).unwrap_err();
            assert_eq!(message, "it must be 64 to 2048: write a whole number without quotes", "{yaml}");
        }
        let kind = Kind::WholeOrZero(100..=10_000);
        assert_eq!(read(&kind, "0"), Ok(Value::Whole(0)));
        assert_eq!(read(&kind, "99").unwrap_err(), "it must be 100 to 10000, or 0: set it to 100");
        let kind = Kind::Number(0.0..=1.0);
        assert_eq!(read(&kind, "0.95"), Ok(Value::Number(0.95)));
        assert_eq!(read(&kind, "1"), Ok(Value::Number(1.0)));
        for yaml in ["1.01", ".inf", ".nan", "nan", "inf", "-0.5", "\"0.5\""] {
            assert!(read(&kind, yaml).is_err(), "{yaml}");
        }
    }

    #[test]
    fn truth_is_true_or_false() {
        assert_eq!(read(&Kind::Flag, "true"), Ok(Value::Flag(true)));
        assert_eq!(read(&Kind::Switch, "False"), Ok(Value::Flag(false)));
        assert_eq!(read(&Kind::Switch, "auto"), Ok(Value::Text("auto".into())));
        assert_eq!(
            read(&Kind::Flag, "on").unwrap_err(),
            "it must be true or false: write true, without quotes"
        );
        assert_eq!(
            read(&Kind::Switch, "no").unwrap_err(),
            "it must be false, true or auto: write false, without quotes"
        );
        assert!(read(&Kind::Flag, "auto").is_err());
        assert!(read(&Kind::Flag, "\"true\"").is_err());
    }

    #[test]
    fn names_lists_and_bytes() {
        let kind = Kind::Name(&["error", "warn"]);
        assert_eq!(read(&kind, "warn"), Ok(Value::Text("warn".into())));
        assert_eq!(read(&kind, "warning").unwrap_err(), "it must be error or warn: did you mean warn?");
        assert_eq!(read(&Kind::Device, "vulkan:1"), Ok(Value::Text("vulkan:1".into())));
        assert!(read(&Kind::Device, "cuda").unwrap_err().contains("vulkan:N"));
        assert_eq!(read(&Kind::Wholes(1..=8), "[1, 8]"), Ok(Value::Wholes(vec![1, 8])));
        assert_eq!(read(&Kind::Wholes(1..=8), "[]"), Ok(Value::Wholes(vec![])));
        for yaml in ["3", "[9]", "[\"1\"]", "[[1]]"] {
            assert!(read(&Kind::Wholes(1..=8), yaml).is_err(), "{yaml}");
        }
        assert_eq!(read(&Kind::Bytes(1..=u64::MAX), "8GiB"), Ok(Value::Whole(8 << 30)));
        assert!(read(&Kind::Bytes(1..=u64::MAX), "8 apples").is_err());
        assert_eq!(read(&Kind::Text, "1234567"), Ok(Value::Text("1234567".into())));
        assert!(read(&Kind::Text, "~").is_err() && read(&Kind::Text, "\"\"").is_err());
    }
}
