#!/bin/bash
# The demonstration: a platform, a guest image, a confidential VM with its proof, and three attacks by the operator that are
# refused. Leaves the platform and the VM running.
set -euo pipefail
cd "$(dirname "$0")/.."
casemate=$PWD/target/debug/casemate
data=${CASEMATE_DATA_DIR:-${XDG_DATA_HOME:-$HOME/.local/share}/casemate}
export CASEMATE_DATA_DIR=$data

say() { printf '\n== %s\n' "$*"; }
note() { printf '   %s\n' "$*"; }

vm_json() { "$casemate" --output json vm show "$1" 2>/dev/null; }
vm_dir() { echo "$data/host/vms/$(vm_json "$1" | jq -r '.properties.vmId | ascii_upcase')"; }
exists() { vm_json "$1" >/dev/null; }
phase() { vm_json "$1" | jq -r '.properties.casemate.hostPhase // "-"'; }

# Starts a VM that must be refused, and prints why.
refused() {
    local name=$1 output
    if output=$("$casemate" vm start "$name" 2>&1); then
        echo "error: $name started; it should have been refused" >&2
        exit 1
    fi
    "$casemate" vm show "$name" | grep -E '^ *(refused because|claim|expected|found|rule|remedy) ' | sed 's/^/   /'
}

say "The platform"
if ! "$casemate" status >/dev/null 2>&1 || ! "$casemate" --output json status | jq -e '.supervisor' >/dev/null; then
    "$casemate" up
else
    "$casemate" status
fi

say "The guest image"
if "$casemate" --output json image list | jq -e '.images[] | select(.name == "debian-13")' >/dev/null; then
    note "debian-13 is in the catalogue"
else
    "$casemate" image build --name debian-13
fi

say "A confidential VM"
if ! exists demo; then
    "$casemate" vm create demo
elif [ "$(phase demo)" = stopped ]; then
    "$casemate" vm start demo
fi
note "waiting for the guest to unlock its own disk and to boot (a minute or two where it is emulated)"
for _ in $(seq 150); do
    "$casemate" vm ssh demo -- true >/dev/null 2>&1 && break
    sleep 2
done
"$casemate" vm ssh demo -- 'echo "   the guest says: $(uname -n), kernel $(uname -r), root on $(findmnt -no SOURCE /)"'

say "The proof, claim by claim"
"$casemate" vm attest demo

say "What the operator sees of the disk"
disk=$(vm_dir demo)/disk.img
image=$data/images/$("$casemate" --output json image list | jq -r '.images[] | select(.name == "debian-13") | .digest')/disk.raw
for file in "$image" "$disk"; do
    note "$(grep -a -c 'Debian GNU/Linux' "$file" || true) lines with the text 'Debian GNU/Linux' in $file"
done

say "Three attacks by the operator"
if ! exists victim; then
    "$casemate" vm create victim
    "$casemate" vm stop victim
fi
victim=$(vm_dir victim)
keep=$(mktemp -d)
trap 'rm -rf "$keep"' EXIT

note "1. another firmware: one bit of it is flipped on the host"
config=$data/host/config.toml
cp "$config" "$keep/config.toml"
firmware=$(sed -n 's/^firmware_code = "\(.*\)"/\1/p' "$config")
cp "$firmware" "$data/host/other-firmware.fd"
printf '\x01' | dd of="$data/host/other-firmware.fd" bs=1 seek=4096 conv=notrunc status=none
sed -i "s#^firmware_code = .*#firmware_code = \"$data/host/other-firmware.fd\"#" "$config"
pkill -x -f "$PWD/target/debug/casemate-host-agent --config $config" || true
sleep 3
refused victim
cp "$keep/config.toml" "$config"
rm -f "$data/host/other-firmware.fd"
pkill -x -f "$PWD/target/debug/casemate-host-agent --config $config" || true
sleep 3

note "2. a tampered disk: bytes of the partition table, boot partition or LUKS header are changed"
region=$victim/boot-region.img
cp --sparse=always "$region" "$keep/region"
printf '\xff' | dd of="$region" bs=1 seek=70000 conv=notrunc status=none
refused victim
cp --sparse=always "$keep/region" "$region"

note "3. a stolen guest state: another VM's is put in place of the victim's"
state=$victim/guest-state.vmgs
cp --sparse=always "$state" "$keep/state"
cp --sparse=always "$(vm_dir demo)/$(basename "$state")" "$state"
refused victim
cp --sparse=always "$keep/state" "$state"

say "What to try next"
note "log in:                      target/debug/casemate vm ssh demo"
note "every decision, and proof:   target/debug/casemate log --last 10"
note "the evidence, verified:      target/debug/casemate vm evidence demo --file e.json && target/debug/casemate verify e.json"
note "the serial console:          target/debug/casemate vm console demo --follow"
note "a VM of your own:            target/debug/casemate vm create mine --custom-data cloud-config.yaml"
note "stop everything:             target/debug/casemate down"
note "This is a development platform: its secure processor is a program, and whoever runs this machine can read its VMs."
