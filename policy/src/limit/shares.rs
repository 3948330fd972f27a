//! Divides the limit of a whole Service into the quota shares of its ready pods, while pods come
//! and go.
//!
//! Every pod gets the same share while none refuses anything. A pod that refuses, and is offered
//! more than an even part, borrows from those that are offered less: each of them keeps what it
//! needs, and none goes below the lesser of that and an even part, so a caller that floods one pod
//! takes nothing from callers of another one. The pod gives back once it is offered no more than an
//! even part. A pod whose offered load is unknown, as with an older proxy, has an even part.
//!
//! A pod with a larger share uses it until it confirms the smaller one, so the larger one counts
//! until then; other shares grow only into what is proven to be free. At no time do the shares of
//! connected pods add up to more than the limit, whatever message is lost or late.
//!
//! A new pod has nothing until the others have shrunk, which takes them one round trip;
//! see [`super::Rate::unshared`]. One that is no longer ready has its part for some seconds
//! yet, because callers receive that later than the controller.
//!
//! In use: the controller calls [`Shares::offer`] and [`Shares::set_pods`] when the ready pods or
//! their offered load change, [`Shares::acknowledged`] and [`Shares::remove`] by the events of
//! streams, [`Shares::tick`] every second, and sends what each of them returns.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::offered::Offered;

/// So long a pod that is no longer ready keeps its part, unless its stream ends before:
/// callers send to it until their endpoints are renewed, which takes them a second.
pub const LEAVES: Duration = Duration::from_secs(2);
/// Of an even part a pod that is offered nothing keeps this part: the first that come are
/// served, and show that it needs more.
const KEPT_BY_IDLE: u64 = 8;

/// The shares of one limit, in thousandths of a request per its time.
#[derive(Clone, Debug)]
pub struct Shares<P> {
    whole: u64,
    pods: BTreeMap<P, Share>,
    /// Of the last message to any pod.
    number: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Share {
    /// Sent last, by the message of this number.
    sent: u64,
    number: u64,
    /// The most that the pod may be using: what it acknowledged, and all that was sent
    /// since.
    in_use: u64,
    stays: Stays,
    /// `None`: that is not known.
    offered: Option<Offered>,
    /// It has refused something, and is offered more than an even part since then.
    borrows: bool,
    /// What it is to have.
    part: u64,
}

impl Share {
    /// What it is to have before another one borrows of it.
    fn need(&self, each: u64, whole: u64) -> u64 {
        match (self.stays, self.offered) {
            (Stays::Left, _) => 0,
            (Stays::Until(_), _) => each.min(self.in_use),
            (Stays::Ready, None) => each,
            (Stays::Ready, Some(offered)) => {
                let most = if self.borrows { whole } else { each };
                offered.thousandths.max(each / KEPT_BY_IDLE).min(most)
            }
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stays {
    #[default]
    Ready,
    /// It is no longer ready: its part does not grow, and ends then.
    Until(Instant),
    /// It gets none, and is kept for what it holds.
    Left,
}

/// A share that is to be sent to a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Send<P> {
    pub pod: P,
    pub share: u64,
    /// For [`Shares::acknowledged`]: the same share may have been sent before.
    pub number: u64,
}

impl<P: Ord + Clone> Shares<P> {
    /// Of a limit of so many requests.
    #[must_use]
    pub fn new(requests: u32) -> Self {
        Self {
            whole: u64::from(requests) * 1000,
            pods: BTreeMap::new(),
            number: 0,
        }
    }

    /// The numbers of messages go on after this one. A controller that divides several limits,
    /// or one that goes and comes back, never uses a number twice.
    pub fn number_after(&mut self, number: u64) {
        self.number = self.number.max(number);
    }

    /// The pods that are ready and connected. One that is no longer among them shrinks to
    /// nothing after [`LEAVES`], and is forgotten when it confirms that.
    pub fn set_pods(&mut self, now: Instant, ready: &BTreeSet<P>) -> Vec<Send<P>> {
        for (pod, share) in &mut self.pods {
            share.stays = match share.stays {
                _ if ready.contains(pod) => Stays::Ready,
                Stays::Ready => Stays::Until(now + LEAVES),
                leaving => leaving,
            };
        }
        for pod in ready {
            self.pods.entry(pod.clone()).or_default();
        }
        self.tick(now)
    }

    /// Another controller has divided until now: the most that a pod may be using of it, and
    /// what it was given last. Before the pods are set.
    pub fn resume(&mut self, pod: &P, in_use: u64, given: u64) {
        let share = self.pods.entry(pod.clone()).or_default();
        share.in_use = share.in_use.max(in_use);
        share.sent = given;
    }

    /// What this pod is offered; `None`: that is not known. It counts from when the pods are set.
    pub fn offer(&mut self, pod: &P, offered: Option<Offered>) {
        if let Some(share) = self.pods.get_mut(pod) {
            share.offered = offered;
        }
    }

    /// Whether this pod gets no share any more, and may be using one until it confirms
    /// that.
    #[must_use]
    pub fn has_left(&self, pod: &P) -> bool {
        let share = self.pods.get(pod);
        share.is_some_and(|share| share.stays == Stays::Left)
    }

    /// Whether this pod has a share, or may be using one.
    #[must_use]
    pub fn has(&self, pod: &P) -> bool {
        self.pods.contains_key(pod)
    }

    /// What holds a pod here: what it was sent last. `None`: it has left, or never came.
    #[must_use]
    pub fn bound(&self, pod: &P) -> Option<u64> {
        let share = self.pods.get(pod)?;
        (share.stays != Stays::Left).then_some(share.sent)
    }

    /// The message by which a pod was sent something last.
    #[must_use]
    pub fn number_of(&self, pod: &P) -> Option<u64> {
        self.pods.get(pod).map(|share| share.number)
    }

    /// Goes on to what follows from the time.
    pub fn tick(&mut self, now: Instant) -> Vec<Send<P>> {
        for share in self.pods.values_mut() {
            if matches!(share.stays, Stays::Until(until) if now >= until) {
                share.stays = Stays::Left;
            }
        }
        self.reckon();
        self.divide()
    }

    /// The limit itself changed.
    pub fn set_limit(&mut self, requests: u32) -> Vec<Send<P>> {
        self.whole = u64::from(requests) * 1000;
        self.reckon();
        self.divide()
    }

    /// A pod uses what it was sent by this message. Unless that was the last one to it, this
    /// changes nothing: a larger share may be on the way. A repeated acknowledgement changes
    /// nothing, and costs nothing.
    pub fn acknowledged(&mut self, pod: &P, number: u64) -> Vec<Send<P>> {
        match self.pods.get_mut(pod) {
            Some(known) if known.number == number && known.in_use != known.sent => {
                known.in_use = known.sent;
                self.divide()
            }
            _ => Vec::new(),
        }
    }

    /// A pod's stream ended; what it holds counts no longer. It is asked again when it
    /// comes back.
    pub fn remove(&mut self, pod: &P) -> Vec<Send<P>> {
        self.pods.remove(pod);
        self.reckon();
        self.divide()
    }

    /// What connected pods may be using together at this moment.
    #[must_use]
    pub fn in_use(&self) -> u64 {
        self.pods.values().map(|share| share.in_use).sum()
    }

    /// What each pod is to have.
    fn reckon(&mut self) {
        self.forget_left();
        let whole = self.whole;
        let staying = self.pods.values_mut();
        let mut staying: Vec<&mut Share> =
            staying.filter(|share| share.stays != Stays::Left).collect();
        let mut rest = staying.len() as u64;
        let each = whole.checked_div(rest).unwrap_or(0);
        for share in &mut staying {
            let offered = share.offered.filter(|_| share.stays == Stays::Ready);
            let more = offered.filter(|offered| offered.thousandths > each);
            share.borrows = more.is_some_and(|more| share.borrows || more.refused);
            share.part = each;
        }
        if !staying.iter().any(|share| share.borrows) {
            return;
        }
        // Those that need least first: what they leave of an even part is for the others.
        staying.sort_by_key(|share| share.need(each, whole));
        let needs = staying.iter().map(|share| share.need(each, whole));
        let needs: u64 = needs.fold(0, u64::saturating_add);
        let spare = whole.saturating_sub(needs) / rest.max(1);
        let mut left = whole;
        for share in staying {
            let even = left.checked_div(rest).unwrap_or(0);
            let need = share.need(each, whole).min(even);
            share.part = need + spare;
            left -= need;
            rest -= 1;
        }
    }

    /// Forgets pods that have left and use nothing.
    fn forget_left(&mut self) {
        self.pods
            .retain(|_, share| share.stays == Stays::Ready || share.in_use > 0);
    }

    /// Shrinks pods that have too much, and lets the others grow into what is free.
    fn divide(&mut self) -> Vec<Send<P>> {
        self.forget_left();
        let mut free = self.whole.saturating_sub(self.in_use());
        let mut sends = Vec::new();
        for (pod, share) in &mut self.pods {
            let target = match share.stays {
                Stays::Ready => share.part,
                Stays::Until(_) => share.part.min(share.in_use),
                Stays::Left => 0,
            };
            let next = if target <= share.in_use {
                target
            } else {
                let grown = share.in_use + free.min(target - share.in_use);
                free -= grown - share.in_use;
                share.in_use = grown;
                grown
            };
            // What another controller sent is not acknowledged here.
            let is_unacknowledged = share.number == 0 && share.in_use > next;
            if next != share.sent || is_unacknowledged {
                self.number += 1;
                share.sent = next;
                share.number = self.number;
                sends.push(Send {
                    pod: pod.clone(),
                    share: next,
                    number: self.number,
                });
            }
        }
        sends
    }
}
