//! Prediction over a guest image that was really built. Its path comes from `CASEMATE_TEST_IMAGE`; the expected values
//! of `CASEMATE_TEST_PCRS` (lines "PCR hex") are compared when given.

use std::fs::File;

use vtpm::predict::{Inputs, predict};
use vtpm::vars::VarStore;

const VARS: &str = "/usr/share/OVMF/OVMF_VARS_4M.ms.fd";

#[test]
fn image_that_was_built_is_predicted() {
    let Ok(image) = std::env::var("CASEMATE_TEST_IMAGE") else {
        eprintln!("skipped: CASEMATE_TEST_IMAGE is not set");
        return;
    };
    let vars = std::env::var("CASEMATE_TEST_VARS").unwrap_or_else(|_| VARS.to_owned());
    let vars = VarStore::parse(&std::fs::read(vars).unwrap()).unwrap();
    let mut disk = File::open(image).unwrap();
    let prediction = predict(Inputs::from_vars(&mut disk, &vars)).unwrap();
    for event in &prediction.events {
        eprintln!("{:2} {} {}", event.pcr, hex::encode(event.digest), event.what);
    }
    assert_eq!(prediction.seal_values().len(), 5);
    let Ok(expected) = std::env::var("CASEMATE_TEST_PCRS") else { return };
    for line in std::fs::read_to_string(expected).unwrap().lines() {
        let (pcr, value) = line.split_once(' ').unwrap();
        let predicted = prediction.pcrs.get(&pcr.parse().unwrap()).map(hex::encode);
        if let Some(predicted) = predicted {
            assert_eq!(predicted, value.trim().to_lowercase(), "PCR {pcr}");
        }
    }
}
