//! The documents do not lie about the tree, and the tree tells nothing about the machines it was made on.

use std::path::Path;
use std::process::Command;

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Text between backticks that looks like a path of this tree: its first part is a folder or file at the root.
fn paths(text: &str) -> Vec<&str> {
    let spans = text.split('`').skip(1).step_by(2);
    let looks_like_one = |span: &&str| {
        let first = span.split('/').next().unwrap_or_default();
        let known =
            ["crates", "dashboards", "docs", "fuzz", "models", "tests", ".ci", ".github"].contains(&first);
        let plain = !span.contains([' ', '<', '*', '{', '\n']);
        plain && (known || (span.ends_with(".md") && !span.contains(':')) || span.ends_with(".toml"))
    };
    spans.filter(looks_like_one).collect()
}

#[test]
fn every_path_in_the_documents_exists() {
    for (document, least) in [
        ("ARCHITECTURE.md", 15),
        ("README.md", 4),
        ("CONTRIBUTING.md", 8),
        ("CHANGELOG.md", 1),
        ("docs/errors.md", 1),
    ] {
        let text = read(document);
        let paths = paths(&text);
        assert!(paths.len() >= least, "{document} names only {paths:?}");
        for path in paths {
            // `models/*.md` in a sub-folder may be meant from there; all of ours are meant from the root.
            assert!(root().join(path).exists(), "{document} names `{path}`, which is not there");
        }
    }
}

#[test]
fn links_of_the_documents_lead_somewhere() {
    for document in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"] {
        let text = read(document);
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.contains("://") && !target.starts_with('#')) {
            let file = target.split('#').next().unwrap_or_default();
            assert!(root().join(file).exists(), "{document} links to {target}, which is not there");
        }
    }
}

/// Home folders as they look on the three systems, and where this clone lies.
#[test]
fn no_committed_file_names_a_developers_machine() {
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output();
    let Ok(listed) = listed.map_err(|error| error.to_string()).and_then(|output| {
        if output.status.success() { Ok(output.stdout) } else { Err("not a clone".into()) }
    }) else {
        // An unpacked archive has no list of files; a clone, where things are committed, has.
        return;
    };
    let here = root().canonicalize().expect("the root exists").display().to_string();
    let homes =
        [concat!("/ho", "me/"), concat!("/Us", "ers/"), concat!("/ro", "ot/"), concat!("C:\\Us", "ers\\")];
    let mut checked = 0;
    for file in listed.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let name = String::from_utf8_lossy(file).into_owned();
        // Weights, images and everything else that is not text.
        let Ok(text) = std::fs::read_to_string(root().join(&name)) else { continue };
        checked += 1;
        assert!(!text.contains(&format!("{here}/")), "{name} names the folder of this clone");
        for home in homes {
            for (at, _) in text.match_indices(home) {
                // A home folder has a name after it; documentation may speak of the folder of all of them.
                let after = text[at + home.len()..].chars().next();
                let before = text[..at].chars().next_back();
                let path =
                    after.is_some_and(char::is_alphanumeric) && !before.is_some_and(char::is_alphanumeric);
                assert!(
                    !path,
                    "{name} names a home folder: {:?}",
                    text[at..].chars().take(40).collect::<String>()
                );
            }
        }
    }
    assert!(checked > 100, "only {checked} files were read");
}
