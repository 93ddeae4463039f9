//! The first start: a new volume, and the image encrypted onto the disk before the guest ever runs.

use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};

use internal_api::launch::SecurityEncryption;
use internal_api::paravisor::{Event, ParavisorConfig};
use sealed_disk::boot_region::BootRegion;
use sealed_disk::guest_state::Kek;
use sealed_disk::image::ImageError;
use sealed_disk::luks2::{Format, SectorSize};
use sealed_disk::provision::{Holes, Job, ProvisionError, encrypt_image};
use sealed_disk::seal::passphrase_of;
use sealed_disk::secret::{Passphrase, Secret};

use super::keeper::{Container, Keeper, new_file};
use super::launch::{Launch, malformed};
use super::record::{AkRecord, Record, VolumeRecord};
use super::recovery_document::{DocumentKey, Publication};
use super::vars::{self, Approved};
use super::world::Observer;
use super::{launch, recovery};
use crate::disk::plain_disk::{copy_image, image_changed};
use crate::failure::{Stop, chain, is_disk_full};

/// A keeper of a VM that does not exist yet. The firmware's variables become those of the template.
pub fn begin(launch: &Launch, config: &ParavisorConfig, kek: Kek) -> Result<Keeper, Stop> {
    let template = launch::read(&config.vars_template)?;
    let store = vars::parse("template of the firmware variables", &template)?;
    let approved = Approved::from_template(&store, launch.document.secure_boot)?;
    std::fs::write(&config.vars, &template)
        .map_err(|error| Stop::io("copying the firmware variables", &error))?;
    let encrypted = launch.document.security_encryption == SecurityEncryption::DiskWithVMGuestState;
    let volume = encrypted.then(|| VolumeRecord {
        uuid: launch.manifest.luks_uuid,
        mapping: launch.manifest.mapping.clone(),
        key: Secret::random(),
        secret: Secret::random(),
        region_key: Secret::random(),
        approved_options: String::new(),
        lowest_version: String::new(),
        recovery: None,
        document_key: None,
    });
    let record = Record { version: 1, ak: AkRecord::default(), volume };
    let container =
        Container::New { kek: Box::new(kek), path: config.guest_state.clone(), vm_id: launch.vm_id };
    Ok(Keeper::new(container, None, record, approved))
}

/// Makes the OS disk: encrypted, or a plain copy if only the guest state is encrypted.
pub fn make_disk(
    launch: &Launch,
    config: &ParavisorConfig,
    keeper: &mut Keeper,
    observer: &dyn Observer,
) -> Result<(), Stop> {
    let image = File::open(&config.image).map_err(|error| Stop::io("opening the image", &error))?;
    let disk = new_file(&config.disk)?;
    let layout = launch.manifest.disk_layout(config.disk_bytes).map_err(|error| size_refused(&error))?;
    let progress = Throttle::new(observer);
    let Some(volume) = keeper.record.volume.as_mut() else {
        let total = launch.manifest.size;
        return copy_image(&image, &launch.manifest, &disk, config.disk_bytes, &|done| {
            progress.show(done, total)
        });
    };
    let recovery = Passphrase::of_secret(&Secret::<32>::random());
    volume.document_key = DocumentKey::make(launch)?;
    let mut keyslots = vec![passphrase_of(&volume.secret)];
    keyslots.extend(volume.document_key.is_some().then(|| recovery.clone()));
    let header = Format {
        uuid: volume.uuid,
        volume_key: &volume.key,
        keyslots,
        tokens: Vec::new(),
        sector_size: SectorSize::B4096,
    };
    let header = header.write().map_err(|error| malformed("LUKS2 header", &chain(&error)))?;
    let mac = volume.document_key.as_ref().map(|key| key.mac(&header));
    volume.recovery = recovery::wrap(launch, layout.header_start, &recovery, mac)?;
    let region = new_file(&config.boot_region)?;
    let mut region = BootRegion::create(region, launch.vm_id, layout.spans(), &volume.region_key)?;
    let job = Job {
        image: &image,
        manifest: &launch.manifest,
        disk: &disk,
        layout,
        boot: &mut region,
        volume_key: &volume.key,
        luks_header: &header,
        holes: Holes::SkipFree,
    };
    encrypt_image(job, &|at| progress.show(at.done, at.total)).map_err(not_provisioned)?;
    if let Some(text) = &volume.recovery {
        recovery::publish_header(&config.guest_state, &header)?;
        recovery::publish(&config.guest_state, text)?;
    }
    keeper.region = Some(region);
    keeper.publish_to(Publication::new(&config.guest_state, layout.header_start))
}

fn not_provisioned(error: ProvisionError) -> Stop {
    match error {
        ProvisionError::BootRegion(error) => error.into(),
        ProvisionError::ImageChanged { offset } => image_changed(offset, "other bytes"),
        ProvisionError::ImageTruncated { offset } => image_changed(offset, "the image ends"),
        ProvisionError::ReadImage { source, .. } => Stop::io("reading the image", &source),
        ProvisionError::WriteDisk { source, .. } => Stop::io("writing the OS disk", &source),
        ProvisionError::Image(error) => size_refused(&error),
        other if is_disk_full(&other) => {
            Stop::io("making the OS disk", &std::io::ErrorKind::StorageFull.into())
        }
        other => malformed("OS disk", &chain(&other)),
    }
}

/// An image that does not go onto the disk.
pub(super) fn size_refused(error: &ImageError) -> Stop {
    Stop::refused(
        "DiskLayoutRefused",
        "OS disk",
        "a disk on which the image can be laid out",
        chain(error),
        "the disk has at least the image's size, and the image a root partition that can be encrypted in place",
        "order a larger disk, or import the image again",
    )
}

/// Tells progress once for each percent.
struct Throttle<'a> {
    observer: &'a dyn Observer,
    percent: AtomicU64,
}

impl<'a> Throttle<'a> {
    fn new(observer: &'a dyn Observer) -> Self {
        Self { observer, percent: AtomicU64::new(0) }
    }

    fn show(&self, done: u64, total: u64) {
        let percent = done.saturating_mul(100) / total.max(1);
        if self.percent.fetch_max(percent, Ordering::Relaxed) < percent {
            self.observer.event(Event::Progress { done, total });
        }
    }
}
