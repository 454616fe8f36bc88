"""Fails on phrases that .ci/words.txt lists, in Markdown and in comments.

usage: words.py [--self-test] FILE...

Code does not count: neither code blocks nor spans between backticks, in Markdown as in comments. A comment of
several lines is one text, so that a phrase may stand across lines.
"""

import re
import sys
import tempfile
from pathlib import Path

from pygments.lexers import get_lexer_for_filename
from pygments.token import Comment, String

HERE = Path(__file__).parent
MARKS = re.compile(r"^[ \t]*(///?|//!|\#!?|/?\*[*!]?)", re.MULTILINE)
CODE = re.compile(r"^([ \t]*)```.*?^[ \t]*```|(`+)(?!`).*?(?<!`)\2(?!`)", re.MULTILINE | re.DOTALL)


def lines(file):
    """The lines of a file, except comments and blank lines."""
    return [line for line in file.read_text().splitlines() if line.strip() and not line.startswith("#")]


def blank(match):
    """A replacement with as many lines as the match, and no word."""
    return "`" + "\n" * match.group().count("\n")


def comments(path, text):
    """The text of the comments of a source file, each at its line."""
    kept = []
    # A script has no suffix, or .sh.
    lexer = get_lexer_for_filename(path.name if path.suffix else f"{path.name}.sh")
    for kind, piece in lexer.get_tokens(text):
        if kind in Comment and kind not in Comment.Preproc or kind in String.Doc:
            kept.append(piece)
            continue
        # Code ends a comment: a phrase does not reach over it.
        kept.append(re.sub(r"[^\s]+", "\0", piece))
    return MARKS.sub(lambda mark: " " * len(mark.group()), "".join(kept))


def findings(path, phrases):
    """Pairs of a line number and the phrase at that line."""
    text = path.read_text()
    if path.suffix != ".md":
        text = comments(path, text)
    text = CODE.sub(blank, text)
    for phrase in phrases:
        for found in phrase.finditer(text):
            yield text.count("\n", 0, found.start()) + 1, " ".join(found.group().split())


def compiled():
    # A blank in a phrase matches any white space.
    spaced = [line.replace(" ", r"\s+") for line in lines(HERE / "words.txt")]
    return [re.compile(line, re.IGNORECASE | re.MULTILINE) for line in spaced]


def self_test(phrases):
    """Checks that planted sentences are found, and that code is not."""
    planted = {
        "page.md": ("Nobody is here.\n`Nobody` is.\n```\nmeanwhile\n```\nAll\nmeanwhile wait.\n", [1, 7]),
        "file.rs": (
            "/// What is here.\nfn f() {\n    g(\"whoever\"); // lets\n    // go of it\n}\n/// It has the\n/// "
            "owner handle it.\n///\n/// ```\n/// // meanwhile\n/// ```\n",
            [1, 3, 6],
        ),
        "script.sh": ("#!/bin/sh\n# Tells it.\necho meanwhile # in the meantime\n", [2, 3]),
        "config.toml": ("# Seldom.\nname = \"whoever\"\n", [1]),
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, (text, expected) in planted.items():
            path = Path(folder) / name
            path.write_text(text)
            found = sorted({line for line, _ in findings(path, phrases)})
            if found != expected:
                sys.exit(f"error: in a planted {name} the phrases of lines {expected} were to be found, not {found}")


def main(arguments):
    phrases = compiled()
    if arguments[:1] == ["--self-test"]:
        self_test(phrases)
        return
    bad = 0
    for name in arguments:
        found = sorted(findings(Path(name), phrases))
        for line, phrase in found:
            print(f"{name}:{line}: {phrase}")
        bad += len(found)
    if bad:
        sys.exit(f"error: {bad} phrases of .ci/words.txt")


main(sys.argv[1:])
