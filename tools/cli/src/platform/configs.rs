//! The configuration of each service on one machine, in the words of that service's `config.rs`.

use std::path::PathBuf;

use anyhow::Result;
use serde_json::{Value, json};

use super::install::{HOST_NAME, Layout, REGION};
use super::pki::{Identity, VAULT_DOMAIN};
use super::programs;

/// Firmware of Debian's package `ovmf`: code with Secure Boot and SMM, and variables with Microsoft's keys enrolled.
const FIRMWARE_CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd";
const FIRMWARE_VARS: &str = "/usr/share/OVMF/OVMF_VARS_4M.ms.fd";
/// CPU model that launches are measured with.
const CPU_MODEL: &str = "EPYC-Milan";
/// Its name at the key distribution service.
const PRODUCT: &str = "Milan";
/// Numbers of vCPUs of the sizes that this machine's attestation service has reference values for.
const VCPUS: [u32; 10] = [1, 2, 4, 8, 16, 20, 32, 48, 64, 96];

/// Audience that Azure's clients ask tokens for the attestation service with.
const ATTESTATION_AUDIENCE: &str = "https://attest.azure.net";

/// Audience of tokens for the key service: its own URL.
fn vault_audience(layout: &Layout) -> String {
    layout.url(layout.ports.keys)
}

fn host_socket(layout: &Layout) -> PathBuf {
    layout.runtime.join("secure-processor.sock")
}

fn loopback(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// `soft-pspd`.
pub fn secure_processor(layout: &Layout) -> Value {
    json!({
        "state_dir": layout.data.join("secure-processor"),
        "runtime_dir": layout.runtime,
        "host_socket": host_socket(layout),
        "kds_listen": loopback(layout.ports.certificates),
    })
}

/// The control plane.
pub fn control_plane(layout: &Layout, public: &Identity, hosts: &Identity) -> Value {
    let identity = &layout.identity;
    json!({
        "data_dir": layout.data.join("control-plane"),
        "listen": loopback(layout.ports.control_plane),
        "public_url": layout.url(layout.ports.control_plane),
        "tls_certificate": public.certificate,
        "tls_key": public.key,
        "region": REGION,
        "image_dir": layout.data.join("images"),
        "serial_log": layout.data.join("host/vms/{vm_id}/serial.log"),
        "allow_development_roots": true,
        "trust_bundle": layout.authority.certificate(),
        "attestation_url": layout.url(layout.ports.attestation),
        "keys": {
            "url": layout.url(layout.ports.keys),
            "ca": layout.authority.certificate(),
            "audience": vault_audience(layout),
            "vault_domain": VAULT_DOMAIN,
        },
        "hosts": {
            "listen": loopback(layout.ports.hosts),
            "tls_certificate": hosts.certificate,
            "tls_key": hosts.key,
            "client_ca": layout.authority.certificate(),
        },
        "identity": {
            "home_tenant": identity.tenant_id,
            "tenant": [{"id": identity.tenant_id, "name": "casemate"}],
            "subscription": [{"id": identity.subscription_id, "tenant": identity.tenant_id, "name": "local"}],
            "client": [{
                "client_id": identity.client_id,
                "tenant": identity.tenant_id,
                "secret_file": layout.client_secret(),
                "roles": ["Key Vault Crypto Officer", "Attestation Contributor"],
                "subscriptions": [identity.subscription_id],
            }],
        },
    })
}

/// The key service.
pub fn keys(layout: &Layout, server: &Identity) -> Value {
    let attestation = layout.url(layout.ports.attestation);
    let control = layout.url(layout.ports.control_plane);
    let tenant = &layout.identity.tenant_id;
    json!({
        "data_dir": layout.data.join("keys"),
        "listen": loopback(layout.ports.keys),
        "public_url": layout.url(layout.ports.keys),
        "tls_certificate": server.certificate,
        "tls_key": server.key,
        "allow_development_roots": true,
        "master_key": {"file": layout.data.join("keys/master.key"), "create": true},
        "callers": {
            "issuer": format!("{control}/{tenant}/v2.0"),
            "audience": vault_audience(layout),
            "authorization": format!("{control}/{tenant}"),
            "jwks_url": format!("{control}/common/discovery/keys"),
            "ca": layout.authority.certificate(),
        },
        "vaults": {
            "domain": VAULT_DOMAIN,
            "issuer": format!("{control}/{{tenant}}/v2.0"),
            "authorization": format!("{control}/{{tenant}}"),
        },
        "authority": [{
            "issuer": attestation,
            "jwks_url": format!("{attestation}/certs"),
            "ca": layout.authority.certificate(),
        }],
    })
}

/// The attestation service: its reference values are this machine's firmware and paravisor.
pub fn attestation(layout: &Layout, server: &Identity) -> Result<Value> {
    let control = layout.url(layout.ports.control_plane);
    let tenant = &layout.identity.tenant_id;
    Ok(json!({
        "data_dir": layout.data.join("attestation"),
        "listen": loopback(layout.ports.attestation),
        "issuer": layout.url(layout.ports.attestation),
        "tls_certificate": server.certificate,
        "tls_key": server.key,
        "allow_development_roots": true,
        "development_root": layout.development_root(),
        "crl_urls": [format!("http://127.0.0.1:{}/vcek/v1/{PRODUCT}/crl", layout.ports.certificates)],
        "crl_required": true,
        "kds_urls": [format!("http://127.0.0.1:{}", layout.ports.certificates)],
        "callers": {
            "issuer": format!("{control}/{tenant}/v2.0"),
            "audiences": [ATTESTATION_AUDIENCE, layout.url(layout.ports.attestation)],
            "authorization": format!("{control}/{tenant}"),
            "jwks_url": format!("{control}/common/discovery/keys"),
            "ca": layout.authority.certificate(),
        },
        "firmware": [{
            "name": concat!("ovmf/paravisor-", env!("CARGO_PKG_VERSION")),
            "firmware": FIRMWARE_CODE,
            "paravisor": programs::ours("casemate-paravisor")?,
            "vars_template": FIRMWARE_VARS,
            "cpu_models": [CPU_MODEL],
            "vcpus": VCPUS,
        }],
    }))
}

/// The host agent.
pub fn host(layout: &Layout, client: &Identity) -> Result<Value> {
    let settings = &layout.settings;
    let capacity = super::capacity::of_this_machine()?;
    Ok(json!({
        "control_plane_url": layout.url(layout.ports.hosts),
        "tls_ca": layout.authority.certificate(),
        "tls_certificate": client.certificate,
        "tls_key": client.key,
        "name": HOST_NAME,
        "region": REGION,
        "vcpus": capacity.vcpus,
        "memory_mib": capacity.memory_mib,
        "data_dir": layout.data.join("host"),
        "runtime_dir": layout.runtime,
        "image_dir": layout.data.join("images"),
        "firmware_code": FIRMWARE_CODE,
        "firmware_vars": FIRMWARE_VARS,
        "paravisor": programs::ours("casemate-paravisor")?,
        "secure_processor": host_socket(layout),
        "kds_url": format!("http://127.0.0.1:{}", layout.ports.certificates),
        "qemu": settings.qemu,
        "accelerator": settings.accelerator,
        "cpu_model": CPU_MODEL,
        "product": PRODUCT,
        "ssh_ports": [layout.settings.base_port + 100, layout.settings.base_port + 199],
    }))
}
