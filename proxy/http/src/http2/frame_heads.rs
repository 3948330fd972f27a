//! Finds the heads of frames in written bytes, in whatever pieces these are written.

use std::io::IoSlice;

/// What a client sends before its first frame.
pub(super) const PREFACE: usize = 24;
/// Head of a frame: length, type, flags, stream.
pub(super) const HEAD: usize = 9;
pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;

/// Where in a frame what was written ends. 16 bytes: connections are many.
#[derive(Debug)]
pub(super) struct FrameHeads {
    /// Bytes that belong to the frame whose head was written last.
    content: u32,
    /// A head that was not written whole.
    head: [u8; HEAD],
    got: u8,
}

impl FrameHeads {
    /// Of what a client writes, which begins with the preface.
    pub(super) const fn of_client() -> Self {
        Self::behind(PREFACE as u32)
    }

    /// Of what a server writes.
    pub(super) const fn of_server() -> Self {
        Self::behind(0)
    }

    const fn behind(content: u32) -> Self {
        Self {
            content,
            head: [0; HEAD],
            got: 0,
        }
    }

    /// The first `written` bytes of `parts` were written. `on_head` learns the type, the length and
    /// the stream of each frame whose head ends in them.
    pub(super) fn wrote(
        &mut self,
        parts: &[IoSlice<'_>],
        mut written: usize,
        mut on_head: impl FnMut(u8, u32, u32),
    ) {
        for part in parts {
            let now = written.min(part.len());
            self.pass(&part[..now], &mut on_head);
            written -= now;
        }
    }

    fn pass(&mut self, mut bytes: &[u8], on_head: &mut impl FnMut(u8, u32, u32)) {
        while !bytes.is_empty() {
            let content = bytes.len().min(self.content as usize);
            // No more than there is of it.
            self.content -= content as u32;
            bytes = &bytes[content..];
            let got = usize::from(self.got);
            let head = bytes.len().min(HEAD - got);
            self.head[got..][..head].copy_from_slice(&bytes[..head]);
            self.got += head as u8;
            bytes = &bytes[head..];
            if usize::from(self.got) == HEAD {
                self.got = 0;
                let [a, b, c, kind, _, d, e, f, g] = self.head;
                self.content = u32::from_be_bytes([0, a, b, c]);
                // The first bit has no meaning.
                let stream = u32::from_be_bytes([d & 0x7f, e, f, g]);
                on_head(kind, self.content, stream);
            }
        }
    }
}
