//! A VM's life through the flow: first start, guest, reset, stop, later starts; what the guest may change; crashes.

use internal_api::launch::SecurityEncryption;
use internal_api::paravisor::{Event, Step};
use paravisor::tpm::server::TpmDevice as _;

use crate::lab::guest::{Guest, NoVolume, pcrs};
use crate::lab::image::{self, DISK_BYTES, OPTIONS};
use crate::lab::{Lab, VARS, edit};
use crate::support::one_tpm_at_a_time;

#[test]
fn the_guest_unseals_its_disk_at_the_first_start_and_at_later_ones() {
    let _tpm = one_tpm_at_a_time();
    let lab = Lab::new();
    let running = lab.start().unwrap();
    assert_eq!(
        lab.told.steps(),
        [
            Step::CheckLaunch,
            Step::Attest,
            Step::ReleaseKey,
            Step::ProvisionTpm,
            Step::EncryptDisk,
            Step::Seal,
            Step::AdvanceGeneration
        ]
    );
    assert!(matches!(lab.told.events.lock().unwrap().last(), Some(Event::Ready { generation: 1, .. })));
    let guest = Guest::boot(&running, &lab.config.vars);
    let expected = guest.prediction(&lab.config.vars).seal_values();
    assert_eq!(pcrs(&guest, &[4, 7, 9, 12, 15]), expected);
    let key = guest.open_volume().unwrap();
    assert_eq!(guest.superblock_magic(&key), [0x53, 0xef]);
    assert!(matches!(lab.told.events.lock().unwrap().last(), Some(Event::VolumeOpened)));
    assert!(matches!(guest.open_volume(), Err(NoVolume::Tpm("unseal" | "policy", _))), "at most once a boot");
    assert_eq!(running.stop().unwrap(), 2);
    drop(running);

    let running = lab.start().unwrap();
    assert!(lab.told.steps().contains(&Step::OpenState));
    let again = Guest::boot(&running, &lab.config.vars).open_volume().unwrap();
    assert_eq!(again.expose(), key.expose());
    assert_eq!(running.stop().unwrap(), 4);
    assert_eq!(lab.services.released(), [0, 1, 2, 2, 3, 4]);
    assert!(lab.told.refused.lock().unwrap().is_empty() && lab.told.tampering().is_empty());
}

#[test]
fn the_host_gets_ciphertext_and_nothing_else() {
    let _tpm = one_tpm_at_a_time();
    let lab = Lab::new();
    lab.run_once();
    let disk = std::fs::read(&lab.config.disk).unwrap();
    assert_eq!(disk.len() as u64, DISK_BYTES);
    let data = usize::try_from(image::ROOT_START + (16 << 20)).unwrap();
    assert!(disk[..data].iter().all(|byte| *byte == 0), "nothing lies where the boot region counts");
    let needle = b"systemd-boot";
    for path in [&lab.config.disk, &lab.config.boot_region, &lab.config.guest_state] {
        let bytes = std::fs::read(path).unwrap();
        assert!(!bytes.windows(needle.len()).any(|window| window == needle), "{}", path.display());
    }
    assert_ne!(disk[data + 1024 + 56..data + 1024 + 58], [0x53, 0xef]);
    let image = std::fs::read(&lab.config.image).unwrap();
    let root = usize::try_from(image::ROOT_START).unwrap();
    assert_ne!(disk[data..data + 4096], image[root..root + 4096]);
}

#[test]
fn the_grown_disk_has_a_valid_partition_table_and_the_whole_root_file_system() {
    let _tpm = one_tpm_at_a_time();
    let lab = Lab::new();
    let running = lab.start().unwrap();
    let key = Guest::boot(&running, &lab.config.vars).open_volume().unwrap();
    let disk = running.disk();
    let mut bytes = vec![0; usize::try_from(disk.size()).unwrap()];
    disk.read_at(&mut bytes, 0).unwrap();
    let copy = lab.file("plain.img");
    let data = usize::try_from(image::ROOT_START + (16 << 20)).unwrap();
    let root = &mut bytes[data..data + (16 << 20)];
    sealed_disk::xts::Xts::new(key.expose()).unwrap().decrypt_in_place(root, 0, 4096);
    let filesystem = lab.file("root.ext4");
    std::fs::write(&filesystem, root).unwrap();
    std::fs::write(&copy, &bytes).unwrap();
    for (program, arguments) in [
        ("sgdisk", vec!["-v", copy.to_str().unwrap()]),
        ("e2fsck", vec!["-fn", filesystem.to_str().unwrap()]),
    ] {
        let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap());
        let output = std::process::Command::new(program).args(arguments).env("PATH", path).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && !text.contains("Problem"), "{program}: {text}");
    }
}

#[test]
fn a_kernel_that_the_guest_installs_is_followed_at_a_reset_and_over_a_stop() {
    let _tpm = one_tpm_at_a_time();
    let lab = Lab::new();
    let running = lab.start().unwrap();
    let key = Guest::boot(&running, &lab.config.vars).open_volume().unwrap();
    image::add_kernel(&crate::lab::disk::Esp::mount(running.disk()), "6.12.117", &format!("{OPTIONS} quiet"));
    running.disk().flush().unwrap();
    running.reset().unwrap();
    assert_eq!(*lab.told.changes.lock().unwrap(), 1);
    running.renew_evidence().unwrap();
    let claims = lab.services.last_claims();
    assert_eq!(claims.boot_chain.unwrap().entry, "debian-6.12.117.conf");
    assert_eq!(claims.guest_state.generation, 1, "a reset is no new generation");
    let guest = Guest::boot(&running, &lab.config.vars);
    assert_eq!(guest.open_volume().unwrap().expose(), key.expose());

    image::add_kernel(&crate::lab::disk::Esp::mount(running.disk()), "6.12.118", OPTIONS);
    running.stop().unwrap();
    drop(running);
    let running = lab.start().unwrap();
    let guest = Guest::boot(&running, &lab.config.vars);
    assert_eq!(guest.prediction(&lab.config.vars).version, "6.12.118");
    assert_eq!(guest.open_volume().unwrap().expose(), key.expose());
}

#[test]
fn what_the_guest_flushed_survives_a_crash_of_the_paravisor() {
    let _tpm = one_tpm_at_a_time();
    let lab = Lab::new();
    let running = lab.start().unwrap();
    let esp = crate::lab::disk::Esp::mount(running.disk());
    esp.write("loader/flushed", b"1");
    drop(esp);
    running.disk().flush().unwrap();
    let mut unflushed = vec![0; 512];
    running.disk().read_at(&mut unflushed, 34 * 512).unwrap();
    running.disk().write_at(&[7; 512], 34 * 512).unwrap();
    drop(running);

    let running = lab.start().unwrap();
    assert_eq!(crate::lab::disk::Esp::mount(running.disk()).read("loader/flushed"), b"1");
    let mut now = vec![0; 512];
    running.disk().read_at(&mut now, 34 * 512).unwrap();
    assert_eq!(now, unflushed);
    Guest::boot(&running, &lab.config.vars).open_volume().unwrap();
}

#[test]
fn a_write_that_spans_region_and_ciphertext_is_read_back_whole() {
    let _tpm = one_tpm_at_a_time();
    let lab = Lab::new();
    let running = lab.start().unwrap();
    let disk = running.disk();
    let data_start = image::ROOT_START + (16 << 20);
    let pattern: Vec<u8> = (0..200_000u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
    disk.write_at(&pattern, data_start - 100_000).unwrap();
    let mut back = vec![0; pattern.len()];
    disk.read_at(&mut back, data_start - 100_000).unwrap();
    assert!(back == pattern);
    disk.write_zeroes(data_start - 4096, 8192, false).unwrap();
    disk.read_at(&mut back, data_start - 100_000).unwrap();
    assert!(back[100_000 - 4096..100_000 + 4096].iter().all(|byte| *byte == 0));
    assert!(back[..100_000 - 4096] == pattern[..100_000 - 4096]);
}

#[test]
fn with_guest_state_only_the_disk_is_the_image_and_the_tpm_is_kept() {
    let _tpm = one_tpm_at_a_time();
    let lab = Lab::with(|document, _| document.security_encryption = SecurityEncryption::VMGuestStateOnly);
    let running = lab.start().unwrap();
    let mut bytes = vec![0; usize::try_from(image::IMAGE_BYTES).unwrap()];
    running.disk().read_at(&mut bytes, 0).unwrap();
    assert!(bytes == std::fs::read(&lab.config.image).unwrap());
    let read = |running: &paravisor::flow::start::Running| {
        let front = running.tpm();
        let mut front = front.lock().unwrap();
        assert!(front.power_on());
        front.command(&vtpm::command::startup_clear());
        front.command(&vtpm::command::pcr_extend(15, &[1; 32]));
        vtpm::command::read_public_key(&front.command(&vtpm::command::read_public(vtpm::hcl::HANDLE_AK)))
            .unwrap()
    };
    let ak = read(&running);
    running.stop().unwrap();
    drop(running);
    let running = lab.start().unwrap();
    assert_eq!(read(&running), ak);
    assert!(lab.told.refused.lock().unwrap().is_empty());
}

#[test]
fn the_recovery_key_opens_the_disk_with_stock_cryptsetup() {
    use aws_lc_rs::encoding::AsDer as _;
    use aws_lc_rs::rsa::{KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, PrivateDecryptingKey};

    let _tpm = one_tpm_at_a_time();
    let private = PrivateDecryptingKey::generate(KeySize::Rsa2048).unwrap();
    let spki = private.public_key().as_der().unwrap().as_ref().to_vec();
    let base64 = public_api::encoding::to_base64(&spki);
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", wrapped(&base64));
    let lab = Lab::with(|document, _| document.recovery_key = Some(pem));
    let running = lab.start().unwrap();
    let recovery = lab.file("guest-state.vmgs.recovery.json");
    let recovery: serde_json::Value = serde_json::from_slice(&std::fs::read(recovery).unwrap()).unwrap();
    let wrapped =
        public_api::encoding::from_base64_any(recovery["wrappedPassphrase"].as_str().unwrap()).unwrap();
    let private = OaepPrivateDecryptingKey::new(private).unwrap();
    let mut plain = vec![0; private.min_output_size()];
    let passphrase = private.decrypt(&OAEP_SHA256_MGF1SHA256, &wrapped, &mut plain, None).unwrap();
    running.stop().unwrap();
    drop(running);
    // The host's disk and the public header, and nothing of the platform: one plain LUKS2 volume.
    let (file, key) = (lab.file("volume"), lab.file("passphrase"));
    let disk = std::fs::read(&lab.config.disk).unwrap();
    let start = usize::try_from(recovery["headerStart"].as_u64().unwrap()).unwrap();
    let mut volume = disk[start..].to_vec();
    let header = std::fs::read(lab.file("guest-state.vmgs.luks2-header")).unwrap();
    volume[..header.len()].copy_from_slice(&header);
    std::fs::write(&file, volume).unwrap();
    std::fs::write(&key, passphrase).unwrap();
    let output = std::process::Command::new("/usr/sbin/cryptsetup")
        .args(["open", "--test-passphrase", "--key-file"])
        .args([&key, &file])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn wrapped(text: &str) -> String {
    text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_config_drive_holds_the_tenants_data_and_cannot_be_written() {
    let _tpm = one_tpm_at_a_time();
    let lab = Lab::new();
    let running = lab.start().unwrap();
    let drive = running.config_drive();
    let mut bytes = vec![0; usize::try_from(drive.size()).unwrap()];
    drive.read_at(&mut bytes, 0).unwrap();
    assert!(String::from_utf8_lossy(&bytes).contains("ssh-ed25519 AAAAtenant"));
    assert!(drive.read_only() && drive.write_at(&[0], 0).is_err());
}

#[test]
fn a_stop_that_the_key_service_does_not_hear_of_is_clean_and_the_next_start_goes_on() {
    let _tpm = one_tpm_at_a_time();
    let lab = Lab::new();
    let running = lab.start().unwrap();
    *lab.services.deaf.lock().unwrap() = true;
    assert_eq!(running.stop().unwrap(), 2);
    drop(running);
    let failure = lab.refused("ServiceFailed");
    assert!(failure.transient);
    *lab.services.deaf.lock().unwrap() = false;
    assert_eq!(lab.run_once(), 4);
    assert_eq!(lab.services.released(), [0, 1, 2, 3, 4]);
}

/// Crashes at every event of a first start; what follows must be a VM like an undisturbed one.
#[test]
fn a_crash_at_any_step_of_the_first_start_is_made_good_by_the_next() {
    let _tpm = one_tpm_at_a_time();
    let steps = [
        Step::CheckLaunch,
        Step::Attest,
        Step::ReleaseKey,
        Step::ProvisionTpm,
        Step::EncryptDisk,
        Step::Seal,
        Step::AdvanceGeneration,
    ];
    let begun = steps.map(|step| Event::Step { step });
    let done = steps.map(|step| Event::StepDone { step, millis: 0 });
    let points = begun.into_iter().chain(done).chain([Event::Progress { done: 0, total: 0 }]);
    for point in points {
        let lab = Lab::new();
        *lab.told.crash_at.lock().unwrap() = Some(point.clone());
        let crashed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| lab.start().map(drop)));
        assert!(crashed.is_err(), "{point:?} was never reached");
        *lab.told.crash_at.lock().unwrap() = None;
        let running = lab.start().unwrap_or_else(|stop| panic!("after {point:?}: {:?}", stop.failure()));
        let guest = Guest::boot(&running, &lab.config.vars);
        let key = guest.open_volume().unwrap();
        assert_eq!(guest.superblock_magic(&key), [0x53, 0xef]);
        running.stop().unwrap();
        drop(running);
        let leftovers: Vec<_> = std::fs::read_dir(lab.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".new"))
            .collect();
        assert_eq!(leftovers, [""; 0], "after {point:?}");
    }
}

#[test]
fn a_crash_at_any_step_of_a_later_start_is_made_good_by_the_next() {
    let _tpm = one_tpm_at_a_time();
    let steps = [Step::Attest, Step::ReleaseKey, Step::OpenState, Step::Seal, Step::AdvanceGeneration];
    let begun = steps.map(|step| Event::Step { step });
    let done = steps.map(|step| Event::StepDone { step, millis: 0 });
    let lab = Lab::new();
    lab.run_once();
    for point in begun.into_iter().chain(done) {
        *lab.told.crash_at.lock().unwrap() = Some(point.clone());
        let crashed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| lab.start().map(drop)));
        assert!(crashed.is_err(), "{point:?} was never reached");
        *lab.told.crash_at.lock().unwrap() = None;
        let running = lab.start().unwrap_or_else(|stop| panic!("after {point:?}: {:?}", stop.failure()));
        Guest::boot(&running, &lab.config.vars).open_volume().unwrap();
    }
    lab.run_once();
}

#[test]
fn variables_of_the_firmware_that_are_not_secure_boots_may_change() {
    let _tpm = one_tpm_at_a_time();
    let lab = Lab::new();
    lab.run_once();
    // A boot entry, as shim's fallback writes one.
    crate::lab::set_variable(
        &lab.config.vars,
        "8be4df61-93ca-11d2-aa0d-00e098032b8c",
        "Boot0007",
        &[1, 2, 3, 4],
    );
    let running = lab.start().unwrap();
    Guest::boot(&running, &lab.config.vars).open_volume().unwrap();
    assert_ne!(std::fs::read(&lab.config.vars).unwrap(), std::fs::read(VARS).unwrap());
    edit(&lab.config.vars, |_| {});
}
