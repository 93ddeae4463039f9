//! `GET /metadata/endpoints`: how a client finds the parts of this cloud.

use axum::response::Response;
use serde_json::{Value, json};

use super::{App, Call, reply};
use crate::app::refusal::Refusal;

/// One object from version 2022-09-01 on (`az cloud register`), a list of clouds before.
pub async fn endpoints(app: App, call: Call) -> Result<Response, Refusal> {
    let cloud = cloud(&app);
    let old = call.query("api-version").is_some_and(|version| version < "2020");
    Ok(reply::ok(&if old { json!([cloud]) } else { cloud }))
}

fn cloud(app: &App) -> Value {
    let base = &app.config.public_url;
    let keys = &app.config.keys;
    let suffix = |domain: &Option<String>| domain.as_deref().map(|domain| keys.authority(domain));
    let (vaults, managed_hsms) = (suffix(&keys.vault_domain), suffix(&keys.managed_hsm_domain));
    json!({
        "name": "Casemate",
        "portal": base,
        "resourceManager": base,
        "gallery": base,
        "graph": base,
        "graphAudience": format!("{base}/"),
        "microsoftGraphResourceId": format!("{base}/"),
        "vmImageAliasDoc": "",
        "attestationResourceId": "https://attest.azure.net",
        "authentication": {
            "loginEndpoint": base,
            "audiences": [format!("{base}/"), base, "https://management.core.windows.net/", "https://management.azure.com/"],
            "tenant": app.directory.home(),
            "identityProvider": "AAD",
        },
        "suffixes": {
            "keyVaultDns": vaults.unwrap_or_else(|| authority(&app.config.keys.url).to_owned()),
            "mhsmDns": managed_hsms,
            "attestationEndpoint": authority(&app.config.attestation_url),
            "storage": "storage.invalid",
        },
    })
}

fn authority(url: &str) -> &str {
    url.strip_prefix("https://").unwrap_or(url)
}
