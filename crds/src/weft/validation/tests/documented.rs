//! The page, the schema and the judge say the same of every default and of every bound.
//!
//! Claims: calls-28

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::*;
use crate::weft::{duration::written, parse_duration};

/// What stands in the table of docs/trafficpolicy.md, once more: a field, its default in the
/// words of the page and as it would be written, and what it may hold.
const FIELDS: &str = r#"
targetRef.kind | required | - | -
enforce | `false` | false | -
routes | every request | [] | up to 16
sources | every caller | [] | up to 64
timeouts.request | `0s` | "0s" | 0s to 24h
timeouts.backendRequest | `0s` | "0s" | 0s to 24h
timeouts.idle | `0s` | "0s" | 0s to 24h
timeouts.share | `100` | 100 | 1 to 100
retry.attempts | `1` | 1 | 0 to 5
retry.codes | `[503]` | [503] | up to 16, 400 to 599
retry.grpcCodes | `[]` | [] | -
retry.methods | `[GET, HEAD, OPTIONS]` | ["GET", "HEAD", "OPTIONS"] | up to 16
retry.backoff | `25ms` | "25ms" | 0s to 10s
retry.budget.percent | `20` | 20 | 0 to 100
retry.budget.interval | `5s` | "5s" | 1s to 60s
retry.budget.minPerSecond | `1` | 1 | 0 to 1000
ejection.consecutiveFailures | `5` | 5 | 0 to 100
ejection.codes | `[502, 503, 504]` | [502, 503, 504] | up to 16, 500 to 599
ejection.baseTime | `5s` | "5s" | 1s to 5m
ejection.maxTime | `60s` | "60s" | 1s to 1h
ejection.maxPercent | `34` | 34 | 0 to 100
breaker.state | `Auto` | "Auto" | -
breaker.failurePercent | `50` | 50 | 1 to 100
breaker.interval | `10s` | "10s" | 5s to 60s
breaker.minRequests | `50` | 50 | 1 to 100000
breaker.openTime | `5s` | "5s" | 1s to 5m
fallback.service | one of the two | - | -
fallback.response.status | one of the two | - | 200 to 599
fallback.response.headers | one of the two | - | up to 16
fallback.when | all | ["Unreachable", "CircuitOpen", "Overload", "Timeout", "5xx"] | -
rateLimits[].name | required | - | -
rateLimits[].requests | required | - | 1 to 1000000
rateLimits[].per | `1s` | "1s" | 1s to 1h
rateLimits[].burst | one second's worth, at least 1 | 7 | 1 to 1000000
rateLimits[].key | `{type: None}` | {"type": "None"} | -
rateLimits[].key.type | `{type: None}` | - | -
rateLimits[].scope | `Service` | "Service" | -
rateLimits[].mode | `Enforce` | "Enforce" | -
priority | `Normal` without any policy | - | -
overload.mode | `Adaptive` | "Adaptive" | -
overload.queueTime | `100ms` | "100ms" | 5ms to 10s
overload.maxConcurrency | `0`, no cap | 0 | 0 to 1000000
mirror[].service | required | - | -
mirror[].percent | required | - | 0 to 100
mirror[].methods | `[GET, HEAD, OPTIONS]` | ["GET", "HEAD", "OPTIONS"] | up to 16
mirror[].downstream | `ReadOnly` | "ReadOnly" | -
mirror[].allowTcp | none | [] | up to 16
balance.locality | the Service's `trafficDistribution` | - | -
balance.subset | `0`, all | 0 | -1 to 10000
balance.warmup | `10s` | "10s" | 0s to 5m
sticky.type | required | - | -
sticky.scope | `Endpoint` | "Endpoint" | -
sticky.ttl | `0s` | "0s" | 0s to 8760h
overrides[].to | required | - | up to 64
overrides[].sources | no caller | [] | up to 64
overrides[].forwarders | no caller | [] | up to 64
overrides[].tokens | none | [] | up to 64
"#;

/// The sentence of the page below its table.
const LIST_BOUNDS: &str = "`rateLimits`, `mirror` and `overrides` hold up to 16, 4 and 8 entries.";
const LISTS: [(&str, &str); 3] = [
    ("rateLimits", "up to 16"),
    ("mirror", "up to 4"),
    ("overrides", "up to 8"),
];

struct Field {
    name: &'static str,
    default: &'static str,
    written: Option<Value>,
    bounds: Option<&'static str>,
}

fn fields() -> Vec<Field> {
    let rows = FIELDS.trim().lines();
    rows.map(|row| {
        let [name, default, written, bounds] = row.split(" | ").collect::<Vec<_>>()[..] else {
            panic!("{row}");
        };
        let present = |text: &'static str| (text != "-").then_some(text);
        Field {
            name,
            default,
            written: present(written).map(|text| serde_json::from_str(text).unwrap()),
            bounds: present(bounds),
        }
    })
    .collect()
}

fn page() -> String {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/trafficpolicy.md");
    std::fs::read_to_string(page).unwrap()
}

/// Default and values of each field in the table of the page.
fn rows(page: &str) -> BTreeMap<String, [&str; 2]> {
    let (_, table) = page.split_once("| field | default | values |\n").unwrap();
    let mut rows = BTreeMap::new();
    let table = table.lines().skip(1);
    for row in table.take_while(|row| row.starts_with('|')) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [_, names, default, values, _] = cells[..] else {
            panic!("{row}");
        };
        // The second field of a row is one beside the first.
        let mut above = None;
        for name in names.split(", ").map(|name| name.trim_matches('`')) {
            let whole = match (name.rsplit_once('.'), above) {
                (None, Some(above)) => format!("{above}.{name}"),
                (found, _) => {
                    above = found.map(|(above, _)| above);
                    name.to_owned()
                }
            };
            rows.insert(whole, [default, values]);
        }
    }
    rows
}

/// The row of a field: its own, or that of what it stands in.
fn row<'a>(rows: &BTreeMap<String, [&'a str; 2]>, field: &str) -> [&'a str; 2] {
    let above = || rows.get(field.rsplit_once('.')?.0);
    let found = rows.get(field).or_else(above);
    *found.unwrap_or_else(|| panic!("the page does not speak of {field}"))
}

fn words(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
        .collect()
}

/// A policy with the section of this field, and in it what is required.
fn least(field: &str) -> Value {
    let section = field.split(['.', '[']).next().unwrap();
    let (section, least) = match section {
        "enforce" | "routes" | "sources" => ("retry", json!({})),
        "retry" => (section, json!({"budget": {}})),
        "ejection" if field == "ejection.maxTime" => (section, json!({"baseTime": "1s"})),
        "fallback" => (section, json!({"response": {"status": 200}})),
        "rateLimits" => (section, json!([{"name": "all", "requests": 7}])),
        "mirror" => (section, json!([{"service": "next", "percent": 1}])),
        "sticky" => (section, json!({"type": "Cookie", "name": "tenant"})),
        "overrides" => (section, json!([{"to": ["next"]}])),
        _ => (section, json!({})),
    };
    let mut fields = json!({});
    fields[section] = least;
    about(fields)
}

/// The same with this field.
fn with(field: &str, value: &Value) -> Value {
    let mut spec = least(field);
    let pointer = format!("/{}", field.replace("[]", "/0").replace('.', "/"));
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    spec.pointer_mut(parent).unwrap()[name] = value.clone();
    spec
}

/// So many entries of a list, with names of their own where they have any.
fn list(field: &str, length: usize) -> Value {
    let entry = match field {
        "routes" => json!({"kind": "HTTPRouteGroup", "name": "reads"}),
        "retry.methods" | "mirror[].methods" => json!("GET"),
        "retry.codes" | "ejection.codes" => json!(503),
        "fallback.response.headers" => json!({"name": "x-a", "value": "1"}),
        "mirror[].allowTcp" => json!("db:5432"),
        "overrides[].to" => json!("next"),
        "overrides[].tokens" => {
            json!({"sha256": "0".repeat(64), "expires": "2027-01-31T00:00:00Z"})
        }
        "rateLimits" | "mirror" | "overrides" => least(field)[field][0].clone(),
        _ => json!({"kind": "ServiceAccount", "name": "web"}),
    };
    let entries = (0..length).map(|n| {
        let mut entry = entry.clone();
        for key in ["name", "service"] {
            if entry.get(key).is_some() {
                entry[key] = json!(format!("n{n}"));
            }
        }
        entry
    });
    entries.collect()
}

fn node<'a>(schema: &'a Value, field: &str) -> &'a Value {
    let steps = field.split('.').map(|step| match step.strip_suffix("[]") {
        Some(list) => format!("/properties/{list}/items"),
        None => format!("/properties/{step}"),
    });
    schema.pointer(&steps.collect::<String>()).unwrap()
}

/// What a field may hold at both ends of its bounds, what lies just beyond, and where that
/// is wrong. The schema has the same bounds.
fn ends(field: &str, bounds: &str, node: &Value) -> (Vec<Value>, Vec<Value>, String) {
    let location = format!("spec.{}", field.replace("[]", "[0]"));
    if let Some(most) = bounds.strip_prefix("up to ") {
        let most: usize = most.parse().unwrap();
        assert_eq!(node["maxItems"], most, "{field}");
        return (
            vec![list(field, most)],
            vec![list(field, most + 1)],
            location,
        );
    }
    let (least, most) = bounds.split_once(" to ").unwrap();
    if let (Ok(from), Ok(to)) = (parse_duration(least), parse_duration(most)) {
        let rule = format!(
            "duration(self) >= duration('{}') && duration(self) <= duration('{}')",
            written(from),
            written(to)
        );
        let rules = &node["x-kubernetes-validations"];
        assert_eq!(rules[0]["rule"], rule, "{field}");
        let below = from.checked_sub(Duration::from_millis(1));
        let below = below.map(|below| json!(format!("{}ms", below.as_millis())));
        let above = json!(format!("{most}1ms"));
        let beyond = below.into_iter().chain([above]);
        return (vec![json!(least), json!(most)], beyond.collect(), location);
    }
    let (least, most): (i64, i64) = (least.parse().unwrap(), most.parse().unwrap());
    let listed = node.get("items").is_some();
    let number = if listed { &node["items"] } else { node };
    assert_eq!(number["minimum"], least, "{field}");
    assert_eq!(number["maximum"], most, "{field}");
    let of = |n: i64| if listed { json!([n]) } else { json!(n) };
    let entry = if listed { "[0]" } else { "" };
    let beyond = vec![of(least - 1), of(most + 1)];
    (vec![of(least), of(most)], beyond, location + entry)
}

fn both_ends(schema: &Value, field: &str, bounds: &str) {
    let (fits, beyond, location) = ends(field, bounds, node(schema, field));
    for value in fits {
        assert_eq!(validated(&with(field, &value)).1, [], "{field} = {value}");
    }
    for value in beyond {
        let (_, mistakes) = validated(&with(field, &value));
        assert_eq!(refused(&mistakes), [&*location], "{field} = {value}");
    }
}

#[test]
fn documented_defaults_apply_where_fields_are_absent() {
    let page = page();
    let rows = rows(&page);
    let fields = fields();
    for name in rows.keys() {
        let looked_at = fields.iter().any(|field| {
            let rest = field.name.strip_prefix(name.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        });
        assert!(looked_at, "nothing is known of {name}");
    }
    for Field {
        name,
        default,
        written,
        ..
    } in fields
    {
        let [documented, _] = row(&rows, name);
        assert!(documented.contains(default), "{name}: {documented}");
        let Some(written) = written else { continue };
        let left_out = least(name);
        let spec = with(name, &written);
        assert_ne!(left_out, spec, "{name}");
        let (policy, mistakes) = validated(&left_out);
        assert_eq!(mistakes, [], "{name}");
        assert_eq!(validated(&spec), (policy, vec![]), "{name}");
    }
}

#[test]
fn documented_bounds_match_schema_and_validation() {
    let page = page();
    let rows = rows(&page);
    let schema = schema::<TrafficPolicySpec>();
    for Field { name, bounds, .. } in fields() {
        let [default, values] = row(&rows, name);
        let documented = &words(default) | &words(values);
        let node = node(&schema, name);
        let known = [&node["enum"], &node["items"]["enum"]];
        let known = known.into_iter().filter_map(Value::as_array).flatten();
        for word in known.filter_map(Value::as_str) {
            assert!(documented.contains(word), "{name} may be {word}: {values}");
        }
        for bounds in bounds.into_iter().flat_map(|all| all.split(", ")) {
            let parts = bounds.split(' ');
            for end in parts.filter(|part| !["up", "to"].contains(part)) {
                assert!(documented.contains(end), "{name} is {bounds}: {values}");
            }
            both_ends(&schema, name, bounds);
        }
    }
    let documented = page.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(documented.contains(LIST_BOUNDS), "{LIST_BOUNDS}");
    for (name, bounds) in LISTS {
        both_ends(&schema, name, bounds);
    }
}
