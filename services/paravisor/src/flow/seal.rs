//! Sealing the volume key to the boot to come: what is predicted, what may be sealed to, and the token in the LUKS2 header.
//!
//! Everything that counts is read from the authenticated boot region, whose bytes the guest wrote or the image had; of the
//! host's firmware variables only those count that choose an entry, and the entry is judged by itself.

use std::error::Error;
use std::fs::File;
use std::io;

use sealed_disk::boot_region::{BootRegion, BootRegionError};
use sealed_disk::luks2::{self, HeaderRefusal};
use sealed_disk::seal::{SrkPublic, passphrase_of, policy_pcr, systemd_tpm2_token};
use serde_json::Value;
use vtpm::command::KeyPublic;
use vtpm::predict::{Inputs, PredictError, Prediction, compare_versions, predict};
use vtpm::vars::VarStore;

use super::keeper::Keeper;
use super::launch::malformed;
use super::record::VolumeRecord;
use super::rules;
use crate::failure::{Stop, chain};

/// Header copies and all keyslot areas.
const HEADER_BYTES: usize = luks2::COPIES_BYTES + luks2::MAX_KEYSLOTS * 258_048;
/// The keyslot that the sealed secret opens.
pub const SEALED_KEYSLOT: u32 = 0;

/// Predicts the next boot and makes sure that the volume key is sealed to it and to nothing else. `None` for a VM without
/// an encrypted disk. Nothing is committed here.
pub fn seal(
    keeper: &mut Keeper,
    header_start: u64,
    vars: &VarStore,
    srk: &KeyPublic,
) -> Result<Option<Prediction>, Stop> {
    let (Some(region), Some(volume)) = (keeper.region.as_mut(), keeper.record.volume.as_mut()) else {
        return Ok(None);
    };
    keeper.approved.check(vars)?;
    let inputs = Inputs {
        disk: &mut region.reader(),
        secure_boot: keeper.approved.state(),
        loader_vars: vars.loader_vars(),
        sbat_level: vars.sbat_level(),
    };
    let prediction = predict(inputs).map_err(|error| unpredictable(&error))?;
    let first = volume.approved_options.is_empty();
    if first {
        rules::approve(&prediction.options, volume.uuid, &volume.mapping)?;
        volume.approved_options.clone_from(&prediction.options);
        volume.lowest_version.clone_from(&prediction.version);
    } else {
        rules::check(&prediction.options, &volume.approved_options)?;
        check_version(&prediction, volume)?;
    }
    write_token(region, volume, header_start, &prediction, srk)?;
    if first {
        keeper.record_changed();
    }
    keeper.sealed = Some(prediction.clone());
    Ok(Some(prediction))
}

/// The present boot's entry is known to work: nothing older is sealed to from now on.
pub fn approve_version(keeper: &mut Keeper) -> Result<(), Stop> {
    let (Some(volume), Some(booted)) = (keeper.record.volume.as_mut(), &keeper.sealed) else { return Ok(()) };
    if compare_versions(&booted.version, &volume.lowest_version).is_gt() {
        volume.lowest_version.clone_from(&booted.version);
        keeper.record_changed();
    }
    keeper.commit()
}

fn check_version(prediction: &Prediction, volume: &VolumeRecord) -> Result<(), Stop> {
    if compare_versions(&prediction.version, &volume.lowest_version).is_ge() {
        return Ok(());
    }
    Err(Stop::refused(
        "DowngradeRefused",
        format!("version of the entry that would boot ({})", prediction.entry),
        format!("{} or newer", volume.lowest_version),
        prediction.version.clone(),
        "the volume key is not sealed to an older kernel than the newest one that has opened the volume",
        "choose a newer boot entry; if the firmware variables name an older one, clear LoaderEntryDefault",
    ))
}

fn write_token(
    region: &mut BootRegion<File>,
    volume: &VolumeRecord,
    header_start: u64,
    prediction: &Prediction,
    srk: &KeyPublic,
) -> Result<(), Stop> {
    let mut header = vec![0; HEADER_BYTES];
    region.read_at(header_start, &mut header)?;
    let repaired = luks2::repair(&mut header).map_err(header_refused)?;
    let checked = luks2::check(&header).map_err(header_refused)?;
    let opened = checked.unlock(&header, &passphrase_of(&volume.secret)).map_err(|error| {
        let why = chain(&error);
        header_unusable("a keyslot that the sealed secret opens", &why)
    })?;
    if checked.uuid != volume.uuid || opened.expose() != volume.key.expose() {
        return Err(header_unusable("this VM's volume", "another volume key or UUID"));
    }
    let srk = SrkPublic::parse(&srk.tpm2b_public)
        .map_err(|error| malformed("storage root key", &error.to_string()))?;
    let values = prediction.seal_values();
    let token = systemd_tpm2_token(&srk, &volume.secret, &values, SEALED_KEYSLOT)
        .map_err(|error| malformed("seal", &error.to_string()))?;
    let policy = hex::encode(policy_pcr(&values));
    if checked.tpm2_token().is_none_or(|old| !is_sealed_to(old, &policy, &token)) {
        luks2::replace_token(&mut header, &token).map_err(header_refused)?;
    } else if !repaired {
        return Ok(());
    }
    Ok(region.write_at(header_start, header.get(..luks2::COPIES_BYTES).unwrap_or_default())?)
}

/// Whether a token has the policy and parent of the one that would be written. (Its blob differs each time.)
fn is_sealed_to(old: &Value, policy: &str, new: &Value) -> bool {
    let same = |member: &str| old.get(member) == new.get(member);
    old.get("tpm2-policy-hash").and_then(Value::as_str) == Some(policy)
        && ["tpm2_srk", "tpm2-pcrs", "tpm2-pcr-bank", "keyslots"].into_iter().all(same)
}

fn header_refused(refusal: HeaderRefusal) -> Stop {
    header_unusable("a header of the allowed form (cipher, mode, keyslots, tokens)", &chain(&refusal))
}

fn header_unusable(expected: &str, actual: &str) -> Stop {
    Stop::refused(
        "LuksHeaderRefused",
        "LUKS2 header in the boot region",
        expected,
        actual,
        "only headers on the allow-list are given to the guest's initramfs",
        "undo what the guest did to the header (cryptsetup); from outside, the recovery key opens the disk",
    )
}

/// A boot that cannot be predicted; or a boot region that cannot be read, which is what the predictor stumbled over.
fn unpredictable(error: &PredictError) -> Stop {
    if let Some(stop) = region_error(error) {
        return stop;
    }
    Stop::refused(
        "BootChainUnpredictable",
        "boot chain of the next boot",
        "a boot whose measurements are known exactly beforehand",
        chain(error),
        "the volume key is sealed only to a boot that was predicted",
        "use an image of a supported form; if the guest changed its boot partition, undo that",
    )
}

/// The boot region's own error among an error's causes.
fn region_error(error: &(dyn Error + 'static)) -> Option<Stop> {
    if let Some(region) = error.downcast_ref::<BootRegionError>() {
        return Some(match region {
            BootRegionError::Tampered { offset } => BootRegionError::Tampered { offset: *offset }.into(),
            BootRegionError::Truncated { offset } => BootRegionError::Truncated { offset: *offset }.into(),
            other => Stop::io(&chain(other), &io::ErrorKind::Other.into()),
        });
    }
    let inner = error.downcast_ref::<io::Error>().and_then(|io| io.get_ref());
    inner.and_then(|inner| region_error(inner)).or_else(|| error.source().and_then(region_error))
}
