//! Seeds and dictionaries as files, the form in which libFuzzer takes them.

use std::fmt::Write as _;
use std::path::Path;

use crate::TARGETS;

/// Writes into a folder: `NAME/seed-N` and `NAME.dict` for each target, and `targets`, a line for each: its name and the
/// longest input that makes sense.
///
/// # Errors
/// The file system's.
pub fn write_seeds(folder: &Path) -> std::io::Result<()> {
    let mut names = String::new();
    for target in &TARGETS {
        let seeds = folder.join(target.name);
        std::fs::create_dir_all(&seeds)?;
        for (number, seed) in (target.seeds)().into_iter().enumerate() {
            std::fs::write(seeds.join(format!("seed-{number}")), seed)?;
        }
        std::fs::write(folder.join(format!("{}.dict", target.name)), dictionary(target.words))?;
        let _ = writeln!(names, "{} {}", target.name, target.max_len);
    }
    std::fs::write(folder.join("targets"), names)
}

/// libFuzzer's format: one quoted word a line, every byte escaped.
fn dictionary(words: &[&[u8]]) -> String {
    words.iter().fold(String::new(), |mut text, word| {
        let escaped = word.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "\\x{byte:02X}");
            text
        });
        let _ = writeln!(text, "\"{escaped}\"");
        text
    })
}
