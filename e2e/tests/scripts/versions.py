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
    headings = re.findall(r"^## .*$", read("CHANGELOG.md"), re.MULTILINE)
    matches = [re.match(HEADING, heading) for heading in headings]
    assert all(matches), f"a heading is `## Unreleased` or `## 1.2.3 (2026-01-31)`: {headings}"
    numbers = [parts(match[2]) for match in matches if match[2]]
    assert headings[0] == "## Unreleased" and headings.count("## Unreleased") == 1, headings
    assert numbers == sorted(set(numbers), reverse=True), headings
    assert all(number <= parts(version()) for number in numbers), headings
    # Each version that went out says what to do when one comes from the one before.
    upgrade = read("docs/upgrade.md")
    for number in numbers:
        named = ".".join(map(str, number))
        assert f"\n### To {named}\n" in upgrade, f"docs/upgrade.md has no heading `### To {named}`"


def parts(number):
    return tuple(int(part) for part in number.split("."))
