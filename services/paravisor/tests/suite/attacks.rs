//! What the host may try against a VM's start, each refused for its own reason.

use internal_api::launch::ProvisioningData;
use paravisor::tpm::server::TpmDevice as _;
use sealed_disk::luks2;
use sealed_disk::secret::{Secret, VolumeKey};

use crate::lab::disk::Esp;
use crate::lab::guest::{Guest, NoVolume};
use crate::lab::image::{self, OPTIONS, ROOT_START};
use crate::lab::processor::Context;
use crate::lab::{Lab, OTHER_VM, VARS_WITH_KEYS, edit, put_back, set_variable, write};
use crate::support::one_tpm_at_a_time;

/// systemd-boot's vendor GUID.
const LOADER: &str = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";

#[test]
fn attack_the_operators_ssh_key_in_place_of_the_tenants() {
    let _tpm = one_tpm_at_a_time();
    let lab = Lab::new();
    edit(&lab.config.provisioning_data, |bytes| {
        let mut data: ProvisioningData = serde_json::from_slice(bytes).unwrap();
        data.ssh_public_keys = vec!["ssh-ed25519 AAAAoperator".to_owned()];
        *bytes = serde_json::to_vec(&data).unwrap();
    });
    let failure = lab.refused("BoundDataReplaced");
    assert_eq!(failure.claim, "provisioningDigest");
    assert!(lab.services.released().is_empty());
}

#[test]
fn attack_a_trust_bundle_with_the_operators_authority() {
    let _tpm = one_tpm_at_a_time();
    let lab = Lab::new();
    write(&lab.config.trust_bundle, b"PEM of another authority");
    assert_eq!(lab.refused("BoundDataReplaced").claim, "trustBundleDigest");
}

#[test]
fn attack_the_manifest_of_another_image() {
    let _tpm = one_tpm_at_a_time();
    let lab = Lab::new();
    edit(&lab.config.image_manifest, |bytes| bytes.push(b'\n'));
    assert_eq!(lab.refused("BoundDataReplaced").claim, "imageDigest");
}

#[test]
fn attack_a_launch_document_that_the_vm_was_not_launched_with() {
    let _tpm = one_tpm_at_a_time();
    let lab = Lab::new();
    let mut document = lab.document.clone();
    document.key_id = "https://operator.example/keys/x/0".to_owned();
    write(&lab.config.launch_document, &serde_json::to_vec(&document).unwrap());
    assert_eq!(lab.refused("LaunchDocumentMismatch").claim, "HOST_DATA");
    assert!(lab.services.released().is_empty());
}

#[test]
fn attack_a_report_from_a_lower_privilege_level() {
    let _tpm = one_tpm_at_a_time();
    let mut lab = Lab::new();
    let document = std::fs::read(&lab.config.launch_document).unwrap();
    lab.context = std::sync::Arc::new(Context::at_vmpl(&document, 2));
    lab.refused("WrongVmpl");
}

#[test]
fn attack_an_image_that_changes_while_it_is_provisioned() {
    let _tpm = one_tpm_at_a_time();
    for offset in [image::ESP_START + 40_000, ROOT_START + 1024] {
        let mut lab = Lab::new();
        let copy = lab.file("image.raw");
        std::fs::copy(&lab.config.image, &copy).unwrap();
        edit(&copy, |bytes| bytes[usize::try_from(offset).unwrap()] ^= 1);
        lab.config.image = copy;
        lab.refused("ImageChanged");
        assert!(!lab.config.guest_state.exists());
    }
}

#[test]
fn attack_an_older_guest_state_of_the_same_vm() {
    let _tpm = one_tpm_at_a_time();
    let lab = Lab::new();
    lab.run_once();
    let old = lab.keep_copy();
    lab.run_once();
    put_back(&old);
    let failure = lab.refused("RollbackRefused");
    assert!(!failure.transient);
}

#[test]
fn attack_a_vm_made_anew_under_the_same_id() {
    let _tpm = one_tpm_at_a_time();
    let lab = Lab::new();
    lab.run_once();
    std::fs::remove_file(&lab.config.guest_state).unwrap();
    lab.refused("RollbackRefused");
}

#[test]
fn attack_another_vms_guest_state() {
    let _tpm = one_tpm_at_a_time();
    let other = Lab::with(|document, _| document.vm_id = OTHER_VM.to_owned());
    other.run_once();
    let lab = Lab::new();
    lab.run_once();
    std::fs::copy(&other.config.guest_state, &lab.config.guest_state).unwrap();
    let failure = lab.refused("GuestStateOfAnotherVm");
    assert_eq!((failure.expected.as_str(), failure.actual.as_str()), (crate::lab::VM, OTHER_VM));
}

#[test]
fn attack_a_guest_state_that_another_key_opens() {
    let _tpm = one_tpm_at_a_time();
    let lab = Lab::new();
    lab.run_once();
    *lab.services.second_key.lock().unwrap() = true;
    lab.refused("GuestStateKeyMismatch");
}

#[test]
fn attack_a_truncated_or_emptied_guest_state() {
    let _tpm = one_tpm_at_a_time();
    let lab = Lab::new();
    lab.run_once();
    let whole = std::fs::read(&lab.config.guest_state).unwrap();
    write(&lab.config.guest_state, &[]);
    lab.refused("GuestStateDamaged");
    write(&lab.config.guest_state, &whole[..4096 * 3]);
    lab.refused("GuestStateDamaged");
    write(&lab.config.guest_state, &whole);
    lab.start().unwrap();
}

#[test]
fn attack_every_block_of_the_guest_state_flipped_is_refused_or_without_effect() {
    let _tpm = one_tpm_at_a_time();
    let lab = Lab::new();
    lab.run_once();
    let whole = std::fs::read(&lab.config.guest_state).unwrap();
    let mut refused = 0;
    for block in
        (0..whole.len()).step_by(4096).filter(|at| whole[*at..*at + 64].iter().any(|byte| *byte != 0))
    {
        let mut changed = whole.clone();
        changed[block + 32] ^= 0x40;
        write(&lab.config.guest_state, &changed);
        match lab.start() {
            Ok(running) => drop(running),
            Err(stop) => {
                let code = stop.failure().code.as_str();
                assert!(code.starts_with("GuestState") || code.ends_with("Refused"), "{code}");
                refused += 1;
            }
        }
    }
    assert!(refused >= 5, "{refused}");
}

#[test]
fn attack_a_boot_region_that_the_host_changed_or_put_back() {
    let _tpm = one_tpm_at_a_time();
    let lab = Lab::new();
    lab.run_once();
    let whole = std::fs::read(&lab.config.boot_region).unwrap();
    for offset in [0, whole.len() / 2, whole.len() - 1] {
        edit(&lab.config.boot_region, |bytes| bytes[offset] ^= 1);
        lab.refused("BootRegionTampered");
        write(&lab.config.boot_region, &whole);
    }
    edit(&lab.config.boot_region, |bytes| bytes.truncate(1000));
    lab.refused("BootRegionTampered");
    write(&lab.config.boot_region, &whole);

    // The region of before a kernel was installed, under the guest state of after.
    let running = lab.start().unwrap();
    image::add_kernel(&Esp::mount(running.disk()), "6.12.117", OPTIONS);
    running.stop().unwrap();
    drop(running);
    write(&lab.config.boot_region, &whole);
    lab.refused("BootRegionTampered");
}

#[test]
fn attack_a_luks_header_on_the_hosts_disk_is_never_read_but_reported() {
    let _tpm = one_tpm_at_a_time();
    let lab = Lab::new();
    let running = lab.start().unwrap();
    let key = Guest::boot(&running, &lab.config.vars).open_volume().unwrap();
    running.stop().unwrap();
    drop(running);
    // The attacker's own volume, with a keyslot that he knows.
    let header = luks2::Format {
        uuid: uuid::Uuid::parse_str(image::LUKS_UUID).unwrap(),
        volume_key: &VolumeKey::random(),
        keyslots: vec![sealed_disk::seal::passphrase_of(&Secret::random())],
        tokens: vec![],
        sector_size: luks2::SectorSize::B4096,
    };
    let header = header.write().unwrap();
    edit(&lab.config.disk, |bytes| {
        let start = usize::try_from(ROOT_START).unwrap();
        bytes[start..start + header.len()].copy_from_slice(&header);
    });
    let running = lab.start().unwrap();
    assert!(lab.told.tampering()[0].contains("outside the ciphertext"));
    let again = Guest::boot(&running, &lab.config.vars).open_volume().unwrap();
    assert_eq!(again.expose(), key.expose());
}

#[test]
fn attack_the_disk_of_another_vm() {
    let _tpm = one_tpm_at_a_time();
    let other = Lab::with(|document, _| document.vm_id = OTHER_VM.to_owned());
    other.run_once();
    let lab = Lab::new();
    lab.run_once();
    std::fs::copy(&other.config.disk, &lab.config.disk).unwrap();
    lab.refused("DiskOfAnotherVm");
}

#[test]
fn attack_a_disk_that_is_cut_off_or_gone() {
    let _tpm = one_tpm_at_a_time();
    let lab = Lab::new();
    lab.run_once();
    edit(&lab.config.disk, |bytes| bytes.truncate(50 << 20));
    lab.refused("ConfigurationChanged");
    std::fs::remove_file(&lab.config.disk).unwrap();
    lab.refused("StorageMissing");
}

#[test]
fn attack_secure_boot_keys_changed_in_the_firmware_variables() {
    let _tpm = one_tpm_at_a_time();
    let lab = Lab::new();
    lab.run_once();
    std::fs::copy(VARS_WITH_KEYS, &lab.config.vars).unwrap();
    let failure = lab.refused("FirmwareVariablesChanged");
    for name in ["SecureBoot: false", "PK:", "KEK:", "db:"] {
        assert!(failure.expected.contains(name), "{name} in {}", failure.expected);
    }
}

#[test]
fn attack_a_template_without_the_secure_boot_that_was_ordered() {
    let _tpm = one_tpm_at_a_time();
    let lab = Lab::with(|document, _| document.secure_boot = true);
    assert_eq!(lab.refused("SecureBootMismatch").actual, "false");
}

#[test]
fn attack_an_older_kernel_chosen_through_the_firmware_variables() {
    let _tpm = one_tpm_at_a_time();
    let lab = Lab::new();
    let running = lab.start().unwrap();
    image::add_kernel(&Esp::mount(running.disk()), "6.12.117", OPTIONS);
    running.reset().unwrap();
    Guest::boot(&running, &lab.config.vars).open_volume().unwrap();
    running.stop().unwrap();
    drop(running);
    let entry: Vec<u8> = "debian-6.12.115.conf\0".encode_utf16().flat_map(u16::to_le_bytes).collect();
    set_variable(&lab.config.vars, LOADER, "LoaderEntryDefault", &entry);
    let failure = lab.refused("DowngradeRefused");
    assert_eq!((failure.expected.as_str(), failure.actual.as_str()), ("6.12.117 or newer", "6.12.115"));
}

#[test]
fn attack_an_image_whose_entry_does_not_guard_the_disk() {
    let _tpm = one_tpm_at_a_time();
    let folder = tempfile::tempdir().unwrap();
    let weak = image::make_in(folder.path(), &OPTIONS.replace("rd.shell=0 ", ""));
    let mut lab = Lab::with(|document, _| {
        document.image_digest = internal_api::launch::sha256_hex(&weak.manifest);
    });
    write(&lab.config.image_manifest, &weak.manifest);
    lab.config.image.clone_from(&weak.path);
    assert!(lab.refused("KernelOptionsRefused").expected.contains("rd.shell=0"));
}

#[test]
fn attack_an_entry_of_the_guest_that_opens_a_shell_is_not_sealed_to() {
    let _tpm = one_tpm_at_a_time();
    let lab = Lab::new();
    let running = lab.start().unwrap();
    Guest::boot(&running, &lab.config.vars).open_volume().unwrap();
    image::add_kernel(&Esp::mount(running.disk()), "6.12.117", &format!("{OPTIONS} init=/bin/sh"));
    let stop = running.reset().unwrap_err();
    assert_eq!(stop.failure().code, "KernelOptionsRefused");
    assert!(stop.failure().actual.contains("init=/bin/sh"));
}

#[test]
fn attack_another_kernel_than_the_sealed_one_is_named_and_gets_no_key() {
    let _tpm = one_tpm_at_a_time();
    let lab = Lab::new();
    let running = lab.start().unwrap();
    let guest = Guest::power_on(&running);
    for event in guest.prediction(&lab.config.vars).events {
        let foreign = event.pcr == 4 && event.what.contains("linux");
        guest.extend(event.pcr, if foreign { &[0xee; 32] } else { &event.digest });
    }
    assert!(matches!(guest.open_volume(), Err(NoVolume::Tpm("policy", 0x101))));
    let refused = lab.told.refused.lock().unwrap();
    assert_eq!(refused[0].code, "OtherBootMeasured");
    assert!(refused[0].actual.contains("linux"), "{}", refused[0].actual);
}

#[test]
fn attack_a_foreign_volume_measured_in_place_of_the_tenants_stops_the_vm() {
    let _tpm = one_tpm_at_a_time();
    let lab = Lab::new();
    let running = lab.start().unwrap();
    let guest = Guest::boot(&running, &lab.config.vars);
    guest.measure(&VolumeKey::random());
    assert_eq!(lab.told.refused.lock().unwrap()[0].code, "ForeignVolumeOpened");
    assert!(!running.tpm().lock().unwrap().power_on(), "there is no other try");
    assert!(guest.open_volume().is_err(), "and no key");
}

#[test]
fn attack_a_null_cipher_or_a_second_token_written_into_the_header_by_the_guest_is_refused() {
    let _tpm = one_tpm_at_a_time();
    let lab = Lab::new();
    let running = lab.start().unwrap();
    let mut header = vec![0; luks2::COPIES_BYTES];
    running.disk().read_at(&mut header, ROOT_START).unwrap();
    let changed =
        String::from_utf8_lossy(&header[4096..0x4000]).replace("aes-xts-plain64", "cipher_null-ecb");
    header[4096..4096 + 0x3000].copy_from_slice(&changed.as_bytes()[..0x3000]);
    for at in [0, 0x4000] {
        let json = header[4096..0x4000].to_vec();
        header[at + 4096..at + 0x4000].copy_from_slice(&json);
        header[at + 0x1c0..at + 0x200].fill(0);
        let sum = vtpm::pcr::sha256(&header[at..at + 0x4000]);
        header[at + 0x1c0..at + 0x1e0].copy_from_slice(&sum);
    }
    running.disk().write_at(&header, ROOT_START).unwrap();
    let stop = running.reset().unwrap_err();
    assert_eq!(stop.failure().code, "LuksHeaderRefused");
    assert!(stop.failure().actual.contains("cipher_null"), "{}", stop.failure().actual);
}

#[test]
fn attack_an_answer_of_the_key_service_that_is_not_to_this_request() {
    let _tpm = one_tpm_at_a_time();
    let spoils: [fn(&mut public_api::keys::ReleasePayload, &public_api::jwk::Jwk); 4] = [
        |payload, _| payload.request.nonce = Some("another".to_owned()),
        |payload, _| payload.request.kid = "https://keys.example/keys/other/0".to_owned(),
        |payload, _| payload.response.key.key.key_hsm = None,
        |payload, _| payload.response.key.key.key_hsm = Some("AAAA".to_owned()),
    ];
    for spoil in spoils {
        let lab = Lab::new();
        *lab.services.spoil.lock().unwrap() = Some(spoil);
        lab.refused("ReleaseUnusable");
    }
}

#[test]
fn unknown_members_in_bound_documents_are_errors() {
    let _tpm = one_tpm_at_a_time();
    let lab = Lab::new();
    edit(&lab.config.launch_document, |bytes| {
        let text = String::from_utf8(bytes.clone()).unwrap();
        *bytes = text.replacen('{', "{\"debug\":true,", 1).into_bytes();
    });
    assert!(lab.refused("DocumentMalformed").actual.contains("debug"));
}

#[test]
fn a_disk_smaller_than_the_image_is_refused() {
    let _tpm = one_tpm_at_a_time();
    let mut lab = Lab::new();
    lab.config.disk_bytes = image::IMAGE_BYTES - 512;
    lab.refused("DiskLayoutRefused");
}
