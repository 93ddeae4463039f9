//! Launch digests against `sev-snp-measure` (a table, and the tool itself where it is installed) and the crate `sev`.

use std::io::Write;
use std::process::Command;

use aws_lc_rs::digest::{SHA256, digest};
use sev::measurement::snp::{SnpMeasurementArgs, snp_calc_launch_digest};
use sev::measurement::vcpu_types::CpuType;
use sev::measurement::vmsa::GuestFeatures;
use snp::launch::{
    CpuModel, KernelHashes, LaunchError, LaunchPlan, Measurement, OvmfError, PARAVISOR_PAGE_GPA,
    PageInfoError, PageType, SNP_ACTIVE, VMSA_GPA, paravisor_page,
};

use crate::support::{data, skipped};

const KERNEL: &[u8] = b"a kernel";
const INITRD: &[u8] = b"an initial RAM disk";
const CMDLINE: &str = "console=ttyS0 quiet";

/// One line of `launch-digests.txt`.
struct Golden {
    firmware: String,
    sha256: String,
    vcpus: u32,
    cpu: String,
    features: u64,
    kernel: String,
    digest: String,
}

fn golden() -> Vec<Golden> {
    let text = String::from_utf8(data("launch-digests.txt")).unwrap();
    let rows: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).map(row).collect();
    assert!(rows.len() >= 30, "the table was cut off");
    rows
}

fn row(line: &str) -> Golden {
    let mut words = line.split_whitespace().map(str::to_owned);
    let mut word = || words.next().unwrap_or_else(|| panic!("short line: {line}"));
    Golden {
        firmware: word(),
        sha256: word(),
        vcpus: word().parse().unwrap(),
        cpu: word(),
        features: u64::from_str_radix(word().trim_start_matches("0x"), 16).unwrap(),
        kernel: word(),
        digest: word(),
    }
}

/// The firmware of a line; nothing when this machine has another version of the package, or none.
fn firmware(golden: &Golden) -> Option<Vec<u8>> {
    let image = if golden.firmware.starts_with('/') {
        std::fs::read(&golden.firmware).ok()?
    } else {
        data(&golden.firmware)
    };
    (hex::encode(digest(&SHA256, &image)) == golden.sha256).then_some(image)
}

fn kernel(name: &str) -> Option<KernelHashes> {
    match name {
        "-" => None,
        "kernel" => Some(KernelHashes::of(KERNEL, None, "")),
        "kernel+initrd+cmdline" => Some(KernelHashes::of(KERNEL, Some(INITRD), CMDLINE)),
        other => panic!("{other}"),
    }
}

fn plan<'a>(image: &'a [u8], vcpus: u32, cpu: &str) -> LaunchPlan<'a> {
    LaunchPlan {
        firmware: image,
        vcpus,
        cpu: cpu.parse().unwrap(),
        guest_features: SNP_ACTIVE,
        kernel_hashes: None,
        paravisor_page: None,
    }
}

#[test]
fn digests_equal_those_of_sev_snp_measure() {
    let mut compared = 0;
    for line in golden() {
        let Some(image) = firmware(&line) else {
            skipped(&format!("{} is not the one of the table", line.firmware));
            continue;
        };
        let plan = LaunchPlan {
            guest_features: line.features,
            kernel_hashes: kernel(&line.kernel),
            ..plan(&image, line.vcpus, &line.cpu)
        };
        let digest = plan.digest().unwrap().to_string();
        assert_eq!(digest, line.digest, "{} {} {}", line.firmware, line.vcpus, line.cpu);
        compared += 1;
    }
    assert!(compared >= 13, "the files beside this test must be compared everywhere");
}

#[test]
fn digests_equal_those_of_the_crate_sev() {
    for cpu in ["EPYC", "EPYC-v4", "EPYC-Rome", "EPYC-Milan", "EPYC-Milan-v2", "EPYC-Genoa", "EPYC-Turin"] {
        for vcpus in [1, 3, 65] {
            let image = data("ovmf-x64-suffix.bin");
            let ours = plan(&image, vcpus, cpu).digest().unwrap().to_string();
            assert_eq!(ours, sev_digest(&image, vcpus, cpu), "{cpu} {vcpus}");
        }
    }
}

fn sev_digest(image: &[u8], vcpus: u32, cpu: &str) -> String {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(image).unwrap();
    let arguments = SnpMeasurementArgs {
        vcpus,
        vcpu_type: CpuType::try_from(cpu).unwrap(),
        ovmf_file: file.path().into(),
        guest_features: GuestFeatures(1),
        kernel_file: None,
        initrd_file: None,
        append: None,
        ovmf_hash_str: None,
        vmm_type: None,
    };
    snp_calc_launch_digest(arguments).unwrap().get_hex_ld()
}

/// Runs the tool itself on a synthetic image, where it is installed.
#[test]
fn digests_equal_those_of_the_installed_tool() {
    let image = synthetic(&[(0x80_0000, 0x9000, 1), (0x80_D000, 0x1000, 2), (0x80_E000, 0x1000, 3)]);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&image).unwrap();
    let tool = Command::new("sev-snp-measure")
        .args(["--mode", "snp", "--vcpus", "5", "--vcpu-type", "EPYC-Milan", "--ovmf"])
        .arg(file.path())
        .output();
    let Ok(output) = tool else {
        skipped("sev-snp-measure is not on PATH");
        return;
    };
    let theirs = String::from_utf8(output.stdout).unwrap();
    assert_eq!(plan(&image, 5, "EPYC-Milan").digest().unwrap().to_string(), theirs.trim());
}

/// An image with a GUIDed table and these metadata sections, AP reset at 0x0080_B004.
fn synthetic(sections: &[(u32, u32, u32)]) -> Vec<u8> {
    let entry = |data: &[u8], guid: &str| {
        let size = u16::try_from(data.len() + 18).unwrap();
        [data, &size.to_le_bytes(), &guid_bytes(guid)].concat()
    };
    let mut metadata = b"ASEV".to_vec();
    let count = u32::try_from(sections.len()).unwrap();
    for word in [16 + 12 * count, 1, count] {
        metadata.extend(word.to_le_bytes());
    }
    for (gpa, size, kind) in sections {
        [gpa, size, kind].iter().for_each(|word| metadata.extend(word.to_le_bytes()));
    }
    let from_end = u32::try_from(0x400 + metadata.len()).unwrap();
    let mut table = entry(&from_end.to_le_bytes(), "dc886566-984a-4798-a75e-5585a7bf67cc");
    table.extend(entry(&0x0080_B004u32.to_le_bytes(), "00f771de-1a7e-4fcb-890e-68c77e2fb44e"));
    let size = u16::try_from(table.len() + 18).unwrap();
    table.extend(size.to_le_bytes());
    table.extend(guid_bytes("96b582de-1fb2-45f7-baea-a366c55a082d"));
    let mut image: Vec<u8> = (0..8192u32).map(|at| (at * 7 % 251) as u8).collect();
    let end = image.len();
    let at = end - usize::try_from(from_end).unwrap();
    image[at..at + metadata.len()].copy_from_slice(&metadata);
    image[end - 32 - table.len()..end - 32].copy_from_slice(&table);
    image
}

fn guid_bytes(text: &str) -> [u8; 16] {
    let mut bytes: [u8; 16] = hex::decode(text.replace('-', "")).unwrap().try_into().unwrap();
    bytes[..4].reverse();
    bytes[4..6].reverse();
    bytes[6..8].reverse();
    bytes
}

#[test]
fn pages_and_digest_are_one_list() {
    let image = data("ovmf-amdsev-suffix.bin");
    let page = paravisor_page(&[0xAA; 48], &[0xBB; 48]);
    let plan = LaunchPlan { paravisor_page: Some(page), ..plan(&image, 2, "EPYC-Milan") };
    let mut measurement = Measurement::new();
    for page in plan.pages().unwrap() {
        measurement.update(page.page_type, page.gpa, &page.data).unwrap();
    }
    assert_eq!(measurement.finish(), plan.digest().unwrap());
}

#[test]
fn every_input_changes_the_digest() {
    let image = data("ovmf-amdsev-suffix.bin");
    let base = || plan(&image, 2, "EPYC-Milan");
    let mut other = image.clone();
    other[100] ^= 1;
    let hashes = |cmdline| Some(KernelHashes::of(KERNEL, None, cmdline));
    let page = |digest| Some(paravisor_page(&[digest; 48], &[0; 48]));
    let digests = [
        base().digest(),
        LaunchPlan { firmware: &other, ..base() }.digest(),
        LaunchPlan { vcpus: 3, ..base() }.digest(),
        LaunchPlan { cpu: "EPYC-Genoa".parse().unwrap(), ..base() }.digest(),
        LaunchPlan { guest_features: 0x21, ..base() }.digest(),
        LaunchPlan { kernel_hashes: hashes("a"), ..base() }.digest(),
        LaunchPlan { kernel_hashes: hashes("b"), ..base() }.digest(),
        LaunchPlan { paravisor_page: page(1), ..base() }.digest(),
        LaunchPlan { paravisor_page: page(2), ..base() }.digest(),
    ];
    let mut seen: Vec<_> = digests.into_iter().map(|digest| digest.unwrap().to_string()).collect();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 9);
}

#[test]
fn the_paravisor_page_lies_beside_what_firmware_claims() {
    for path in ["/usr/share/ovmf/OVMF.fd", "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd"] {
        let Ok(image) = std::fs::read(path) else {
            skipped(&format!("no {path}"));
            continue;
        };
        let plan = LaunchPlan {
            paravisor_page: Some(paravisor_page(&[1; 48], &[2; 48])),
            ..plan(&image, 1, "EPYC")
        };
        plan.digest().unwrap_or_else(|error| panic!("{path}: {error}"));
    }
    let image = synthetic(&[(u32::try_from(PARAVISOR_PAGE_GPA).unwrap(), 0x1000, 1)]);
    let plan = LaunchPlan { paravisor_page: Some([1; 4096]), ..plan(&image, 1, "EPYC") };
    assert_eq!(plan.digest(), Err(LaunchError::Overlap { gpa: PARAVISOR_PAGE_GPA }));
}

#[test]
fn impossible_plans_are_refused() {
    let image = data("ovmf-x64-suffix.bin");
    for vcpus in [0, 1025, u32::MAX] {
        assert_eq!(plan(&image, vcpus, "EPYC").digest(), Err(LaunchError::Vcpus { vcpus }));
    }
    let hashes = Some(KernelHashes::of(KERNEL, None, ""));
    let no_place = LaunchPlan { kernel_hashes: hashes, ..plan(&image, 1, "EPYC") };
    assert_eq!(no_place.digest(), Err(LaunchError::NoKernelHashes));
    for len in [0, 4095, 4097, 16 << 20] {
        let refused = plan(&vec![0; len], 1, "EPYC").digest();
        assert_eq!(refused, Err(LaunchError::Firmware(OvmfError::Size { len })));
    }
    assert!("EPYC-Naples".parse::<CpuModel>().is_err());
}

#[test]
fn damaged_firmware_tables_are_refused() {
    let end = 8192 - 32;
    type Damage = fn(&mut [u8], usize);
    let cases: [(Damage, &str); 4] = [
        (|image, end| image[end - 18..end - 16].copy_from_slice(&0xFFFFu16.to_le_bytes()), "table too long"),
        (|image, end| image[end - 36..end - 34].copy_from_slice(&3u16.to_le_bytes()), "entry too short"),
        (|image, end| image[end - 36..end - 34].copy_from_slice(&0x400u16.to_le_bytes()), "entry too long"),
        (|image, end| image[end - 62..end - 58].copy_from_slice(&u32::MAX.to_le_bytes()), "metadata outside"),
    ];
    for (damage, what) in cases {
        let mut image = synthetic(&[(0x80_0000, 0x1000, 1)]);
        plan(&image, 1, "EPYC").digest().unwrap();
        damage(&mut image, end);
        let refused = plan(&image, 1, "EPYC").digest();
        assert!(matches!(refused, Err(LaunchError::Firmware(_))), "{what}: {refused:?}");
    }
    for section in [
        (0x80_0001, 0x1000, 1),
        (0x80_0000, 0x1001, 1),
        (0x80_0000, 0, 1),
        (0, 0x7000_0000, 1),
        (0, 0x1000, 9),
    ] {
        let image = synthetic(&[section]);
        let refused = plan(&image, 1, "EPYC").digest();
        assert!(matches!(refused, Err(LaunchError::Firmware(_))), "{section:?}: {refused:?}");
    }
}

#[test]
fn pages_that_no_processor_takes_are_not_measured() {
    let mut measurement = Measurement::new();
    let mut refused = |kind, gpa, len| measurement.update(kind, gpa, &vec![0; len]).unwrap_err();
    assert_eq!(refused(PageType::Normal, 0, 0), PageInfoError::Length { len: 0 });
    assert_eq!(refused(PageType::Normal, 0, 4097), PageInfoError::Length { len: 4097 });
    assert_eq!(refused(PageType::Normal, 5, 4096), PageInfoError::Address { gpa: 5 });
    assert_eq!(refused(PageType::Zero, !0xFFF, 8192), PageInfoError::Address { gpa: !0xFFF });
    assert_eq!(refused(PageType::Vmsa, 0x1000, 4096), PageInfoError::Vmsa { gpa: 0x1000 });
    assert_eq!(refused(PageType::Vmsa, VMSA_GPA, 8192), PageInfoError::Vmsa { gpa: VMSA_GPA });
    assert_eq!(measurement.finish(), Measurement::new().finish());
}
