//! The board on a terminal.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use anyhow::{Context, bail};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::signal::unix::{SignalKind, signal};

use super::board::Board;
use super::stats::Stats;
use crate::operator_client::OperatorClient;

/// How long a key, a signal or an answer may wait for the next look.
const TICK: Duration = Duration::from_millis(50);

/// Shows the board until somebody ends it.
pub fn run(client: OperatorClient, interval: Duration) -> anyhow::Result<()> {
    if !std::io::stdout().is_terminal() {
        bail!(
            "standard output: must be a terminal for the live board, but it is none. Give --once for one frame as text"
        );
    }
    let mut board = Board::new(client.url());
    // A wrong address or token is told as by any other command, before the screen is taken.
    board.take(Ok(Stats::new(client.stats()?)));
    let ended = signals()?;
    let answers = ask(client, interval)?;
    let screen = Screen::take()?;
    screen.show(&mut board, &answers, &ended)
}

/// The terminal while it is ours. Its end gives it back, and so does a panic, by a hook of `ratatui`.
struct Screen(ratatui::DefaultTerminal);

impl Screen {
    fn take() -> anyhow::Result<Self> {
        ratatui::try_init().map(Self).context("the terminal cannot show a board")
    }

    fn show(
        mut self,
        board: &mut Board,
        answers: &Receiver<anyhow::Result<Stats>>,
        ended: &AtomicBool,
    ) -> anyhow::Result<()> {
        const LOST: &str = "the terminal is gone";
        while !ended.load(Ordering::Acquire) {
            for answer in answers.try_iter() {
                board.take(answer);
            }
            self.0.draw(|frame| frame.render_widget(&*board, frame.area())).context(LOST)?;
            if event::poll(TICK).context(LOST)? && is_end(&event::read().context(LOST)?) {
                break;
            }
        }
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// Whether somebody wants to leave. Without the terminal's own handling, Ctrl-C is a key like any other.
fn is_end(event: &Event) -> bool {
    let Event::Key(KeyEvent { code, modifiers, kind: KeyEventKind::Press, .. }) = event else { return false };
    match code {
        KeyCode::Char('q' | 'Q') | KeyCode::Esc => true,
        KeyCode::Char('c' | 'd') => modifiers.contains(KeyModifiers::CONTROL),
        _ => false,
    }
}

/// Asks again and again, until nobody listens. At most one answer waits.
fn ask(client: OperatorClient, interval: Duration) -> anyhow::Result<Receiver<anyhow::Result<Stats>>> {
    let (answers, listening) = sync_channel(1);
    let ask = move || {
        loop {
            std::thread::sleep(interval);
            if answers.send(client.stats().map(Stats::new)).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new()
        .name("asking".into())
        .spawn(ask)
        .context("the thread that asks the server cannot be started")?;
    Ok(listening)
}

/// Becomes true at the first signal to end.
fn signals() -> anyhow::Result<Arc<AtomicBool>> {
    const NONE: &str = "signals cannot be listened to";
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context(NONE)?;
    let listen = |kind| {
        let _inside = runtime.enter();
        signal(kind).context(NONE)
    };
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hangup = listen(SignalKind::hangup())?;
    let ended = Arc::new(AtomicBool::new(false));
    let told = ended.clone();
    let wait = move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
        });
        told.store(true, Ordering::Release);
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait).context(NONE)?;
    Ok(ended)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(code: KeyCode, modifiers: KeyModifiers) -> Event {
        Event::Key(KeyEvent::new(code, modifiers))
    }

    #[test]
    fn keys_that_end_it() {
        assert!(is_end(&key(KeyCode::Char('q'), KeyModifiers::NONE)));
        assert!(is_end(&key(KeyCode::Esc, KeyModifiers::NONE)));
        assert!(is_end(&key(KeyCode::Char('c'), KeyModifiers::CONTROL)));
        assert!(!is_end(&key(KeyCode::Char('c'), KeyModifiers::NONE)));
        assert!(!is_end(&key(KeyCode::Down, KeyModifiers::NONE)));
        assert!(!is_end(&Event::Resize(80, 24)));
    }
}
