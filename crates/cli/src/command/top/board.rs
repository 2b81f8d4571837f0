//! The board: what it knows, and where it stands on the screen.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Row, Table, Widget};

use super::comparison::{Goal, Measure, Standing, Unit};
use super::draw::{self, BAD, FAINT, GOOD, POOR, UNKNOWN};
use super::history::History;
use super::stats::Stats;
use super::{panels, state};
use crate::failure;

/// Rows of the comparison, of what is served, and of the features, with their frames.
const COMPARISON: u16 = 6;
const SERVED: u16 = 6;
const FEATURES: u16 = 7;

/// Letters of a word that seldom has more.
const LONG_WORD: usize = 16;

/// What is shown.
#[derive(Debug)]
pub struct Board {
    url: String,
    history: History,
    /// Why the last question had no answer.
    failure: Option<String>,
}

impl Board {
    /// Of a server that has not been asked yet.
    pub fn new(url: &str) -> Self {
        Self { url: url.to_owned(), history: History::default(), failure: None }
    }

    /// Takes an answer, or why there is none. What was said before stays on the board.
    pub fn take(&mut self, answer: anyhow::Result<Stats>) {
        match answer {
            Ok(stats) => {
                self.failure = None;
                self.history.push(stats);
            }
            Err(error) => self.failure = Some(failure::message(&error)),
        }
    }

    /// Rows that show everything at this width; a few more where words are long.
    pub fn height(&self, width: u16) -> u16 {
        // Lines break between words, so that a row may be short by one.
        let row = usize::from(width).saturating_sub(2).saturating_sub(LONG_WORD).max(1);
        let rows: usize = self.state().iter().map(|line| line.width().div_ceil(row).max(1)).sum();
        (1 + COMPARISON + SERVED + FEATURES + 2).saturating_add(u16::try_from(rows).unwrap_or(u16::MAX))
    }

    /// Why there is no answer, and what the last one said in sentences.
    fn state(&self) -> Vec<Line<'_>> {
        let mut lines: Vec<Line<'_>> = Vec::new();
        lines.extend(self.failure.as_deref().map(|failure| Line::styled(failure, BAD)));
        lines.extend(self.latest().map(state::lines).unwrap_or_default());
        lines
    }

    fn latest(&self) -> Option<&Stats> {
        self.history.latest()
    }

    fn header(&self) -> Line<'_> {
        let status = self.latest().and_then(|stats| stats.text("/status"));
        let (status, style) = match (&self.failure, status) {
            (Some(_), _) => ("no answer", BAD),
            (None, Some("running")) => ("running", GOOD),
            (None, Some("device_lost")) => ("device lost", BAD),
            (None, Some(other)) => (other, POOR),
            (None, None) => ("unknown", POOR),
        };
        let uptime = self.latest().map(|stats| format!("  up {}", time(stats.uptime())));
        Line::from(vec![
            Span::styled("bessemer", Style::new().add_modifier(Modifier::BOLD)),
            Span::raw(format!("  {}  ", self.url)),
            Span::styled(status, style),
            Span::raw(uptime.unwrap_or_default()),
        ])
    }
}

impl Widget for &Board {
    fn render(self, area: Rect, buffer: &mut Buffer) {
        let rows = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(COMPARISON),
            Constraint::Length(SERVED),
            Constraint::Length(FEATURES),
            Constraint::Min(0),
        ]);
        let [header, comparison, served, features, below] = rows.areas(area);
        self.header().render(header, buffer);
        draw_comparison(&measures(&self.history), comparison, buffer);
        let [left, right] = Layout::horizontal([Constraint::Fill(1); 2]).areas(served);
        draw::entries(draw::title("Requests", None), &panels::requests(&self.history), left, buffer);
        draw::entries(draw::title("Memory", None), &panels::memory(&self.history), right, buffer);
        let columns = Layout::horizontal([Constraint::Fill(1); 3]).areas(features);
        let [pool, transfers, ring]: [Rect; 3] = columns;
        for (name, feature, entries, area) in [
            ("Memory pool", "memory_pool", panels::pool(&self.history), pool),
            ("Transfers", "blit_queue", panels::transfers(&self.history), transfers),
            ("Command ring", "command_buffer_ring", panels::ring(&self.history), ring),
        ] {
            let word = self.latest().and_then(|stats| standing(stats, feature));
            draw::entries(draw::title(name, word), &entries, area, buffer);
        }
        draw::lines_in(draw::title("State", None), self.state(), below, buffer);
    }
}

/// Where a feature stands.
fn standing(stats: &Stats, feature: &str) -> Option<(&'static str, Style)> {
    let status = state::features(stats).find(|status| status.text("/feature") == Some(feature))?;
    Some(match (status.text("/latched"), status.flag("/active"), status.flag("/wanted")) {
        (Some(_), _, _) => ("failed", BAD),
        (None, Some(true), _) => ("on", GOOD),
        (None, _, Some(true)) => ("waiting", POOR),
        _ => ("off", FAINT),
    })
}

/// What is compared with the plain path. The goals are those of docs/top.md.
fn measures(history: &History) -> [Measure; 3] {
    let metal = |name: &str| format!("/metal_optimizations/{name}");
    let number = |place: &str| history.latest().and_then(|stats| stats.number(place));
    let first_token = |which: &str| {
        let place = |what: &str| format!("/serving/{which}/{what}");
        (place("sum_seconds"), place("count"))
    };
    let per_nano = history.mean("/engine/generated_tokens", "/engine/step_nanos");
    let busy = history.mean(&metal("command_buffer_ring/busy_ns"), &metal("command_buffer_ring/span_ns"));
    let (sum, count) = first_token("time_to_first_token");
    let current = history.mean(&sum, &count);
    let (sum, count) = first_token("time_to_first_token_without_blit");
    let plain = number(&count).filter(|count| *count > 0.0).zip(number(&sum)).map(|(count, sum)| sum / count);
    [
        Measure {
            name: "Throughput",
            unit: Unit::TokensPerSecond,
            goal: Goal::AtLeast(1.40),
            baseline: None,
            current: per_nano.map(|rate| rate * 1e9),
            ratio: number(&metal("guard/figures/speedup")).or_else(|| number(&metal("verdict/speedup"))),
        },
        Measure {
            name: "Time to first token",
            unit: Unit::Milliseconds,
            goal: Goal::AtMost(0.85),
            baseline: plain.map(|seconds| seconds * 1e3),
            current: current.map(|seconds| seconds * 1e3),
            ratio: None,
        },
        Measure {
            name: "GPU utilisation",
            unit: Unit::Percent,
            goal: Goal::More(0.05),
            baseline: None,
            current: busy.map(|share| share.min(1.0)),
            ratio: None,
        },
    ]
}

fn draw_comparison(measures: &[Measure], area: Rect, buffer: &mut Buffer) {
    let unknown = || UNKNOWN.to_owned();
    let rows = measures.iter().map(|measure| {
        let shown = |value: Option<f64>| value.map_or_else(unknown, |value| measure.unit.show(value));
        let style = match measure.standing() {
            Some(Standing::Reached) => GOOD,
            Some(Standing::Better) => POOR,
            Some(Standing::Worse) => BAD,
            None => FAINT,
        };
        let cell = |text: String| Cell::from(Line::raw(text).right_aligned());
        Row::new([
            Cell::from(measure.name),
            cell(shown(measure.baseline)),
            cell(shown(measure.current)),
            cell(measure.target()),
            cell(measure.shown_improvement().unwrap_or_else(unknown)).style(style),
        ])
    });
    let heading = ["", "Baseline", "Current", "Target", "Improvement"];
    let heading = Row::new(heading.map(|name| Cell::from(Line::styled(name, FAINT).right_aligned())));
    let widths = [
        Constraint::Length(20),
        Constraint::Fill(1),
        Constraint::Fill(1),
        Constraint::Fill(1),
        Constraint::Fill(1),
    ];
    let title = draw::title("Against the plain path", None);
    let table = Table::new(rows, widths).header(heading).block(Block::bordered().title(title));
    Widget::render(table, area, buffer);
}

/// A length of time in its two largest units.
fn time(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    let (days, hours, minutes, rest) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60, whole % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{rest} s"),
        (0, 0, _) => format!("{minutes} min {rest} s"),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use serde_json::{Value, json};

    /// What a server said while it served four requests at once, and two seconds later.
    const RECORDED: [&str; 2] = [include_str!("recorded/first.json"), include_str!("recorded/second.json")];

    fn recorded() -> [Value; 2] {
        RECORDED.map(|text| serde_json::from_str(text).unwrap())
    }

    fn board(answers: impl IntoIterator<Item = Value>) -> Board {
        let mut board = Board::new("http://127.0.0.1:9464");
        answers.into_iter().for_each(|answer| board.take(Ok(Stats::new(answer))));
        board
    }

    /// The board on a terminal.
    fn screen(board: &Board, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| frame.render_widget(board, frame.area())).unwrap();
        draw::lines(terminal.backend().buffer()).map(|line| line + "\n").collect()
    }

    #[test]
    fn a_working_server() {
        insta::assert_snapshot!(screen(&board(recorded()), 80, 24));
    }

    #[test]
    fn a_rate_is_what_has_grown_in_the_time_between() {
        let [first, second] = recorded();
        let number = |place: &str| {
            let of = |answer: &Value| answer.pointer(place).unwrap().as_f64().unwrap();
            of(&second) - of(&first)
        };
        let rate = number("/engine/generated_tokens") / number("/uptime_seconds");
        let busy = number("/engine/generated_tokens") / number("/engine/step_nanos") * 1e9;
        let text = screen(&board([first.clone(), second.clone()]), 100, 30);
        assert!(rate > 1.0 && text.contains(&format!(" {rate:.1} tok/s")), "{rate} in\n{text}");
        // Steps were under way all the time.
        assert!(
            (busy / rate - 1.0).abs() < 0.05 && text.contains(&format!(" {busy:.1} tok/s")),
            "{busy} in\n{text}"
        );
    }

    #[test]
    fn a_server_that_loads_has_no_figures() {
        let loading = json!({
            "status": "loading", "uptime_seconds": 0.5, "engine": null, "serving": null, "metal_optimizations": null,
        });
        let text = screen(&board([loading]), 80, 24);
        assert!(text.contains("loading  up 0 s"), "{text}");
        assert!(text.contains("nothing is told before the model is loaded"), "{text}");
        assert!(text.matches(UNKNOWN).count() >= 20, "{text}");
    }

    #[test]
    fn what_was_said_stays_when_nobody_answers() {
        let mut board = board(recorded());
        board.take(Err(anyhow::anyhow!("connection refused").context("http://127.0.0.1:9464")));
        let text = screen(&board, 100, 30);
        assert!(
            text.contains("no answer") && text.contains("http://127.0.0.1:9464: connection refused"),
            "{text}"
        );
        let [_, last] = recorded();
        let finished = last["engine"]["finished"].as_u64().unwrap();
        assert!(text.contains(&format!("{finished} done")), "{text}");
        board.take(Ok(Stats::new(last)));
        assert!(!screen(&board, 100, 30).contains("no answer"));
    }

    #[test]
    fn everything_fits_into_the_height_that_it_asks_for() {
        let mut board = board(recorded());
        board.take(Err(anyhow::anyhow!("a reason of many words. ".repeat(20) + "THE-END")));
        let text = screen(&board, 100, board.height(100));
        assert!(text.contains("THE-END"), "{text}");
    }

    #[test]
    fn no_answer_and_no_size_makes_it_fail() {
        let odd = [json!(null), json!(7), json!([]), json!({"status": 7, "engine": "none"}), {
            let mut other = recorded()[1].clone();
            other["metal_optimizations"]["features"] =
                json!([{"feature": "memory_pool", "latched": "\u{1b}[2J\nno"}]);
            other["metal_optimizations"]["memory"] = json!({"budget": 1e300, "weights": -4, "kv_cache": "x"});
            other["uptime_seconds"] = json!(-1e300);
            other
        }];
        for answer in odd {
            let board = board([answer.clone(), answer]);
            for (width, height) in [(0, 0), (1, 1), (3, 2), (20, 9), (79, 23), (80, 24), (300, 100)] {
                let text = screen(&board, width, height);
                assert!(!text.contains('\u{1b}'), "{text:?}");
            }
        }
    }

    #[test]
    fn lengths_of_time() {
        let shown = [-1.0, 59.9, 60.0, 3_725.0, 90_000.0].map(time);
        assert_eq!(shown, ["0 s", "59 s", "1 min 0 s", "1 h 2 min", "1 d 1 h"]);
        assert_eq!(time(f64::MAX).split(' ').count(), 4);
    }
}
