//! A later start: opening what an earlier one left, and looking at what the host did meanwhile.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use internal_api::launch::SecurityEncryption;
use internal_api::paravisor::{Event, ParavisorConfig};
use sealed_disk::guest_state::{Kek, LockedState};
use sealed_disk::image::DiskLayout;
use sealed_disk::xts::Xts;

use super::keeper::{Keeper, open_file};
use super::launch::Launch;
use super::provision::size_refused;
use super::record::VolumeRecord;
use super::recovery;
use super::recovery_document::{self, Publication};
use super::world::Observer;
use crate::disk::hole;
use crate::failure::Stop;

/// The guest state of an earlier start, still locked; `None` if this is the first.
pub fn find(launch: &Launch, config: &ParavisorConfig) -> Result<Option<LockedState>, Stop> {
    if !config.guest_state.try_exists().map_err(|error| Stop::io("looking for the guest state", &error))? {
        return Ok(None);
    }
    Ok(Some(LockedState::open(open_file(&config.guest_state)?, launch.vm_id)?))
}

/// Unlocks the guest state and checks that the disk is the one that belongs to it.
pub fn open(
    launch: &Launch,
    config: &ParavisorConfig,
    locked: LockedState,
    kek: &Kek,
    observer: &dyn Observer,
) -> Result<Keeper, Stop> {
    let mut keeper = Keeper::open(locked.unlock(kek)?, &config.boot_region)?;
    if let Some(region) = &keeper.region {
        region.verify()?;
    }
    let encrypted = keeper.record.volume.is_some();
    if encrypted != (launch.document.security_encryption == SecurityEncryption::DiskWithVMGuestState) {
        return Err(changed("securityEncryption", "as at the first start", "another"));
    }
    if keeper.approved.state().secure_boot != launch.document.secure_boot {
        return Err(changed("secureBoot", "as at the first start", &launch.document.secure_boot.to_string()));
    }
    let disk = open_file(&config.disk)?;
    let length = disk.metadata().map_err(|error| Stop::io("looking at the OS disk", &error))?.len();
    let layout = launch.manifest.disk_layout(config.disk_bytes).map_err(|error| size_refused(&error))?;
    let wanted = if encrypted { layout.disk_bytes } else { config.disk_bytes };
    let fits = keeper.region.as_ref().is_none_or(|region| *region.spans() == layout.spans());
    if length != wanted || !fits {
        return Err(changed("size of the OS disk", &wanted.to_string(), &length.to_string()));
    }
    if let Some(volume) = &keeper.record.volume {
        check_ciphertext(&disk, &layout, volume)?;
        report_stray_data(&disk, &layout, observer)?;
        if let Some(text) = &volume.recovery {
            recovery::publish(&config.guest_state, text)?;
        }
        recovery_document::ensure_key(&mut keeper, launch)?;
        // Before anything is written: a crash may have left a document whose slots are free now.
        keeper.publish_to(Publication::new(&config.guest_state, layout.header_start))?;
    }
    Ok(keeper)
}

/// Whether the data segment begins with the root file system of this volume key: ext4's superblock, 1024 bytes in.
///
/// This does not authenticate the disk; it tells another VM's disk from this one's before the guest stumbles over it.
fn check_ciphertext(disk: &File, layout: &DiskLayout, volume: &VolumeRecord) -> Result<(), Stop> {
    const SECTOR: usize = 4096;
    let mut sector = vec![0; SECTOR];
    disk.read_exact_at(&mut sector, layout.data_start)
        .map_err(|error| Stop::io("reading the OS disk", &error))?;
    let xts = Xts::new(volume.key.expose());
    if let Ok(xts) = xts {
        xts.decrypt_in_place(&mut sector, 0, SECTOR);
    }
    let word = |at: usize| sector.get(at..at + 4).and_then(|bytes| bytes.first_chunk::<4>()).copied();
    // s_magic, and s_log_block_size of at most 64 KiB.
    let magic = word(1024 + 56).is_some_and(|[a, b, ..]| [a, b] == [0x53, 0xef]);
    let block = word(1024 + 24).is_some_and(|bytes| u32::from_le_bytes(bytes) <= 6);
    if magic && block {
        return Ok(());
    }
    Err(Stop::refused(
        "DiskOfAnotherVm",
        "OS disk",
        "a root file system under this VM's volume key",
        "other bytes",
        "each VM's disk is encrypted with a key of its own",
        "somebody put another disk in this one's place, or overwrote it; put this VM's own disk back",
    ))
}

/// Tells if the host's disk file holds something where only the boot region counts.
fn report_stray_data(disk: &File, layout: &DiskLayout, observer: &dyn Observer) -> Result<(), Stop> {
    for range in [0..layout.data_start, layout.data_end..layout.disk_bytes] {
        let found = hole::first_data(disk, range).map_err(|error| Stop::io("reading the OS disk", &error))?;
        if let Some(offset) = found {
            let what = format!(
                "the host's disk file has data at offset {offset}, outside the ciphertext; the VM does not read it"
            );
            observer.event(Event::TamperingSeen { what });
        }
    }
    Ok(())
}

fn changed(what: &str, expected: &str, actual: &str) -> Stop {
    Stop::refused(
        "ConfigurationChanged",
        what,
        expected,
        actual,
        "disk, guest state and launch document of a VM belong together",
        "start the VM with the configuration and the disk that it was made with",
    )
}
