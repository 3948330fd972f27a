//! Attributes of netlink messages, encoded as they are put together.
//!
//! An attribute that is too long for its length field is noted and skipped, so that the message
//! is refused as a whole and never sent in part.

/// Netlink attributes in their encoded form: length, type, value, padding.
#[derive(Default)]
pub(super) struct Attributes {
    pub(super) bytes: Vec<u8>,
    /// Something in it is too long for its length field, and is skipped.
    pub(super) too_long: bool,
}

impl Attributes {
    /// Called from a hundred places, each of which would hold it: that made 46 KiB of the
    /// program out of code that runs once in a pod's life.
    #[inline(never)]
    pub(super) fn put(mut self, kind: u16, value: &[u8]) -> Self {
        const HEADER: usize = 4;
        let Ok(length) = u16::try_from(HEADER + value.len()) else {
            self.too_long = true;
            return self;
        };
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    pub(super) fn text(self, kind: u16, text: &str) -> Self {
        self.put(kind, &[text.as_bytes(), &[0]].concat())
    }

    pub(super) fn number(self, kind: u16, number: u32) -> Self {
        self.put(kind, &number.to_be_bytes())
    }

    #[inline(never)]
    pub(super) fn nest(self, kind: u16, inside: Self) -> Self {
        const NESTED: u16 = 0x8000;
        let Self { bytes, too_long } = inside;
        let mut outside = self.put(kind | NESTED, &bytes);
        outside.too_long |= too_long;
        outside
    }

    #[inline(never)]
    pub(super) fn append(mut self, other: &Self) -> Self {
        self.bytes.extend(&other.bytes);
        self.too_long |= other.too_long;
        self
    }
}
