//! Netlink messages for nf_tables: their attributes, how a transaction of them is encoded, and the
//! kernel's result.
//!
//! An attribute that is too long for its length field is noted and skipped, so that the message
//! is refused as a whole and never sent in part.

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// The subsystem.
pub(super) const NFTABLES: u16 = 10;

// Message flags.
const REQUEST: u16 = 0x1;
pub(super) const ACK: u16 = 0x4;
/// All objects, not one.
const ALL: u16 = 0x300;

/// The netlink header, bytes.
pub(super) const HEADER: usize = 16;
/// The same with nfnetlink's behind it.
pub(super) const HEADERS: usize = HEADER + 4;

/// One message of a transaction.
pub(super) struct Message {
    pub(super) kind: u16,
    pub(super) flags: u16,
    /// What the message does, for people.
    pub(super) step: String,
    pub(super) attributes: Attributes,
}

/// A transaction: the messages between its begin and its end. The last one requests a result.
pub(super) fn encode(family: u8, messages: &[Message]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let nothing = Attributes::default();
    let mut sequence = 0..;
    let mut put = |kind: u16, flags: u16, family: u8, resource: u16, attributes: &Attributes| {
        let number = sequence.next().unwrap_or(u32::MAX);
        head(&mut bytes, (kind, flags), number, attributes);
        bytes.extend([family, 0]); // and version 0 of nfnetlink
        bytes.extend(resource.to_be_bytes());
        bytes.extend(&attributes.bytes);
    };
    put(BATCH_BEGIN, 0, 0, NFTABLES, &nothing);
    for (index, message) in messages.iter().enumerate() {
        let ack = if index + 1 == messages.len() { ACK } else { 0 };
        put(
            message.kind,
            message.flags | ack,
            family,
            0,
            &message.attributes,
        );
    }
    put(BATCH_END, 0, 0, NFTABLES, &nothing);
    bytes
}

/// A request for all objects of a kind, which is no transaction.
pub(super) fn list(family: u8, kind: u16, attributes: &Attributes) -> Vec<u8> {
    let mut bytes = Vec::new();
    head(&mut bytes, (kind, ALL), 0, attributes);
    bytes.extend([family, 0, 0, 0]);
    bytes.extend(&attributes.bytes);
    bytes
}

fn head(bytes: &mut Vec<u8>, (kind, flags): (u16, u16), sequence: u32, attributes: &Attributes) {
    let length = HEADERS + attributes.bytes.len();
    bytes.extend(u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((REQUEST | flags).to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes()); // the sender's port: the kernel fills it in
}

/// The kernel's result for one message of a batch.
pub(super) struct KernelAck {
    /// 0 for success, else a positive error number.
    pub(super) errno: i32,
    /// Position of the message in the batch.
    pub(super) sequence: u32,
}

impl KernelAck {
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
        let sequence = u32::from_ne_bytes(bytes.get(8..12)?.try_into().ok()?);
        let errno = i32::from_ne_bytes(bytes.get(16..20)?.try_into().ok()?);
        (i32::from(kind) == libc::NLMSG_ERROR).then_some(Self {
            errno: errno.checked_neg()?,
            sequence,
        })
    }
}

/// Set in the type of an attribute that consists of attributes. Kernels may leave it out.
pub(super) const NESTED: u16 = 0x8000;

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
