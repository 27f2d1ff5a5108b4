#!/bin/bash
# Run a command of this project beside a newer Slurm: in a chroot of a later Debian, with mounts of its own.
#
#     sudo tests/slurm/newer.sh [-s SUITE] [-d DIR] -- .venv/bin/pytest tests/slurm
#
# SUITE trixie (the default) has Slurm 24.11. DIR (default: /var/tmp/hpcft-SUITE) is made when absent, about 600 MB.
# The project, its Python and /tmp are those of this machine; Slurm, MariaDB and the C library are the suite's.
set -euo pipefail

fail() {
    echo "newer.sh: $*" >&2
    exit 1
}

suite=trixie folder=
while getopts s:d: option; do
    case $option in
        s) suite=$OPTARG ;;
        d) folder=$OPTARG ;;
        *) exit 2 ;;
    esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || fail "no command; see the head of this file"
[ "$(id -u)" = 0 ] || fail "run as root: it makes a chroot"
folder=${folder:-/var/tmp/hpcft-$suite}
project=$(cd "$(dirname "$0")/../.." && pwd)

packages=slurmctld,slurmd,slurmdbd,slurm-client,slurm-wlm-mysql-plugin,munge,mariadb-server-core,mariadb-client-core
packages=$packages,python3,iproute2,procps,hostname,ca-certificates,git,gcc,libc6-dev
if [ ! -e "$folder/.complete" ]; then
    if ! command -v debootstrap >/dev/null; then
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends debootstrap >/dev/null ||
            fail "debootstrap could not be installed"
    fi
    mkdir -p "$folder"
    debootstrap --variant=minbase --include="$packages" "$suite" "$folder" >"$folder.log" 2>&1 ||
        fail "debootstrap failed: $(tail -n 3 "$folder.log")"
    touch "$folder/.complete"
fi

# A Python below /usr would be hidden by the suite's: then its program and its library alone are lent.
readarray -t python < <("$project/.venv/bin/python" -c '
import os, sys, sysconfig
usr = sys.base_prefix == "/usr"
own = [os.path.realpath(sys.executable), sysconfig.get_path("stdlib")] if usr else [sys.base_prefix]
print(*own, sep="\n")')

# shellcheck disable=SC2016  # the inner shell's variables
exec unshare --mount --propagation private bash -c '
    set -euo pipefail
    root=$1 project=$2 lent=$3
    shift 3
    for path in /proc /sys /dev /tmp "$project" "${@:1:$lent}"; do
        if [ -d "$path" ]; then
            mkdir -p "$root$path"
        else
            touch "$root$path"
        fi
        mount --rbind "$path" "$root$path"
    done
    shift "$lent"
    cp /etc/hosts "$root/etc/hosts"
    exec chroot "$root" bash -c "cd \"\$0\" && exec \"\$@\"" "$project" "$@"
' bash "$folder" "$project" "${#python[@]}" "${python[@]}" \
    env LC_ALL=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
