"""What the word list of `make lint` finds, and what its allowances cover."""

import contextlib
import os
import subprocess
import tempfile

from checkout import ROOT

DATA = """
[words]
blip = "request"

[phrases]
"goes blue" = "is ejected"
"""


@contextlib.contextmanager
def folder(files, allowances=""):
    """A folder that git knows, with its own list; gives what e2e/words does there."""
    with tempfile.TemporaryDirectory() as made:
        for path, text in {"e2e/words.toml": DATA + allowances, **files}.items():
            os.makedirs(os.path.join(made, os.path.dirname(path)), exist_ok=True)
            with open(os.path.join(made, path), "w", encoding="utf-8") as file:
                file.write(text)
        subprocess.run(["git", "init", "-q"], cwd=made, check=True)

        def words():
            command = [os.path.join(ROOT, "e2e/words"), made]
            ended = subprocess.run(command, capture_output=True, text=True, check=False)
            assert ended.stderr == "", ended.stderr
            return ended.returncode, ended.stdout.splitlines()

        yield words


def test_word_in_identifier_comment_and_path_is_found():
    files = {
        "a.rs": "let last_blip = 1;\n// The blip of `LastBlip`.\nlet blipped = 1;\nLAST_BLIP\n",
        "b/blip.rs": "",
        "c.sh": "blip\n",
    }
    with folder(files) as words:
        assert words() == (1, [
            "a.rs:1: blip: write request",
            "a.rs:2: blip: write request",
            "a.rs:2: blip: write request",
            "a.rs:4: blip: write request",
            "b/blip.rs:0: blip: write request",
        ])


def test_phrase_is_found_across_lines():
    files = {
        "a.md": "The pod goes blue; it goes\nblue. It goes bluely.\n",
        "b.rs": "//! It goes\n//! blue.\nfn goes_blue() {}\n",
        "c.py": "    # it Goes\n    # blue\n",
    }
    with folder(files) as words:
        assert words() == (1, [f"{place}: goes blue: write is ejected" for place in ("a.md:1", "a.md:1", "b.rs:1", "c.py:1")])


def test_name_is_found_in_identifiers_alone():
    names = "\n[names]\nblue_pod = \"ejected endpoint\"\n"
    files = {"a.rs": "// A blue pod.\nlet last_blue_pod = BluePods;\nstruct NoBluePod;\nBLUE_POD\n", "blue_pod.py": ""}
    with folder(files, names) as words:
        assert words() == (1, [f"{place}: blue_pod: write ejected endpoint" for place in ("a.rs:2", "a.rs:3", "a.rs:4", "blue_pod.py:0")])


def test_names_of_links_and_anchors_are_no_prose():
    text = "<a id=\"a-blip\"></a>see [here](b.md#of-a-blip)\n"
    with folder({"a.md": text}) as words:
        assert words() == (0, [])
    with folder({"a.md": text + "[blip](b.md)\n", "b.rs": '"docs/b.md#of-a-blip"\n'}) as words:
        assert words() == (1, ["a.md:2: blip: write request", "b.rs:1: blip: write request"])


def test_allowances_cover_files_and_lines():
    allowances = """
[[allowed]]
files = "old/*"
reason = "kept"

[[allowed]]
files = "*.rs"
line = 'message\\.blip'
reason = "a field of an older peer"
"""
    files = {"old/b/a.md": "blip\n", "a.rs": "message.blip\n", "b.md": "as they are\n"}
    with folder(files, allowances) as words:
        assert words() == (0, [])
    with folder(files | {"b.rs": "messages.blip\n"}, allowances) as words:
        assert words() == (1, ["b.rs:1: blip: write request"])
    with folder({"a.rs": "\n"}, allowances) as words:
        status, lines = words()
        assert status == 1 and len(lines) == 2 and all("allows nothing; remove it" in line for line in lines), lines


def test_counted_allowance_can_only_fall():
    allowances = """
[[counted]]
files = "docs/*"
at_most = 2
reason = "being rewritten"
"""
    for text, expected in (
        ("blip blip", []),
        ("blip", ["lower at_most to that, from 2"]),
        ("", ["remove its count"]),
        ("blip blip\nblip", ["docs/a.md:1: blip", "docs/a.md:1: blip", "docs/a.md:2: blip", "3 words in docs/*, and 2 are allowed"]),
    ):
        with folder({"docs/a.md": text}, allowances) as words:
            status, lines = words()
            assert status == bool(expected) and len(lines) == len(expected), lines
            assert all(part in line for part, line in zip(expected, lines)), lines
