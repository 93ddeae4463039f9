#!/bin/bash
# The cloud kernels that Debian 13 has now, for tests in which a guest goes from one kernel to the next.
#
#   images/kernels.sh list                       prints the package names, oldest first
#   images/kernels.sh download PACKAGE OUT_DIR   writes OUT_DIR/PACKAGE_*.deb and prints its path
#
# Uses the host's apt with lists and cache of its own.
set -euo pipefail
shopt -s inherit_errexit

usage() { sed -n 's/^#   //p' "$0" >&2; exit 2; }
mirror=${CASEMATE_DEBIAN_MIRROR:-http://deb.debian.org/debian}
security=${CASEMATE_DEBIAN_SECURITY_MIRROR:-http://deb.debian.org/debian-security}

state=$(mktemp -d)
trap 'rm -rf "$state"' EXIT
mkdir -p "$state/lists/partial" "$state/cache/archives/partial"
: >"$state/status"
printf 'deb [arch=amd64] %s trixie main\ndeb [arch=amd64] %s trixie-security main\n' "$mirror" "$security" >"$state/sources.list"
apt=(-qq -o "Dir::Etc::sourcelist=$state/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State=$state"
    -o "Dir::State::status=$state/status" -o "Dir::Cache=$state/cache" -o APT::Sandbox::User= -o APT::Architecture=amd64)

case ${1-} in
    list)
        [[ $# -eq 1 ]] || usage
        apt-get "${apt[@]}" update >&2
        apt-cache "${apt[@]}" pkgnames linux-image-6. | grep -E '^linux-image-[0-9.]+\+deb13(\.[0-9]+)?-cloud-amd64$' | sort -V
        ;;
    download)
        [[ $# -eq 3 ]] || usage
        apt-get "${apt[@]}" update >&2
        cd "$3"
        apt-get "${apt[@]}" download "$2"
        ls "$PWD/$2"_*.deb
        ;;
    *) usage ;;
esac
