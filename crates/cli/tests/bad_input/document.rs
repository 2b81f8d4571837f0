//! The table as Markdown.

use std::fmt::Write;

const HEAD: &str = "\
# Wrong inputs and their messages

Every row was produced by running the input; a test (`crates/cli/tests/bad_input/main.rs`) runs them all again and
compares. A message names the field or file, the rule, what was given, and what to do. The program prints it on
standard error as one line after `error:`; the server sends it as `error.message`, with the field in `error.param`.
";

/// Cases of one kind.
pub struct Section {
    pub title: &'static str,
    pub intro: &'static str,
    /// Headings of the columns.
    pub columns: [&'static str; 3],
    pub rows: Vec<Row>,
}

/// One case and its answer.
pub struct Row {
    /// What is wrong, in words or as typed.
    pub input: String,
    /// Exit code or HTTP status.
    pub status: u16,
    pub answer: String,
}

/// The whole document.
pub fn render(sections: &[Section]) -> String {
    let mut text = HEAD.to_owned();
    for section in sections {
        let [input, status, answer] = section.columns;
        let _ = write!(
            text,
            "\n## {}\n\n{}\n\n| {input} | {status} | {answer} |\n|---|---|---|\n",
            section.title, section.intro
        );
        for row in &section.rows {
            let _ = writeln!(text, "| {} | {} | {} |", cell(&row.input), row.status, cell(&row.answer));
        }
    }
    text
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "\\<")
}
