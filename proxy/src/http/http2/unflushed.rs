//! Bounds what `h2` keeps of answers that a client does not take.
//!
//! Frames without content are written into one buffer of the connection, which `h2` empties once
//! all of it has left, and doubles where the next head does not fit. Credit bounds what bodies put
//! there, and a stream that has ended bounds nothing. So a client that takes next to nothing, and
//! sends requests for answers without a body, would have it grow for as long as it goes on. It is
//! no longer served.

use std::io;
use std::task::Poll;

/// As many heads of common size as a client has streams fit several times, and more than one
/// frame of [`super::MESH`].
const MOST: u32 = 1024 * 1024;

/// What was handed over since all of it had left.
#[derive(Debug)]
pub(super) struct Unflushed {
    /// Bytes of it that have left.
    sent: u32,
}

impl Unflushed {
    pub(super) const fn new() -> Self {
        Self { sent: 0 }
    }

    /// So many bytes were `offered` to the connection, with this outcome.
    ///
    /// # Errors
    /// When too much has come together.
    pub(super) fn note(
        &mut self,
        offered: usize,
        written: &Poll<io::Result<usize>>,
    ) -> io::Result<()> {
        let now = match written {
            Poll::Ready(Ok(written)) => *written,
            Poll::Ready(Err(_)) => return Ok(()),
            Poll::Pending => 0,
        };
        if now == offered {
            self.sent = 0;
            return Ok(());
        }
        // More than fits is more than may be.
        let bytes = |many| u32::try_from(many).unwrap_or(u32::MAX);
        self.sent = self.sent.saturating_add(bytes(now));
        if self.sent.saturating_add(bytes(offered - now)) <= MOST {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the client takes too little of its answers",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::Unflushed;
    use std::task::Poll;

    const OFFERED: usize = 16 * 1024;
    const MOST: usize = super::MOST as usize;

    #[test]
    fn client_reading_almost_nothing_is_no_longer_served() {
        let mut unflushed = Unflushed::new();
        let mut offered = OFFERED;
        let steps = (0..10_000).find(|_| {
            offered += 500;
            unflushed.note(offered, &Poll::Pending).is_err()
        });
        assert!(
            steps.is_some_and(|steps| steps >= (MOST - OFFERED) / 500 - 1),
            "{steps:?}"
        );
        // What has left of one buffer counts as well: nothing of it is free before all is.
        let mut unflushed = Unflushed::new();
        let steps = (0..10_000).find(|_| unflushed.note(OFFERED, &Poll::Ready(Ok(500))).is_err());
        assert_eq!(steps, Some((MOST - OFFERED) / 500 + 1));
    }

    #[test]
    fn client_draining_everything_occasionally_is_served_forever() {
        let mut unflushed = Unflushed::new();
        for _ in 0..1000 {
            for left in (1..=8).rev() {
                let part = Poll::Ready(Ok(OFFERED));
                unflushed.note(left * OFFERED, &part).unwrap();
            }
        }
    }
}
