//! Which vault a request is for, by the host that it names. Pure.
//!
//! Whatever lies under the vaults' domain is a named vault or nothing; it never falls back to the default vault, so a caller
//! with a misspelt name gets no other vault than the one that was meant.

use axum::http::{HeaderMap, Uri, header};
use public_api::vaults::VaultKind;

use super::config::VaultsConfig;

/// Shortest and longest name of a vault. Source: Key Vault documentation, "vault name".
const LENGTH: std::ops::RangeInclusive<usize> = 3..=24;
/// The port of `https` where none is written.
const HTTPS: u16 = 443;

/// Whom a request is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addressed {
    /// The vault at `public_url`.
    Default,
    /// A vault by its name, in lower case.
    Named(VaultKind, String),
    /// Nobody who can be here.
    Nobody,
}

/// The hosts of an installation.
#[derive(Clone, Debug)]
pub struct Hosts {
    /// Host of `public_url`.
    own: String,
    /// Port of `public_url`.
    port: u16,
    vaults: String,
    managed_hsms: Option<String>,
}

impl Hosts {
    /// Of the installation whose default vault is at `own` and this port.
    pub fn new(config: &VaultsConfig, own: &str, port: Option<u16>) -> Self {
        Self {
            own: own.to_ascii_lowercase(),
            port: port.unwrap_or(HTTPS),
            vaults: config.domain.clone(),
            managed_hsms: config.managed_hsm_domain.clone(),
        }
    }

    /// Whom a request with this target and these headers is for.
    pub fn addressed(&self, uri: &Uri, headers: &HeaderMap) -> Addressed {
        let mut named = headers.get_all(header::HOST).iter().map(|value| value.to_str().ok());
        let in_header = match (named.next(), named.next()) {
            (None, _) => None,
            (Some(Some(host)), None) => Some(host),
            (Some(_), _) => return Addressed::Nobody,
        };
        // `:authority` of HTTP/2, or the absolute form of HTTP/1.1 (RFC 9112 section 3.2.2).
        match (uri.authority().map(axum::http::uri::Authority::as_str), in_header) {
            (Some(target), Some(header)) if !target.eq_ignore_ascii_case(header) => Addressed::Nobody,
            (Some(host), _) | (None, Some(host)) => self.of_authority(host),
            (None, None) => Addressed::Default,
        }
    }

    fn of_authority(&self, authority: &str) -> Addressed {
        let lower = authority.to_ascii_lowercase();
        let (host, port) = match lower.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host.to_owned(), Some(port.parse::<u16>().ok())),
            _ => (lower, None),
        };
        let host = host.strip_suffix('.').unwrap_or(&host);
        if host == self.own {
            return Addressed::Default;
        }
        let domains =
            [(VaultKind::Vault, Some(&self.vaults)), (VaultKind::ManagedHsm, self.managed_hsms.as_ref())];
        for (kind, domain) in domains {
            let Some(below) = domain.and_then(|domain| below(host, domain)) else { continue };
            let right_port = port.unwrap_or(Some(HTTPS)) == Some(self.port);
            let is_vault = right_port && is_name(below);
            return if is_vault { Addressed::Named(kind, below.to_owned()) } else { Addressed::Nobody };
        }
        Addressed::Default
    }

    /// Host of a vault; none if its kind is not served.
    pub fn host(&self, kind: VaultKind, name: &str) -> Option<String> {
        Some(format!("{name}.{}", self.domain(kind)?))
    }

    /// `https://{host}[:port]`.
    pub fn url(&self, host: &str) -> String {
        match self.port {
            HTTPS => format!("https://{host}"),
            port => format!("https://{host}:{port}"),
        }
    }

    /// `aud` of tokens for the vaults of a kind: Azure's clients compare it with the host's parent domain.
    pub fn audience(&self, kind: VaultKind) -> Option<String> {
        Some(self.url(self.domain(kind)?))
    }

    fn domain(&self, kind: VaultKind) -> Option<&str> {
        match kind {
            VaultKind::Vault => Some(&self.vaults),
            VaultKind::ManagedHsm => self.managed_hsms.as_deref(),
        }
    }

    /// Whether a vault of this name would have the default vault's host.
    pub fn is_reserved(&self, kind: VaultKind, name: &str) -> bool {
        self.host(kind, name).is_some_and(|host| host == self.own)
    }
}

/// What stands before the domain, if the host lies within it; nothing for the domain itself.
fn below<'a>(host: &'a str, domain: &str) -> Option<&'a str> {
    // A host that ends in dots is the same host, and lies within the same domain.
    let host = host.trim_end_matches('.');
    let rest = host.strip_suffix(domain)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_suffix('.') }
}

/// Whether a text is a vault's name: 3 to 24 lower-case letters, digits and single hyphens, a letter first, no hyphen last.
pub fn is_name(text: &str) -> bool {
    let letters = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    LENGTH.contains(&text.len())
        && text.bytes().all(letters)
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && !text.ends_with('-')
        && !text.contains("--")
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn hosts() -> Hosts {
        let config = VaultsConfig {
            domain: "vault.casemate.test".to_owned(),
            managed_hsm_domain: Some("managedhsm.casemate.test".to_owned()),
            issuer: String::new(),
            authorization: String::new(),
        };
        Hosts::new(&config, "keys.vault.casemate.test", Some(8443))
    }

    fn addressed(host: &str) -> Addressed {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_str(host).expect("a header value"));
        hosts().addressed(&Uri::from_static("/keys"), &headers)
    }

    #[test]
    fn a_name_under_the_domain_is_that_vault() {
        let vault = |name: &str| Addressed::Named(VaultKind::Vault, name.to_owned());
        assert_eq!(addressed("one.vault.casemate.test:8443"), vault("one"));
        assert_eq!(addressed("ONE.Vault.Casemate.TEST:8443"), vault("one"));
        assert_eq!(addressed("one.vault.casemate.test.:8443"), vault("one"));
        let hsm = Addressed::Named(VaultKind::ManagedHsm, "one".to_owned());
        assert_eq!(addressed("one.managedhsm.casemate.test:8443"), hsm);
        for host in [
            "keys.vault.casemate.test:8443",
            "127.0.0.1:8443",
            "[::1]:8443",
            "[::1]",
            "localhost",
            "xvault.casemate.test",
        ] {
            assert_eq!(addressed(host), Addressed::Default, "{host}");
        }
    }

    #[test]
    fn path_traversal_and_odd_names_are_nobody() {
        for name in [
            "",
            ".",
            "..",
            "a",
            "ab",
            "../etc",
            "..%2f..",
            "a/b",
            "a\\b",
            "a b",
            "one.two",
            ".one",
            "one.",
            "-one",
            "one-",
            "o--ne",
            "1one",
            "a234567890123456789012345",
            "on_e",
            "one@two",
            "on%00e",
            "*",
            "one;",
        ] {
            let host = format!("{name}.vault.casemate.test:8443");
            assert_eq!(addressed(&host), Addressed::Nobody, "{host}");
        }
        for host in [
            "vault.casemate.test:8443",
            "one.vault.casemate.test",
            "one.vault.casemate.test:443",
            "one.vault.casemate.test:",
            "one.vault.casemate.test:x",
            "one.vault.casemate.test..:8443",
            "user@one.vault.casemate.test:99999",
        ] {
            assert_ne!(addressed(host), Addressed::Default, "{host}");
            assert!(!matches!(addressed(host), Addressed::Named(..)) || host.contains(".."), "{host}");
        }
    }

    #[test]
    fn two_hosts_in_one_request_are_nobody() {
        let mut headers = HeaderMap::new();
        headers.append(header::HOST, HeaderValue::from_static("one.vault.casemate.test:8443"));
        let target = Uri::from_static("https://two.vault.casemate.test:8443/keys");
        assert_eq!(hosts().addressed(&target, &headers), Addressed::Nobody);
        headers.append(header::HOST, HeaderValue::from_static("one.vault.casemate.test:8443"));
        assert_eq!(hosts().addressed(&Uri::from_static("/keys"), &headers), Addressed::Nobody);
    }

    proptest! {
        #[test]
        fn any_host_under_the_domain_is_a_vault_by_a_good_name_or_nobody(name in "[ -~]{0,30}") {
            let found = addressed(&format!("{name}.vault.casemate.test:8443"));
            match found {
                Addressed::Named(_, name) => prop_assert!(is_name(&name)),
                Addressed::Default => prop_assert_eq!(name.to_ascii_lowercase(), "keys"),
                Addressed::Nobody => {}
            }
        }
    }
}
