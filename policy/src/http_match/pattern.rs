//! One regular expression, run as a plain comparison where it is one, and the bound on what all
//! expressions of one object may cost.
//!
//! Most patterns that people write are a literal or a literal with `.*` around
//! it. Those cost nothing to compile and a comparison to run.

use regex::{Regex, RegexBuilder};

/// The pattern that fits this text and no other.
#[must_use]
pub fn exactly(text: &str) -> String {
    format!("^{}$", regex::escape(text))
}

/// The pattern that fits each of these texts and no other.
#[must_use]
pub fn any_of<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let texts: Vec<String> = texts.into_iter().map(regex::escape).collect();
    match &*texts {
        [one] => format!("^{one}$"),
        _ => format!("^(?:{})$", texts.join("|")),
    }
}

/// Whether an expression for paths fits none, because it begins with a character that no path
/// begins with: a path begins with a slash, or is `*`. False where that takes more than a look.
#[must_use]
pub fn fits_no_path(regex: &str) -> bool {
    let has_parts = regex.contains(['(', '[', '\\']);
    if has_parts && regex.contains('|') {
        return false;
    }
    regex.split('|').all(|branch| {
        let mut characters = branch.strip_prefix('^').unwrap_or(branch).chars();
        let first = characters.next();
        let is_optional = matches!(characters.next(), Some('*' | '?' | '{'));
        let is_literal = |first: char| first.is_alphanumeric() || "-_~%".contains(first);
        first.is_some_and(is_literal) && !is_optional
    })
}

/// Which ends of the text the pattern is tied to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Full,
    /// Both, of a text that may hold line feeds, as decoded ones may.
    FullOfAny,
}

/// Sizes that are tried for a compiled pattern, in bytes, and charged to its budget:
/// the engine does not say how large it became, only that it fits.
const SIZES: [usize; 3] = [16 * 1024, 64 * 1024, MAX_REGEX_SIZE];

/// How many times the size of a pattern its cache may take, which matching fills: so what the
/// patterns of a table were charged bounds their caches too. The states that the engine needs at
/// least take less than twice the size.
const CACHED_SIZES: usize = 4;

#[derive(Debug)]
pub(super) struct Pattern {
    plan: Plan,
}

#[derive(Debug, PartialEq)]
enum Plan {
    Any,
    Equal(String),
    Prefix(String),
    /// These segments of a path, without a final slash, and whatever segments follow.
    Segments(String),
    Contains(String),
    Run(Compiled),
}

#[derive(Debug)]
struct Compiled(Regex);

impl PartialEq for Compiled {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Pattern {
    pub(super) fn compile(text: &str, anchor: Anchor, budget: &mut Budget) -> Result<Self, String> {
        if text.len() > MAX_REGEX_LEN {
            return Err(format!("is longer than {MAX_REGEX_LEN} bytes"));
        }
        if let Some(class) = unicode_class(text) {
            return Err(format!(
                "uses {class}{{...}}, and classes of Unicode are not known; write the characters, \
                 or \\w, \\d and \\s"
            ));
        }
        let plan = match shortcut(text, anchor) {
            Some(plan) => plan,
            None => Plan::Run(Compiled(compile(text, anchor, budget)?)),
        };
        Ok(Self { plan })
    }

    /// The text itself.
    pub(super) fn exact(text: &str) -> Result<Self, String> {
        let plan = Plan::Equal(within_bounds(text)?.to_owned());
        Ok(Self { plan })
    }

    /// Paths that begin with these segments.
    pub(super) fn segments(text: &str) -> Result<Self, String> {
        let text = within_bounds(text)?;
        let plan = match text.strip_suffix('/').unwrap_or(text) {
            "" => Plan::Any,
            segments => Plan::Segments(segments.to_owned()),
        };
        Ok(Self { plan })
    }

    pub(super) fn matches(&self, subject: &str) -> bool {
        match &self.plan {
            // What `.` does not match is a line feed.
            Plan::Any => true,
            Plan::Equal(whole) => subject == whole,
            Plan::Prefix(start) => subject.starts_with(start.as_str()),
            Plan::Segments(start) => subject
                .strip_prefix(start.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            Plan::Contains(part) => subject.contains(part.as_str()),
            Plan::Run(regex) => regex.0.is_match(subject),
        }
    }
}

fn within_bounds(text: &str) -> Result<&str, String> {
    if text.len() > MAX_EXACT_LEN {
        return Err(format!("is longer than {MAX_EXACT_LEN} bytes"));
    }
    Ok(text)
}

fn compile(text: &str, anchor: Anchor, budget: &mut Budget) -> Result<Regex, String> {
    let anchored = match anchor {
        Anchor::Start => format!(r"\A(?:{text})"),
        Anchor::Full | Anchor::FullOfAny => format!(r"\A(?:{text})\z"),
    };
    for size in SIZES {
        if size > budget.left {
            return Err(format!(
                "the expressions before it and this one need more than {} KiB when compiled",
                budget.whole / 1024
            ));
        }
        // Alone first: `a)|(b` is no pattern, though wrapping would make it one
        // that escapes its anchors.
        match build(text, size).and_then(|_| build(&anchored, size)) {
            Ok(regex) => {
                budget.left -= size;
                return Ok(regex);
            }
            Err(regex::Error::CompiledTooBig(_)) => {}
            // The last line of a syntax error is the problem, the lines
            // before draw where.
            Err(other) => {
                let drawn = other.to_string();
                let says = drawn.lines().last().unwrap_or_default().trim();
                return Err(format!(
                    "is no regular expression: {}",
                    says.trim_start_matches("error: ")
                ));
            }
        }
    }
    // Finding that out was as dear as compiling it.
    budget.left -= MAX_REGEX_SIZE;
    let most = MAX_REGEX_SIZE / 1024;
    Err(format!("needs more than {most} KiB when compiled"))
}

/// `\p` or `\P`, if the pattern has one. The tables behind them are large and left out;
/// what else is linked into a binary must not decide whether they are there, or the
/// webhook would take what the proxy cannot run.
fn unicode_class(text: &str) -> Option<&'static str> {
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character == '\\' {
            match characters.next() {
                Some('p') => return Some("\\p"),
                Some('P') => return Some("\\P"),
                _ => {}
            }
        }
    }
    None
}

fn build(text: &str, size: usize) -> Result<Regex, regex::Error> {
    RegexBuilder::new(text)
        .size_limit(size)
        // A cache per thread and pattern that is only filled by use.
        .dfa_size_limit((CACHED_SIZES * size).min(MAX_REGEX_SIZE))
        .build()
}

/// The same decision without an engine, where the text is simple enough.
///
/// `.` leaves out the line feed, which no path (checked with the request line)
/// and no header value (checked by its type) can hold.
fn shortcut(text: &str, anchor: Anchor) -> Option<Plan> {
    let bare = text.strip_prefix('^').unwrap_or(text);
    let (bare, closed) = match bare.strip_suffix('$') {
        // An escaped dollar is left to the engine.
        Some(bare) if !bare.ends_with('\\') => (bare, true),
        Some(_) => return None,
        None => (bare, anchor != Anchor::Start),
    };
    let (bare, open_end) = match bare.strip_suffix(".*") {
        Some(bare) if !bare.ends_with('\\') => (bare, true),
        Some(_) => return None,
        None => (bare, !closed),
    };
    let (bare, open_start) = match bare.strip_prefix(".*") {
        Some(bare) => (bare, true),
        None => (bare, false),
    };
    let literal = literal(bare)?;
    if anchor == Anchor::FullOfAny && (open_start || open_end) {
        return None;
    }
    match (open_start, open_end) {
        (_, true) if literal.is_empty() => Some(Plan::Any),
        (true, false) if literal.is_empty() => Some(Plan::Any),
        (true, true) => Some(Plan::Contains(literal)),
        (false, true) => Some(Plan::Prefix(literal)),
        (false, false) => Some(Plan::Equal(literal)),
        (true, false) => None,
    }
}

/// The text that a pattern without operators stands for.
fn literal(pattern: &str) -> Option<String> {
    let mut out = String::with_capacity(pattern.len());
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next()? {
                escaped @ ('.' | '-' | '/' | '+' | '$' | '*' | '(' | ')' | '\\') => {
                    out.push(escaped)
                }
                _ => return None,
            },
            '.' | '+' | '*' | '?' | '(' | ')' | '|' | '[' | ']' | '{' | '}' | '^' | '$' => {
                return None;
            }
            _ => out.push(c),
        }
    }
    Some(out)
}

/// Longest text of a pattern, in bytes. Hand-written patterns stay far below,
/// and it bounds what compiling can cost.
pub const MAX_REGEX_LEN: usize = 1024;

/// Longest plain text that is compared with a path, a header or a parameter, in bytes: the longest
/// value of a header match of the Gateway API.
pub const MAX_EXACT_LEN: usize = 4096;

/// Largest compiled pattern, in bytes: repetitions of repetitions grow without
/// bound in a short text. Large enough for a Unicode class repeated a few times.
pub(crate) const MAX_REGEX_SIZE: usize = 256 * 1024;

/// What the compiled expressions of one HTTPRouteGroup may take together, in bytes:
/// one of 64 KiB in each of its 64 matches. Each proxy that a group concerns holds
/// them, and each reader of the group has to compile them.
pub(crate) const MAX_GROUP_SIZE: usize = 4 * 1024 * 1024;

/// What the compiled expressions of rules that are only tried may take together, in bytes: a
/// proxy may try eight such sets beside what it holds.
const MAX_DRY_RUN_SIZE: usize = 1024 * 1024;

/// What is left for the expressions of one object. What it refuses costs nothing to
/// compile.
#[derive(Debug)]
pub struct Budget {
    pub(super) whole: usize,
    pub(super) left: usize,
}

impl Budget {
    /// For all matches of one HTTPRouteGroup.
    #[must_use]
    pub const fn group() -> Self {
        Self {
            whole: MAX_GROUP_SIZE,
            left: MAX_GROUP_SIZE,
        }
    }

    /// For all rules that are tried together.
    #[must_use]
    pub const fn dry_run() -> Self {
        Self {
            whole: MAX_DRY_RUN_SIZE,
            left: MAX_DRY_RUN_SIZE,
        }
    }

    /// For one match of a group that was within its budget.
    pub(super) const fn single() -> Self {
        Self::group()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every shortcut beside the engine that it replaces.
    #[test]
    fn a_shortcut_decides_as_the_engine_would() {
        let patterns = [
            "",
            ".*",
            "^.*$",
            "^",
            "$",
            "^$",
            "/api",
            "^/api",
            "/api$",
            "^/api$",
            "/api.*",
            "^/api.*$",
            ".*api",
            ".*api.*",
            "^.*api.*$",
            ".*.*",
            r"/v1\.0",
            r"/v1\.0.*",
            r"/a\.*",
            r"a\$",
            r"a\\$",
            r"\.*",
            "/äpi",
            r"/a\-b",
            "a b",
            "#",
            r"/x\\.*",
        ];
        let subjects = [
            "", "/", "/api", "/api/", "/apix", "/api/x", "x/api", "api", "xapix", "/v1.0", "/v1x0",
            "/v1.0/x", "/a...", "/a.", "/a", "a$", "a", r"a\", ".", "..", "/äpi", "/a-b", "a b",
            "#", r"/x\", r"/x\y",
        ];
        let decoded = ["\n", "/api\n", "api\napi", "\napi", "/api/\nx"];
        let mut short = 0;
        for pattern in patterns {
            for anchor in [Anchor::Start, Anchor::Full, Anchor::FullOfAny] {
                let engine = compile(pattern, anchor, &mut Budget::single()).unwrap();
                let fast = Pattern::compile(pattern, anchor, &mut Budget::single()).unwrap();
                short += usize::from(!matches!(fast.plan, Plan::Run(_)));
                let whole = anchor == Anchor::FullOfAny;
                let more = decoded.iter().filter(|_| whole);
                for subject in subjects.iter().chain(more) {
                    assert_eq!(
                        fast.matches(subject),
                        engine.is_match(subject),
                        "{pattern:?} {anchor:?} {:?} on {subject:?}",
                        fast.plan
                    );
                }
            }
        }
        assert!(
            short > patterns.len(),
            "most of these need no engine, {short} took none"
        );
    }

    #[test]
    fn exact_pattern_fits_its_text_and_none_beside_it() {
        for text in ["/items/7", "/a.b", "/a+b(c)[d]{2}|e", "/$", "/ä-&~#", "*"] {
            let exact = Pattern::compile(&exactly(text), Anchor::Start, &mut Budget::single());
            let exact = exact.unwrap();
            assert!(exact.matches(text), "{text}");
            for near in [format!("{text}0"), format!("{text}/x"), format!("x{text}")] {
                assert!(!exact.matches(&near), "{text} on {near}");
            }
        }
        let dot = Pattern::compile(&exactly("/a.b"), Anchor::Start, &mut Budget::single());
        assert!(!dot.unwrap().matches("/axb"));
    }

    #[test]
    fn expression_that_begins_no_path_is_recognized() {
        for none in [
            "a/b",
            "^items",
            "items|^carts",
            "http://a/b",
            "a+/b",
            "ä",
            "a[/]b",
        ] {
            assert!(fits_no_path(none), "{none}");
            let pattern = Pattern::compile(none, Anchor::Start, &mut Budget::single()).unwrap();
            for path in ["/", "/a/b", "/items", "*"] {
                assert!(!pattern.matches(path), "{none} {path}");
            }
        }
        let fitting = [
            "", "^", "/", "/a", "^/a", ".*", "a*/b", "a?/b", "a{0}/b", "a|/b", "(a|/b)", "(a)?/b",
            "[a/]b", "a(b|c)", r"\/a", r"\*", "|a", "^^/a",
        ];
        for some in fitting {
            assert!(!fits_no_path(some), "{some}");
        }
    }

    #[test]
    fn what_people_write_most_needs_no_engine() {
        let plan = |text, anchor| {
            Pattern::compile(text, anchor, &mut Budget::single())
                .unwrap()
                .plan
        };
        assert_eq!(plan("/api", Anchor::Start), Plan::Prefix("/api".to_owned()));
        assert_eq!(
            plan("/api.*", Anchor::Start),
            Plan::Prefix("/api".to_owned())
        );
        assert_eq!(
            plan("^/api$", Anchor::Start),
            Plan::Equal("/api".to_owned())
        );
        assert_eq!(plan(".*", Anchor::Start), Plan::Any);
        assert_eq!(plan("", Anchor::Start), Plan::Any);
        assert_eq!(plan("gold", Anchor::Full), Plan::Equal("gold".to_owned()));
        assert_eq!(
            plan(".*Android.*", Anchor::Full),
            Plan::Contains("Android".to_owned())
        );
        assert_eq!(plan(".*", Anchor::Full), Plan::Any);
    }
}
