//! The tenant's provisioning data: user, SSH keys, custom data. Pure checks; the guest is never told anything else.

use internal_api::launch::ProvisioningData;
use public_api::encoding::from_base64_any;

use super::refusal::Refusal;
use super::validation::missing;
use super::vm_body::{OsProfile, SshPublicKey};

/// Azure's limit for `customData` in base64.
const MAX_CUSTOM_DATA: usize = 87_380;
/// Names that Linux images use themselves.
const RESERVED: [&str; 12] = [
    "root",
    "admin",
    "administrator",
    "daemon",
    "bin",
    "sys",
    "nobody",
    "sshd",
    "systemd-network",
    "messagebus",
    "sudo",
    "tss",
];

/// Checks an `osProfile`. `name` is the VM's, the default for the host's.
pub fn provisioning(profile: &OsProfile, name: &str) -> Result<ProvisioningData, Refusal> {
    let computer_name = profile.computer_name.as_deref().unwrap_or(name);
    host_name(computer_name)?;
    let user = profile.admin_username.as_deref().filter(|user| !user.is_empty());
    let user =
        user.ok_or_else(|| missing("properties.osProfile.adminUsername", "osProfile.adminUsername"))?;
    user_name(user)?;
    passwords(profile)?;
    let keys = &profile.linux_configuration.ssh.public_keys;
    if keys.is_empty() {
        let target = "properties.osProfile.linuxConfiguration.ssh.publicKeys";
        return Err(missing(target, "linuxConfiguration.ssh.publicKeys"));
    }
    Ok(ProvisioningData {
        version: 1,
        computer_name: computer_name.to_owned(),
        admin_username: user.to_owned(),
        ssh_public_keys: keys.iter().map(|key| ssh_key(key, user)).collect::<Result<_, _>>()?,
        custom_data: profile.custom_data.as_deref().map(custom_data).transpose()?,
    })
}

fn host_name(name: &str) -> Result<(), Refusal> {
    let fits = !name.is_empty()
        && name.len() <= 64
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '.')
        && !name.starts_with(['-', '.'])
        && !name.ends_with(['-', '.']);
    if fits {
        return Ok(());
    }
    let message = "Linux host name cannot exceed 64 characters in length or contain characters other than letters, \
        digits, '-' and '.', and cannot begin or end with '-' or '.'.";
    Err(Refusal::parameter("properties.osProfile.computerName", message))
}

fn user_name(user: &str) -> Result<(), Refusal> {
    let target = "properties.osProfile.adminUsername";
    if RESERVED.contains(&user.to_ascii_lowercase().as_str()) {
        return Err(Refusal::parameter(target, "The Admin Username specified is not allowed."));
    }
    let fits = user.len() <= 32
        && user.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && user.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_');
    if fits {
        return Ok(());
    }
    let message = "The Admin Username must begin with a lower-case letter or '_', have at most 32 characters, and hold \
        only lower-case letters, digits, '-' and '_'.";
    Err(Refusal::parameter(target, message))
}

fn passwords(profile: &OsProfile) -> Result<(), Refusal> {
    if profile.admin_password.is_some() {
        let message = "Sign-in with a password is not offered: a password would have to pass through the host. Give an \
            SSH public key instead.";
        return Err(Refusal::parameter("properties.osProfile.adminPassword", message));
    }
    if profile.linux_configuration.disable_password_authentication == Some(false) {
        let target = "properties.osProfile.linuxConfiguration.disablePasswordAuthentication";
        return Err(Refusal::parameter(
            target,
            "Sign-in with a password is not offered; leave it out or set it to true.",
        ));
    }
    Ok(())
}

fn ssh_key(key: &SshPublicKey, user: &str) -> Result<String, Refusal> {
    let target = "properties.osProfile.linuxConfiguration.ssh.publicKeys";
    let home = format!("/home/{user}/.ssh/authorized_keys");
    if key.path.as_deref().is_some_and(|path| path != home) {
        let message =
            format!("Destination path for SSH public keys is currently limited to its default value {home}.");
        return Err(Refusal::parameter(target, message));
    }
    let data = key.key_data.as_deref().unwrap_or_default().trim();
    match is_public_key(data) {
        true => Ok(data.to_owned()),
        false => {
            let message =
                "The SSH public key must be one line in the format of OpenSSH: type, base64 data, comment.";
            Err(Refusal::parameter(target, message))
        }
    }
}

/// One line, a known type, and data that begins with that same type: nothing that could add a second line or options.
fn is_public_key(line: &str) -> bool {
    const TYPES: [&str; 7] = [
        "ssh-rsa",
        "ssh-ed25519",
        "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp384",
        "ecdsa-sha2-nistp521",
        "sk-ssh-ed25519@openssh.com",
        "sk-ecdsa-sha2-nistp256@openssh.com",
    ];
    let mut words = line.split(' ');
    let (Some(kind), Some(data)) = (words.next(), words.next()) else { return false };
    let Ok(bytes) = from_base64_any(data) else { return false };
    let named = bytes.get(4..4 + kind.len()).is_some_and(|name| name == kind.as_bytes());
    TYPES.contains(&kind) && named && !line.chars().any(char::is_control)
}

fn custom_data(text: &str) -> Result<String, Refusal> {
    if text.len() <= MAX_CUSTOM_DATA && from_base64_any(text).is_ok() {
        return Ok(text.to_owned());
    }
    let message =
        "Custom data in OSProfile must be in Base64 encoding and with a maximum length of 87380 characters.";
    Err(Refusal::parameter("properties.osProfile.customData", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f me@home";

    fn profile(change: impl FnOnce(&mut OsProfile)) -> OsProfile {
        let mut profile = OsProfile { admin_username: Some("tenant".into()), ..OsProfile::default() };
        profile.linux_configuration.ssh.public_keys =
            vec![SshPublicKey { path: None, key_data: Some(format!("{KEY}\n")) }];
        change(&mut profile);
        profile
    }

    fn target(change: impl FnOnce(&mut OsProfile)) -> String {
        let refusal = provisioning(&profile(change), "vm1").unwrap_err();
        refusal.target.unwrap().rsplit('.').next().unwrap().to_owned()
    }

    #[test]
    fn a_trailing_newline_of_a_key_goes_and_the_name_defaults() {
        let data = provisioning(&profile(|_| ()), "vm1").unwrap();
        assert_eq!(data.ssh_public_keys, [KEY]);
        assert_eq!((data.computer_name.as_str(), data.admin_username.as_str()), ("vm1", "tenant"));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        assert_eq!(target(|p| p.computer_name = Some("a_b".into())), "computerName");
        assert_eq!(target(|p| p.admin_username = None), "adminUsername");
        assert_eq!(target(|p| p.admin_username = Some("ROOT".into())), "adminUsername");
        assert_eq!(target(|p| p.admin_username = Some("x; rm -rf".into())), "adminUsername");
        assert_eq!(target(|p| p.admin_password = Some("secret".into())), "adminPassword");
        assert_eq!(target(|p| p.custom_data = Some("not base64!".into())), "customData");
        assert_eq!(target(|p| p.custom_data = Some("A".repeat(MAX_CUSTOM_DATA + 1))), "customData");
        assert_eq!(target(|p| p.linux_configuration.ssh.public_keys.clear()), "publicKeys");
    }

    #[test]
    fn a_second_line_smuggled_into_a_key_is_refused() {
        for data in [
            format!("{KEY}\nssh-rsa AAAA"),
            format!("command=\"x\" {KEY}"),
            KEY.replace("ssh-ed25519", "ssh-rsa"),
            "ssh-ed25519".to_owned(),
            "ssh-ed25519 AAAA".to_owned(),
            String::new(),
        ] {
            let keys = vec![SshPublicKey { path: None, key_data: Some(data.clone()) }];
            assert_eq!(target(|p| p.linux_configuration.ssh.public_keys = keys), "publicKeys", "{data}");
        }
    }

    #[test]
    fn a_key_goes_to_the_users_home_only() {
        let at = |path: &str| {
            let path = Some(path.to_owned());
            let keys = vec![SshPublicKey { path, key_data: Some(KEY.to_owned()) }];
            provisioning(&profile(|p| p.linux_configuration.ssh.public_keys = keys), "vm1")
        };
        assert!(at("/home/tenant/.ssh/authorized_keys").is_ok());
        assert!(at("/root/.ssh/authorized_keys").is_err());
    }
}
