//! How long a new VM takes from its PUT to the guest's first instruction, by step, on a whole platform with real QEMU.
//!
//! Begins when the control plane has stored the PUT (milestone `accepted`). "Processors set going" is when QEMU's
//! monitor answers, which it does only after it has started the guest's processors: the first instruction has run by then.
//! "First byte on the serial console" is the first thing that the firmware says; how soon depends on the accelerator.
//!
//! `cargo bench -p devkit --bench put_to_first_instruction [-- VMS]`: that many VMs one after the other, each deleted
//! before the next. Uses `CASEMATE_IMAGE_CACHE`, and builds the image if it is not there.
#![allow(clippy::print_stdout, reason = "the table is what this program is for")]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use devkit::installation::{Installation, image_cache, wait_for};
use devkit::observed::{median, when_file_says};
use serde_json::Value;

const BASE_PORT: u16 = 21443;
const VMS: usize = 5;
const LIMIT: Duration = Duration::from_secs(300);

/// The table's lines, in the order in which things happen.
const LINES: [(&str, &str); 14] = [
    ("key", "control plane: the platform key"),
    ("placed", "control plane: placement"),
    ("assigned", "control plane: launch document"),
    ("fetchImage", "host: the image's manifest"),
    ("launch", "host: launch at the secure processor"),
    ("attest", "paravisor: launch check, transfer key, report, token"),
    ("provisionTpm", "paravisor: the vTPM's keys"),
    ("encryptDisk", "paravisor: OS disk (image bytes)"),
    ("seal", "paravisor: prediction and seal"),
    ("release", "paravisor: both releases, second attestation"),
    ("qemu", "host: QEMU until its monitor answers"),
    ("other", "between the steps"),
    ("running", "PUT to processors set going"),
    ("without", "the same without image bytes"),
];

type Row = BTreeMap<&'static str, f64>;

fn main() -> Result<()> {
    let asked = std::env::args().skip(1).find_map(|argument| argument.parse().ok());
    let platform = Installation::up(BASE_PORT, &image_cache()?, &[])?;
    platform.ensure_image("debian-13", &[], &[])?;
    let mut rows = Vec::new();
    for number in 0..asked.unwrap_or(VMS) {
        let row = measure(&platform, &format!("bench-{number}"))?;
        println!("VM {number}: {:.0} ms, {:.0} without image bytes", row["running"], row["without"]);
        rows.push(row);
    }
    print(&rows);
    Ok(())
}

/// One VM from PUT to its first word, and away with it.
fn measure(platform: &Installation, name: &str) -> Result<Row> {
    platform.casemate(&["vm", "create", name, "--no-wait"])?;
    let row = observe(platform, name);
    platform.casemate(&["vm", "delete", name])?;
    row
}

fn observe(platform: &Installation, name: &str) -> Result<Row> {
    let dir = platform.vm_dir(name)?;
    let heard = when_file_says(&dir.join("qemu-events.out"), "return", LIMIT)?;
    let spoke = when_file_says(&dir.join("serial.log"), "", LIMIT)?;
    let shown = wait_for(Duration::from_millis(50), LIMIT, || {
        let shown = platform.json(&["vm", "show", name])?;
        Ok(labels(&shown)["milestones"]["running"].is_u64().then_some(shown))
    })?;
    let labels = labels(&shown);
    let milestone =
        |name: &str| labels["milestones"][name].as_u64().with_context(|| format!("milestone {name}"));
    let accepted = milestone("accepted")?;
    let since = |time: u64| time.saturating_sub(accepted) as f64;
    let mut row = Row::new();
    let (key, placed, assigned) = (milestone("key")?, milestone("placed")?, milestone("assigned")?);
    row.insert("key", since(key));
    row.insert("placed", placed.saturating_sub(key) as f64);
    row.insert("assigned", assigned.saturating_sub(placed) as f64);
    for (step, _) in &LINES[3..11] {
        row.insert(step, labels["timings"][step].as_u64().with_context(|| format!("timing {step}"))? as f64);
    }
    row.insert("other", since(heard) - row.values().sum::<f64>());
    row.insert("running", since(heard));
    row.insert("without", since(heard) - row["encryptDisk"]);
    row.insert("spoke", since(spoke));
    Ok(row)
}

/// Our labels in a VM's body.
fn labels(shown: &Value) -> &Value {
    &shown["properties"]["casemate"]
}

fn print(rows: &[Row]) {
    println!(
        "\nmilliseconds from the accepted PUT; {} VMs\n{:<56} {:>8} {:>8} {:>8}",
        rows.len(),
        "",
        "median",
        "least",
        "most"
    );
    for (step, words) in LINES.into_iter().chain([("spoke", "PUT to first byte on the serial console")]) {
        let values: Vec<f64> = rows.iter().map(|row| row[step]).collect();
        let (least, most) =
            values.iter().fold((f64::MAX, 0_f64), |(a, b), value| (a.min(*value), b.max(*value)));
        println!("{words:<56} {:>8.0} {least:>8.0} {most:>8.0}", median(&values));
    }
}
