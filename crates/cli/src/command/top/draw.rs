//! Pieces that the board is drawn with.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Widget, Wrap};

/// What is not known.
pub const UNKNOWN: &str = "–";

pub const GOOD: Style = Style::new().fg(Color::Green);
pub const POOR: Style = Style::new().fg(Color::Yellow);
pub const BAD: Style = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
pub const FAINT: Style = Style::new().add_modifier(Modifier::DIM);

/// A name and what it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entry {
    name: &'static str,
    value: Option<String>,
    style: Style,
}

impl Entry {
    /// An entry in plain style.
    pub fn new(name: &'static str, value: Option<String>) -> Self {
        Self { name, value, style: Style::new() }
    }

    /// A number in the style that [`judged`] gives it; without limits, as while a feature is off, in plain style.
    pub fn judged(
        name: &'static str,
        number: Option<f64>,
        limits: Option<(f64, f64)>,
        show: impl Fn(f64) -> String,
    ) -> Self {
        let style = number.zip(limits).map(|(number, (warning, critical))| judged(number, warning, critical));
        Self { name, value: number.map(show), style: style.unwrap_or_default() }
    }
}

/// The limits that alerts go by: what is better than `warning` is good, what is worse than `critical` is bad.
fn judged(value: f64, warning: f64, critical: f64) -> Style {
    let (value, warning, critical) =
        if warning > critical { (-value, -warning, -critical) } else { (value, warning, critical) };
    match value {
        value if value > critical => BAD,
        value if value > warning => POOR,
        _ => GOOD,
    }
}

/// A frame with entries, names left and values right.
pub fn entries(title: Line<'_>, entries: &[Entry], area: Rect, buffer: &mut Buffer) {
    let block = Block::bordered().title(title);
    let inner = block.inner(area);
    block.render(area, buffer);
    for (entry, row) in entries.iter().zip(inner.rows()) {
        let value = format!(" {}", entry.value.as_deref().unwrap_or(UNKNOWN));
        let style = if entry.value.is_some() { entry.style } else { FAINT };
        Line::styled(entry.name, FAINT).render(row, buffer);
        let value = Line::styled(value, style);
        // A long value goes over its name, which is guessed more easily than the end of a number.
        let width = u16::try_from(value.width()).unwrap_or(u16::MAX).min(row.width);
        let right = Rect { x: row.right() - width, width, ..row };
        value.render(right, buffer);
    }
}

/// A frame with lines, of which long ones go on in the next row.
pub fn lines_in(title: Line<'_>, lines: Vec<Line<'_>>, area: Rect, buffer: &mut Buffer) {
    Paragraph::new(lines)
        .wrap(Wrap { trim: false })
        .block(Block::bordered().title(title))
        .render(area, buffer);
}

/// A title: a name, and a word on where it stands.
pub fn title(name: &str, word: Option<(&'static str, Style)>) -> Line<'static> {
    let mut spans = vec![Span::raw(format!(" {name} "))];
    spans.extend(word.map(|(word, style)| Span::styled(format!("{word} "), style)));
    Line::from(spans)
}

/// The text of a frame, line by line, without what is empty at their ends.
pub fn lines(buffer: &Buffer) -> impl Iterator<Item = String> {
    buffer.area.rows().map(|row| {
        let line: String = row.columns().map(|cell| buffer[(cell.x, cell.y)].symbol().to_owned()).collect();
        line.trim_end().to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_go_both_ways() {
        assert_eq!(
            [0.96, 0.9, 0.85, 0.8, 0.5].map(|rate| judged(rate, 0.9, 0.8)),
            [GOOD, GOOD, POOR, POOR, BAD]
        );
        assert_eq!(
            [0.0, 1.0, 3.0, 5.0, 9.0].map(|wait| judged(wait, 1.0, 5.0)),
            [GOOD, GOOD, POOR, POOR, BAD]
        );
        assert_eq!([0.0, 1.0].map(|failed| judged(failed, 0.0, 0.0)), [GOOD, BAD]);
    }

    #[test]
    fn a_frame_of_entries() {
        let mut buffer = Buffer::empty(Rect::new(0, 0, 20, 5));
        let rows = [
            Entry::new("running", Some("4".into())),
            Entry::new("waiting", None),
            Entry::new("device memory", Some("12.5GiB of 16GiB".into())),
        ];
        entries(title("Requests", Some(("on", GOOD))), &rows, buffer.area, &mut buffer);
        let text: Vec<_> = lines(&buffer).collect();
        assert_eq!(
            text,
            [
                "┌ Requests on ─────┐",
                "│running          4│",
                "│waiting          –│",
                "│d 12.5GiB of 16GiB│",
                "└──────────────────┘"
            ]
        );
        // No size is too small.
        for (width, height) in [(0, 0), (1, 1), (2, 2), (3, 9), (20, 1)] {
            let mut buffer = Buffer::empty(Rect::new(0, 0, width, height));
            entries(title("Requests", None), &rows, buffer.area, &mut buffer);
            lines_in(title("Requests", None), vec![Line::raw("text")], buffer.area, &mut buffer);
        }
    }
}
