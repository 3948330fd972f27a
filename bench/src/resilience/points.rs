//! What is measured, point by point, and what must come out.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use super::cluster::{Asked, Pod};
use super::envoy::Extra;
use super::generator::Load;
use super::scenario::{Layout, Mesh, Scenario};
use crate::curves::Panel;

pub(super) mod chain;
pub(super) mod outage;
pub(super) mod overload;
pub(super) mod zones;

/// Columns of every table.
pub(super) const SYSTEMS: usize = 3;

/// The programs, and how long everything takes.
#[derive(Clone, Debug)]
pub(super) struct Bench {
    pub(super) weft: PathBuf,
    pub(super) envoy: PathBuf,
    /// For what the programs read and write.
    pub(super) folder: PathBuf,
    /// A run whether everything works: these are no results.
    pub(super) short: bool,
    /// Which systems take part, by their columns.
    pub(super) columns: [bool; SYSTEMS],
}

impl Bench {
    /// Measures Weft, Envoy with Istio's defaults, and Envoy with more, one after the other.
    pub(super) fn each<T>(
        &self,
        more: Extra,
        measure: impl Fn(&Mesh) -> Result<T>,
    ) -> Result<[Option<T>; SYSTEMS]> {
        let meshes = [
            Mesh::Weft(self.weft.clone()),
            Mesh::Envoy(self.envoy.clone(), Extra::default()),
            Mesh::Envoy(self.envoy.clone(), more),
        ];
        let mut measured = [None, None, None];
        for ((mesh, wanted), one) in meshes.iter().zip(self.columns).zip(&mut measured) {
            if wanted {
                *one = Some(measure(mesh)?);
            }
        }
        Ok(measured)
    }

    /// The same without those whose column is not among these.
    pub(super) fn some_of(&self, columns: [bool; SYSTEMS]) -> Self {
        let both = [0, 1, 2].map(|at| self.columns[at] && columns[at]);
        Self {
            columns: both,
            ..self.clone()
        }
    }

    pub(super) fn start(&self, mesh: &Mesh, pods: &[Pod], requested: Asked) -> Result<Scenario> {
        let layout = Layout { pods, requested };
        let folder = self.folder.join("scenario");
        Scenario::start(mesh, &self.weft, layout, &folder)
    }

    /// So long, or a part of it in a short run.
    pub(super) fn seconds(&self, seconds: u64) -> Duration {
        let short = seconds.div_ceil(5).min(6);
        Duration::from_secs(if self.short { short } else { seconds })
    }
}

/// How Weft stands to a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BoundResult {
    Met,
    Missed,
    /// The proxy reports that it does not carry this out yet.
    NotInForce,
    /// Only a figure.
    None,
}

impl BoundResult {
    pub(super) const fn of(met: bool) -> Self {
        if met { Self::Met } else { Self::Missed }
    }
}

/// One line of a table.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) what: String,
    pub(super) bound: &'static str,
    /// Of each system; `None`: it was not asked.
    pub(super) results: [Option<String>; SYSTEMS],
    pub(super) bound_result: BoundResult,
}

/// One section of the page.
#[derive(Clone, Debug)]
pub(super) struct Section {
    pub(super) title: &'static str,
    pub(super) how: String,
    /// What the third system has more.
    pub(super) third: &'static str,
    pub(super) rows: Vec<Row>,
    pub(super) picture: Option<Picture>,
}

#[derive(Clone, Debug)]
pub(super) struct Picture {
    pub(super) file: &'static str,
    pub(super) title: &'static str,
    pub(super) unit: &'static str,
    pub(super) sizes: Vec<f64>,
    pub(super) panels: Vec<Panel>,
}

/// A share as a table has it: rounded down, so that 100 % means all.
pub(super) fn percent(share: f64) -> String {
    if share >= 1.0 {
        return "100 %".to_owned();
    }
    format!("{:.2} %", (share * 1e4).floor() / 100.0)
}

pub(super) fn millis(time: Duration) -> String {
    format!("{:.0} ms", time.as_secs_f64() * 1e3)
}

/// A row of what every system did, in which Weft must meet the bound, if there is one.
pub(super) fn row<T>(
    what: String,
    bound: &'static str,
    values: &[Option<T>; SYSTEMS],
    text: impl Fn(&T) -> String,
    met: impl Fn(&T) -> bool,
) -> Row {
    Row {
        what,
        bound,
        results: values.each_ref().map(|value| value.as_ref().map(&text)),
        bound_result: match &values[0] {
            Some(weft) if !bound.is_empty() => BoundResult::of(met(weft)),
            _ => BoundResult::None,
        },
    }
}

/// A load of all callers together, at so many calls per second.
pub(super) fn shared(load: Load, callers: usize) -> Load {
    Load {
        rate: load.rate / callers as f64,
        ..load
    }
}

#[cfg(test)]
mod tests {
    use super::percent;

    #[test]
    fn almost_all_is_not_all() {
        assert_eq!(percent(1.0), "100 %");
        assert_eq!(percent(0.999_99), "99.99 %");
        assert_eq!(percent(0.0), "0.00 %");
    }
}
