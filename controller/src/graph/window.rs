//! Merges both sides' counts of each edge in a time window, and decides which are shown.
//!
//! A call that both proxies counted is one call. The caller's proxy knows its result for the
//! caller, so its counts are shown where it reported; the called side's counts are given beside
//! them and never added. Where only the called side reported, its counts are shown alone: also
//! where the caller reported calls to other ports of the same pods only, since one of its proxies
//! may be silent.
//!
//! The called side does not know by which Service, Service port, split or address its caller came.
//! Its counts of calls that may belong to several edges are shown for all of them together, and
//! not as those of any one.

use std::collections::{BTreeMap, HashMap};

use crds::observe::{NodeKind, Protocol};

use super::edges::EdgeRef;
use super::fold::{Folded, Routes, Row};
use super::key::NodeKey;
use super::sums::EdgeTotals;
use crate::observe::dropped_reports::DroppedReports;

/// One edge of a window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    /// What is shown.
    pub sums: EdgeTotals,
    /// What the called side counted of the same calls. Of edges that share it one holds it for
    /// all.
    pub server: Option<EdgeTotals>,
    /// Set on each of several edges that share what the called side counted.
    pub shared: Option<Shared>,
    /// Only the called side reported: the numbers shown are its own.
    pub caller_silent: bool,
    /// It is known that what the called side counted came by the edge's port. Callers can report
    /// ports that lead nowhere.
    pub port_known: bool,
}

/// Edges whose calls the called side counted and cannot distinguish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shared {
    /// The one of them that holds what was counted.
    pub held_by: EdgeRef,
    /// How many they are.
    pub edges: u32,
}

impl Counted {
    /// What the called side counted of its calls, or of those of all edges that share that; `all`
    /// are the edges that it was counted with.
    pub(crate) fn served<'a>(&'a self, all: &'a HashMap<EdgeRef, Self>) -> Option<&'a EdgeTotals> {
        match &self.shared {
            Some(shared) => all.get(&shared.held_by)?.server.as_ref(),
            None => self.server.as_ref(),
        }
    }

    /// Whether the called side reports that it served calls of proven callers by the edge's port.
    fn is_proven(&self, served: Option<&EdgeTotals>) -> bool {
        let reported = match served {
            Some(served) => self.port_known.then_some(served),
            None => self.caller_silent.then_some(&self.sums),
        };
        reported.is_some_and(|reported| {
            let served = reported.success > 0 || reported.open > 0;
            served && reported.mtls().is_none_or(|share| share > 0.0)
        })
    }

    /// Whether either side reports that calls were refused which no rule allows.
    fn has_refused(&self, served: Option<&EdgeTotals>) -> bool {
        let mut sides = std::iter::once(&self.sums).chain(served);
        sides.any(EdgeTotals::has_refused)
    }
}

/// Why something of a window is not here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Incomplete {
    /// Its last intervals are not settled, as those of every window that ends now. Nothing is lost.
    Unsettled,
    /// For this reason.
    Lost(&'static str),
}

impl Incomplete {
    /// As a sentence.
    pub(crate) fn why(self) -> &'static str {
        match self {
            Self::Unsettled => "reports of the last seconds may still come",
            Self::Lost(why) => why,
        }
    }
}

/// What was counted in a window.
#[derive(Clone, Debug, Default)]
pub(crate) struct Window {
    /// First interval, and the one after the last.
    pub intervals: (u64, u64),
    /// Why not everything of it is here.
    pub incomplete: Option<Incomplete>,
    /// Whose reports are not in it.
    pub dropped_reports: DroppedReports,
    /// Edges with calls.
    pub edges: HashMap<EdgeRef, Counted>,
    /// What workloads served.
    pub routes: Routes,
}

/// Sides of one edge's rows.
type Pair<'a> = (&'a NodeKey, &'a NodeKey);

/// Puts both sides of one stretch of time together.
pub(crate) fn edges(folded: &Folded) -> HashMap<EdgeRef, Counted> {
    let mut edges: HashMap<EdgeRef, Counted> = HashMap::new();
    let between = reported_by_callers(folded);
    let busy = folded.rows.iter().filter(|row| !row.sums.is_idle());
    for row in busy.clone().filter(|row| !row.server) {
        let counted = Counted {
            sums: row.sums.clone(),
            ..Counted::default()
        };
        edges.insert(row.edge.clone(), counted);
    }
    let (mut sets, mut served) = (Sets::default(), Vec::new());
    for row in busy.filter(|row| row.server) {
        let ways = ways(&between, row);
        let Some(first) = ways.first().copied() else {
            let counted = edges.entry(row.edge.clone()).or_default();
            counted.caller_silent = true;
            counted.sums.then(&row.sums);
            continue;
        };
        for other in ways.iter().copied() {
            sets.join(first, other);
        }
        served.push((row, first));
    }
    let several = sets.all();
    // By holder the port of the pods that all of it came to, where that is known.
    let mut ports: HashMap<&EdgeRef, Option<u16>> = HashMap::new();
    for (row, first) in served {
        let own_port = row.sums.own_port;
        let mut is_known = false;
        // Looked up again: all of them at once could be the product of what two nodes made up.
        for way in ways(&between, row) {
            if let Some(counted) = edges.get_mut(way) {
                let same_port = own_port != 0 && own_port == counted.sums.own_port;
                is_known = same_port || *way == row.edge;
                counted.port_known |= is_known;
            }
        }
        let holder = sets.head(first);
        let port = is_known.then_some(own_port);
        let all_of_it = ports.entry(holder).or_insert(port);
        if *all_of_it != port {
            *all_of_it = None;
        }
        if let Some(counted) = edges.get_mut(holder) {
            if !several.contains_key(holder) {
                take_over(counted, &row.sums);
            }
            beside(counted, &row.sums);
        }
    }
    share(&mut edges, several, &ports);
    edges
}

/// Names for each edge of a set the holder of what was counted of all of them. `ports` are those of
/// the pods that all of it came to, by holder.
fn share(
    edges: &mut HashMap<EdgeRef, Counted>,
    sets: HashMap<&EdgeRef, Vec<&EdgeRef>>,
    ports: &HashMap<&EdgeRef, Option<u16>>,
) {
    for (holder, members) in sets {
        // Where calls of another port may be among it, what was served there is known of none.
        let is_known = ports.get(holder).is_some_and(Option::is_some);
        let count = u32::try_from(members.len()).unwrap_or(u32::MAX);
        for member in members {
            if let Some(counted) = edges.get_mut(member) {
                counted.port_known &= is_known;
                counted.shared = Some(Shared {
                    held_by: holder.clone(),
                    edges: count,
                });
            }
        }
    }
}

/// Edges that no other report will change: what callers reported, and calls of callers without a
/// proxy.
pub(crate) fn sure(folded: &Folded) -> impl Iterator<Item = &EdgeRef> {
    let reported = |row: &&Row| !row.server || row.edge.key().from.kind == NodeKind::Outside;
    let rows = folded.rows.iter().filter(|row| !row.sums.is_idle());
    rows.filter(reported).map(|row| &row.edge)
}

/// Edges that only the called side reported: callers reported nothing of them, neither in `folded`
/// nor `beside` it, because one end may count a call in the interval after the other's.
pub(crate) fn only_served<'a>(folded: &'a Folded, beside: &[&Folded]) -> Vec<&'a EdgeRef> {
    let served = folded.rows.iter().filter(|row| {
        row.server && !row.sums.is_idle() && row.edge.key().from.kind != NodeKind::Outside
    });
    let mut left: Vec<&Row> = served.collect();
    for part in std::iter::once(&folded).chain(beside) {
        if left.is_empty() {
            break;
        }
        let reported = reported_by_callers(part);
        left.retain(|row| ways(&reported, row).is_empty());
    }
    left.into_iter().map(|row| &row.edge).collect()
}

/// What callers reported of their calls, by both ends.
type CallerCounts<'a> = HashMap<Pair<'a>, Vec<(&'a EdgeRef, &'a EdgeTotals)>>;

fn reported_by_callers(folded: &Folded) -> CallerCounts<'_> {
    let mut reported = CallerCounts::new();
    let busy = folded.rows.iter().filter(|row| !row.sums.is_idle());
    for row in busy.filter(|row| !row.server) {
        let pair = reported.entry(pair(&row.edge)).or_default();
        pair.push((&row.edge, &row.sums));
    }
    reported
}

fn pair(edge: &EdgeRef) -> Pair<'_> {
    let key = edge.key();
    (&key.from, &key.to)
}

/// Takes over what only the called side knows.
fn take_over(counted: &mut Counted, server: &EdgeTotals) {
    if let Some(rare) = &server.rare {
        let total = counted.sums.rare.get_or_insert_default();
        let only_server = super::sums::Rare {
            audit: rare.audit,
            reasons: Vec::new(),
            rules: rare.rules.clone(),
            routes: rare.routes.clone(),
        };
        total.take_in(&only_server);
    }
}

/// Adds what the called side counted.
fn beside(counted: &mut Counted, server: &EdgeTotals) {
    let open = counted.server.as_ref().map_or(0, |total| total.open);
    let total = counted.server.get_or_insert_default();
    total.then(server);
    total.open = total.open.saturating_add(open);
}

/// The edges of the caller's side by which what the called side counted may have come: the same
/// one, and those of the same account that lead to the same port of the pods. Of these only the
/// ones of its protocol, if there are, and then only the ones that are known to lead there, if
/// there are. None where all lead to other ports or are of other accounts.
fn ways<'a>(reported: &CallerCounts<'a>, served: &Row) -> Vec<&'a EdgeRef> {
    let Some(reported) = reported.get(&pair(&served.edge)) else {
        return Vec::new();
    };
    let own_port = served.sums.own_port;
    let account = served.edge.key().account.as_ref();
    let protocol = served.edge.key().protocol;
    let fits = |sums: &EdgeTotals| own_port == 0 || [0, own_port].contains(&sums.own_port);
    // One end may be reported by a version that sends no accounts.
    let is_by = |edge: &EdgeRef| {
        let reported = edge.key().account.as_ref();
        reported.is_none() || account.is_none() || reported == account
    };
    let is_same = |edge: &EdgeRef| *edge == served.edge;
    let mut ways: Vec<(&'a EdgeRef, bool)> = Vec::new();
    for (edge, sums) in reported {
        if is_same(edge) || (fits(sums) && is_by(edge)) {
            let same_port = own_port != 0 && own_port == sums.own_port;
            ways.push((*edge, same_port || is_same(edge)));
        }
    }
    // Several ports of a Service may lead to one of the pods.
    let speaks = |edge: &EdgeRef| may_be_same(edge.key().protocol, protocol);
    if ways.iter().any(|(edge, _)| speaks(edge)) {
        ways.retain(|(edge, _)| speaks(edge));
    }
    if ways.iter().any(|(_, is_known)| *is_known) {
        ways.retain(|(_, is_known)| *is_known);
    }
    ways.into_iter().map(|(edge, _)| edge).collect()
}

/// Whether the two ends of one call may report these protocols.
fn may_be_same(one: Protocol, other: Protocol) -> bool {
    use Protocol::{Grpc, Http2, Tcp, Tls, Unknown};
    one == other
        || matches!(
            (one, other),
            (Unknown, _) | (_, Unknown) | (Tcp, Tls) | (Tls, Tcp) | (Http2, Grpc) | (Grpc, Http2)
        )
}

/// What the edges of a window show of both ends, for sparklines.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MinuteRow {
    /// The edge.
    pub edge: EdgeRef,
    /// Calls.
    pub requests: u32,
    /// Calls that did not go well.
    pub failure: u32,
    /// Calls that their callers gave up.
    pub cancelled: u32,
    /// And [`MARK`] where the called side served calls of proven callers.
    p95: u16,
    /// And [`MARK`] where calls were refused that no rule allows.
    mtls: u16,
}

/// In a number of a row the bit that is no part of it: no byte is left for what is yes or no.
const MARK: u16 = 1 << 15;
/// In a number of a row: not measured, or not reported. All bits of a number, too.
const NOTHING: u16 = MARK - 1;
/// All of them, as a share.
const WHOLE: u16 = NOTHING - 1;

impl MinuteRow {
    /// Milliseconds.
    pub(crate) fn p95(&self) -> Option<f64> {
        number(self.p95)
    }

    /// Share of the calls over mutual TLS.
    pub(crate) fn mtls(&self) -> Option<f64> {
        number(self.mtls).map(|share| share / f64::from(WHOLE))
    }

    /// Whether the called side served calls of proven callers, on the edge's port.
    pub(crate) fn is_proven(&self) -> bool {
        self.p95 & MARK != 0
    }

    /// Whether calls were refused that no rule allows.
    pub(crate) fn has_refused(&self) -> bool {
        self.mtls & MARK != 0
    }
}

fn number(stored: u16) -> Option<f64> {
    let number = stored & NOTHING;
    (number != NOTHING).then(|| f64::from(number))
}

fn marked(number: u16, mark: bool) -> u16 {
    if mark { number | MARK } else { number }
}

// 20 000 edges have 60 of them each.
const _: () = assert!(size_of::<MinuteRow>() <= 24);

/// One minute of the history.
pub(crate) fn minute(folded: &Folded) -> Box<[MinuteRow]> {
    let all = edges(folded);
    let rows = all.iter().map(|(edge, counted)| {
        let served = counted.served(&all);
        let p95 = counted.sums.histogram().quantile(0.95);
        let p95 = p95.map_or(NOTHING, |seconds| narrowed(seconds * 1e3));
        let mtls = counted.sums.mtls().map_or(NOTHING, |share| {
            // Never all or nothing where it was not.
            let some = if share > 0.0 { 1.0 } else { 0.0 };
            narrowed((share * f64::from(WHOLE)).floor().max(some))
        });
        MinuteRow {
            edge: edge.clone(),
            requests: u32::try_from(counted.sums.requests()).unwrap_or(u32::MAX),
            failure: counted.sums.failure,
            cancelled: counted.sums.cancelled,
            p95: marked(p95, counted.is_proven(served)),
            mtls: marked(mtls, counted.has_refused(served)),
        }
    });
    let mut rows: Vec<MinuteRow> = rows.collect();
    rows.shrink_to_fit();
    rows.into()
}

fn narrowed(number: f64) -> u16 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at most 30 000 ms, or a share"
    )]
    let narrow = number.round() as u16;
    narrow.min(WHOLE)
}

/// Routes by workload.
pub(crate) fn routes_by_node(routes: &Routes) -> BTreeMap<&NodeKey, Vec<(&str, &EdgeTotals)>> {
    let mut by_node: BTreeMap<&NodeKey, Vec<(&str, &EdgeTotals)>> = BTreeMap::new();
    for ((node, route), sums) in routes {
        by_node.entry(node).or_default().push((route, sums));
    }
    for routes in by_node.values_mut() {
        routes.sort_by_key(|(route, _)| *route);
    }
    by_node
}

/// Sets of edges whose calls the called side cannot distinguish, each with the one that stands for it: the one with the least id, so that it is
/// the same in every response of every replica.
#[derive(Debug, Default)]
struct Sets<'a> {
    /// By edge one of its set with a lesser id; the one with the least has none.
    lesser: HashMap<&'a EdgeRef, &'a EdgeRef>,
}

impl<'a> Sets<'a> {
    /// The one that stands for the set of this edge.
    fn head(&mut self, edge: &'a EdgeRef) -> &'a EdgeRef {
        let mut head = edge;
        while let Some(lesser) = self.lesser.get(head).copied() {
            head = lesser;
        }
        // The next lookup finds it at once.
        if head != edge {
            self.lesser.insert(edge, head);
        }
        head
    }

    /// Makes one set of those of two edges.
    fn join(&mut self, one: &'a EdgeRef, other: &'a EdgeRef) {
        let (one, other) = (self.head(one), self.head(other));
        if one == other {
            return;
        }
        let (least, more) = if one.id() <= other.id() {
            (one, other)
        } else {
            (other, one)
        };
        self.lesser.insert(more, least);
    }

    /// All sets of several edges, each by the one that stands for it.
    fn all(&mut self) -> HashMap<&'a EdgeRef, Vec<&'a EdgeRef>> {
        let joined: Vec<&'a EdgeRef> = self.lesser.keys().copied().collect();
        let mut all: HashMap<&'a EdgeRef, Vec<&'a EdgeRef>> = HashMap::new();
        for edge in joined {
            let head = self.head(edge);
            all.entry(head).or_insert_with(|| vec![head]).push(edge);
        }
        all
    }
}

#[cfg(test)]
mod tests;
