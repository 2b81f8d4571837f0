//! `org/name[@revision]`.

use std::fmt;

/// A model on the hub. Its parts are safe in paths and URLs: letters, digits, `-`, `_` and single dots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HubId {
    pub(crate) organisation: String,
    pub(crate) name: String,
    pub(crate) revision: String,
}

impl HubId {
    /// Reads an id. `revision` is used where the text names none; `main` where neither does.
    pub(crate) fn parse(text: &str, revision: Option<&str>) -> Option<Self> {
        let (repository, named) = match text.split_once('@') {
            Some((repository, named)) => (repository, Some(named)),
            None => (text, None),
        };
        let (organisation, name) = repository.split_once('/')?;
        let revision = named.or(revision).unwrap_or("main");
        let safe = is_segment(organisation) && is_segment(name) && revision.split('/').all(is_segment);
        safe.then(|| Self { organisation: organisation.into(), name: name.into(), revision: revision.into() })
    }

    /// `org/name`, as in URLs.
    pub(crate) fn repository(&self) -> String {
        format!("{}/{}", self.organisation, self.name)
    }

    /// Whether the revision is a whole commit hash, which never changes its meaning.
    pub(crate) fn is_commit(&self) -> bool {
        self.revision.len() == 40 && self.revision.bytes().all(|b| b.is_ascii_hexdigit())
    }
}

impl fmt::Display for HubId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.organisation, self.name)?;
        if self.revision == "main" { Ok(()) } else { write!(f, "@{}", self.revision) }
    }
}

/// One component of a path: nothing that leaves its folder or needs escaping.
pub(crate) fn is_segment(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 128
        && !text.starts_with(['.', '-'])
        && !text.contains("..")
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_what_is_none() {
        let id = HubId::parse("Qwen/Qwen3-0.6B", None).unwrap();
        assert_eq!((id.repository().as_str(), id.revision.as_str()), ("Qwen/Qwen3-0.6B", "main"));
        assert_eq!(HubId::parse("a/b", Some("v1")).unwrap().revision, "v1");
        assert_eq!(HubId::parse("a/b@refs/pr/3", Some("v1")).unwrap().revision, "refs/pr/3");
        for none in [
            "",
            "gpt2",
            "a/b/c",
            "/a/b",
            "./a",
            "../a",
            "a/..",
            "a/b@",
            "a/b@../x",
            "a/b@x/../y",
            "a b/c",
            "a/b?c",
        ] {
            assert_eq!(HubId::parse(none, None), None, "{none:?}");
        }
    }
}
