//! The properties of an attestation provider that are fixed when it is made, as requests and rows have them.

use public_api::attestation_policy::TpmAttestationAuthentication;
use public_api::encoding::{from_base64_any, to_base64};
use serde_json::{Value, json};
use x509_cert::der::Decode as _;

use super::refusal::Refusal;
use super::validation;

/// `tpmAttestationAuthentication` where nothing is said; Azure's default.
pub const TPM_DEFAULT: TpmAttestationAuthentication = TpmAttestationAuthentication::Enabled;

/// Properties that are fixed when the provider is made; what is not said is none.
#[derive(Debug)]
pub struct Wanted {
    /// Whether attesting with a TPM's quote alone needs a token.
    pub tpm: Option<TpmAttestationAuthentication>,
    /// Standard base64 of DER.
    pub certificates: Option<Vec<String>>,
}

impl Wanted {
    /// Reads the `properties` of a request that has the table's shape.
    pub fn read(properties: &Value) -> Result<Self, Refusal> {
        let path = "properties.publicNetworkAccess";
        let access = word(properties, "publicNetworkAccess", &["Enabled", "Disabled"])?;
        if access == Some("Disabled") {
            let message = "Disabling the access from public networks is not offered by this installation: its attestation \
                           service listens where its operator says, for all providers.";
            return Err(Refusal::parameter(path, message));
        }
        let tpm = word(properties, "tpmAttestationAuthentication", &["Enabled", "Disabled"])?;
        let tpm = tpm.map(|word| match word {
            "Disabled" => TpmAttestationAuthentication::Disabled,
            _ => TpmAttestationAuthentication::Enabled,
        });
        let keys = properties.get("policySigningCertificates").map(|set| set["keys"].as_array());
        let certificates = match keys {
            None => None,
            Some(keys) => Some(certificates(keys.map(Vec::as_slice).unwrap_or_default())?),
        };
        Ok(Self { tpm, certificates })
    }

    /// As the resource's row keeps them.
    pub fn stored(&self) -> Value {
        json!({
            "tpmAttestationAuthentication": self.tpm.unwrap_or(TPM_DEFAULT),
            "policySigningCertificates": self.certificates.as_deref().unwrap_or_default(),
        })
    }

    /// From the resource's row.
    pub fn of_stored(properties: &Value) -> Self {
        let part = |name: &str| properties[name].clone();
        Self {
            tpm: serde_json::from_value(part("tpmAttestationAuthentication")).ok(),
            certificates: serde_json::from_value(part("policySigningCertificates")).ok(),
        }
    }

    /// What a later request repeats must be what was asked for first.
    pub fn check_unchanged(&self, stored: &Value) -> Result<(), Refusal> {
        let first = Self::of_stored(stored);
        if self.tpm.is_some() && self.tpm != first.tpm {
            return Err(validation::unchangeable("properties.tpmAttestationAuthentication"));
        }
        if self.certificates.is_some() && self.certificates != first.certificates {
            return Err(validation::unchangeable("properties.policySigningCertificates"));
        }
        Ok(())
    }
}

/// One of some words, in any case.
fn word<'a>(properties: &Value, name: &str, words: &[&'a str]) -> Result<Option<&'a str>, Refusal> {
    let Some(given) = properties.get(name).and_then(Value::as_str) else { return Ok(None) };
    match words.iter().find(|word| word.eq_ignore_ascii_case(given)) {
        Some(word) => Ok(Some(word)),
        None => {
            let message =
                format!("'{given}' is not a valid value of '{name}'; use one of: {}.", words.join(", "));
            Err(Refusal::parameter(&format!("properties.{name}"), message))
        }
    }
}

/// The first certificate of each key, in standard base64 of its DER.
fn certificates(keys: &[Value]) -> Result<Vec<String>, Refusal> {
    let certificate = |(index, key): (usize, &Value)| {
        let path = format!("properties.policySigningCertificates.keys[{index}].x5c");
        let first = key["x5c"].get(0).and_then(Value::as_str);
        let first = first.ok_or_else(|| validation::missing(&path, "x5c"))?;
        let der = from_base64_any(first).ok();
        let der = der.filter(|der| x509_cert::Certificate::from_der(der).is_ok());
        der.map(|der| to_base64(&der)).ok_or_else(|| {
            let message = format!("'{path}' does not begin with an X.509 certificate in base64 of its DER.");
            Refusal::parameter(&path, message)
        })
    };
    let found: Vec<String> = keys.iter().enumerate().map(certificate).collect::<Result<_, _>>()?;
    if found.is_empty() {
        return Err(validation::missing("properties.policySigningCertificates.keys", "keys"));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_taken_in_any_case_and_others_refused() {
        let read = |properties| Wanted::read(&properties).map(|wanted| wanted.tpm);
        assert_eq!(read(json!({})), Ok(None));
        let disabled = json!({"tpmAttestationAuthentication": "disabled", "publicNetworkAccess": "enabled"});
        assert_eq!(read(disabled), Ok(Some(TpmAttestationAuthentication::Disabled)));
        for (name, value) in [
            ("tpmAttestationAuthentication", "Perhaps"),
            ("publicNetworkAccess", "Disabled"),
            ("publicNetworkAccess", ""),
        ] {
            let refusal = read(json!({name: value})).unwrap_err();
            assert_eq!(refusal.target.as_deref(), Some(format!("properties.{name}").as_str()));
        }
    }

    #[test]
    fn signers_are_certificates() {
        for keys in [
            json!([]),
            json!([{}]),
            json!([{"x5c": []}]),
            json!([{"x5c": ["not base64!"]}]),
            json!([{"x5c": ["AAAA"]}]),
        ] {
            let properties = json!({"policySigningCertificates": {"keys": keys}});
            assert!(Wanted::read(&properties).is_err(), "{properties}");
        }
        assert!(Wanted::read(&json!({"policySigningCertificates": {}})).is_err());
    }

    #[test]
    fn a_repeated_property_must_be_the_same() {
        let stored = Wanted::read(&json!({})).unwrap().stored();
        for (properties, same) in [
            (json!({}), true),
            (json!({"tpmAttestationAuthentication": "Enabled"}), true),
            (json!({"tpmAttestationAuthentication": "Disabled"}), false),
        ] {
            let wanted = Wanted::read(&properties).unwrap();
            assert_eq!(wanted.check_unchanged(&stored).is_ok(), same, "{properties}");
        }
    }
}
