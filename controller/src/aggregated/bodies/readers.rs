//! Counts how much of the body budget each client holds, so that one client leaves some to the
//! others.
//!
//! Claims: observe-13

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// A reader, by a hash of the user's name.
pub(super) type Reader = [u8; 32];

/// Bytes by reader; a reader that holds none is not in it. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Readers(Arc<Mutex<HashMap<Reader, usize>>>);

/// Some bytes of one reader, until they go.
#[derive(Debug)]
pub(super) struct ReaderShare {
    readers: Readers,
    reader: Reader,
    bytes: usize,
}

impl Readers {
    /// So many bytes more for this reader; `None` where it would hold more than `most` with what it
    /// holds.
    pub(super) fn take(&self, reader: Reader, bytes: usize, most: usize) -> Option<ReaderShare> {
        let mut readers = self.0.lock();
        let held = readers.get(&reader).copied().unwrap_or_default();
        if held + bytes > most {
            return None;
        }
        readers.insert(reader, held + bytes);
        Some(ReaderShare {
            readers: self.clone(),
            reader,
            bytes,
        })
    }

    /// Bytes that this reader holds.
    #[cfg(test)]
    fn held(&self, reader: Reader) -> usize {
        self.0.lock().get(&reader).copied().unwrap_or_default()
    }
}

impl Drop for ReaderShare {
    fn drop(&mut self) {
        let mut readers = self.readers.0.lock();
        let held = readers.get(&self.reader).copied().unwrap_or_default();
        let left = held.saturating_sub(self.bytes);
        if left == 0 {
            readers.remove(&self.reader);
        } else {
            readers.insert(self.reader, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reader_share_is_bounded_and_forgotten_once_empty() {
        let readers = Readers::default();
        let first = readers.take([1; 32], 6, 10);
        assert!(first.is_some());
        assert!(readers.take([1; 32], 5, 10).is_none());
        let second = readers.take([1; 32], 4, 10);
        assert_eq!(readers.held([1; 32]), 10);
        assert!(readers.take([2; 32], 6, 10).is_some(), "another one");
        drop(first);
        assert_eq!(readers.held([1; 32]), 4);
        drop(second);
        assert!(readers.take([1; 32], 11, 10).is_none(), "a single one");
        assert!(readers.take([1; 32], 10, 10).is_some(), "all of his part");
        assert!(readers.0.lock().is_empty());
    }
}
