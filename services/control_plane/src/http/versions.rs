//! `api-version`: required on Resource Manager's routes; everything from a family's oldest version on is taken.

use crate::app::refusal::{Kind, Refusal};

/// A family of routes with common versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// No version.
    None,
    /// Subscriptions, groups, locations.
    Core,
    /// Microsoft.Compute.
    Compute,
    /// Microsoft.Network.
    Network,
    /// Microsoft.Attestation.
    Attestation,
    /// Microsoft.KeyVault.
    KeyVault,
    /// Microsoft.Authorization.
    Authorization,
}

/// Oldest version and, for the error text, some that clients use.
fn supported(api: Api) -> (&'static str, &'static str, &'static str) {
    match api {
        Api::None => ("", "", ""),
        Api::Core => ("2015-11-01", "Microsoft.Resources", "2021-04-01, 2022-12-01, 2024-11-01, 2025-04-01"),
        // 2021-07-01 is what Azure's own published template uses; SKUs are asked for with 2019-04-01.
        Api::Compute => {
            ("2019-04-01", "Microsoft.Compute", "2019-04-01, 2021-07-01, 2024-11-01, 2025-11-01, 2026-04-01")
        }
        Api::Attestation => ("2020-10-01", "Microsoft.Attestation", "2020-10-01, 2021-06-01"),
        Api::KeyVault => {
            ("2019-09-01", "Microsoft.KeyVault", "2019-09-01, 2023-07-01, 2026-02-01, 2026-05-15")
        }
        Api::Authorization => (
            "2015-07-01",
            "Microsoft.Authorization",
            "2015-07-01, 2018-01-01-preview, 2022-04-01, 2022-05-01-preview",
        ),
        Api::Network => ("2015-06-15", "Microsoft.Network", "2015-06-15, 2022-01-01, 2025-07-01, 2026-03-01"),
    }
}

/// Versions that clients use, the newest first.
pub fn newest_first(api: Api) -> Vec<&'static str> {
    let (_, _, some) = supported(api);
    some.rsplit(", ").collect()
}

/// Checks a request's version; returns it as it was given.
pub fn check(api: Api, given: Option<&str>, region: &str) -> Result<String, Refusal> {
    let (oldest, namespace, some) = supported(api);
    if api == Api::None {
        return Ok(given.unwrap_or_default().to_owned());
    }
    let Some(given) = given.filter(|text| !text.is_empty()) else {
        let message = "The api-version query parameter (?api-version=) is required for all requests.";
        return Err(Refusal::new(Kind::BadRequest, "MissingApiVersionParameter", message));
    };
    if is_version(given) && &given[..10] >= oldest {
        return Ok(given.to_owned());
    }
    let (code, message) = match api {
        Api::Core | Api::None => (
            "InvalidApiVersionParameter",
            format!("The api-version '{given}' is invalid. The supported versions are '{some}'."),
        ),
        Api::Compute | Api::Network | Api::Attestation | Api::KeyVault | Api::Authorization => (
            "NoRegisteredProviderFound",
            format!(
                "No registered resource provider found for location '{region}' and API version '{given}' for namespace \
                 '{namespace}'. The supported api-versions are '{some}'."
            ),
        ),
    };
    Err(Refusal::new(Kind::BadRequest, code, message))
}

/// `YYYY-MM-DD`, perhaps with `-preview` or the like.
fn is_version(text: &str) -> bool {
    let shape = |(index, byte): (usize, u8)| match index {
        4 | 7 => byte == b'-',
        _ => byte.is_ascii_digit(),
    };
    let date = text.len() >= 10 && text.bytes().take(10).enumerate().all(shape);
    let rest = text.get(10..).unwrap_or_default();
    let label = rest.is_empty()
        || (rest.starts_with('-') && rest[1..].bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.'));
    date && label && text.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_from_the_oldest_on_are_taken() {
        for (api, version, good) in [
            (Api::Compute, "2026-04-01", true),
            (Api::Compute, "2019-04-01", true),
            (Api::Compute, "2025-11-01-preview", true),
            (Api::Compute, "2016-04-30", false),
            (Api::Core, "2015-11-01", true),
            (Api::Core, "2014-04-01", false),
            (Api::Network, "2015-06-15", true),
            (Api::Attestation, "2021-06-01", true),
            (Api::Attestation, "2018-09-01-preview", false),
        ] {
            assert_eq!(check(api, Some(version), "local").is_ok(), good, "{version}");
        }
    }

    #[test]
    fn the_newest_version_is_told_first_and_is_taken() {
        assert_eq!(newest_first(Api::Attestation), ["2021-06-01", "2020-10-01"]);
        for api in
            [Api::Core, Api::Compute, Api::Network, Api::Attestation, Api::KeyVault, Api::Authorization]
        {
            for version in newest_first(api) {
                assert!(check(api, Some(version), "local").is_ok(), "{version}");
            }
        }
    }

    #[test]
    fn what_is_no_version_is_refused_with_its_code() {
        let code = |api, given| check(api, given, "local").unwrap_err().code;
        assert_eq!(code(Api::Core, None), "MissingApiVersionParameter");
        assert_eq!(code(Api::Core, Some("")), "MissingApiVersionParameter");
        for text in ["latest", "2026", "2026-4-1", "2026-04-01x", "2026-04-01-€", "9999", "２026-04-01"] {
            assert_eq!(code(Api::Core, Some(text)), "InvalidApiVersionParameter", "{text}");
            assert_eq!(code(Api::Compute, Some(text)), "NoRegisteredProviderFound", "{text}");
        }
        assert_eq!(check(Api::None, None, "local").as_deref(), Ok(""));
    }
}
