#!/bin/bash
# Builds the guest image from Debian's packages: signed shim, systemd-boot and kernel, boot entries by Debian's own hooks.
#
#   images/build.sh [--plain] OUT_DIR      writes OUT_DIR/debian.raw (--plain: OUT_DIR/debian-plain.raw)
#
# The default image boots only after its root partition was encrypted (the paravisor does that before the first boot);
# the plain one boots as it is, for VMs whose guest state alone is encrypted. Works as root, and as a user that may make
# user namespaces. Needs no loop device and mounts nothing outside the tree that it builds.
set -euo pipefail
shopt -s inherit_errexit

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/layout.sh"

kind=confidential name=debian
if [[ ${1-} == --plain ]]; then kind=plain name=debian-plain; shift; fi
[[ $# -eq 1 ]] || { echo "usage: images/build.sh [--plain] OUT_DIR" >&2; exit 2; }
mkdir -p "$1"
out=$(cd "$1" && pwd)

# The kernel's package; another one than Debian's newest for tests of an update.
kernel=${CASEMATE_GUEST_KERNEL:-linux-image-cloud-amd64}
mirror=${CASEMATE_DEBIAN_MIRROR:-http://deb.debian.org/debian}
security=${CASEMATE_DEBIAN_SECURITY_MIRROR:-http://deb.debian.org/debian-security}
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(date +%s)}
export PATH=$PATH:/usr/sbin:/sbin

check_programs() {
    local missing=0 program package
    while read -r program package; do
        command -v "$program" >/dev/null && continue
        echo "missing program $program: apt install $package" >&2
        missing=1
    done <<'LIST'
mmdebstrap mmdebstrap
sgdisk gdisk
mkfs.vfat dosfstools
mcopy mtools
mkfs.ext4 e2fsprogs
unshare util-linux
LIST
    [[ $(id -u) -eq 0 ]] || command -v newuidmap >/dev/null || { echo "missing program newuidmap: apt install uidmap" >&2; missing=1; }
    return $missing
}

# Runs a command as root, or as root of a user namespace whose other ids are the user's subordinate ids.
as_root() {
    if [[ $(id -u) -eq 0 ]]; then "$@"; else unshare --user --map-root-user --map-auto -- "$@"; fi
}

# The files that the packages' hooks read while they are configured.
write_kernel_files() {
    local to=$1
    mkdir -p "$to"
    sed -e "s/@LUKS_UUID@/$LUKS_UUID/g; s/@ROOT_PARTUUID@/$ROOT_PARTUUID/g" "$here/files/cmdline-$kind" >"$to/cmdline"
    echo debian >"$to/entry-token"
    cp "$here/files/install.conf" "$to/install.conf"
    cp "$here/files/dracut.conf" "$to/10-casemate.conf"
}

write_fstab() {
    local root=/dev/mapper/root
    [[ $kind == confidential ]] || root=PARTUUID=$ROOT_PARTUUID
    printf '%s / ext4 defaults,x-systemd.growfs 0 1\nPARTUUID=%s /boot/efi vfat umask=0077 0 0\n' "$root" "$ESP_PARTUUID"
}

# The guest's package sources: Debian's own addresses, whatever mirror built the image.
write_sources() {
    cat <<'SOURCES'
Types: deb
URIs: http://deb.debian.org/debian
Suites: trixie trixie-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://deb.debian.org/debian-security
Suites: trixie-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
SOURCES
}

packages() { sed -e 's/#.*//' -e "s/^linux-image-cloud-amd64\$/$kernel/" "$here/packages.txt" | tr -s ' \n' ',' | sed -e 's/^,//; s/,$//'; }

bootstrap() {
    local work=$1 mode=unshare masked
    [[ $(id -u) -ne 0 ]] || mode=root
    masked=$(tr '\n' ' ' <"$here/files/masked-units.txt")
    # So that bootctl and kernel-install take /boot/efi of the tree for the boot partition.
    export SYSTEMD_ESP_PATH=/boot/efi SYSTEMD_RELAX_ESP_CHECKS=1 BOOT_MNT=/boot/efi
    cd "$work"
    mmdebstrap --mode=$mode --variant=minbase --architectures=amd64 --components=main --format=tar \
        --aptopt='Apt::Install-Recommends "false"' \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='force-unsafe-io' \
        --essential-hook='mkdir -p "$1/etc/dracut.conf.d" "$1/etc/kernel" "$1/boot/efi"' \
        --essential-hook='copy-in 10-casemate.conf /etc/dracut.conf.d' \
        --essential-hook='copy-in cmdline entry-token install.conf /etc/kernel' \
        --customize-hook='mkdir -p "$1/etc/systemd/system/cloud-init-main.service.d" "$1/etc/cloud/cloud.cfg.d"' \
        --customize-hook='upload '"$here"'/files/20-ethernet.network /etc/systemd/network/20-ethernet.network' \
        --customize-hook='upload '"$here"'/files/cloud.cfg /etc/cloud/cloud.cfg.d/90-casemate.cfg' \
        --customize-hook='upload '"$here"'/files/ds-identify.cfg /etc/cloud/ds-identify.cfg' \
        --customize-hook='upload '"$here"'/files/cloud-init-no-firmware-strings.conf /etc/systemd/system/cloud-init-main.service.d/no-firmware-strings.conf' \
        --customize-hook='mkdir -p "$1/usr/local/lib/casemate"' \
        --customize-hook='upload '"$here"'/files/provisioning-seed /usr/local/lib/casemate/provisioning-seed' \
        --customize-hook='chmod 755 "$1/usr/local/lib/casemate/provisioning-seed"' \
        --customize-hook='upload '"$here"'/files/provisioning-seed.service /etc/systemd/system/provisioning-seed.service' \
        --customize-hook='upload '"$here"'/files/provisioning-done.service /etc/systemd/system/provisioning-done.service' \
        --customize-hook='upload '"$here"'/files/loader.conf /boot/efi/loader/loader.conf' \
        --customize-hook='upload fstab /etc/fstab' \
        --customize-hook='rm -f "$1/etc/apt/sources.list"' \
        --customize-hook='upload debian.sources /etc/apt/sources.list.d/debian.sources' \
        --customize-hook='chroot "$1" systemctl enable systemd-networkd.service systemd-resolved.service ssh.service provisioning-seed.service provisioning-done.service' \
        --customize-hook='chroot "$1" systemctl mask '"$masked" \
        --customize-hook='mkdir -p "$1/etc/systemd/system-generators"; ln -s /dev/null "$1/etc/systemd/system-generators/systemd-ssh-generator"' \
        --customize-hook='ln -sf ../run/systemd/resolve/stub-resolv.conf "$1/etc/resolv.conf"' \
        --customize-hook='rm -f "$1"/etc/ssh/ssh_host_* "$1/var/lib/dbus/machine-id" "$1/boot/efi/loader/random-seed"' \
        --customize-hook=': >"$1/etc/machine-id"; echo debian >"$1/etc/hostname"; sed -i /force-unsafe-io/d "$1"/etc/dpkg/dpkg.cfg.d/*mmdebstrap*' \
        --customize-hook='touch "$1/etc/.updated" "$1/var/.updated"' \
        --customize-hook='chroot "$1" dpkg-query -W >"$1/packages.list"' \
        --customize-hook='download /packages.list packages.list' \
        --customize-hook='rm "$1/packages.list"' \
        --include="$(packages)" trixie root.tar \
        "deb $mirror trixie main" "deb $mirror trixie-updates main" "deb $security trixie-security main"
    cd "$here"
}

main() {
    check_programs
    local work
    work=$(mktemp -d "$out/.build.XXXXXX")
    # shellcheck disable=SC2064 # the value of now
    trap "as_root rm -rf '$work'" EXIT
    chmod 755 "$work"
    write_kernel_files "$work"
    write_fstab >"$work/fstab"
    write_sources >"$work/debian.sources"
    bootstrap "$work"
    as_root "$here/assemble.sh" "$work"
    mv "$work/disk.raw" "$out/$name.raw"
    mv "$work/packages.list" "$out/$name.packages"
    echo "$out/$name.raw"
}

main
