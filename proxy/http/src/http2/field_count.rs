//! Counts the fields of a header block without decoding them (RFC 7541, 6).
//!
//! A field may take one byte on the wire and a hundred and sixty where it is held. `h2` bounds only
//! the bytes of a block, and keeps trailers out of reach until the message is read; so their fields
//! are counted as they arrive.
//!
//! Claims: attack-38

/// How far the reading of one header block is. Feed it the block in chunks of any size.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FieldCount {
    fields: usize,
    next: Next,
}

/// What the next byte is.
#[derive(Clone, Copy, Debug, Default)]
enum Next {
    /// The first of a field, or of a change of the table's size.
    #[default]
    Field,
    /// More of an index, with so many strings behind it.
    Index { strings: u8 },
    /// The first of a string, of which there are so many.
    String { strings: u8 },
    /// More of a string's length, and what is known of it.
    Length {
        strings: u8,
        shift: u32,
        length: usize,
    },
    /// One of so many that are left of a string.
    Content { strings: u8, left: usize },
}

/// Longer strings are longer than any block may be.
const LARGEST_SHIFT: u32 = 21;

impl FieldCount {
    /// Fields that have started.
    pub(super) const fn fields(&self) -> usize {
        self.fields
    }

    pub(super) fn feed(&mut self, mut block: &[u8]) {
        while let [byte, rest @ ..] = block {
            if let Next::Content { strings, left } = self.next {
                let now = left.min(block.len());
                block = &block[now..];
                self.next = content(strings, left - now);
                continue;
            }
            block = rest;
            self.next = self.after(*byte);
        }
    }

    fn after(&mut self, byte: u8) -> Next {
        match self.next {
            Next::Field => self.begin(byte),
            Next::Index { strings } if byte & 0x80 == 0 => strings_of(strings),
            Next::Index { strings } => Next::Index { strings },
            Next::String { strings } => {
                let length = usize::from(byte & 0x7f);
                if length == 0x7f {
                    Next::Length {
                        strings,
                        shift: 0,
                        length,
                    }
                } else {
                    content(strings, length)
                }
            }
            Next::Length {
                strings,
                shift,
                length,
            } => {
                let length = length + (usize::from(byte & 0x7f) << shift);
                if byte & 0x80 == 0 {
                    content(strings, length)
                } else {
                    // `h2` refuses what goes on after that.
                    let shift = (shift + 7).min(LARGEST_SHIFT);
                    Next::Length {
                        strings,
                        shift,
                        length,
                    }
                }
            }
            // Taken in `feed`.
            content @ Next::Content { .. } => content,
        }
    }

    /// Of the first byte: bits of the index's prefix, and the strings that follow.
    fn begin(&mut self, byte: u8) -> Next {
        let (mask, literal) = match byte {
            0x80.. => (0x7f, false),
            0x40..=0x7f => (0x3f, true),
            // The table's size: no field.
            0x20..=0x3f => {
                return if byte & 0x1f == 0x1f {
                    Next::Index { strings: 0 }
                } else {
                    Next::Field
                };
            }
            _ => (0x0f, true),
        };
        self.fields += 1;
        let index = byte & mask;
        let strings = match (literal, index) {
            (false, _) => 0,
            // A name of its own, and the value.
            (true, 0) => 2,
            (true, _) => 1,
        };
        if index == mask {
            Next::Index { strings }
        } else {
            strings_of(strings)
        }
    }
}

const fn strings_of(strings: u8) -> Next {
    if strings == 0 {
        Next::Field
    } else {
        Next::String { strings }
    }
}

const fn content(strings: u8, left: usize) -> Next {
    if left == 0 {
        strings_of(strings - 1)
    } else {
        Next::Content { strings, left }
    }
}

#[cfg(test)]
mod tests {
    use super::FieldCount;

    fn count(block: &[u8], chunk: usize) -> usize {
        let mut count = FieldCount::default();
        block.chunks(chunk).for_each(|chunk| count.feed(chunk));
        count.fields()
    }

    #[test]
    fn fields_of_every_form_are_counted_across_splits() {
        let long = [&[0x00, 1, b'n', 0x7f, 0x81, 0x01][..], &[b'v'; 256]].concat();
        let block = [
            // :method GET and :path /, by index.
            &[0x82, 0x84][..],
            // An index of more than one byte.
            &[0xff, 0x80, 0x01],
            // The table's size, in one byte and in three.
            &[0x20, 0x3f, 0xe1, 0x1f],
            // A literal with the name of entry 15, and one of entry 70.
            &[0x0f, 0x00, 3, b'a', b'b', b'c'],
            &[0x7f, 0x07, 0x81, 0x9f],
            // Names of their own, with and without values, and never indexed.
            &[0x40, 2, b'a', b'b', 0],
            &[0x10, 1, b'c', 1, b'd'],
            &long,
            &[0x82],
        ]
        .concat();
        for chunk in [1, 2, 3, 7, 1000] {
            assert_eq!(count(&block, chunk), 9, "{chunk}");
        }
    }

    #[test]
    fn lengths_without_end_neither_overflow_nor_count() {
        let endless = [&[0x00, 0x7f][..], &[0xff; 100_000]].concat();
        assert_eq!(count(&endless, 4096), 1);
        assert_eq!(count(&[0xff; 100_000], 4096), 1);
    }
}
