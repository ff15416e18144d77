# shellcheck shell=bash
# What .ci/run and .ci/matrix share. Both stand at the root of the work tree when they source it.

# Nothing here asks a question.
exec </dev/null
# With CI set, a type checker that can't be started is a failure, and not a reason to skip its tests.
export CI=true
# So is a redis-server that is missing.
export RETRYKIT_REQUIRE_REDIS=1
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PYRIGHT_PYTHON_IGNORE_WARNINGS=1

headline() { printf '\n=== %s\n' "$*"; }

fail() {
    printf '\n.ci/%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# have_redis_server: install it where there is none.
have_redis_server() {
    local as_root=()
    command -v redis-server >/dev/null && return
    headline "Install redis-server"
    ((EUID == 0)) || as_root=(sudo -n)
    "${as_root[@]}" apt-get update -qq \
        && "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends redis-server \
        || fail "redis-server is missing, and could not be installed by apt-get; install it"
}

# copy_tree DIRECTORY: the work tree as it stands, without what git ignores.
copy_tree() {
    mkdir -p "$1"
    # In a container, the tree may well belong to another user.
    git -c safe.directory="$PWD" ls-files -z --cached --others --exclude-standard | tar -c --null -T - | tar -x -C "$1"
}

# in_venv DIRECTORY COMMAND...
in_venv() {
    local venv=$1
    shift
    PATH="$venv/bin:$PATH" VIRTUAL_ENV="$venv" "$@"
}
