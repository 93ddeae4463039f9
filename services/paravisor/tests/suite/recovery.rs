//! A tenant gets the disk back from the VM's files and a private key: with the export, and with `openssl` and `cryptsetup`
//! alone. What the host may try against it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use internal_api::paravisor::Failure;
use paravisor::recover::{Request, export, recovery_key};
use sealed_disk::guest_state::{FileId, LockedState};
use sealed_disk::luks2;
use serde_json::Value;

use crate::lab::disk::Esp;
use crate::lab::image::{self, DISK_BYTES, ROOT_START};
use crate::lab::{Lab, OTHER_VM, VM, edit, put_back, services, write};
use crate::support::{lasting_folder, one_tpm_at_a_time};

const DOCUMENT: &str = "guest-state.vmgs.recovery-document.json";
const RECOVERY: &str = "guest-state.vmgs.recovery.json";
const HEADER: &str = "guest-state.vmgs.luks2-header";

/// Runs a shell command as the documentation has it.
fn shell(folder: &Path, script: &str) -> Output {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap());
    let mut bash = Command::new("bash");
    bash.args(["-euo", "pipefail", "-c", script]).current_dir(folder).env("PATH", path).output().unwrap()
}

fn succeeds(folder: &Path, script: &str) -> String {
    let output = shell(folder, script);
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A private key as the documentation makes one, and its public half.
fn tenant() -> &'static (PathBuf, String) {
    static KEY: OnceLock<(PathBuf, String)> = OnceLock::new();
    KEY.get_or_init(|| {
        let folder = lasting_folder("recovery-key");
        succeeds(&folder, &step("make-key"));
        (folder.join("private.pem"), std::fs::read_to_string(folder.join("public.pem")).unwrap())
    })
}

/// The commands of docs/recovery.md below the mark `<!-- step: NAME -->`.
fn step(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/recovery.md");
    let text = std::fs::read_to_string(path).unwrap();
    let mark = format!("<!-- step: {name} -->\n```sh\n");
    let (_, rest) = text.split_once(&mark).unwrap_or_else(|| panic!("docs/recovery.md has no step {name}"));
    rest.split_once("```").unwrap().0.to_owned()
}

/// A VM with the tenant's recovery key.
fn lab() -> Lab {
    Lab::with(|document, _| document.recovery_key = Some(tenant().1.clone()))
}

fn request(lab: &Lab) -> Request {
    Request {
        folder: lab.folder.path().to_owned(),
        key: tenant().0.clone(),
        to: lab.file("image.raw"),
        vm_id: None,
        fingerprint: None,
        generation: None,
        accept_older: false,
        accept_damaged: false,
    }
}

/// Must be refused with this code, in five parts, and leave nothing.
fn refused(request: &Request, code: &str) -> Failure {
    let failure = export(request).err().unwrap_or_else(|| panic!("must be refused with {code}"));
    let failure: Failure = failure.into();
    assert_eq!(failure.code, code, "{failure:?}");
    let parts = [&failure.claim, &failure.expected, &failure.actual, &failure.rule, &failure.remedy];
    assert!(parts.iter().all(|part| !part.is_empty()), "{failure:?}");
    let left = std::fs::read_dir(request.to.parent().unwrap()).unwrap();
    let names = left.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| name.starts_with("image.raw")).collect::<Vec<_>>(), [""; 0]);
    failure
}

/// The first sectors of the image's root file system, where the superblock lies.
fn plain_sector() -> Vec<u8> {
    let image = std::fs::read(&image::image().path).unwrap();
    let root = usize::try_from(ROOT_START).unwrap();
    image[root..root + 4096].to_vec()
}

/// AES-256-XTS of sector 0 (IEEE 1619), with nothing but AES-ECB of `openssl enc`.
fn decrypt_sector_0(folder: &Path, key: &[u8], sector: &[u8]) -> Vec<u8> {
    let aes = |direction: &str, key: &[u8], data: &[u8]| {
        write(&folder.join("aes.in"), data);
        let key = hex::encode(key);
        succeeds(
            folder,
            &format!("openssl enc -aes-256-ecb {direction} -nopad -K {key} -in aes.in -out aes.out"),
        );
        std::fs::read(folder.join("aes.out")).unwrap()
    };
    let mut tweak = u128::from_le_bytes(aes("-e", &key[32..], &[0; 16]).try_into().unwrap());
    let mut tweaks = Vec::new();
    for _ in 0..sector.len() / 16 {
        tweaks.extend(tweak.to_le_bytes());
        let carry = tweak >> 127;
        tweak = (tweak << 1) ^ (carry * 0x87);
    }
    let xor = |a: &[u8]| -> Vec<u8> { a.iter().zip(&tweaks).map(|(a, b)| a ^ b).collect() };
    xor(&aes("-d", &key[..32], &xor(sector)))
}

/// The document's fingerprint as the last evidence has it.
fn fingerprint(lab: &Lab) -> String {
    lab.services.last_claims().recovery_document_key.unwrap()
}

#[test]
fn the_exported_disk_opens_with_stock_cryptsetup_and_holds_the_guests_bytes() {
    let _tpm = one_tpm_at_a_time();
    let lab = lab();
    let running = lab.start().unwrap();
    Esp::mount(running.disk()).write("loader/of-the-guest", b"kept");
    let mut whole = vec![0; usize::try_from(DISK_BYTES).unwrap()];
    running.disk().read_at(&mut whole, 0).unwrap();
    let generation = running.stop().unwrap();
    drop(running);

    let asked = Request {
        vm_id: Some(VM.parse().unwrap()),
        fingerprint: Some(fingerprint(&lab)),
        generation: Some(generation),
        ..request(&lab)
    };
    let made = export(&asked).unwrap();
    assert_eq!((&made["vmId"], &made["generation"]), (&VM.into(), &generation.into()));
    assert_eq!((&made["volumeStart"], &made["damage"]), (&ROOT_START.into(), &Value::Null));
    let image = std::fs::read(lab.file("image.raw")).unwrap();
    assert!(image == whole, "the image is the disk as the guest saw it");
    let used = std::os::unix::fs::MetadataExt::blocks(&lab.file("image.raw").metadata().unwrap()) * 512;
    assert!(used < DISK_BYTES, "{used}: what is not there takes no room");

    recovery_key(&lab.file(RECOVERY), &tenant().0, &lab.file("passphrase")).unwrap();
    let mode = std::os::unix::fs::MetadataExt::mode(&lab.file("passphrase").metadata().unwrap());
    assert_eq!(mode & 0o777, 0o600);
    let folder = lab.folder.path();
    assert!(succeeds(folder, "sgdisk -v image.raw").contains("No problems found"));
    succeeds(folder, &format!("START={ROOT_START}\n{}", step("open-without-root")));
    let key = std::fs::read(lab.file("volume.key")).unwrap();
    let data = usize::try_from(ROOT_START + (16 << 20)).unwrap();
    assert!(decrypt_sector_0(folder, &key, &image[data..data + 4096]) == plain_sector());
}

#[test]
fn openssl_and_cryptsetup_alone_open_the_disk() {
    let _tpm = one_tpm_at_a_time();
    let lab = lab();
    lab.run_once();
    let folder = lab.folder.path();
    std::fs::copy(&tenant().0, lab.file("private.pem")).unwrap();
    let steps = ["unwrap", "check-header", "put-together", "open-without-root"].map(step);
    succeeds(folder, &steps.concat());
    assert_eq!(succeeds(folder, &step("fingerprint")).trim_end(), fingerprint(&lab));
    let key = std::fs::read(lab.file("volume.key")).unwrap();
    let data = usize::try_from(ROOT_START + (16 << 20)).unwrap();
    let disk = std::fs::read(&lab.config.disk).unwrap();
    assert!(decrypt_sector_0(folder, &key, &disk[data..data + 4096]) == plain_sector());
    // The header that the host publishes in place of the paravisor's.
    edit(&lab.file(HEADER), |header| header[5000] ^= 1);
    assert!(!shell(folder, &step("check-header")).status.success());
}

#[test]
fn evidence_names_the_key_of_the_recovery_document_from_the_first_start_on() {
    let _tpm = one_tpm_at_a_time();
    let lab = lab();
    lab.run_once();
    let first = fingerprint(&lab);
    lab.run_once();
    assert_eq!(fingerprint(&lab), first);
    let without = Lab::new();
    without.run_once();
    assert_eq!(without.services.last_claims().recovery_document_key, None);
}

#[test]
fn every_flush_of_the_guests_boot_partition_is_followed_and_a_crash_leaves_a_usable_document() {
    let _tpm = one_tpm_at_a_time();
    let lab = lab();
    let running = lab.start().unwrap();
    let (mut before, mut document) = (None, None::<Vec<u8>>);
    for round in 0..3u8 {
        Esp::mount(running.disk()).write("loader/round", &[round; 100_000]);
        running.disk().flush().unwrap();
        let mut head = vec![0; usize::try_from(ROOT_START).unwrap()];
        running.disk().read_at(&mut head, 0).unwrap();
        let crashed = copy_of(&lab);
        assert!(exported_head(&lab, crashed.path()) == head, "round {round}");
        // A crash after the guest state was committed and before the document was replaced.
        if let (Some(before), Some(document)) = (before.replace(head), document) {
            write(&crashed.path().join(DOCUMENT), &document);
            assert!(exported_head(&lab, crashed.path()) == before, "round {round}, one step behind");
        }
        document = Some(std::fs::read(lab.file(DOCUMENT)).unwrap());
    }
}

/// The files as a crash at this moment would leave them.
fn copy_of(lab: &Lab) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(lab.folder.path()).unwrap().flatten() {
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}

/// What an export of these files has before the LUKS2 header.
fn exported_head(lab: &Lab, folder: &Path) -> Vec<u8> {
    let to = folder.join("image.raw");
    export(&Request { folder: folder.to_owned(), to: to.clone(), ..request(lab) }).unwrap();
    let mut image = std::fs::read(&to).unwrap();
    std::fs::remove_file(to).unwrap();
    image.truncate(usize::try_from(ROOT_START).unwrap());
    image
}

#[test]
fn a_document_that_cannot_be_written_does_not_stop_the_vm_and_stays_usable() {
    let _tpm = one_tpm_at_a_time();
    let lab = lab();
    let running = lab.start().unwrap();
    let before = std::fs::read(lab.file(DOCUMENT)).unwrap();
    // No file can be made under the temporary name.
    std::fs::create_dir(lab.file(&format!("{DOCUMENT}.new"))).unwrap();
    for round in 0..3u8 {
        Esp::mount(running.disk()).write("loader/round", &[round; 100_000]);
        running.disk().flush().unwrap();
    }
    assert_eq!(running.stop().unwrap(), 2);
    drop(running);
    assert!(std::fs::read(lab.file(DOCUMENT)).unwrap() == before);
    let failure = refused(&request(&lab), "DocumentOfAnotherGeneration");
    assert_eq!((failure.expected.as_str(), failure.actual.as_str()), ("2", "1"));
    export(&Request { accept_older: true, ..request(&lab) }).unwrap();
    std::fs::remove_dir(lab.file(&format!("{DOCUMENT}.new"))).unwrap();
    std::fs::remove_file(lab.file("image.raw")).unwrap();
    lab.run_once();
    export(&request(&lab)).unwrap();
}

#[test]
fn a_vm_of_before_gets_its_document_at_the_next_start() {
    let _tpm = one_tpm_at_a_time();
    let lab = lab();
    lab.run_once();
    let file = std::fs::File::options().read(true).write(true).open(&lab.config.guest_state).unwrap();
    let mut state = LockedState::open(file, VM.parse().unwrap()).unwrap().unlock(&services::kek()).unwrap();
    let mut record: Value = serde_json::from_slice(state.read(FileId::Record).unwrap()).unwrap();
    assert!(record["volume"].as_object_mut().unwrap().remove("documentKey").is_some());
    let record = serde_json::to_vec(&record).unwrap().into();
    state.commit([(FileId::Record, record)].into()).unwrap();
    drop(state);
    std::fs::remove_file(lab.file(DOCUMENT)).unwrap();
    refused(&request(&lab), "NoRecoveryDocument");
    lab.run_once();
    export(&Request { fingerprint: Some(fingerprint(&lab)), ..request(&lab) }).unwrap();
}

#[test]
fn a_running_vm_is_not_exported_and_an_exported_one_not_started() {
    let _tpm = one_tpm_at_a_time();
    let lab = lab();
    let running = lab.start().unwrap();
    let failure = refused(&request(&lab), "VmIsRunning");
    assert!(failure.remedy.contains("casemate vm stop"));
    running.stop().unwrap();
    drop(running);
    let exported = std::fs::File::open(&lab.config.disk).unwrap();
    exported.try_lock_shared().unwrap();
    assert!(lab.refused("DiskInUse").transient);
    drop(exported);
    lab.run_once();
}

#[test]
fn attack_a_header_swapped_by_the_host() {
    let _tpm = one_tpm_at_a_time();
    let lab = lab();
    lab.run_once();
    // On the disk file and in the published file nothing of it counts.
    let foreign = vec![b'x'; 32 << 10];
    edit(&lab.config.disk, |disk| {
        disk[usize::try_from(ROOT_START).unwrap()..][..foreign.len()].copy_from_slice(&foreign)
    });
    edit(&lab.file(HEADER), |header| header[..foreign.len()].copy_from_slice(&foreign));
    export(&request(&lab)).unwrap();
    let image = std::fs::read(lab.file("image.raw")).unwrap();
    assert_eq!(&image[usize::try_from(ROOT_START).unwrap()..][..4], b"LUKS");
    std::fs::remove_file(lab.file("image.raw")).unwrap();
    // In the boot region every chunk is authenticated.
    let region = std::fs::read(&lab.config.boot_region).unwrap();
    for at in (0..region.len()).step_by(64 << 10) {
        edit(&lab.config.boot_region, |bytes| bytes[at + 77] ^= 1);
        refused(&request(&lab), "BootRegionTampered");
        write(&lab.config.boot_region, &region);
    }
    edit(&lab.config.boot_region, |bytes| bytes.truncate(region.len() - 1));
    refused(&request(&lab), "BootRegionTampered");
}

#[test]
fn attack_the_document_of_another_vm() {
    let _tpm = one_tpm_at_a_time();
    let other = Lab::with(|document, _| {
        document.vm_id = OTHER_VM.to_owned();
        document.recovery_key = Some(tenant().1.clone());
    });
    other.run_once();
    let lab = lab();
    lab.run_once();
    let own = std::fs::read(lab.file(DOCUMENT)).unwrap();
    std::fs::copy(other.file(DOCUMENT), lab.file(DOCUMENT)).unwrap();
    refused(&request(&lab), "DocumentOfAnotherVm");
    // Renamed.
    edit(&lab.file(DOCUMENT), |bytes| {
        let text = String::from_utf8(bytes.clone()).unwrap();
        *bytes = text.replace(&OTHER_VM.to_lowercase(), &VM.to_lowercase()).into_bytes();
    });
    refused(&request(&lab), "RecoveryDocumentForged");
    write(&lab.file(DOCUMENT), &own);
    // The whole of the other VM, in this one's place.
    let asked = Request { vm_id: Some(VM.parse().unwrap()), to: other.file("image.raw"), ..request(&other) };
    refused(&asked, "DocumentOfAnotherVm");
    // Its disk, and its recovery file.
    let disk = std::fs::read(&lab.config.disk).unwrap();
    std::fs::copy(&other.config.disk, &lab.config.disk).unwrap();
    refused(&request(&lab), "DiskOfAnotherVm");
    write(&lab.config.disk, &disk);
    std::fs::copy(other.file(RECOVERY), lab.file(RECOVERY)).unwrap();
    refused(&request(&lab), "DocumentOfAnotherVm");
}

#[test]
fn attack_a_whole_vm_that_the_host_made_for_the_tenants_public_key() {
    let _tpm = one_tpm_at_a_time();
    let real = lab();
    real.run_once();
    let kept = fingerprint(&real);
    let forged = lab();
    forged.run_once();
    export(&request(&forged)).unwrap();
    std::fs::remove_file(forged.file("image.raw")).unwrap();
    let failure =
        refused(&Request { fingerprint: Some(kept.clone()), ..request(&forged) }, "RecoveryDocumentForged");
    assert_eq!(failure.expected, kept);
}

#[test]
fn attack_an_older_document() {
    let _tpm = one_tpm_at_a_time();
    let lab = lab();
    lab.run_once();
    let old = std::fs::read(lab.file(DOCUMENT)).unwrap();
    let all = [lab.keep_copy(), vec![(lab.file(DOCUMENT), old.clone())]].concat();
    lab.run_once();
    let new = std::fs::read(lab.file(DOCUMENT)).unwrap();
    write(&lab.file(DOCUMENT), &old);
    let failure = refused(&request(&lab), "DocumentOfAnotherGeneration");
    assert_eq!((failure.expected.as_str(), failure.actual.as_str()), ("4", "2"));
    // Its generation raised to the guest state's.
    edit(&lab.file(DOCUMENT), |bytes| {
        let text = String::from_utf8(bytes.clone()).unwrap();
        *bytes = text.replace("\"generation\":2", "\"generation\":4").into_bytes();
    });
    refused(&request(&lab), "RecoveryDocumentForged");
    // An older guest state below a new document, and none.
    write(&lab.file(DOCUMENT), &new);
    put_back(&all[..1]);
    refused(&request(&lab), "DocumentOfAnotherGeneration");
    std::fs::remove_file(&lab.config.guest_state).unwrap();
    refused(&request(&lab), "GenerationUnknown");
    // All files of an earlier day agree with each other; who knows the generation sees it.
    put_back(&all);
    let failure = refused(&Request { generation: Some(4), ..request(&lab) }, "DocumentOfAnotherGeneration");
    assert_eq!(failure.expected, "4 or newer");
    export(&Request { generation: Some(4), accept_older: true, ..request(&lab) }).unwrap();
}

#[test]
fn attack_a_truncated_disk() {
    let _tpm = one_tpm_at_a_time();
    let lab = lab();
    lab.run_once();
    edit(&lab.config.disk, |disk| disk.truncate(disk.len() - 4096));
    let failure = refused(&request(&lab), "DiskTruncated");
    assert_eq!(failure.expected, DISK_BYTES.to_string());
    edit(&lab.config.disk, |disk| disk.resize(usize::try_from(DISK_BYTES).unwrap() + 4096, 0));
    refused(&request(&lab), "DiskTruncated");
    edit(&lab.config.disk, |disk| disk.truncate(usize::try_from(DISK_BYTES).unwrap()));
    for file in [&lab.config.disk, &lab.config.boot_region] {
        std::fs::rename(file, lab.file("away")).unwrap();
        refused(&request(&lab), "StorageMissing");
        std::fs::rename(lab.file("away"), file).unwrap();
    }
    export(&request(&lab)).unwrap();
}

#[test]
fn a_document_without_a_recovery_key_and_files_that_are_none() {
    let _tpm = one_tpm_at_a_time();
    let lab = Lab::new();
    lab.run_once();
    assert!(!lab.file(DOCUMENT).exists() && !lab.file(RECOVERY).exists());
    refused(&request(&lab), "NoRecoveryKey");
    write(&lab.file(RECOVERY), b"{}");
    refused(&request(&lab), "RecoveryFileMalformed");
}

#[test]
fn attack_with_a_wrong_private_key() {
    let _tpm = one_tpm_at_a_time();
    let lab = lab();
    lab.run_once();
    let folder = lab.folder.path();
    succeeds(folder, &format!("mkdir other; cd other\n{}", step("make-key")));
    let wrong = Request { key: lab.file("other/private.pem"), ..request(&lab) };
    refused(&wrong, "WrongRecoveryKey");
    let to = lab.file("passphrase");
    let failure: Failure = recovery_key(&lab.file(RECOVERY), &wrong.key, &to).err().unwrap().into();
    assert!(failure.code == "WrongRecoveryKey" && !to.exists());
    refused(&Request { key: lab.file("other/public.pem"), ..request(&lab) }, "RecoveryKeyUnusable");
    // What is there already stays.
    write(&lab.file("image.raw"), b"the tenant's");
    let failure: Failure = export(&request(&lab)).err().unwrap().into();
    assert_eq!(failure.code, "FileExists");
    assert_eq!(std::fs::read(lab.file("image.raw")).unwrap(), b"the tenant's");
}

#[test]
fn what_the_guest_did_to_its_own_disk_is_exported_only_when_it_is_asked_for() {
    let _tpm = one_tpm_at_a_time();
    let lab = lab();
    let running = lab.start().unwrap();
    let disk = running.disk();
    let damaged = |code, words: &str| {
        disk.flush().unwrap();
        let copy = copy_of(&lab);
        let asked =
            || Request { folder: copy.path().to_owned(), to: copy.path().join("image.raw"), ..request(&lab) };
        refused(&asked(), code);
        let made = export(&Request { accept_damaged: true, ..asked() }).unwrap();
        assert!(made["damage"].as_str().unwrap().contains(words), "{made}");
    };
    // The superblock, then the recovery passphrase's keyslot (the second), then the header's metadata.
    disk.write_at(&[7; 4096], ROOT_START + luks2::DATA_OFFSET).unwrap();
    damaged("DiskOfAnotherVm", "file system");
    disk.write_at(&[7; 4096], ROOT_START + (luks2::COPIES_BYTES + luks2::AREA_BYTES) as u64).unwrap();
    damaged("NoRecoveryKeyslot", "no keyslot");
    disk.write_at(&[7; luks2::COPIES_BYTES], ROOT_START).unwrap();
    damaged("LuksHeaderRefused", "not of the allowed form");
}

#[test]
fn the_program_answers_with_the_image_or_with_five_parts() {
    let _tpm = one_tpm_at_a_time();
    let lab = lab();
    lab.run_once();
    let run = |verb: &str, arguments: &[(&str, &Path)]| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_casemate-paravisor"));
        program.arg(verb).args(arguments.iter().flat_map(|(name, path)| [name.as_ref(), path.as_os_str()]));
        let output = program.output().unwrap();
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code().unwrap(), answer)
    };
    let (key, to) = (tenant().0.as_path(), lab.file("image.raw"));
    let export = [("--host-folder", lab.folder.path()), ("--key", key), ("--to", &to)];
    let (code, made) = run("export-disk", &export);
    assert_eq!((code, &made["recoveryDocumentKey"]), (0, &fingerprint(&lab).into()));
    let (code, failure) = run("export-disk", &export);
    assert_eq!((code, failure["code"].as_str()), (3, Some("FileExists")));
    assert!(["claim", "expected", "actual", "rule", "remedy"].iter().all(|part| failure[part].is_string()));
    let passphrase = lab.file("passphrase");
    let (code, made) =
        run("recovery-key", &[("--file", &lab.file(RECOVERY)), ("--key", key), ("--to", &passphrase)]);
    assert_eq!((code, &made["vmId"]), (0, &VM.into()));
    assert_eq!(std::fs::read(&passphrase).unwrap().len(), 44);
}
