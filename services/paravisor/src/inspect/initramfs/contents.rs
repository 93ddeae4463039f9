//! What an initramfs has: paths and kinds, in the form of a merged `/usr`, and the list of the kernel's built-in modules.

use std::collections::BTreeMap;

use super::InitramfsError;

const MAX_FILES: usize = 200_000;
const MAX_NAMES: usize = 16 << 20;
/// Links followed before a path counts as missing.
const MAX_LINKS: usize = 8;

/// What lies at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    /// A file with content.
    File,
    /// A symbolic link.
    Link(String),
    /// A folder, a device, an empty file.
    Other,
}

/// All paths of an initramfs.
pub(super) struct Contents {
    nodes: BTreeMap<String, Node>,
    names: usize,
    builtin_path: String,
    builtin: String,
}

impl Contents {
    /// Nothing yet, for the kernel `release`.
    pub(super) fn new(release: &str) -> Self {
        let builtin_path = format!("usr/lib/modules/{release}/modules.builtin");
        Self { nodes: BTreeMap::new(), names: 0, builtin_path, builtin: String::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Adds an entry; a later one replaces an earlier one, as in the kernel.
    pub(super) fn add(&mut self, path: &str, node: Node) -> Result<(), InitramfsError> {
        let link = if let Node::Link(target) = &node { target.len() } else { 0 };
        self.names += path.len() + link;
        if self.nodes.len() >= MAX_FILES || self.names > MAX_NAMES {
            return Err(InitramfsError::TooMuch("200000 files, or 16 MiB of names"));
        }
        self.nodes.insert(normal(path), node);
        Ok(())
    }

    /// Whether the content of this file is to be kept.
    pub(super) fn wants(&self, path: &str) -> bool {
        normal(path) == self.builtin_path
    }

    pub(super) fn keep(&mut self, content: &[u8]) {
        self.builtin = String::from_utf8_lossy(content).into_owned();
    }

    /// Whether a file with content lies there, perhaps behind links.
    pub(super) fn has_file(&self, path: &str) -> bool {
        let mut path = path.to_owned();
        for _ in 0..=MAX_LINKS {
            match self.nodes.get(&path) {
                Some(Node::File) => return true,
                Some(Node::Link(target)) => path = behind(&path, target),
                _ => return false,
            }
        }
        false
    }

    /// Whether the kernel `release` has a module of that name (with `-` between words), as a file or built in.
    pub(super) fn has_module(&self, release: &str, name: &str) -> bool {
        let folder = format!("usr/lib/modules/{release}/");
        let files = self.nodes.range(folder.clone()..).take_while(|(path, _)| path.starts_with(&folder));
        let mut paths = files.filter(|(_, node)| **node == Node::File).map(|(path, _)| path.as_str());
        paths.any(|path| module_name(path).as_deref() == Some(name))
            || self.builtin.lines().any(|path| module_name(path).as_deref() == Some(name))
    }
}

/// `dm-crypt` of `.../dm-crypt.ko.xz`.
fn module_name(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?;
    let (name, compression) = file.split_once(".ko")?;
    matches!(compression, "" | ".xz" | ".zst" | ".gz").then(|| name.replace('_', "-"))
}

/// The path that a link at `path` leads to.
fn behind(path: &str, target: &str) -> String {
    let target = target.trim_end_matches('\0');
    if target.starts_with('/') {
        return normal(target);
    }
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    normal(&format!("{folder}/{target}"))
}

/// Without `.`, `..` and doubled `/`, and with `bin`, `sbin`, `lib` and `lib64` under `usr`.
fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    if parts.first().is_some_and(|first| matches!(*first, "bin" | "sbin" | "lib" | "lib64")) {
        parts.insert(0, "usr");
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_followed_to_a_file_and_no_further() {
        let mut contents = Contents::new("1");
        contents.add("usr/lib/a.so.0", Node::Link("a.so.0.1".to_owned())).unwrap();
        contents.add("./lib/a.so.0.1", Node::File).unwrap();
        contents.add("usr/lib/b", Node::Link("../lib/b".to_owned())).unwrap();
        contents.add("init", Node::Link("/lib/a.so.0".to_owned())).unwrap();
        assert!(contents.has_file("usr/lib/a.so.0") && contents.has_file("init"));
        assert!(!contents.has_file("usr/lib/b"), "a link to itself");
    }

    #[test]
    fn modules_are_files_of_this_kernel_or_built_in() {
        let mut contents = Contents::new("6.1");
        contents.add("usr/lib/modules/6.1/kernel/dm_crypt.ko.xz", Node::File).unwrap();
        contents.add("usr/lib/modules/6.2/kernel/xts.ko", Node::File).unwrap();
        contents.keep(b"kernel/fs/ext4/ext4.ko\n");
        let has = |name| contents.has_module("6.1", name);
        assert!(has("dm-crypt") && has("ext4") && !has("xts") && !has("dm"));
    }
}
