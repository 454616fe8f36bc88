#!/usr/bin/env bash
# Looks for the phrases of .ci/words.txt, in Markdown and in comments; shows first that it finds planted ones.
set -euo pipefail
cd "$(dirname "$0")/.."
source .ci/python.sh

"$python/bin/python" .ci/words.py --self-test
git ls-files -z --cached --others --exclude-standard -- '*.md' '*.rs' '*.sh' '*.toml' '*.yml' '*.py' .ci ':!*.txt' |
    xargs -0 "$python/bin/python" .ci/words.py
