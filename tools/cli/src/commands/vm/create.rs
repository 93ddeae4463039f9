//! `casemate vm create`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use aws_lc_rs::digest;
use public_api::encoding::to_base64;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::DEFAULT_GROUP;
use crate::arm::{Arm, OperationFailed, text};
use crate::commands::image::{self, PUBLISHER, SKU};
use crate::failure::Failure;
use crate::printer::Printer;
use crate::profile::Profile;

/// What to create.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The VM's name; also the guest's host name.
    name: String,
    /// Resource group; made if it does not exist.
    #[arg(long, short = 'g', default_value = DEFAULT_GROUP)]
    resource_group: String,
    /// Image, as `casemate image list` names it.
    #[arg(long, default_value = "debian-13")]
    image: String,
    /// Size.
    #[arg(long, default_value = "Casemate_Dev2")]
    size: String,
    /// What is encrypted.
    #[arg(long, value_parser = ["DiskWithVMGuestState", "VMGuestStateOnly"], default_value = "DiskWithVMGuestState")]
    security_encryption: String,
    /// Name of a disk encryption set in the same group: the customer's key instead of the platform's.
    #[arg(long)]
    disk_encryption_set: Option<String>,
    /// The user to create.
    #[arg(long, default_value = "tenant")]
    admin_username: String,
    /// Public key for that user's logins; made under the data directory if not given.
    #[arg(long)]
    ssh_key: Option<PathBuf>,
    /// cloud-config or script for the first boot.
    #[arg(long)]
    custom_data: Option<PathBuf>,
    /// RSA public key (PEM) that the disk's recovery passphrase is wrapped to; see docs/recovery.md.
    #[arg(long, value_name = "PEM")]
    recovery_key: Option<PathBuf>,
    /// Do not wait until the VM runs.
    #[arg(long)]
    no_wait: bool,
}

/// What the tenant asked for, kept by the tenant: `vm attest` compares the evidence with it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Expectation {
    /// The user that was asked for.
    pub admin_username: String,
    /// SHA-256 (hex) of the provisioning data that these wishes make.
    pub provisioning_digest: String,
    /// What was to be encrypted.
    pub security_encryption: String,
    /// Digest of the image's manifest, where this client's catalogue has the image.
    pub image_digest: Option<String>,
    /// The recovery key that was asked for (PEM).
    #[serde(default)]
    pub recovery_key: Option<String>,
    /// Private key file for logins.
    pub ssh_private_key: Option<PathBuf>,
}

impl Expectation {
    /// Where the expectation for a VM lies.
    pub fn path(data_dir: &Path, group: &str, name: &str) -> PathBuf {
        data_dir.join("client/expectations").join(format!("{group}.{name}.json"))
    }

    /// The expectation for a VM, if this client created it.
    pub fn load(data_dir: &Path, group: &str, name: &str) -> Result<Option<Self>> {
        let path = Self::path(data_dir, group, name);
        if !path.exists() {
            return Ok(None);
        }
        Ok(Some(serde_json::from_slice(&std::fs::read(&path)?)?))
    }
}

/// Runs the command.
pub async fn run(arguments: Arguments, profile: &Profile, data_dir: &Path, printer: &Printer) -> Result<()> {
    let login = Login::choose(arguments.ssh_key.as_deref(), data_dir)?;
    let custom_data =
        arguments.custom_data.as_deref().map(std::fs::read).transpose().context("reading --custom-data")?;
    let recovery_key = arguments.recovery_key.as_deref().map(recovery_key).transpose()?;
    let arm = profile.arm().await?;
    arm.ensure_group(&arguments.resource_group, &profile.location).await?;
    let vm = arm.vm(&arguments.resource_group, &arguments.name);
    let mut body = body(&arguments, &arm, profile, &login, custom_data.as_deref());
    if let Some(key) = &recovery_key {
        body["properties"]["casemate"] = json!({"recoveryKey": key});
    }
    remember(&arguments, &login, custom_data.as_deref(), recovery_key, data_dir)?;
    let operation = arm.begin(Method::PUT, &vm, Some(&body)).await?;
    if arguments.no_wait {
        printer.note(&format!(
            "{} is being created; `casemate vm show {}` tells how far it is",
            arguments.name, arguments.name
        ));
        return Ok(());
    }
    let mut progress = printer.progress();
    progress.show(&format!("creating {}", arguments.name));
    let end = arm.finish(operation, Some(&vm), &mut progress).await;
    drop(progress);
    if let Err(error) = end {
        if !error.is::<OperationFailed>() {
            return Err(
                error.context(format!("{} is being created, but how far is not known", arguments.name))
            );
        }
        let hint = format!(
            "`casemate vm show {0}` has the whole reason; `casemate vm delete {0}` removes what is left",
            arguments.name
        );
        return Err(Failure::refused(format!("{} was not created: {error:#}", arguments.name), hint));
    }
    super::show::print(&arm.get(&vm).await?, printer);
    printer.note(&format!("log in with: casemate vm ssh {}", arguments.name));
    Ok(())
}

/// The key for logins: given, or made once under the data directory.
struct Login {
    public: String,
    private: Option<PathBuf>,
}

impl Login {
    fn choose(given: Option<&Path>, data_dir: &Path) -> Result<Self> {
        if let Some(path) = given {
            let public =
                std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
            if !public.starts_with("ssh-") && !public.starts_with("ecdsa-") {
                let message = format!("{} is not an OpenSSH public key", path.display());
                return Err(Failure::you(message, "give the .pub file"));
            }
            let private = path.with_extension("");
            return Ok(Self {
                public: public.trim().to_owned(),
                private: private.exists().then_some(private),
            });
        }
        let private = data_dir.join("client/ssh_key");
        if !private.exists() {
            make_key(&private)?;
        }
        let public = std::fs::read_to_string(private.with_extension("pub"))?;
        Ok(Self { public: public.trim().to_owned(), private: Some(private) })
    }
}

/// The public key for recovery. A private one must not leave the tenant, so it is not even sent to be refused.
fn recovery_key(path: &Path) -> Result<String> {
    let pem = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    if pem.starts_with("-----BEGIN PUBLIC KEY-----") && !pem.contains("PRIVATE") {
        return Ok(pem);
    }
    let message = format!("{} is not an RSA public key in PEM (PUBLIC KEY)", path.display());
    Err(Failure::you(message, "openssl pkey -in private.pem -pubout -out public.pem"))
}

fn make_key(path: &Path) -> Result<()> {
    let output = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "casemate", "-f"])
        .arg(path)
        .output()
        .context("running ssh-keygen (Debian package openssh-client)")?;
    anyhow::ensure!(output.status.success(), "ssh-keygen: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn body(
    arguments: &Arguments,
    arm: &Arm,
    profile: &Profile,
    login: &Login,
    custom_data: Option<&[u8]>,
) -> Value {
    let mut security = json!({"securityEncryptionType": arguments.security_encryption});
    let compute = format!("{}/providers/Microsoft.Compute", arm.group(&arguments.resource_group));
    if let Some(set) = &arguments.disk_encryption_set {
        security["diskEncryptionSet"] = json!({"id": format!("{compute}/diskEncryptionSets/{set}")});
    }
    let mut os = json!({
        "computerName": arguments.name,
        "adminUsername": arguments.admin_username,
        "linuxConfiguration": {
            "disablePasswordAuthentication": true,
            "ssh": {"publicKeys": [{
                "path": format!("/home/{}/.ssh/authorized_keys", arguments.admin_username),
                "keyData": login.public,
            }]},
        },
    });
    if let Some(data) = custom_data {
        os["customData"] = json!(to_base64(data));
    }
    json!({
        "location": profile.location,
        "properties": {
            "hardwareProfile": {"vmSize": arguments.size},
            "storageProfile": {
                "imageReference": {
                    "publisher": PUBLISHER,
                    "offer": arguments.image,
                    "sku": SKU,
                    "version": "latest",
                },
                "osDisk": {"createOption": "FromImage", "managedDisk": {"securityProfile": security}},
            },
            "osProfile": os,
            "securityProfile": {
                "securityType": "ConfidentialVM",
                "uefiSettings": {"secureBootEnabled": true, "vTpmEnabled": true},
            },
        },
    })
}

/// Keeps what was asked for, so that later evidence can be held against it.
fn remember(
    arguments: &Arguments,
    login: &Login,
    custom_data: Option<&[u8]>,
    recovery_key: Option<String>,
    data_dir: &Path,
) -> Result<()> {
    /// As `internal_api::launch::ProvisioningData`; the digest is over exactly these bytes.
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Provisioning<'a> {
        version: u32,
        computer_name: &'a str,
        admin_username: &'a str,
        ssh_public_keys: [&'a str; 1],
        #[serde(skip_serializing_if = "Option::is_none")]
        custom_data: Option<String>,
    }
    let provisioning = Provisioning {
        version: 1,
        computer_name: &arguments.name,
        admin_username: &arguments.admin_username,
        ssh_public_keys: [&login.public],
        custom_data: custom_data.map(to_base64),
    };
    let bytes = serde_json::to_vec(&provisioning)?;
    let expectation = Expectation {
        admin_username: arguments.admin_username.clone(),
        provisioning_digest: sha256_hex(&bytes),
        image_digest: image::digest_of(data_dir, &arguments.image)?,
        security_encryption: arguments.security_encryption.clone(),
        recovery_key,
        ssh_private_key: login.private.clone(),
    };
    let path = Expectation::path(data_dir, &arguments.resource_group, &arguments.name);
    std::fs::create_dir_all(path.parent().context("the path has a parent")?)?;
    std::fs::write(&path, serde_json::to_vec_pretty(&expectation)?)
        .with_context(|| format!("writing {}", path.display()))
}

/// SHA-256 in lower-case hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(digest::digest(&digest::SHA256, bytes))
}

/// The ssh port that the host forwards, from a VM's JSON.
pub fn ssh_port(vm: &Value) -> Result<u16> {
    let port = &vm["properties"]["casemate"]["sshPort"];
    port.as_u64().and_then(|port| u16::try_from(port).ok()).ok_or_else(|| {
        let phase = text(&vm["properties"]["casemate"]["hostPhase"]);
        Failure::you(
            format!("the VM has no address now (it is {phase})"),
            "start it with `casemate vm start`",
        )
    })
}
