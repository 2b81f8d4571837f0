//! `bessemer top`: what a running server does, and what its optimisations are worth, on a board that keeps up.
//!
//! - **Nothing is invented**: what the server does not tell is a dash, and so is a baseline that nobody measured.
//! - **It reads what is there** ([`stats`]): another version has fewer or more figures, and the board stands.
//! - **The asking is a thread of its own** ([`live`]): keys act at once, however slow the server is.

mod board;
mod comparison;
mod draw;
mod history;
mod live;
mod panels;
mod state;
mod stats;

use std::time::Duration;

use clap::Args;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::widgets::Widget;

use self::board::Board;
use self::stats::Stats;
use crate::operator_client::{OperatorArguments, OperatorClient};
use crate::{output, time_span};

const AFTER_HELP: &str = "\
Examples:
  bessemer top
  BESSEMER_ADMIN_TOKEN=secret bessemer top --url http://10.0.0.7:9464
  bessemer top --once | grep Throughput

q, Escape or Ctrl-C ends it. What the figures are: docs/top.md.";

/// Columns of a frame that is printed.
const PRINTED_WIDTH: u16 = 100;

/// Shows a running server's figures, and how they compare with the plain path, on a live board.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Top {
    /// Time between two looks.
    #[arg(short, long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    interval: Duration,
    /// Look twice, print one frame as text, and end.
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    operator: OperatorArguments,
}

fn interval(text: &str) -> Result<Duration, String> {
    let time = time_span::parse(text)?;
    let sensible = Duration::from_millis(100)..=Duration::from_secs(60);
    if sensible.contains(&time) { Ok(time) } else { Err("must be 100ms to 60s".to_owned()) }
}

impl Top {
    /// Does it.
    pub fn run(self) -> anyhow::Result<()> {
        let client = OperatorClient::new(self.operator)?;
        if !self.once {
            return live::run(client, self.interval);
        }
        let mut board = Board::new(client.url());
        board.take(Ok(Stats::new(client.stats()?)));
        std::thread::sleep(self.interval);
        board.take(Ok(Stats::new(client.stats()?)));
        output::print(&text(&board))
    }
}

/// The board as plain text.
fn text(board: &Board) -> String {
    let area = Rect::new(0, 0, PRINTED_WIDTH, board.height(PRINTED_WIDTH));
    let mut buffer = Buffer::empty(area);
    board.render(area, &mut buffer);
    draw::lines(&buffer).map(|line| format!("{line}\n")).collect()
}
