//! The terminal while something is drawn on it: keys come one by one and unseen, and
//! whatever ends the drawing puts all back.

use std::io::{IsTerminal as _, Write as _};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// Another page, which is gone afterwards, and no cursor.
const ENTER: &[u8] = b"\x1b[?1049h\x1b[?25l";
const LEAVE: &[u8] = b"\x1b[?25h\x1b[?1049l";

/// Held while drawing.
#[derive(Debug)]
pub(super) struct Terminal {
    before: Termios,
}

impl Terminal {
    /// Takes the terminal; nothing where input or output is none.
    pub(super) fn take() -> Option<Self> {
        if !std::io::stdout().is_terminal() {
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
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Whoever took the terminal away has nothing to be given back.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.before);
        let mut out = std::io::stdout();
        let _ = out.write_all(LEAVE).and_then(|()| out.flush());
    }
}
