"""Prints the files that each file of a crate uses, and fails on an import circle.

usage: modules.py [--self-test] SRC...

A file uses another if it names an item of it by a path that begins with `crate`, `self`, `super` or
one of its own modules: in a `use`, or anywhere in the code. An item that lib.rs publishes counts as used
where it is defined, and what lib.rs itself uses does not count. Code for tests only does not count either:
items that a `cfg` leaves out if neither `test` nor `object_code` is set.

Circles are searched between files, and in each folder between its entries: its mod.rs, its other
files, and its folders, each as a whole.
"""

import re
import shutil
import sys
import tempfile
from collections import namedtuple
from pathlib import Path

TOKEN = re.compile(
    r"""
    (?P<skip> \s+ | //[^\n]* )
  | (?P<block> /\* )
  | (?P<text> [bc]?r(?P<hashes>\#*)".*?"(?P=hashes) | [bc]?"(?:\\.|[^"\\])*" | b?'(?:\\.[^']*|[^'\\])' )
  | (?P<word> '?(?:r\#)?[A-Za-z_][A-Za-z_0-9]* )
  | (?P<sign> :: | . )
    """,
    re.VERBOSE | re.DOTALL,
)
OPEN, CLOSE = set("([{"), set(")]}")
# Items that end with a semicolon, even after braces.
UNTIL_SEMICOLON = {"use", "static", "const", "type", "let", "extern"}
# Items that end with a semicolon or with their first braces.
ITEMS = {"fn", "mod", "impl", "struct", "enum", "union", "trait", "unsafe", "macro_rules", "async"}

Token = namedtuple("Token", "text line")
Use = namedtuple("Use", "path line")


def tokens(source):
    """The words and signs of a source, without comments and strings."""
    found, at, line = [], 0, 1
    while at < len(source):
        match = TOKEN.match(source, at)
        end = match.end()
        if match["block"]:
            depth = 1
            while depth and end < len(source):
                sign = source[end : end + 2]
                depth += (sign == "/*") - (sign == "*/")
                end += 2 if sign in ("/*", "*/") else 1
        elif match["word"] or match["sign"]:
            found.append(Token(match[0].removeprefix("r#"), line))
        line += source.count("\n", at, end)
        at = end
    return found


def group_end(code, at):
    """The index after the group that opens at an index."""
    depth = 0
    while at < len(code):
        depth += (code[at].text in OPEN) - (code[at].text in CLOSE)
        at += 1
        if depth == 0:
            break
    return at


def item_end(code, at):
    """The index after the item, statement, field or arm that begins at an index."""
    while code[at].text == "#":
        at = group_end(code, at + 1)
    if code[at].text == "pub":
        at += 1
        if code[at].text == "(":
            at = group_end(code, at)
    word = code[at].text
    if word == "const" and code[at + 1].text in ("fn", "unsafe"):
        word = "fn"
    while at < len(code):
        text = code[at].text
        if text in CLOSE:
            return at
        if text == ";" or (text == "," and word not in ITEMS | UNTIL_SEMICOLON):
            return at + 1
        if text in OPEN:
            at = group_end(code, at)
            if text == "{" and word not in UNTIL_SEMICOLON:
                return at
        else:
            at += 1
    return at


def holds(cfg):
    """Whether a `cfg` can hold outside tests: True, False, or None if that depends on other options."""
    word, rest = cfg[0].text, cfg[2:-1]
    if word in ("all", "any", "not") and len(cfg) > 1:
        parts, part, depth = [], [], 0
        for token in rest:
            depth += (token.text in OPEN) - (token.text in CLOSE)
            if token.text == "," and depth == 0:
                parts.append(part)
                part = []
            else:
                part.append(token)
        values = [holds(part) for part in [*parts, part] if part]
        if word == "not":
            return None if values[0] is None else not values[0]
        stops = word == "any"
        if stops in values:
            return stops
        return None if None in values else not stops
    return False if word in ("test", "object_code") and len(cfg) == 1 else None


def without_tests(code):
    """The code without the attributes, and without the items that they restrict to tests."""
    kept, at = [], 0
    while at < len(code):
        if code[at].text != "#" or code[at + 1].text not in ("[", "!"):
            kept.append(code[at])
            at += 1
            continue
        inner = code[at + 1].text == "!"
        start = at + 1 + inner
        end = group_end(code, start)
        attribute = code[start + 1 : end - 1]
        if attribute[0].text == "cfg" and holds(attribute[2:-1]) is False:
            if inner:
                return []
            end = item_end(code, end)
        at = end
    return kept


class Module:
    """A file, and the modules in it, each by its path from the root of the crate."""

    def __init__(self, file, path, code):
        self.file, self.path, self.code = file, path, code


class Crate:
    def __init__(self, src):
        self.src = Path(src)
        # The file of each module path, and the items of other files that lib.rs publishes.
        self.files, self.published = {}, {}
        self.modules = []
        self.read(self.src / "lib.rs", ())
        for module in self.modules:
            if not module.path:
                for use in self.uses_of(module):
                    self.published[use.path[-1]] = use.path
        self.uses = {}
        for module in self.modules:
            if module.path:
                self.uses.setdefault(module.file, {})
                for use in self.uses_of(module):
                    used = self.file_of(use.path)
                    if used and used != module.file:
                        self.uses[module.file].setdefault(used, use.line)

    def name(self, file):
        return file.relative_to(self.src).as_posix()

    def read(self, file, path):
        """Reads a file, and its modules, except those for tests only."""
        self.files[path] = file
        self.split(file, path, without_tests(tokens(file.read_text())))

    def split(self, file, path, code):
        """Separates the code of a module from that of its submodules."""
        own, at = [], 0
        while at < len(code):
            if code[at].text == "mod" and at + 2 < len(code):
                name, then = code[at + 1].text, code[at + 2].text
                inner = (*path, name)
                if then == ";":
                    folder = self.src.joinpath(*path)
                    choices = [folder / f"{name}.rs", folder / name / "mod.rs"]
                    self.read(next(choice for choice in choices if choice.exists()), inner)
                    at += 3
                    continue
                if then == "{":
                    end = group_end(code, at + 2)
                    self.files[inner] = file
                    self.split(file, inner, code[at + 3 : end - 1])
                    at = end
                    continue
            own.append(code[at])
            at += 1
        self.modules.append(Module(file, path, own))

    def absolute(self, path, module):
        """A path from the root of the crate, or None if it does not lead into the crate."""
        base, path = list(module.path), list(path)
        if path[0] == "crate":
            base = []
        elif path[0] == "super":
            while path and path[0] == "super":
                base.pop()
                path.pop(0)
            return (*base, *path)
        elif path[0] != "self":
            return (*base, *path) if (*base, path[0]) in self.files else None
        return (*base, *path[1:])

    def file_of(self, path):
        """The file that contains the item of a path, or None if that is lib.rs."""
        if path and (path[0],) not in self.files:
            path = self.published.get(path[0], ())
        while path and path not in self.files:
            path = path[:-1]
        return self.files[path] if path else None

    def uses_of(self, module):
        """The paths into the crate in a module's code."""
        code, at = module.code, 0
        while at < len(code):
            if code[at].text == "use":
                end = item_end(code, at)
                yield from self.leaves(code[at + 1 : end - 1], (), module)
                at = end
                continue
            if code[at].text[0].isalpha() or code[at].text[0] == "_":
                path, line = [code[at].text], code[at].line
                # A path that continues another expression, such as a method, does not count.
                first = at == 0 or code[at - 1].text not in ("::", ".")
                while at + 2 < len(code) and code[at + 1].text == "::" and code[at + 2].text[0].isalpha():
                    at += 2
                    path.append(code[at].text)
                if first and (len(path) > 1):
                    absolute = self.absolute(path, module)
                    if absolute is not None:
                        yield Use(absolute, line)
            at += 1

    def leaves(self, tree, before, module):
        """The paths that a `use` names."""
        path, at = list(before), 0
        while at < len(tree):
            text = tree[at].text
            if text == "{":
                branch, depth = [], 0
                for token in tree[at + 1 : group_end(tree, at) - 1]:
                    depth += (token.text in OPEN) - (token.text in CLOSE)
                    if token.text == "," and depth == 0:
                        yield from self.leaves(branch, path, module)
                        branch = []
                    else:
                        branch.append(token)
                yield from self.leaves(branch, path, module)
                return
            if text == "as":
                break
            if text not in ("::", "*") and not (text == "self" and path):
                path.append(text)
            at += 1
        if tree and path:
            absolute = self.absolute(path, module)
            if absolute is not None:
                yield Use(absolute, tree[0].line)

    def folders(self):
        """For each folder, the entries that each entry uses, with the file and the line that show it."""
        graphs = {}
        for user, uses in self.uses.items():
            for used, line in uses.items():
                one, other = user.relative_to(self.src).parts, used.relative_to(self.src).parts
                common = 0
                while one[common] == other[common]:
                    common += 1
                graph = graphs.setdefault("/".join(one[:common]), {})
                shown = (f"{self.name(user)}:{line}", self.name(used))
                graph.setdefault(one[common], {}).setdefault(other[common], shown)
        return graphs

    def circles(self):
        """Every circle, as a list of its steps."""
        files = {
            self.name(user): {
                self.name(used): (f"{self.name(user)}:{line}", self.name(used)) for used, line in uses.items()
            }
            for user, uses in self.uses.items()
        }
        found = [("between files", circle) for circle in circles(files)]
        for folder, graph in sorted(self.folders().items()):
            where = f"in the folder {folder}" if folder else "at the top"
            found += [(where, circle) for circle in circles(graph)]
        return found


def circles(graph):
    """For each strongly connected part of a graph, its shortest circle: the steps."""
    found, done = [], set()
    for start in sorted(graph):
        if start in done:
            continue
        # Breadth first, so that the first way back is the shortest.
        before, queue = {}, [start]
        while queue and start not in before:
            node = queue.pop(0)
            for following in sorted(graph.get(node, {})):
                if following not in before:
                    before[following] = node
                    queue.append(following)
        if start in before:
            circle, node = [], start
            while not circle or node != start:
                circle.insert(0, (before[node], node, graph[before[node]][node]))
                node = before[node]
            found.append(circle)
            done.update(node for node, _, _ in circle)
    return found


def show(crate):
    print(f"-- {crate.src}")
    for user, uses in sorted(crate.uses.items()):
        print(f"{crate.name(user)}: {', '.join(sorted(map(crate.name, uses))) or '-'}")


def check(crate):
    found = crate.circles()
    for where, circle in found:
        print(f"error: {crate.src}: a circle {where}:", file=sys.stderr)
        for user, used, (line, file) in circle:
            print(f"    {user} uses {used}: {line} names something of {file}", file=sys.stderr)
    return not found


def self_test(src):
    """Plants circles in copies of the sources, each in another way, and checks that they are found."""
    plain = Crate(src)

    def reaches(one, other):
        seen, queue = set(), [one]
        while queue:
            for file in plain.uses.get(queue.pop(), {}):
                if file not in seen:
                    seen.add(file)
                    queue.append(file)
        return other in seen

    # Two files of which one uses the other, and not the other way round.
    user, used = next(
        (user, used)
        for user, uses in sorted(plain.uses.items())
        for used in sorted(uses)
        if user.parent == used.parent == plain.src and not reaches(used, user)
    )
    name = user.stem

    def planted(files):
        with tempfile.TemporaryDirectory() as temporary:
            copy = Path(temporary) / "src"
            shutil.copytree(src, copy)
            for file, text in files.items():
                file = copy / file
                file.parent.mkdir(exist_ok=True)
                file.write_text((file.read_text() if file.exists() else "") + text)
            return Crate(copy).circles()

    def between(one, other, found):
        return any(where == "between files" and {one, other} <= {a for a, _, _ in circle} for where, circle in found)

    closes = [
        f"\nuse crate::{name};\n",
        f"\npub(crate) use super::{{{name}::{{Planted as Other, self}}}};\n",
        f"\nfn planted() {{ let _ = (1, crate::{name}::planted); }}\n",
        f"\n#[cfg(any(test, not(test)))]\nmod planted {{ use super::super::{name}::*; }}\n",
        f"\nmacro_rules! planted {{ () => {{ $crate::{name}::planted() }} }}\n",
    ]
    for text in closes:
        found = planted({used.name: text})
        if not between(used.name, user.name, found):
            sys.exit(f"error: {src}: no circle found after this was planted in {used.name}: {text}")
    leaves_out = [
        f"\n// use crate::{name};\n/* use crate::{name}; */\n/// [`crate::{name}`]\nfn planted() {{}}\n",
        f'\nconst PLANTED: &str = "crate::{name}::X";\n',
        f"\n#[cfg(all(test, not(loom)))]\nmod planted {{ use crate::{name}::*; }}\n",
        f"\n#[cfg(object_code)]\nuse crate::{name}::{{self}};\n",
    ]
    for text in leaves_out:
        if between(used.name, user.name, planted({used.name: text})):
            sys.exit(f"error: {src}: a circle found after this was planted in {used.name}: {text}")
    # Each of two folders uses a file of the other, but no file uses itself through others.
    folders = {"lib.rs": "\nmod planted_a;\nmod planted_b;\n"}
    for one, other in ("ab", "ba"):
        folders |= {
            f"planted_{one}/mod.rs": "mod user;\npub(crate) mod used;\n",
            f"planted_{one}/user.rs": f"use crate::planted_{other}::used;\n",
            f"planted_{one}/used.rs": "",
        }
    found = planted(folders)
    if not any(where == "at the top" and "planted_a" in {a for a, _, _ in circle} for where, circle in found):
        sys.exit(f"error: {src}: no circle found between two folders that were planted")
    print(f"{src}: finds the circles that were planted, with {user.name} and {used.name}, and between folders")


def main():
    arguments = sys.argv[1:]
    if arguments[:1] == ["--self-test"]:
        for src in arguments[1:]:
            self_test(src)
        return
    crates = [Crate(src) for src in arguments]
    for crate in crates:
        show(crate)
    if not all([check(crate) for crate in crates]):
        sys.exit(1)


main()
