//! `[vaults]`: under which names vaults are served beside the one at `public_url`.

use serde::Deserialize;
use url::Url;

use crate::config::{ConfigError, value};

/// Stands for the tenant's GUID in `issuer` and `authorization`.
const TENANT: &str = "{tenant}";

/// `[vaults]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaultsConfig {
    /// A vault's host is its name under this domain: `vault.casemate.test`.
    pub domain: String,
    /// The same of managed HSMs; without it there are none.
    pub managed_hsm_domain: Option<String>,
    /// `iss` of a tenant's bearer tokens, with `{tenant}` in it. All tenants' tokens are signed with the keys of `[callers]`.
    pub issuer: String,
    /// Where a tenant's callers get tokens, with `{tenant}` in it.
    pub authorization: String,
}

impl VaultsConfig {
    /// Checks what the types cannot.
    pub fn check(&self) -> Result<(), ConfigError> {
        for (key, domain) in [
            ("vaults.domain", Some(&self.domain)),
            ("vaults.managed_hsm_domain", self.managed_hsm_domain.as_ref()),
        ] {
            if domain.is_some_and(|domain| !is_domain(domain)) {
                return Err(value(key, "expected a domain in lower case, without a port"));
            }
        }
        if self.managed_hsm_domain.as_ref().is_some_and(|hsm| overlap(hsm, &self.domain)) {
            return Err(value(
                "vaults.managed_hsm_domain",
                "it must not lie within vaults.domain, nor around it",
            ));
        }
        for (key, text) in [("vaults.issuer", &self.issuer), ("vaults.authorization", &self.authorization)] {
            let plain = text.chars().all(|letter| letter.is_ascii_graphic() && letter != '"');
            if !plain || !text.contains(TENANT) || Url::parse(&of_tenant(text, "x")).is_err() {
                return Err(value(key, "expected a URL with {tenant} in it, without quotes and spaces"));
            }
        }
        Ok(())
    }

    /// The issuer of a tenant's tokens.
    pub fn issuer_of(&self, tenant: &str) -> String {
        of_tenant(&self.issuer, tenant)
    }

    /// Where a tenant's callers get tokens.
    pub fn authorization_of(&self, tenant: &str) -> String {
        of_tenant(&self.authorization, tenant)
    }
}

fn of_tenant(text: &str, tenant: &str) -> String {
    text.replace(TENANT, tenant)
}

fn overlap(one: &str, other: &str) -> bool {
    let within = |inner: &str, outer: &str| inner == outer || inner.ends_with(&format!(".{outer}"));
    within(one, other) || within(other, one)
}

fn is_domain(text: &str) -> bool {
    let label = |label: &str| {
        let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        (1..=63).contains(&label.len())
            && label.bytes().all(letter)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 200 && text.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> VaultsConfig {
        VaultsConfig {
            domain: "vault.casemate.test".to_owned(),
            managed_hsm_domain: Some("managedhsm.casemate.test".to_owned()),
            issuer: "https://login.casemate.test/{tenant}/v2.0".to_owned(),
            authorization: "https://login.casemate.test/{tenant}".to_owned(),
        }
    }

    #[test]
    fn each_tenant_has_an_issuer_of_its_own() {
        config().check().unwrap();
        assert_eq!(config().issuer_of("t1"), "https://login.casemate.test/t1/v2.0");
        assert_eq!(config().authorization_of("t1"), "https://login.casemate.test/t1");
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_key() {
        type Change = fn(&mut VaultsConfig);
        let cases: [(Change, &str); 6] = [
            (|config| config.domain = "Vault.test".to_owned(), "`vaults.domain`"),
            (|config| config.domain = "vault.test:8443".to_owned(), "`vaults.domain`"),
            (|config| config.domain = String::new(), "`vaults.domain`"),
            (
                |config| config.managed_hsm_domain = Some("hsm.vault.casemate.test".to_owned()),
                "`vaults.managed_hsm_domain`",
            ),
            (|config| config.issuer = "https://login.casemate.test/v2.0".to_owned(), "`vaults.issuer`"),
            (|config| config.authorization = "https://a/{tenant}\"".to_owned(), "`vaults.authorization`"),
        ];
        for (change, expected) in cases {
            let mut config = config();
            change(&mut config);
            let error = config.check().unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
