//! The tree of a document, with the line of everything in it.
//!
//! - **No recursion and a bound on depth**, so that no input can exhaust the stack.
//! - **A key twice is an error**, and so are anchors, tags and a second document: none of them has a use here, and
//!   each is a way to say something other than what one sees.

use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use serde_json::Value as Json;

use crate::problem::shortened;

/// Levels of a document at most; the configuration has four.
const MAX_DEPTH: usize = 16;

/// Keys of a section at most.
const MAX_ENTRIES: usize = 1000;

/// Bytes of a document at most.
pub(crate) const MAX_BYTES: usize = 1 << 20;

/// A piece of a document.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    /// Counted from 1; 0 where there are no lines.
    pub line: usize,
    pub content: Content,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Content {
    /// `plain`: without quotes, so that it may mean a number or a truth value.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub name: String,
    pub line: usize,
    pub value: Node,
}

/// Why a document is none.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Malformed {
    pub line: usize,
    /// What is there.
    pub given: String,
    pub rule: &'static str,
    pub cure: &'static str,
}

impl Node {
    /// An empty map.
    fn empty() -> Self {
        Self { line: 1, content: Content::Map(Vec::new()) }
    }

    /// A text as the environment and the command line have it.
    pub(crate) fn typed(text: &str) -> Self {
        Self { line: 0, content: Content::Scalar { text: text.to_owned(), plain: true } }
    }

    /// Whether nothing was said: `key:`, `key: ~` or `key: null`.
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.content, Content::Scalar { text, plain: true }
            if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// As a message shows it.
    pub(crate) fn shown(&self) -> String {
        match &self.content {
            Content::Scalar { .. } if self.is_null() => "null".to_owned(),
            Content::Scalar { text, plain: true } => shortened(text),
            Content::Scalar { text, plain: false } => format!("\"{}\"", shortened(text)),
            Content::List(items) => format!("a list of {}", items.len()),
            Content::Map(_) => "a section".to_owned(),
        }
    }
}

impl From<&Json> for Node {
    fn from(json: &Json) -> Self {
        let content = match json {
            Json::Null | Json::Bool(_) | Json::Number(_) => {
                Content::Scalar { text: json.to_string(), plain: true }
            }
            Json::String(text) => Content::Scalar { text: text.clone(), plain: false },
            Json::Array(items) => Content::List(items.iter().map(Self::from).collect()),
            Json::Object(map) => Content::Map(
                map.iter()
                    .map(|(name, value)| Entry { name: name.clone(), line: 0, value: Self::from(value) })
                    .collect(),
            ),
        };
        Self { line: 0, content }
    }
}

/// A container that is being read.
enum Open {
    List { line: usize, items: Vec<Node> },
    Map { line: usize, entries: Vec<Entry>, key: Option<(String, usize)> },
}

/// Reads a YAML document. An empty one is an empty map.
pub(crate) fn parse(text: &str) -> Result<Node, Malformed> {
    if text.len() > MAX_BYTES {
        let given = format!("{} bytes long", text.len());
        return Err(Malformed { line: 1, given, rule: "it must have at most 1 MiB", cure: "take less" });
    }
    let mut stack: Vec<Open> = Vec::new();
    let mut root = None;
    // A byte order mark is what some editors put in front.
    for event in Parser::new_from_str(text.strip_prefix('\u{FEFF}').unwrap_or(text)) {
        let (event, span) = event.map_err(|error| Malformed {
            line: error.marker().line(),
            given: format!("no YAML: {}", error.info()),
            rule: "it must be a YAML document",
            cure: "correct this line or the one before it",
        })?;
        let line = span.start.line();
        check(&event, span, stack.len(), root.is_some())?;
        let done = match event {
            Event::SequenceStart(..) => {
                stack.push(Open::List { line, items: Vec::new() });
                None
            }
            Event::MappingStart(..) => {
                stack.push(Open::Map { line, entries: Vec::new(), key: None });
                None
            }
            Event::SequenceEnd | Event::MappingEnd => stack.pop().map(Open::close),
            Event::Scalar(text, style, ..) => {
                let plain = style == ScalarStyle::Plain;
                Some(Node { line, content: Content::Scalar { text: text.into_owned(), plain } })
            }
            _ => None,
        };
        let Some(node) = done else { continue };
        match stack.last_mut() {
            None => root = Some(node),
            Some(open) => open.put(node)?,
        }
    }
    Ok(root.filter(|root| !root.is_null()).unwrap_or_else(Node::empty))
}

/// Refuses what has no use in a configuration.
fn check(event: &Event<'_>, span: Span, depth: usize, done: bool) -> Result<(), Malformed> {
    let (anchor, tag) = match event {
        Event::Scalar(_, _, anchor, tag)
        | Event::SequenceStart(anchor, tag)
        | Event::MappingStart(anchor, tag) => (*anchor, tag.is_some()),
        Event::Alias(anchor) => ((*anchor).max(1), false),
        _ => (0, false),
    };
    let (given, rule, cure) = if anchor != 0 {
        ("an anchor or alias", "these have no use here", "write the value out, or put it between quotes")
    } else if tag {
        ("a tag", "tags have no use here", "remove it, or put the value between quotes")
    } else if depth >= MAX_DEPTH && matches!(event, Event::SequenceStart(..) | Event::MappingStart(..)) {
        ("too deep", "a configuration has four levels", "remove the inner ones")
    } else if done && matches!(event, Event::DocumentStart(_)) {
        ("a second document", "a file holds one", "remove it, or put it into a file of its own")
    } else {
        return Ok(());
    };
    Err(Malformed { line: span.start.line(), given: given.to_owned(), rule, cure })
}

impl Open {
    fn close(self) -> Node {
        match self {
            Self::List { line, items } => Node { line, content: Content::List(items) },
            Self::Map { line, entries, .. } => Node { line, content: Content::Map(entries) },
        }
    }

    fn put(&mut self, node: Node) -> Result<(), Malformed> {
        match self {
            Self::List { items, .. } => items.push(node),
            Self::Map { entries, key, .. } => match key.take() {
                Some((name, line)) => entries.push(Entry { name, line, value: node }),
                None => {
                    let Content::Scalar { text, .. } = node.content else {
                        return Err(Malformed {
                            line: node.line,
                            given: format!("{} as a key", node.shown()),
                            rule: "a key is a name",
                            cure: "write a name in front of the colon",
                        });
                    };
                    if let Some(first) = entries.iter().find(|entry| entry.name == text) {
                        return Err(Malformed {
                            line: node.line,
                            given: format!(
                                "a second {}, after that of line {}",
                                shortened(&text),
                                first.line
                            ),
                            rule: "a key is given once",
                            cure: "remove one of them",
                        });
                    }
                    if entries.len() >= MAX_ENTRIES {
                        return Err(Malformed {
                            line: node.line,
                            given: format!("the key after {MAX_ENTRIES} others"),
                            rule: "no section has so many",
                            cure: "give a configuration of this program",
                        });
                    }
                    *key = Some((text, node.line));
                }
            },
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> (usize, String) {
        let error = parse(text).unwrap_err();
        (error.line, error.given)
    }

    #[test]
    fn lines_are_those_of_the_keys() {
        let root = parse("# a comment\na:\n  b: 1\n\n  c: [1, 2]\n").unwrap();
        let Content::Map(entries) = root.content else { panic!() };
        assert_eq!((entries[0].name.as_str(), entries[0].line), ("a", 2));
        let Content::Map(inner) = &entries[0].value.content else { panic!() };
        assert_eq!((inner[0].line, inner[1].line), (3, 5));
        assert!(matches!(&inner[1].value.content, Content::List(items) if items.len() == 2));
    }

    #[test]
    fn nothing_is_an_empty_map() {
        for text in ["", "\n", "# only a comment\n", "---\n", "---\n...\n", "~\n", "\u{FEFF}"] {
            assert_eq!(parse(text).unwrap().content, Content::Map(Vec::new()), "{text:?}");
        }
    }

    #[test]
    fn what_has_no_use_is_refused() {
        assert_eq!(refused("a: 1\nb: 2\na: 3\n"), (3, "a second a, after that of line 1".into()));
        assert_eq!(refused("a: &x 1\nb: *x\n"), (1, "an anchor or alias".into()));
        assert_eq!(refused("a: !!str 1\n"), (1, "a tag".into()));
        assert_eq!(refused("a: 1\n---\nb: 2\n"), (2, "a second document".into()));
        assert_eq!(refused("[1, 2]: 3\n"), (1, "a list of 2 as a key".into()));
        assert_eq!(refused(&"[".repeat(100)).1, "too deep");
        assert!(refused("a: [1\nb: 2\n").1.starts_with("no YAML: "));
        assert!(refused("a:\n\t- b\n").1.starts_with("no YAML: "));
        assert!(parse(&" ".repeat(MAX_BYTES + 1)).is_err());
        assert!(parse(&"[".repeat(MAX_BYTES)).is_err());
        let many: String = (0..100_000).map(|n| format!("a{n}: 1\n")).collect();
        assert_eq!(refused(&many), (1001, "the key after 1000 others".into()));
    }
}
