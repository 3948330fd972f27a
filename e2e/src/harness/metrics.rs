//! Samples of a Prometheus text, summed by name and labels.

use std::collections::{BTreeMap, BTreeSet};

/// All samples of one scrape.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<Sample>);

#[derive(Clone, Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Samples {
    /// Reads the text format; lines that are no samples are left out.
    pub fn parse(text: &str) -> Self {
        Self(
            text.lines()
                .filter(|line| !line.starts_with('#'))
                .filter_map(sample)
                .collect(),
        )
    }

    /// The sum over all series of `name` that carry these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let fits = |sample: &&Sample| {
            sample.name == name
                && labels
                    .iter()
                    .all(|(key, value)| sample.labels.get(*key).is_some_and(|found| found == value))
        };
        // A sum of nothing would be -0.0.
        let values = self.0.iter().filter(fits).map(|sample| sample.value);
        values.fold(0.0, |sum, value| sum + value)
    }

    /// Every value of `label` in series of `name`.
    pub fn values<'a>(&'a self, name: &str, label: &str) -> BTreeSet<&'a str> {
        let named = self.0.iter().filter(|sample| sample.name == name);
        named
            .filter_map(|sample| sample.labels.get(label).map(String::as_str))
            .collect()
    }

    /// Names that occur, for messages.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.0.iter().map(|sample| sample.name.as_str()).collect();
        names.dedup();
        names
    }
}

fn sample(line: &str) -> Option<Sample> {
    let (series, value) = match line.rfind('}') {
        Some(end) => line.split_at_checked(end + 1)?,
        None => line.split_once(' ')?,
    };
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, parse_labels(labels.strip_suffix('}')?)?),
        None => (series, BTreeMap::new()),
    };
    // An exemplar or a timestamp may follow the value.
    let value = value.split_whitespace().next()?.parse().ok()?;
    Some(Sample {
        name: name.into(),
        labels,
        value,
    })
}

/// `a="x",b="y"`; values may hold commas and escaped quotes.
fn parse_labels(mut text: &str) -> Option<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    while !text.is_empty() {
        let (key, rest) = text.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = rest.char_indices();
        let end = loop {
            match chars.next()? {
                (_, '\\') => value.push(chars.next()?.1),
                (end, '"') => break end,
                (_, other) => value.push(other),
            }
        };
        labels.insert(key.trim_start_matches(',').to_owned(), value);
        text = rest.get(end + 1..)?;
    }
    Some(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_only_series_with_the_asked_labels() {
        let samples = Samples::parse(
            "# HELP weft_requests Requests\n\
             weft_requests_total{side=\"in\",to=\"a,b\"} 3\n\
             weft_requests_total{side=\"out\",to=\"say \\\"x\\\"\"} 4 1700000000\n\
             weft_up 1\n\
             nonsense\n",
        );
        assert_eq!(samples.sum("weft_requests_total", &[]), 7.0);
        assert_eq!(samples.sum("weft_requests_total", &[("side", "in")]), 3.0);
        assert_eq!(
            samples.sum("weft_requests_total", &[("to", "say \"x\"")]),
            4.0
        );
        assert_eq!(samples.sum("weft_up", &[]), 1.0);
        assert_eq!(samples.names(), ["weft_requests_total", "weft_up"]);
    }
}
