//! The graph's memory: every edge seen in the last weeks, with the times of its first and last
//! call.
//!
//! An operator forgets a call that happens once a day, so edges are kept for weeks. Nothing is
//! counted here. What is persisted is merged with the writes of others: the earlier first, the
//! later last, so that writing twice, late or by two replicas does no harm.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::io::{Read as _, Write as _};
use std::time::Duration;

use crds::observe::Protocol;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use model::world::ObjectKey;
use serde::{Deserialize, Serialize};

use super::edges::{EdgeRef, Edges};
use super::key::{EdgeKey, NodeKey};

/// Edges that are remembered.
pub(crate) const MAX_PERSISTED: usize = 20_000;
/// Shards that they are written down in.
pub(crate) const SHARDS: usize = 8;
/// Bytes of one shard, as it is stored. The API server takes objects of 1.5 MiB.
pub(crate) const MAX_SHARD: usize = 900 * 1024;
/// Bytes of one shard when it is read: 20 000 edges with the longest names.
const MAX_READ: u64 = 64 * 1024 * 1024;
/// Last seen is written down to the hour, so that what is written changes once an hour.
const HOUR: u64 = 3600;

/// When an edge was seen, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// For the first time.
    pub first: u64,
    /// For the last time.
    pub last: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    seen: HashMap<EdgeRef, Seen>,
    /// What was seen last before this, in seconds since 1970, is forgotten.
    forgotten_before: u64,
    /// Whether it may hold an edge twice.
    has_new: bool,
    /// Edges that went because there were too many, or that were read and cannot be.
    pub(crate) dropped: u64,
}

/// An edge of a shard.
type StoredEdge<'a> = (&'a EdgeRef, Seen);

/// A shard, and the edges that have room in it.
struct FittingShard<'a> {
    packed: Vec<u8>,
    edges: Vec<StoredEdge<'a>>,
    /// Edges that have none.
    left_out: usize,
}

/// One edge as it is written down.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    from: String,
    to: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    service: String,
    port: u16,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    backend: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    split: String,
    protocol: Protocol,
    /// Versions that know of none leave it out, and read past it, as of an account.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    rule: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    account: String,
    first: u64,
    last: u64,
}

/// Why what was written down cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    /// No gzip, or longer than what is written here.
    #[error("is no gzip of an expected size: {0}")]
    Packed(#[from] std::io::Error),
    /// No edge.
    #[error("line {line} is no edge: {reason}")]
    Line {
        /// Counts from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
}

impl Memory {
    /// An edge had calls.
    pub(crate) fn see(&mut self, edge: &EdgeRef, seen: Seen) {
        match self.seen.get_mut(edge) {
            Some(seen_edge) => {
                seen_edge.first = seen_edge.first.min(seen.first);
                seen_edge.last = seen_edge.last.max(seen.last);
            }
            None => {
                self.seen.insert(edge.clone(), seen);
                self.has_new = true;
            }
        }
    }

    /// Forgets what was not seen for so long, at most an hour late, and of too many the longest
    /// unseen of the nodes that reported most: a node that makes edges up loses its own. Returns
    /// how many those were.
    pub(crate) fn tidy(&mut self, now: u64, retention: Duration) -> usize {
        // What was read was seen at some time of the hour that is recorded. A whole hour goes
        // at once, so that all replicas remember the same.
        let first = now.saturating_sub(retention.as_secs()) / HOUR * HOUR;
        self.forgotten_before = first;
        self.seen.retain(|_, seen| seen.last >= first);
        // Looking through all takes long, and nothing is to be taken over where none is new.
        if std::mem::take(&mut self.has_new) {
            self.take_over_accountless();
        }
        let over = self.seen.len().saturating_sub(MAX_PERSISTED);
        if over > 0 {
            for edge in self.surplus(over) {
                self.seen.remove(&edge);
            }
            self.dropped += over as u64;
        }
        over
    }

    /// What versions without accounts remembered is the same calls as those whose account is known
    /// since: their first call is taken over, or each would be an edge twice.
    fn take_over_accountless(&mut self) {
        let all = self.seen.iter();
        let accountless = all.filter(|(edge, _)| edge.key().lacks_account());
        let accountless: HashMap<AccountlessEdge<'_>, (&EdgeRef, u64)> = accountless
            .map(|(edge, seen)| (AccountlessEdge(edge.key()), (edge, seen.first)))
            .collect();
        if accountless.is_empty() {
            return;
        }
        let mut stored: Vec<(EdgeRef, u64, EdgeRef)> = Vec::new();
        for edge in self.seen.keys().filter(|edge| edge.key().account.is_some()) {
            if let Some((older, first)) = accountless.get(&AccountlessEdge(edge.key())) {
                stored.push((edge.clone(), *first, (*older).clone()));
            }
        }
        for (edge, first, older) in stored {
            if let Some(seen_edge) = self.seen.get_mut(&edge) {
                seen_edge.first = seen_edge.first.min(first);
            }
            self.seen.remove(&older);
        }
    }

    /// So many edges, of the nodes that reported most.
    fn surplus(&self, over: usize) -> Vec<EdgeRef> {
        let mut by_node: HashMap<&NodeKey, Vec<(u64, &EdgeRef)>> = HashMap::new();
        for (edge, seen) in &self.seen {
            by_node
                .entry(edge.by())
                .or_default()
                .push((seen.last, edge));
        }
        let counts: Vec<usize> = by_node.values().map(Vec::len).collect();
        let most = level(counts, MAX_PERSISTED);
        let by_last = |one: &(u64, &EdgeRef), other: &(u64, &EdgeRef)| {
            (one.0, one.1.id()).cmp(&(other.0, other.1.id()))
        };
        let mut beyond: Vec<(u64, &EdgeRef)> = Vec::new();
        let mut next: Vec<(u64, &EdgeRef)> = Vec::new();
        for mut edges in by_node.into_values().filter(|edges| edges.len() >= most) {
            edges.sort_unstable_by(by_last);
            let past = edges.len() - most;
            next.extend(edges.get(past));
            beyond.extend(edges.drain(..past));
        }
        // Of nodes with as many the longest unseen edge goes.
        next.sort_unstable_by(by_last);
        let surplus = beyond.into_iter().chain(next).take(over);
        surplus.map(|(_, edge)| edge.clone()).collect()
    }

    /// When an edge was seen.
    pub(crate) fn get(&self, edge: &EdgeRef) -> Option<Seen> {
        self.seen.get(edge).copied()
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&EdgeRef, Seen)> {
        self.seen.iter().map(|(edge, seen)| (edge, *seen))
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.seen.len()
    }

    /// What is persisted as one of [`SHARDS`] shards, each edge always in the same one. What does
    /// not fit into its shard is skipped, the longest unseen first; with how many edges those are.
    pub(crate) fn shard(&self, at: usize) -> Result<(Vec<u8>, usize), std::io::Error> {
        let shard = self.fitting(at)?;
        Ok((shard.packed, shard.left_out))
    }

    fn fitting(&self, at: usize) -> Result<FittingShard<'_>, std::io::Error> {
        let mut shard: Vec<StoredEdge<'_>> = self
            .iter()
            .filter(|(edge, _)| shard_of(edge) == at)
            .collect();
        shard.sort_by_cached_key(|(edge, seen)| {
            (std::cmp::Reverse(seen.last / HOUR), edge.id().to_owned())
        });
        let all = shard.len();
        loop {
            let packed = pack(&shard)?;
            if packed.len() <= MAX_SHARD {
                return Ok(FittingShard {
                    packed,
                    left_out: all - shard.len(),
                    edges: shard,
                });
            }
            shard.truncate(shard.len() * 3 / 4);
        }
    }

    /// Every shard.
    #[cfg(test)]
    pub(crate) fn shards(&self) -> Result<Vec<Vec<u8>>, std::io::Error> {
        let shard = |at| self.shard(at).map(|(packed, _)| packed);
        (0..SHARDS).map(shard).collect()
    }

    /// Takes in what was written down, but for edges of nodes that cannot be. Returns how many
    /// edges there were.
    ///
    /// # Errors
    /// When it is not what [`Self::shard`] makes; then nothing of it is taken.
    pub(crate) fn read(&mut self, shard: &[u8], edges: &mut Edges) -> Result<usize, Unreadable> {
        let read = unpack(shard)?;
        let count = read.len();
        // What is forgotten is not taken in again, or it would be written down for ever.
        let first = self.forgotten_before;
        for (key, seen) in read.into_iter().filter(|(_, seen)| seen.last >= first) {
            if !(key.from.can_be() && key.to.can_be()) {
                self.dropped += 1;
                continue;
            }
            let by = key.teller().clone();
            if let Some(edge) = edges.get(key, &by) {
                self.see(&edge, seen);
            }
        }
        self.take_over_accountless();
        Ok(count)
    }

    /// Whether calls before `settled` are known here that this shard, which was read, lacks. What
    /// came later is reported to every replica. What has no room is not lacking: two replicas with
    /// more than fits would write over each other for ever.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) fn exceeds(
        &self,
        at: usize,
        shard: &[u8],
        settled: u64,
    ) -> Result<bool, Unreadable> {
        let stored: HashMap<EdgeKey, Seen> = unpack(shard)?.into_iter().collect();
        let mut here = self.fitting(at)?.edges.into_iter();
        Ok(here.any(|(edge, seen)| match stored.get(edge.key()) {
            None => seen.last < settled,
            Some(stored) => {
                let began = seen.first < stored.first && seen.first < settled;
                let ended = seen.last / HOUR > stored.last / HOUR && seen.last < settled;
                began || ended
            }
        }))
    }
}

/// The shard that an edge stands in.
fn shard_of(edge: &EdgeRef) -> usize {
    let digit = edge.id().bytes().last().unwrap_or_default();
    usize::from(digit) % SHARDS
}

/// An edge without its account.
struct AccountlessEdge<'a>(&'a EdgeKey);

impl PartialEq for AccountlessEdge<'_> {
    fn eq(&self, other: &Self) -> bool {
        let (one, other) = (self.0, other.0);
        one.from == other.from
            && one.to == other.to
            && one.service == other.service
            && one.port == other.port
            && one.backend == other.backend
            && one.split == other.split
            && one.rule == other.rule
            && one.protocol == other.protocol
    }
}

impl Eq for AccountlessEdge<'_> {}

impl Hash for AccountlessEdge<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let key = self.0;
        (&key.from, &key.to, &key.service, key.port).hash(state);
        (&key.backend, &key.split, &key.rule, key.protocol).hash(state);
    }
}

/// The least bound for each with which all together still have `all`.
fn level(mut counts: Vec<usize>, all: usize) -> usize {
    counts.sort_unstable();
    let (mut left, mut nodes) = (all, counts.len());
    for count in counts {
        let each = left.div_ceil(nodes.max(1));
        if count >= each {
            return each;
        }
        left -= count;
        nodes -= 1;
    }
    usize::MAX
}

fn pack(edges: &[StoredEdge<'_>]) -> Result<Vec<u8>, std::io::Error> {
    // No time and no name in the header: the same edges are the same bytes.
    let mut packer = GzEncoder::new(Vec::new(), Compression::default());
    for (edge, seen) in edges {
        serde_json::to_writer(&mut packer, &Line::of(edge.key(), *seen))?;
        packer.write_all(b"\n")?;
    }
    packer.finish()
}

/// What [`pack`] wrote.
fn unpack(shard: &[u8]) -> Result<Vec<(EdgeKey, Seen)>, Unreadable> {
    let mut text = String::new();
    let mut unpacked = GzDecoder::new(shard).take(MAX_READ);
    unpacked.read_to_string(&mut text)?;
    let mut read = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let bad = |reason: String| Unreadable::Line {
            line: at + 1,
            reason,
        };
        let line: Line = serde_json::from_str(line).map_err(|error| bad(error.to_string()))?;
        let seen = Seen {
            first: line.first,
            last: line.last.max(line.first),
        };
        let key = line
            .key()
            .ok_or_else(|| bad("one of its ends is no node".to_owned()))?;
        read.push((key, seen));
    }
    Ok(read)
}

impl Line {
    fn of(key: &EdgeKey, seen: Seen) -> Self {
        let text = |key: &Option<ObjectKey>| key.as_ref().map(ToString::to_string);
        Self {
            from: key.from.to_string(),
            to: key.to.to_string(),
            service: text(&key.service).unwrap_or_default(),
            port: key.port,
            backend: text(&key.backend).unwrap_or_default(),
            split: text(&key.split).unwrap_or_default(),
            rule: key.rule.as_deref().unwrap_or_default().to_owned(),
            protocol: key.protocol,
            account: text(&key.account).unwrap_or_default(),
            first: seen.first,
            last: seen.last / HOUR * HOUR,
        }
    }

    fn key(&self) -> Option<EdgeKey> {
        let object = |text: &str| {
            let (namespace, name) = text.split_once('/')?;
            Some(ObjectKey::new(namespace, name))
        };
        Some(EdgeKey {
            from: NodeKey::parse(&self.from)?,
            to: NodeKey::parse(&self.to)?,
            service: object(&self.service),
            port: self.port,
            backend: object(&self.backend),
            split: object(&self.split),
            rule: (!self.rule.is_empty()).then(|| self.rule.as_str().into()),
            protocol: self.protocol,
            account: object(&self.account),
        })
    }
}

#[cfg(test)]
mod tests;
