#!/bin/bash
# Downloads a Debian 13 cloud kernel other than the image's, for the test in which a guest installs another kernel.
#
#   images/fetch-kernel.sh OUT_DIR         needs OUT_DIR/debian.packages (by build.sh); writes OUT_DIR/linux-image-*.deb
#
# Takes the newest version that is not the image's own. Uses the host's apt with lists and cache of its own.
set -euo pipefail
shopt -s inherit_errexit

[[ $# -eq 1 ]] || { echo "usage: images/fetch-kernel.sh OUT_DIR" >&2; exit 2; }
out=$(cd "$1" && pwd)
mirror=${CASEMATE_DEBIAN_MIRROR:-http://deb.debian.org/debian}
security=${CASEMATE_DEBIAN_SECURITY_MIRROR:-http://deb.debian.org/debian-security}

state=$(mktemp -d "$out/.kernel.XXXXXX")
trap 'rm -rf "$state"' EXIT
chmod 755 "$state"
mkdir -p "$state/lists/partial" "$state/cache/archives/partial"
: >"$state/status"
printf 'deb [arch=amd64] %s trixie main\ndeb [arch=amd64] %s trixie-security main\n' "$mirror" "$security" >"$state/sources.list"

apt=(-qq -o "Dir::Etc::sourcelist=$state/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State=$state"
    -o "Dir::State::status=$state/status" -o "Dir::Cache=$state/cache" -o APT::Sandbox::User= -o APT::Architecture=amd64)
apt-get "${apt[@]}" update

installed=$(awk '$1 ~ /^linux-image-[0-9].*-cloud-amd64$/ { print $1 }' "$out/debian.packages")
other=$(apt-cache "${apt[@]}" pkgnames linux-image-6. | grep -E '^linux-image-[0-9.]+\+deb13(\.[0-9]+)?-cloud-amd64$' |
    grep -vxF "$installed" | sort -V | tail -n 1)
[[ -n $other ]] || { echo "the mirror has no cloud kernel but $installed" >&2; exit 1; }
cd "$out"
apt-get "${apt[@]}" download "$other"
ls "$out/$other"_*.deb
