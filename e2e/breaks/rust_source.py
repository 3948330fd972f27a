"""Finds items and tests in Rust sources without a compiler.

Good for rustfmt's output, which is all that it is used for: comments, strings and
character literals are blanked, then braces are counted.
"""

import os
import re
from dataclasses import dataclass

# What may hold braces, quotes or keywords that mean nothing.
OPAQUE = re.compile(
    r"""//[^\n]*
      | /\*
      | \b(?:br|cr|r)(?P<hashes>\#*)"
      | (?:\b[bc])?"(?:[^"\\]|\\.)*"
      | (?:\bb)?'(?:[^'\\\n]|\\(?:[^u]|u\{[0-9a-fA-F_]+\})[0-9a-fA-F]?)'
    """,
    re.VERBOSE | re.DOTALL,
)
FUNCTION = re.compile(r"\bfn\s+(\w+)")
CONSTANT = re.compile(r"\b(?:const|static)\s+(?:mut\s+)?([A-Z_][A-Z0-9_]*)\s*:")
TYPE = re.compile(r"\b(?:struct\s|enum\s|trait\s|macro_rules!)\s*(\w+)")
IMPLEMENTATION = re.compile(r"^[ \t]*(?:unsafe\s+)?(impl\b[^;{]*)\{", re.MULTILINE)
MODULE = re.compile(r"\bmod\s+(\w+)\s*([;{])")
PATH_ATTRIBUTE = re.compile(r'#\[path\s*=\s*"([^"]+)"\]\s*(?:#\[[^\]]*\]\s*)*(?:pub(?:\([^)]*\))?\s+)?$')
TEST = re.compile(r"#\[\s*(?:\w+::)*test\b[^\]]*\](?:\s*#\[[^\]]*\])*\s*(?:pub\s+)?(?:async\s+)?fn\s+(\w+)")
WORD = re.compile(r"\w+|[^\w\s]")
CLOSING = {"{": "}", "(": ")", "[": "]"}


@dataclass(frozen=True)
class Item:
    name: str
    start: int
    end: int


def blanked(text):
    """The same text, as long as before, with spaces for comments, strings and characters."""
    parts, at = [], 0
    while match := OPAQUE.search(text, at):
        end = match.end()
        if match.group() == "/*":
            end = end_of_comment(text, match.start())
        elif match.group("hashes") is not None:
            close = text.find('"' + match.group("hashes"), end)
            end = len(text) if close < 0 else close + 1 + len(match.group("hashes"))
        parts.append(text[at : match.start()])
        parts.append(re.sub(r"[^\n]", " ", text[match.start() : end]))
        at = end
    parts.append(text[at:])
    return "".join(parts)


def end_of_comment(text, at):
    """Comments nest."""
    depth = 0
    for match in re.finditer(r"/\*|\*/", text[at:]):
        depth += 1 if match.group() == "/*" else -1
        if depth == 0:
            return at + match.end()
    return len(text)


def end_of_block(code, at):
    """Behind the bracket that closes the one at `at`."""
    open_, close = code[at], CLOSING[code[at]]
    depth = 0
    for place in range(at, len(code)):
        if code[place] == open_:
            depth += 1
        elif code[place] == close:
            depth -= 1
            if depth == 0:
                return place + 1
    return len(code)


def end_of_item(code, at):
    """Behind the body, or behind the semicolon where there is none."""
    while at < len(code):
        if code[at] in "([":
            at = end_of_block(code, at)
        elif code[at] == "{":
            return end_of_block(code, at)
        elif code[at] == ";":
            return at + 1
        else:
            at += 1
    return at


def end_of_constant(code, at):
    while at < len(code) and code[at] != ";":
        at = end_of_block(code, at) if code[at] in "([{" else at + 1
    return at + 1


def items(text):
    """Functions, constants, types and implementations; the latter by their whole head."""
    code = blanked(text)
    found = []
    for match in FUNCTION.finditer(code):
        found.append(Item(match.group(1), match.start(), end_of_item(code, match.end())))
    for match in CONSTANT.finditer(code):
        found.append(Item(match.group(1), match.start(), end_of_constant(code, match.end())))
    for match in TYPE.finditer(code):
        found.append(Item(match.group(1), match.start(), end_of_item(code, match.end())))
    for match in IMPLEMENTATION.finditer(code):
        name = " ".join(match.group(1).split())
        found.append(Item(name, match.start(), end_of_block(code, match.end() - 1)))
    return found


def pattern(text):
    """Matches `text` however its lines are broken and indented."""
    parts = []
    for word in WORD.findall(text):
        if parts:
            parts.append(r"\s+" if re.match(r"\w", word) and re.match(r"\w", last) else r"\s*")
        parts.append(re.escape(word))
        last = word
    return re.compile("".join(parts))


def tests_of_program(root_file):
    """The names that libtest gives to the tests of the program with this root, in a set."""
    names = set()
    walk_module(root_file, os.path.dirname(root_file), "", names)
    return names


def walk_module(path, folder, prefix, names):
    """`folder` is where the modules are that this file declares."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    code = blanked(text)
    inline = []
    for match in MODULE.finditer(code):
        if match.group(2) == "{":
            inline.append((match.start(), end_of_block(code, match.end() - 1), match.group(1)))

    def around(at):
        return [name for start, end, name in inline if start < at < end]

    for match in TEST.finditer(code):
        names.add("::".join([*filter(None, [prefix]), *around(match.start()), match.group(1)]))
    for match in MODULE.finditer(code):
        if match.group(2) == "{":
            continue
        outer, name = around(match.start()), match.group(1)
        inner = "::".join([*filter(None, [prefix]), *outer, name])
        given = PATH_ATTRIBUTE.search(text[: match.start()])
        if given:
            file = os.path.join(os.path.dirname(path), given.group(1))
            children = os.path.dirname(file)
        else:
            place = os.path.join(folder, *outer, name)
            file, children = place + ".rs", place
            if not os.path.exists(file):
                file = os.path.join(place, "mod.rs")
        if os.path.exists(file):
            walk_module(file, children, inner, names)
