//! Raw terminal mode while `weft top` draws, restored on every exit.

use std::io::{IsTerminal as _, Write as _};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};

use crate::console::Console;
use crate::escape;
use crate::failure::Failure;
use crate::global::Global;
use crate::output::table::Table;

/// Another page, which is gone afterwards, and no cursor.
const ENTER: &[u8] = b"\x1b[?1049h\x1b[?25l";
const LEAVE: &[u8] = b"\x1b[?25h\x1b[?1049l";

/// Ends on SIGTERM, as by `timeout 60 weft top`. If the process ended at once, the terminal would
/// not be restored.
pub(super) async fn stopped() {
    let Ok(mut sigterm) = signal(SignalKind::terminate()) else {
        // Then it ends as it always did.
        return std::future::pending().await;
    };
    sigterm.recv().await;
}

/// Held while drawing.
#[derive(Debug)]
pub(super) struct Terminal {
    before: Termios,
}

impl Terminal {
    /// Takes the terminal; none if input or output is no terminal, or one table is requested.
    pub(super) fn take(global: &Global) -> Option<Self> {
        if global.output.is_some() || !std::io::stdout().is_terminal() {
            return None;
        }
        let before = tcgetattr(std::io::stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(std::io::stdin(), OptionalActions::Now, &raw).ok()?;
        let mut out = std::io::stdout();
        let terminal = Self { before };
        out.write_all(ENTER).and_then(|()| out.flush()).ok()?;
        Some(terminal)
    }

    /// Rows and columns.
    pub(super) fn size(&self) -> (usize, usize) {
        match tcgetwinsize(std::io::stdout()) {
            Ok(size) if size.ws_row > 0 && size.ws_col > 0 => {
                (usize::from(size.ws_row), usize::from(size.ws_col))
            }
            _ => (24, 80),
        }
    }

    /// Draws over what was there: lines, a table and lines. What is wider is cut.
    pub(super) fn draw(
        &self,
        console: &mut Console<'_>,
        above: &[&str],
        table: &Table,
        below: &[&str],
    ) -> Result<(), Failure> {
        let (_, columns) = self.size();
        let mut text = Vec::new();
        table.write(&mut text, false)?;
        let text = String::from_utf8_lossy(&text);
        let lines = above.iter().copied().chain(text.lines());
        let mut picture = "\x1b[H".to_owned();
        for line in lines.chain(below.iter().copied()) {
            picture.extend(escape::plain(line).chars().take(columns));
            picture.push_str("\x1b[K\r\n");
        }
        picture.push_str("\x1b[J");
        console.out.write_all(picture.as_bytes())?;
        console.out.flush()?;
        Ok(())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // If the terminal is gone, there is nothing to restore.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.before);
        let mut out = std::io::stdout();
        let _ = out.write_all(LEAVE).and_then(|()| out.flush());
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn sigterm_is_caught_so_terminal_can_be_restored() {
        let mut stopped = Box::pin(stopped());
        // It listens from the first look on.
        let early = timeout(Duration::from_millis(10), &mut stopped).await;
        assert!(early.is_err(), "no signal was sent");
        let kill = format!("kill -TERM {}", std::process::id());
        let killed = Command::new("/bin/sh").args(["-c", &kill]).status();
        assert!(killed.unwrap().success());
        let received = timeout(Duration::from_secs(60), stopped).await;
        assert!(received.is_ok(), "it goes on");
    }
}
