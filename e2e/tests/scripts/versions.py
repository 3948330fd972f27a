"""One version: of programs, chart, images and pages."""

import glob
import os
import re
import tomllib

from checkout import ROOT

NUMBER = r"[0-9]+\.[0-9]+\.[0-9]+"
# How pages name the version of this checkout; other numbers in them are of other things.
NAMED = (
    rf"^ +VERSION=({NUMBER})$",
    rf"weft/[a-z]+:({NUMBER})",
    rf"target/release-({NUMBER})",
    rf"\bweft-({NUMBER})\.tgz",
)
# The number until the first release.
UNRELEASED = "0.1.0"
HEADING = rf"^## (Unreleased|({NUMBER}) \([0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}\))$"


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read()


def workspace():
    return tomllib.loads(read("Cargo.toml"))["workspace"]


def version():
    return workspace()["package"]["version"]


def test_every_crate_has_the_version_of_the_workspace():
    names = set()
    for member in workspace()["members"]:
        package = tomllib.loads(read(f"{member}/Cargo.toml"))["package"]
        assert package["version"] == {"workspace": True}, member
        names.add(package["name"])
    locked = {one["name"]: one["version"] for one in tomllib.loads(read("Cargo.lock"))["package"] if "source" not in one}
    assert {locked[name] for name in names} == {version()}, locked


def test_chart_and_its_images_have_the_version_of_the_programs():
    chart = dict(re.findall(r"^(version|appVersion): *(\S+)$", read("charts/weft/Chart.yaml"), re.MULTILINE))
    assert chart == {"version": version(), "appVersion": version()}, chart
    # The tag is by default the chart's appVersion, and e2e/images/build reads Cargo.toml.
    assert re.search(r'^  tag: ""$', read("charts/weft/values.yaml"), re.MULTILINE)
    assert "VERSION=$(workspace_version)" in read("e2e/images/build")


def test_pages_name_the_version_of_this_checkout():
    pages = [os.path.relpath(path, ROOT) for path in glob.glob(os.path.join(ROOT, "docs/*.md"))]
    found = 0
    for page in ["README.md", "charts/weft/values.yaml", *sorted(pages)]:
        for pattern in NAMED:
            for number in re.findall(pattern, read(page), re.MULTILINE):
                assert number == version(), f"{page} names {number}, and Cargo.toml {version()}"
                found += 1
    assert found >= 3, "no page names a version: do the patterns still fit?"


def test_changelog_and_upgrades_go_down_from_this_version():
    assert not faults(read("CHANGELOG.md"), read("docs/upgrade.md"), version())


def test_version_without_its_day_or_upgrade_is_found():
    unreleased, of = "# Changelog\n\n## Unreleased\n", "## 0.2.0 (2026-01-31)\n"
    to = "\n### To 0.2.0\n"
    assert not faults(unreleased, "", UNRELEASED)
    assert not faults(unreleased + of, to, "0.2.0")
    for changelog, upgrade, number, fault in (
        (unreleased, to, "0.2.0", "no heading `## 0.2.0 ("),
        (unreleased + of, "", "0.2.0", "no heading `### To 0.2.0`"),
        (unreleased + of, to, "0.2.1", "no heading `## 0.2.1 ("),
        (unreleased + of, to, "0.1.0", "is newer than"),
        (unreleased + "## 0.2.0\n", to, "0.2.0", "a heading is"),
        (of, to, "0.2.0", "stands first"),
        (unreleased + "## 0.1.9 (2026-01-01)\n" + of, to, "0.2.0", "newest first"),
    ):
        found = faults(changelog, upgrade, number)
        assert any(fault in one for one in found), (fault, found)


def faults(changelog, upgrade, current):
    """What is wrong with the headings of the two pages, for a checkout of this version."""
    headings = re.findall(r"^## .*$", changelog, re.MULTILINE)
    matches = [re.match(HEADING, heading) for heading in headings]
    if not all(matches):
        return [f"a heading is `## Unreleased` or `## 1.2.3 (2026-01-31)`: {headings}"]
    found = []
    if headings[:1] != ["## Unreleased"] or headings.count("## Unreleased") != 1:
        found.append(f"`## Unreleased` stands first, and once: {headings}")
    numbers = [match[2] for match in matches if match[2]]
    if sorted({parts(number) for number in numbers}, reverse=True) != [parts(number) for number in numbers]:
        found.append(f"versions stand once each, newest first: {headings}")
    found += [f"{number} is newer than {current}" for number in numbers if parts(number) > parts(current)]
    if current != UNRELEASED and current not in numbers:
        found.append(f"CHANGELOG.md has no heading `## {current} (YEAR-MONTH-DAY)`")
    # Each version says what to do when one comes from the one before.
    for number in sorted({*numbers, current} - {UNRELEASED}):
        if f"\n### To {number}\n" not in upgrade:
            found.append(f"docs/upgrade.md has no heading `### To {number}`")
    return found


def parts(number):
    return tuple(int(part) for part in number.split("."))
