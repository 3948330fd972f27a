//! Headings of Markdown pages, as links name them.

use std::collections::BTreeSet;

/// The anchors of a page's headings.
pub(crate) fn anchors(page: &str) -> BTreeSet<String> {
    let mut in_code = false;
    let mut anchors = BTreeSet::new();
    for line in page.lines() {
        if line.starts_with("```") {
            in_code = !in_code;
        }
        if line.starts_with('#') && !in_code {
            let text = line.trim_start_matches('#').trim().to_lowercase();
            let kept = text
                .chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            anchors.insert(kept.collect::<String>().replace(' ', "-"));
        }
    }
    anchors
}

/// Targets of links that are no URL: page and anchor, either may be empty.
pub(crate) fn links(page: &str) -> Vec<(&str, &str)> {
    let targets = page
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next());
    targets
        .filter(|target| !target.contains("://"))
        .map(|target| target.split_once('#').unwrap_or((target, "")))
        .collect()
}

#[test]
fn anchors_are_those_of_a_renderer() {
    let page = "# When the Lease ends, and who: `x`\n```yaml\n# no heading\n```\n## A-b_c\n";
    let found: Vec<String> = anchors(page).into_iter().collect();
    assert_eq!(found, ["a-b_c", "when-the-lease-ends-and-who-x"]);
    assert_eq!(
        links("[a](b.md#c) [d](#e) [f](https://x.y) [g](h)"),
        [("b.md", "c"), ("", "e"), ("h", "")]
    );
}
