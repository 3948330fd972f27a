//! Every figure of a run: what, of which system, once per round.

use std::collections::BTreeMap;

#[derive(Clone, Debug, Default)]
pub(crate) struct Book {
    figures: BTreeMap<(&'static str, &'static str), Vec<f64>>,
}

/// Median and range of a figure's rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Book {
    pub(crate) fn note(&mut self, measure: &'static str, system: &'static str, figure: f64) {
        self.figures
            .entry((measure, system))
            .or_default()
            .push(figure);
    }

    pub(crate) fn spread(&self, measure: &'static str, system: &'static str) -> Option<Spread> {
        let mut figures = self.figures.get(&(measure, system))?.clone();
        figures.sort_by(f64::total_cmp);
        let (least, most) = (*figures.first()?, *figures.last()?);
        let (low, high) = (
            figures.get((figures.len() - 1) / 2)?,
            figures.get(figures.len() / 2)?,
        );
        Some(Spread {
            median: f64::midpoint(*low, *high),
            least,
            most,
        })
    }

    pub(crate) fn median(&self, measure: &'static str, system: &'static str) -> Option<f64> {
        Some(self.spread(measure, system)?.median)
    }

    /// CPU per request or per byte that rose by more than a tenth and beyond the spread of both.
    pub(crate) fn dearer(
        &self,
        old: &'static str,
        new: &'static str,
    ) -> Vec<(&'static str, f64, f64)> {
        const MORE: f64 = 1.10;
        let measures = self.figures.keys().filter(|(measure, system)| {
            (measure.starts_with("cpu-") || measure.ends_with("-cpu")) && *system == new
        });
        measures
            .filter_map(|(measure, _)| {
                let (before, after) = (self.spread(measure, old)?, self.spread(measure, new)?);
                let risen = after.median > before.median * MORE && after.least > before.most;
                risen.then_some((*measure, before.median, after.median))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Book;

    fn book(old: &[f64], new: &[f64]) -> Book {
        let mut book = Book::default();
        old.iter()
            .for_each(|figure| book.note("cpu-c1", "old", *figure));
        new.iter()
            .for_each(|figure| book.note("cpu-c1", "new", *figure));
        book
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_two() {
        let spread = book(&[4.0, 1.0, 2.0, 3.0], &[])
            .spread("cpu-c1", "old")
            .unwrap();
        assert_eq!((spread.median, spread.least, spread.most), (2.5, 1.0, 4.0));
    }

    #[test]
    fn a_rise_within_the_spread_is_no_regression() {
        assert!(
            book(&[10.0, 10.0, 13.0], &[12.0, 12.0, 12.0])
                .dearer("old", "new")
                .is_empty()
        );
        assert!(
            book(&[10.0, 10.0, 10.0], &[10.9, 10.9, 10.9])
                .dearer("old", "new")
                .is_empty()
        );
        let risen = book(&[10.0, 10.0, 11.0], &[12.0, 12.5, 13.0]).dearer("old", "new");
        assert_eq!(risen, [("cpu-c1", 10.0, 12.5)]);
    }

    #[test]
    fn bytes_that_cost_more_are_a_regression_as_well() {
        let mut book = Book::default();
        for (measure, risen) in [("get-h2-cpu", 2.0), ("get-h2-rate", 2.0), ("tcp-cpu", 1.0)] {
            book.note(measure, "old", 1.0);
            book.note(measure, "new", risen);
        }
        assert_eq!(book.dearer("old", "new"), [("get-h2-cpu", 1.0, 2.0)]);
    }
}
