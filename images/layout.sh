# The image's layout, read by build.sh and assemble.sh. Sizes in MiB, GUIDs fixed so that command line and fstab can name
# them before the disk exists.
# shellcheck shell=bash disable=SC2034

ESP_START=1 ESP_SIZE=200
ROOT_START=201 ROOT_SIZE=784
# Free at the partition's end, for the LUKS2 header: the file system moves up by as much when it is encrypted.
ROOT_RESERVED=16

LUKS_UUID=5ca5e3a7-e000-4c7f-9d1e-c0de10c4ed01
DISK_GUID=5CA5E3A7-E000-4C7F-9D1E-C0DE10C4ED10
ESP_PARTUUID=5ca5e3a7-e000-4c7f-9d1e-c0de10c4ed11
ROOT_PARTUUID=5ca5e3a7-e000-4c7f-9d1e-c0de10c4ed12
ROOT_FS_UUID=5ca5e3a7-e000-4c7f-9d1e-c0de10c4ed13
ESP_VOLUME_ID=5CA5E3A7
