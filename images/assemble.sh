#!/bin/bash
# Makes DIR/disk.raw from DIR/root.tar: a GPT with the ESP and the root file system. Called by build.sh, as root of the
# machine or of a user namespace.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/layout.sh"
cd "$1"
export MTOOLS_SKIP_CHECK=1 E2FSPROGS_FAKE_TIME=$SOURCE_DATE_EPOCH

mkdir tree
tar -C tree --numeric-owner --exclude='./dev/*' -xf root.tar
rm root.tar

# The tree is case-sensitive, FAT is not. Of BOOTX64.EFI (systemd-boot, by bootctl) and BOOTX64.efi (shim, by the package's
# script, written last) shim has to be the one.
esp=tree/boot/efi
if [[ -e $esp/EFI/BOOT/BOOTX64.efi ]]; then
    mv "$esp/EFI/BOOT/BOOTX64.efi" "$esp/EFI/BOOT/BOOTX64.EFI"
fi
# Beside shim in EFI/BOOT lies Debian's fbx64.efi, which makes a boot entry and resets the machine once. Without it shim
# starts the second stage by its built-in name at once, with the same PCR values. A later update of shim in the guest
# brings fbx64.efi back, and the machine goes over to the entry in EFI/debian by itself.
rm -f "$esp/EFI/BOOT/fbx64.efi"
cp "$esp/EFI/systemd/systemd-bootx64.efi" "$esp/EFI/BOOT/grubx64.efi"
cmp -s "$esp/EFI/BOOT/BOOTX64.EFI" tree/usr/lib/shim/shimx64.efi.signed || { echo "EFI/BOOT/BOOTX64.EFI is not the signed shim" >&2; exit 1; }
compgen -G "$esp/loader/entries/debian-*.conf" >/dev/null || { echo "Debian's hooks left no boot entry" >&2; exit 1; }

truncate -s "${ESP_SIZE}M" esp.img
mkfs.vfat -F 32 -n ESP -i "$ESP_VOLUME_ID" esp.img >/dev/null
mcopy -s -m -i esp.img "$esp"/* ::
find "$esp" -mindepth 1 -delete

truncate -s "$((ROOT_SIZE - ROOT_RESERVED))M" root.img
mkfs.ext4 -q -F -b 4096 -m 0 -L root -U "$ROOT_FS_UUID" -d tree \
    -E "hash_seed=$ROOT_FS_UUID,lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0" root.img

truncate -s "$((ROOT_START + ROOT_SIZE + 1))M" disk.raw
sgdisk --set-alignment=2048 --disk-guid="$DISK_GUID" \
    --new="1:${ESP_START}M:+${ESP_SIZE}M" --typecode=1:c12a7328-f81f-11d2-ba4b-00a0c93ec93b --change-name=1:esp --partition-guid="1:$ESP_PARTUUID" \
    --new="2:${ROOT_START}M:+${ROOT_SIZE}M" --typecode=2:4f68bce3-e8cd-4db1-96e7-fbcaf984b709 --change-name=2:root --partition-guid="2:$ROOT_PARTUUID" \
    disk.raw >/dev/null
dd if=esp.img of=disk.raw bs=1M seek="$ESP_START" conv=notrunc,sparse status=none
dd if=root.img of=disk.raw bs=1M seek="$ROOT_START" conv=notrunc,sparse status=none
rm -rf tree esp.img root.img
