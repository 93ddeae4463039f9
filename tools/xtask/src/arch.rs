//! Dependency direction: the crates' manifests against the table in ARCHITECTURE.md.
//!
//! The table is the law: `| crate | row | may depend on |`. An edge that it does not name, a crate that it does not
//! name, a crate in another row than it says: each is an error. Development dependencies may reach anything but tools.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, bail};

const ROWS: [&str; 4] = ["contracts", "engines", "services", "tools"];

#[derive(Debug, PartialEq, Eq)]
struct Law {
    row: String,
    may: BTreeSet<String>,
}

/// Checks the tree; prints what it saw.
pub fn run(root: &Path) -> Result<()> {
    let text = std::fs::read_to_string(root.join("ARCHITECTURE.md")).context("reading ARCHITECTURE.md")?;
    let law = parse_table(&text)?;
    let mut offences = Vec::new();
    let mut edges = 0;
    for row in ROWS {
        for entry in std::fs::read_dir(root.join(row)).with_context(|| format!("reading {row}/"))? {
            let folder = entry?.path();
            let found = Crate::read(&folder, row)?;
            edges += found.dependencies.iter().filter(|name| law.contains_key(*name)).count();
            offences.extend(offences_of(&found, &law));
        }
    }
    if !offences.is_empty() {
        bail!("forbidden arrows:\n  {}", offences.join("\n  "));
    }
    crate::say(&format!("arch: {} crates, {edges} arrows, all allowed by ARCHITECTURE.md", law.len()));
    Ok(())
}

struct Crate {
    name: String,
    row: String,
    dependencies: BTreeSet<String>,
}

impl Crate {
    fn read(folder: &Path, row: &str) -> Result<Self> {
        let path = folder.join("Cargo.toml");
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let manifest: toml::Table = text.parse().with_context(|| format!("parsing {}", path.display()))?;
        let name = manifest["package"]["name"].as_str().unwrap_or_default().to_owned();
        if folder.file_name().and_then(|file| file.to_str()) != Some(name.as_str()) {
            bail!("{}: a crate's folder has the crate's name", folder.display());
        }
        let mut dependencies = BTreeSet::new();
        for section in ["dependencies", "build-dependencies"] {
            if let Some(table) = manifest.get(section).and_then(toml::Value::as_table) {
                dependencies.extend(table.keys().cloned());
            }
        }
        Ok(Self { name, row: row.to_owned(), dependencies })
    }
}

fn offences_of(found: &Crate, law: &BTreeMap<String, Law>) -> Vec<String> {
    let Some(own) = law.get(&found.name) else {
        return vec![format!("{}: not in the table of ARCHITECTURE.md", found.name)];
    };
    let mut offences = Vec::new();
    if own.row != found.row {
        offences.push(format!("{}: lies in {}/, the table says {}", found.name, found.row, own.row));
    }
    for dependency in &found.dependencies {
        let ours = law.contains_key(dependency);
        if ours && !own.may.contains(dependency) && !own.may.contains("all") {
            offences.push(format!("{} -> {dependency}: the table does not allow it", found.name));
        }
    }
    offences
}

/// Reads the rows between the table's head and the first line that is not a row.
fn parse_table(text: &str) -> Result<BTreeMap<String, Law>> {
    let mut law = BTreeMap::new();
    let head = text.lines().position(|line| line.starts_with("| crate |"));
    let head = head.context("ARCHITECTURE.md has no table that begins with `| crate |`")?;
    for line in text.lines().skip(head + 2).take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, row, may, ..] = cells[..] else { bail!("a row has too few cells: {line}") };
        let may = names_in(may);
        law.insert(name.trim_matches('`').to_owned(), Law { row: row.to_owned(), may });
    }
    Ok(law)
}

fn names_in(cell: &str) -> BTreeSet<String> {
    cell.split(',')
        .map(|name| name.trim().trim_matches('`').to_owned())
        .filter(|name| !name.is_empty() && name != "-")
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "x\n| crate | row | may depend on |\n|---|---|---|\n| `snp` | engines | - |\n\
                         | `key_service` | services | `policy` |\n| `policy` | engines | - |\n| `kit` | tools | all |\n";

    fn offences(name: &str, row: &str, dependencies: &[&str]) -> Vec<String> {
        let dependencies = dependencies.iter().map(|&name| name.to_owned()).collect();
        let found = Crate { name: name.to_owned(), row: row.to_owned(), dependencies };
        offences_of(&found, &parse_table(TABLE).unwrap())
    }

    #[test]
    fn an_allowed_arrow_passes() {
        assert!(offences("key_service", "services", &["policy", "serde"]).is_empty());
        assert!(offences("kit", "tools", &["snp", "policy"]).is_empty());
    }

    #[test]
    fn the_key_service_must_not_see_reports() {
        assert_eq!(
            offences("key_service", "services", &["snp"]),
            ["key_service -> snp: the table does not allow it"]
        );
    }

    #[test]
    fn an_unknown_crate_and_a_wrong_row_are_named() {
        assert_eq!(offences("new", "engines", &[]), ["new: not in the table of ARCHITECTURE.md"]);
        assert_eq!(offences("snp", "services", &[]), ["snp: lies in services/, the table says engines"]);
    }
}
