//! Wrong inputs and what the program answers.
//!
//! - **The table is the expectation**: every case below is run, the answers are put into a document, and the document
//!   is compared with `docs/errors.md`. No message stands there that the program does not print.
//! - **A change of a message is a reviewed diff**: `UPDATE_ERRORS=1 cargo test -p bessemer --test bad_input` writes the
//!   file anew.
//! - **Each message helps**: it is one line, it does not speak of panics, and the process ends with the code that its
//!   help promises.

mod checkpoints;
mod configurations;
mod document;
mod flags;
mod folder;
mod http;
mod operator;
mod program;
mod requests;

use std::path::PathBuf;

use document::Section;

#[test]
fn every_wrong_input_gets_the_answer_of_the_table() {
    let sections: Vec<Section> = vec![
        checkpoints::section(),
        flags::section(),
        configurations::section(),
        requests::section(),
        operator::section(),
    ];
    let rows: usize = sections.iter().map(|section| section.rows.len()).sum();
    assert!(rows >= 100, "only {rows} cases are left");
    for row in sections.iter().flat_map(|section| &section.rows) {
        let text = row.answer.to_lowercase();
        assert!(row.answer.len() > 20, "{}: {:?} explains nothing", row.input, row.answer);
        assert!(!text.contains("panic") && !row.answer.contains('\n'), "{}: {}", row.input, row.answer);
    }
    let document = document::render(&sections);
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors.md");
    if std::env::var_os("UPDATE_ERRORS").is_some() {
        std::fs::write(&path, &document).expect("docs/errors.md can be written");
        return;
    }
    let written = std::fs::read_to_string(&path).expect("docs/errors.md exists");
    let differs = written.lines().zip(document.lines()).find(|(written, said)| written != said);
    if let Some((written, said)) = differs {
        panic!(
            "docs/errors.md:\n  {written}\nthe program:\n  {said}\n\
             If the new answer is better, run UPDATE_ERRORS=1 cargo test -p bessemer --test bad_input"
        );
    }
    assert_eq!(
        written.lines().count(),
        document.lines().count(),
        "docs/errors.md has cases too many or too few"
    );
}
