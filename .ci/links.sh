#!/usr/bin/env bash
# Checks every relative link, with its anchor, of the Markdown files and of the pages that rustdoc makes of the two
# crates. Shows first that it finds dead ones. Does not check links to other sites.
set -euo pipefail
cd "$(dirname "$0")/.."
source .ci/python.sh

# rustdoc's pages of the sources have anchors that only scripts use.
check() {
    "$python/bin/lychee" --offline --include-fragments --no-progress --exclude '/doc/src/' "$@"
}

pages=$(mktemp -d)
trap 'rm -rf "$pages"' EXIT

# `finds TEXT FILE LINK`: shows that the check refuses a page with this dead link beside a good one, and names only
# this link.
finds() {
    local said
    printf '%s\n' "$1" >"$pages/$2"
    if said=$(check "$pages/$2"); then
        echo "error: the check passes a page with the dead link $3" >&2
        exit 1
    fi
    grep -qF "$3" <<<"$said" && grep -q ' 1 Error' <<<"$said" || {
        echo "error: the check does not name the dead link $3: $said" >&2
        exit 1
    }
}
finds $'# Here\n[good](#here) [dead](nowhere.rs)' file.md nowhere.rs
finds $'# Here\n[good](file.md#here) [dead](#there)' anchor.md '#there'
finds '<h1 id="here"><a href="#here">good</a> <a href="nowhere.html">dead</a></h1>' page.html nowhere.html

mapfile -t files < <(git ls-files --cached --others --exclude-standard -- '*.md')
check "${files[@]}"

# rustdoc itself checks links between items. Pages of an earlier run are removed first.
doc=$(realpath -m "${CARGO_TARGET_DIR:-target}/doc")
rm -rf "$doc/axdevice" "$doc/busmap"
RUSTDOCFLAGS='-D warnings' cargo doc --quiet --no-deps --features busmap/rust-vmm
# A page that only redirects to another one lacks the anchors of that page.
leading=()
while read -r page; do
    to=$(sed -n 's/.*http-equiv="refresh" content="0;URL=\([^"]*\)".*/\1/p' "$page")
    leading+=(--remap "file://$page file://$(realpath "$(dirname "$page")/$to")")
done < <(grep -rl 'http-equiv="refresh"' "$doc/axdevice" "$doc/busmap")
check "${leading[@]}" "$doc/axdevice/**/*.html" "$doc/busmap/**/*.html"
