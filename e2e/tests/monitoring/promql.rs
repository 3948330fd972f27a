//! Which metrics, labels and values a query names. Prometheus itself validates its syntax,
//! in the tier `prometheus`; this only finds names.

/// Words that are no metric although nothing opens behind them.
const WORDS: [&str; 14] = [
    "sum", "max", "min", "count", "avg", "topk", "bottomk", "and", "or", "unless", "bool",
    "offset", "inf", "nan",
];
/// Words behind which labels stand in brackets.
const GROUPINGS: [&str; 6] = [
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
];

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Query {
    pub(crate) selectors: Vec<Selector>,
    /// Labels that results are grouped or joined by.
    pub(crate) groupings: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Selector {
    pub(crate) metric: String,
    pub(crate) matchers: Vec<Matcher>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Matcher {
    pub(crate) label: String,
    /// As written, so several between `|` for a regular expression.
    pub(crate) value: String,
}

/// Reads a query of PromQL, or Grafana's `label_values(SELECTOR, LABEL)`.
pub(crate) fn parsed(query: &str) -> Query {
    let mut parsed = Query::default();
    let inner = query
        .strip_prefix("label_values(")
        .and_then(|rest| rest.strip_suffix(')')?.rsplit_once(','));
    if let Some((selector, label)) = inner {
        parsed.groupings.push(label.trim().to_owned());
        read(selector, &mut parsed);
    } else {
        read(query, &mut parsed);
    }
    parsed
}

fn read(query: &str, parsed: &mut Query) {
    let mut rest = query;
    while let Some(first) = rest.chars().next() {
        if first == '[' {
            // A range.
            rest = rest.split_once(']').map_or("", |(_, behind)| behind);
        } else if first.is_ascii_digit() {
            // A number or a duration.
            rest = rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '.');
        } else if is_name(first) {
            let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
            let (name, behind) = rest.split_at(end);
            rest = named(name, behind.trim_start(), parsed);
        } else {
            rest = &rest[first.len_utf8()..];
        }
    }
}

fn is_name(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_' || letter == ':'
}

/// Takes in what `name` begins, and gives what is left behind it.
fn named<'a>(name: &str, behind: &'a str, parsed: &mut Query) -> &'a str {
    let (mut matchers, mut left) = (Vec::new(), behind);
    if GROUPINGS.contains(&name) {
        let Some((list, behind)) = behind.strip_prefix('(').and_then(|in_| in_.split_once(')'))
        else {
            return behind;
        };
        let labels = list.split(',').map(str::trim).filter(|one| !one.is_empty());
        parsed.groupings.extend(labels.map(str::to_owned));
        return behind;
    }
    if let Some(mut list) = behind.strip_prefix('{') {
        while !list.starts_with('}') {
            let Some((matcher, behind)) = matcher(list) else {
                break;
            };
            matchers.push(matcher);
            list = behind;
        }
        left = list.strip_prefix('}').unwrap_or(list);
    } else if behind.starts_with('(') || WORDS.contains(&name) {
        return behind;
    }
    parsed.selectors.push(Selector {
        metric: name.to_owned(),
        matchers,
    });
    left
}

/// `label="value"` with any of the four operators, and what stands behind it and a comma.
fn matcher(list: &str) -> Option<(Matcher, &str)> {
    let (before, rest) = list.split_once('"')?;
    let (value, behind) = rest.split_once('"')?;
    let label = before.trim().trim_end_matches(['=', '!', '~']).trim();
    let matcher = Matcher {
        label: label.to_owned(),
        value: value.to_owned(),
    };
    let behind = behind.trim_start();
    Some((matcher, behind.strip_prefix(',').unwrap_or(behind)))
}

#[test]
fn names_are_found_and_nothing_else() {
    let parsed = parsed(
        "topk(10, sum by (service, le) (rate(a_total{x=\"1\",y!~\"2|3\"}[$__rate_interval] offset 5m))) \
         / on () group_left (z) (weft:b > bool 0.5) or vector(0) unless time() - c < 20 * 86400",
    );
    let names: Vec<&str> = parsed
        .selectors
        .iter()
        .map(|one| one.metric.as_str())
        .collect();
    assert_eq!(names, ["a_total", "weft:b", "c"]);
    assert_eq!(parsed.groupings, ["service", "le", "z"]);
    let matchers = &parsed.selectors[0].matchers;
    let pairs: Vec<_> = matchers
        .iter()
        .map(|one| (one.label.as_str(), one.value.as_str()))
        .collect();
    assert_eq!(pairs, [("x", "1"), ("y", "2|3")]);

    let variable = super::promql::parsed("label_values(d{n=\"$n\"}, workload)");
    assert_eq!(variable.groupings, ["workload"]);
    assert_eq!(variable.selectors[0].metric, "d");
}
