//! Converts the rules of a live dry run, which proxies evaluate and do not enforce.
//!
//! Claims: observe-122

use policy::access::Access;
use policy::access::dry_run::MAX_PATTERNS;
use policy::http_match::Budget;

use super::enforcement;
use super::error::BadResource;
use super::rule::rule_within;
use crate::v1;

/// What would decide about calls, as a dry run is given it. It is read as the rules that hold
/// are, and bounded: so many patterns, which share what they may take compiled.
///
/// # Errors
/// When a rule cannot be read, or there is more than a proxy tries.
pub fn candidate(message: &v1::TrialAsk) -> Result<Access, BadResource> {
    must_fit(message)?;
    let mut budget = Budget::dry_run();
    let mut rules = Vec::with_capacity(message.rules.len());
    for (index, rule) in message.rules.iter().enumerate() {
        let here = |bad: BadResource| bad.within(format_args!("rules[{index}]"));
        rules.push(rule_within(&mut budget, rule).map_err(here)?);
    }
    Ok(Access {
        enforcement: enforcement(message.enforcement),
        rules,
    })
}

/// The inverse of [`candidate`], with how many requests are to be returned as examples.
///
/// # Errors
/// When there is more than a proxy tries.
pub fn dry_run_query(access: &Access, examples: u32) -> Result<v1::TrialAsk, BadResource> {
    let message = v1::TrialAsk {
        enforcement: v1::Enforcement::from(access.enforcement).into(),
        rules: access.rules.iter().map(v1::Rule::from).collect(),
        examples,
    };
    must_fit(&message)?;
    Ok(message)
}

/// Patterns are counted before any is compiled.
fn must_fit(message: &v1::TrialAsk) -> Result<(), BadResource> {
    let http = message.rules.iter().filter_map(|rule| rule.http.as_ref());
    let matches = http.flat_map(|http| &http.matches);
    let patterns = matches.map(|one| usize::from(one.path_regex.is_some()) + one.headers.len());
    let patterns: usize = patterns.sum();
    if patterns > MAX_PATTERNS {
        let why = format!("have {patterns} patterns, and {MAX_PATTERNS} are tried at most");
        return Err(BadResource::new("rules", why));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use policy::access::{Rule, Source};
    use policy::http_match::HttpMatch;
    use policy::mode::Enforcement;
    use policy::origin::Origin;

    use super::*;

    /// A rule of as many matches, each with this path and these headers.
    fn rule_with(paths: usize, path: &str, headers: &[(&str, &str)]) -> Rule {
        let one = HttpMatch::as_written("m", Some(path), &["GET"], headers);
        Rule {
            origin: Origin::new("TrafficTarget", "shop", "t"),
            sources: vec![Source::Authenticated, Source::pods(["uid-1"])],
            ports: None,
            http: Some(vec![one; paths]),
            limit: None,
        }
    }

    fn rule(paths: usize, path: &str) -> Rule {
        rule_with(paths, path, &[])
    }

    fn ask_of(rules: &[Rule]) -> v1::TrialAsk {
        v1::TrialAsk {
            rules: rules.iter().map(v1::Rule::from).collect(),
            ..v1::TrialAsk::default()
        }
    }

    #[test]
    fn what_is_tried_is_what_was_asked() {
        for enforcement in [Enforcement::Enforce, Enforcement::Audit, Enforcement::Open] {
            let access = Access {
                enforcement,
                rules: vec![rule(2, "/items/[0-9]+"), rule(1, "/a")],
            };
            let ask_of = dry_run_query(&access, 7).unwrap();
            assert_eq!(ask_of.examples, 7);
            assert_eq!(candidate(&ask_of), Ok(access));
        }
        // What a newer controller means by a mode that is not known here might be tighter.
        let newer = v1::TrialAsk {
            enforcement: 99,
            ..v1::TrialAsk::default()
        };
        assert_eq!(candidate(&newer).unwrap().enforcement, Enforcement::Enforce);
    }

    #[test]
    fn patterns_are_bounded_in_number_before_any_is_compiled() {
        // Those of headers are some as well: three of each match.
        let headers = [("x-role", "admin"), ("x-tenant", "a|b")];
        let most = [rule(40, "/a"), rule_with(8, "/b", &headers)];
        assert!(candidate(&ask_of(&most)).is_ok());
        let one_more = [rule(40, "/a"), rule_with(9, "/b", &headers)];
        let refused = candidate(&ask_of(&one_more)).unwrap_err();
        assert!(refused.reason.contains("67 patterns"), "{refused}");
        // The last one cannot be compiled, and is never looked at.
        let more = [rule(64, "/a"), rule(1, "(")];
        let refused = candidate(&ask_of(&more)).unwrap_err();
        assert_eq!(refused.field, "rules");
        assert!(refused.reason.contains("65 patterns"), "{refused}");
        // And no proxy has to try so many.
        let access = Access {
            enforcement: Enforcement::Enforce,
            rules: more.to_vec(),
        };
        assert_eq!(dry_run_query(&access, 0), Err(refused));
    }

    #[test]
    fn dry_run_patterns_share_mebibyte_naming_invalid_field() {
        // Each is charged 64 KiB or more.
        let large = r"/\w{3}";
        let fits = candidate(&ask_of(&[rule(1, large)]));
        assert!(fits.is_ok(), "{fits:?}");
        let many: Vec<Rule> = (0..64).map(|_| rule(1, large)).collect();
        let refused = candidate(&ask_of(&many)).unwrap_err();
        assert!(refused.field.starts_with("rules["), "{refused}");
        let end = "].http.matches[0].pathRegex";
        assert!(refused.field.ends_with(end), "{refused}");
        assert!(refused.reason.contains("1024 KiB"), "{refused}");

        let wrong = [rule(1, "/a"), rule(1, "(")];
        let wrong = candidate(&ask_of(&wrong)).unwrap_err();
        assert_eq!(wrong.field, "rules[1].http.matches[0].pathRegex");
    }
}
