#!/bin/sh
# Install what a test cluster (cluster.py) and the tests of completion need on Debian or Ubuntu, and the packages that
# are named; does nothing when all of it is there.
# Run as root. No system service is started: the cluster runs daemons of its own.
set -eu

packages="slurmctld slurmd slurmdbd slurm-client munge mariadb-server-core mariadb-client-core zsh fish $*"

fail() {
    echo "install.sh: $*" >&2
    exit 1
}

command -v apt-get >/dev/null || fail "no apt-get; install the equivalents of: $packages"

wanted=
for package in $packages; do
    # shellcheck disable=SC2016  # dpkg-query's own variable
    status=$(dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || wanted="$wanted $package"
done
[ -n "$wanted" ] || exit 0
[ "$(id -u)" = 0 ] || fail "run as root to install:$wanted"

# Debian starts the services of what it installs unless this script says no (101).
policy=/usr/sbin/policy-rc.d
kept=
log=$(mktemp)
restore() {
    rm -f "$policy" "$log"
    [ -z "$kept" ] || mv "$kept" "$policy"
}
trap restore EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
if [ -e "$policy" ]; then
    kept=$(mktemp "$policy.XXXXXX")
    mv "$policy" "$kept"
fi
printf '#!/bin/sh\nexit 101\n' >"$policy"
chmod 755 "$policy"

install_wanted() {
    # shellcheck disable=SC2086  # a list of words
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $wanted >"$log" 2>&1
}

# Package lists that are missing or too old show in a failure: then, and only then, fetch new ones.
if ! install_wanted; then
    apt-get update -qq
    install_wanted || {
        tail -n 20 "$log" >&2
        fail "apt-get could not install:$wanted"
    }
fi
