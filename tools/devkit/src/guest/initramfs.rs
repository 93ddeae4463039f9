//! An initramfs as dracut makes it, as far as anybody looks: the files that unlock by TPM, with a few bytes each.

const LIB: &str = "usr/lib/x86_64-linux-gnu";

/// Path and content (a link's target behind `->`) of all that is needed.
pub fn files(release: &str) -> Vec<(String, Vec<u8>)> {
    let modules = format!("usr/lib/modules/{release}");
    let builtin =
        "kernel/drivers/char/tpm/tpm_crb.ko\nkernel/drivers/virtio/virtio_pci.ko\nkernel/fs/ext4/ext4.ko\n";
    let file = |path: String| (path, b"ELF".to_vec());
    let mut all = vec![
        ("usr".to_owned(), Vec::new()),
        ("init".to_owned(), b"->usr/lib/systemd/systemd".to_vec()),
        file("usr/lib/systemd/systemd".to_owned()),
        file("usr/bin/systemd-cryptsetup".to_owned()),
        file("usr/lib/systemd/system-generators/systemd-cryptsetup-generator".to_owned()),
        (format!("{modules}/modules.builtin"), builtin.as_bytes().to_vec()),
        file(format!("{modules}/kernel/drivers/md/dm-mod.ko.xz")),
        file(format!("{modules}/kernel/drivers/md/dm-crypt.ko.xz")),
        file(format!("{modules}/kernel/drivers/block/virtio_blk.ko.xz")),
        file(format!("{modules}/kernel/crypto/xts.ko.xz")),
    ];
    let libraries =
        ["cryptsetup.so.12", "tss2-esys.so.0", "tss2-mu.so.0", "tss2-rc.so.0", "tss2-tcti-device.so.0"];
    for name in libraries {
        all.push((format!("{LIB}/lib{name}"), format!("->lib{name}.0.1").into_bytes()));
        all.push(file(format!("{LIB}/lib{name}.0.1")));
    }
    all
}

/// A whole initramfs for a kernel.
pub fn whole(release: &str) -> Vec<u8> {
    archive(&files(release))
}

/// A cpio archive of these files.
pub fn archive(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (path, content) in files {
        match content.strip_prefix(b"->") {
            Some(target) => entry(&mut out, path, 0o120_777, target),
            None if content.is_empty() => entry(&mut out, path, 0o040_755, content),
            None => entry(&mut out, path, 0o100_755, content),
        }
    }
    entry(&mut out, "TRAILER!!!", 0, &[]);
    out
}

fn entry(out: &mut Vec<u8>, path: &str, mode: usize, content: &[u8]) {
    out.extend_from_slice(b"070701");
    for field in [1, mode, 0, 0, 1, 0, content.len(), 0, 0, 0, 0, path.len() + 1, 0] {
        out.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    out.extend_from_slice(path.as_bytes());
    out.push(0);
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend_from_slice(content);
    out.resize(out.len().next_multiple_of(4), 0);
}
