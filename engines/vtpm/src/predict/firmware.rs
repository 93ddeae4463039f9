//! What firmware and shim measure before the loader's own events: PCR 7 (Secure Boot state and authorities), PCR 14
//! (shim's key lists), PCR 4 (the started programs) and PCR 5 (partition table, end of boot services).
//!
//! EDK2: `Tcg2Dxe` and `DxeImageVerificationLib`; shim: `mok.c`, `sbat.c`, `tpm.c`.

use std::io::{Read, Seek};

use super::chain::{Chain, Image};
use super::{Context, Events, PredictError, unsupported};
use crate::bytes::{Cursor, le32_at, size, slice, to_utf16le};
use crate::certificate::{Signature, common_name};
use crate::guid::{CERT_X509, GLOBAL, Guid, IMAGE_SECURITY, SHIM};
use crate::pcr::sha256;
use crate::vars::SecureBootState;

const SEPARATOR: [u8; 4] = [0; 4];
/// The level that shim sets while Secure Boot is off.
const SBAT_ORIGINAL: &[u8] = b"sbat,1,2021030218\n";

/// UEFI_VARIABLE_DATA: what is hashed of a variable.
fn variable_data(guid: &Guid, name: &str, content: &[u8]) -> Vec<u8> {
    let name = to_utf16le(name);
    let length = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX).to_le_bytes();
    [guid.as_bytes(), &length(name.len() / 2)[..], &length(content.len()), &name, content].concat()
}

fn add_variable(events: &mut Events, guid: &Guid, name: &str, content: &[u8], what: String) {
    events.add(7, sha256(&variable_data(guid, name, content)), what);
}

/// PCR 7 up to the separator.
fn secure_boot_variables(events: &mut Events, state: &SecureBootState) {
    let on = u8::from(state.secure_boot);
    add_variable(events, &GLOBAL, "SecureBoot", &[on], format!("variable SecureBoot = {on}"));
    let mut variable = |guid, name: &str, content: &[u8]| {
        add_variable(events, guid, name, content, format!("variable {name}, {} bytes", content.len()));
    };
    variable(&GLOBAL, "PK", &state.pk);
    variable(&GLOBAL, "KEK", &state.kek);
    variable(&IMAGE_SECURITY, "db", &state.db);
    variable(&IMAGE_SECURITY, "dbx", &state.dbx);
    for (name, content) in [("dbt", &state.dbt), ("dbr", &state.dbr)] {
        if let Some(content) = content {
            variable(&IMAGE_SECURITY, name, content);
        }
    }
    events.add(7, sha256(&SEPARATOR), "separator");
}

/// EFI_SIGNATURE_DATA entries of certificates in a signature database: the whole entry and the certificate in it.
fn certificates(database: &[u8]) -> Vec<(&[u8], &[u8])> {
    let mut found = Vec::new();
    let mut rest = database;
    while let (Some(total), Some(header), Some(entry)) =
        (le32_at(rest, 16), le32_at(rest, 20), le32_at(rest, 24))
    {
        let (total, entry) = (size(total), size(entry));
        let Some(list) = slice(rest, 0, total).filter(|list| list.len() >= 28) else { break };
        let entries = list.get(28usize.saturating_add(size(header))..).unwrap_or_default();
        if list.starts_with(CERT_X509.as_bytes()) && entry > 16 {
            found.extend(entries.chunks_exact(entry).filter_map(|data| Some((data, data.get(16..)?))));
        }
        rest = rest.get(total..).unwrap_or_default();
    }
    found
}

/// The events of images that were verified. Firmware and shim each log an authority once.
struct Authorities<'a> {
    state: &'a SecureBootState,
    vendor: Option<&'a [u8]>,
    logged_by_firmware: Vec<Vec<u8>>,
    logged_by_shim: Vec<Vec<u8>>,
}

impl Authorities<'_> {
    /// An image that the firmware loads: the first of its signatures that leads to a certificate in `db`.
    fn firmware(&mut self, events: &mut Events, image: &Image) -> Result<(), PredictError> {
        let found = image.pe()?.signatures().iter().find_map(|signature| self.in_db(signature, image));
        let entry = found.ok_or_else(|| PredictError::NotAuthorised(image.path.clone()))?;
        if !self.logged_by_firmware.contains(&entry) {
            log_authority(events, &IMAGE_SECURITY, "db", &entry, image);
            self.logged_by_firmware.push(entry);
        }
        Ok(())
    }

    /// An image that shim verifies: `db` first, then the certificate that shim was built with.
    fn shim(&mut self, events: &mut Events, image: &Image) -> Result<(), PredictError> {
        for signature in image.pe()?.signatures() {
            let by_db = self.in_db(&signature, image).map(|entry| (&IMAGE_SECURITY, "db", entry));
            let by_vendor = || {
                let vendor = self.vendor.filter(|vendor| signature.verifies(&image.digest, vendor))?;
                Some((&SHIM, "MokListRT", [SHIM.as_bytes(), vendor].concat()))
            };
            let Some((guid, name, entry)) = by_db.or_else(by_vendor) else { continue };
            if !self.logged_by_shim.contains(&entry) {
                log_authority(events, guid, name, &entry, image);
                self.logged_by_shim.push(entry);
            }
            return Ok(());
        }
        Err(PredictError::NotAuthorised(image.path.clone()))
    }

    fn in_db(&self, signature: &Signature<'_>, image: &Image) -> Option<Vec<u8>> {
        let entries = certificates(&self.state.db);
        let found =
            entries.into_iter().find(|(_, certificate)| signature.verifies(&image.digest, certificate));
        found.map(|(entry, _)| entry.to_vec())
    }
}

fn log_authority(events: &mut Events, guid: &Guid, name: &str, entry: &[u8], image: &Image) {
    let who = common_name(entry.get(16..).unwrap_or_default());
    add_variable(events, guid, name, entry, format!("authority of {}: {who} in {name}", image.path));
}

/// Adds all events of firmware and shim for a chain and the kernel behind it (`None` where the loader starts none as an
/// image of its own).
pub(super) fn add_boot_events<D: Read + Seek>(
    events: &mut Events,
    context: &Context<'_, D>,
    chain: &Chain,
    kernel: Option<&Image>,
) -> Result<(), PredictError> {
    secure_boot_variables(events, &context.secure_boot);
    let vendor = chain.shim.as_ref().map(VendorCertificate::of).transpose()?;
    let mut authorities = Authorities {
        state: &context.secure_boot,
        vendor: vendor.as_ref().map(|vendor| vendor.certificate.as_slice()),
        logged_by_firmware: Vec::new(),
        logged_by_shim: Vec::new(),
    };
    let verified = context.secure_boot.secure_boot;
    if verified {
        authorities.firmware(events, chain.shim.as_ref().unwrap_or(&chain.program))?;
    }
    if let (Some(shim), Some(vendor)) = (&chain.shim, &vendor) {
        let level = sbat_level(shim, context)?;
        let what =
            format!("variable SbatLevel = {}", String::from_utf8_lossy(&level).trim().replace('\n', " "));
        add_variable(events, &SHIM, "SbatLevel", &level, what);
        vendor.add_key_lists(events, context)?;
    }
    for image in
        [chain.shim.as_ref().map(|_| &chain.program), kernel].into_iter().flatten().filter(|_| verified)
    {
        match chain.shim {
            Some(_) => authorities.shim(events, image)?,
            None => authorities.firmware(events, image)?,
        }
    }
    add_started_programs(events, chain, kernel);
    Ok(())
}

/// PCR 4.
fn add_started_programs(events: &mut Events, chain: &Chain, kernel: Option<&Image>) {
    events.add(4, sha256(b"Calling EFI Application from Boot Option"), "start of a boot option");
    events.add(4, sha256(&SEPARATOR), "separator");
    for image in [chain.shim.as_ref(), Some(&chain.program), kernel].into_iter().flatten() {
        events.add(4, image.digest, format!("program {}", image.path));
    }
}

/// PCR 5, with what a loader measured of its configuration in the middle.
pub(super) fn add_partition_events<D: Read + Seek>(
    events: &mut Events,
    context: &Context<'_, D>,
    loader_config: Option<&[u8]>,
) {
    events.add(5, sha256(&SEPARATOR), "separator");
    events.add(5, sha256(&context.table.measured_data()), "partition table");
    if let Some(config) = loader_config {
        events.add(5, sha256(config), "loader.conf");
    }
    events.add(5, sha256(b"Exit Boot Services Invocation"), "end of boot services, begun");
    events.add(5, sha256(b"Exit Boot Services Returned with Success"), "end of boot services, done");
}

/// shim's section `.vendor_cert`: the distribution's certificate and its revocation list.
struct VendorCertificate {
    certificate: Vec<u8>,
    revocations: Vec<u8>,
}

impl VendorCertificate {
    fn of(shim: &Image) -> Result<Self, PredictError> {
        let pe = shim.pe()?;
        let section = pe.section(".vendor_cert").unwrap_or_default();
        let mut header = Cursor::new(section);
        let parsed = (|| {
            let mut word = || header.le32().map(size);
            let (certificate, revocations, at, revocations_at) = (word()?, word()?, word()?, word()?);
            Some(Self {
                certificate: slice(section, at, certificate)?.to_vec(),
                revocations: slice(section, revocations_at, revocations)?.to_vec(),
            })
        })();
        let parsed = parsed.filter(|vendor| !vendor.certificate.is_empty());
        parsed.ok_or_else(|| unsupported(format!("{} has no vendor certificate", shim.path)))
    }

    /// PCR 14: MokList, MokListX and MokListTrusted, as they are without keys of the user's own.
    fn add_key_lists<D: Read + Seek>(
        &self,
        events: &mut Events,
        context: &Context<'_, D>,
    ) -> Result<(), PredictError> {
        if let Some(name) = context.loader_vars.mok_variables.first() {
            return Err(unsupported(format!("shim's variable {name} is set")));
        }
        if self.revocations.is_empty() {
            return Err(unsupported("shim has no revocation list of its vendor"));
        }
        events.add(14, sha256(&signature_list(&self.certificate)), "shim's MokList");
        events.add(14, sha256(&self.revocations), "shim's MokListX");
        events.add(14, sha256(&[1]), "shim's MokListTrusted");
        Ok(())
    }
}

/// EFI_SIGNATURE_LIST of one certificate that shim owns.
fn signature_list(certificate: &[u8]) -> Vec<u8> {
    let entry = u32::try_from(16 + certificate.len()).unwrap_or(u32::MAX);
    let words = [entry.saturating_add(28), 0, entry].map(u32::to_le_bytes);
    [CERT_X509.as_bytes(), &words.concat()[..], SHIM.as_bytes(), certificate].concat()
}

/// The revocation level that shim will have set when it measures it (shim, `set_sbat_uefi_variable`): its own or the
/// stored one, whichever is newer; with Secure Boot off the original one, unless a policy was asked for.
fn sbat_level<D: Read + Seek>(shim: &Image, context: &Context<'_, D>) -> Result<Vec<u8>, PredictError> {
    let malformed = || unsupported(format!("{} has no readable .sbatlevel", shim.path));
    let pe = shim.pe()?;
    let section = pe.section(".sbatlevel").ok_or_else(malformed)?;
    let text = |offset: usize| {
        let at = size(le32_at(section, offset)?).checked_add(4)?;
        section.get(at..)?.split(|byte| *byte == 0).next().filter(|text| !text.is_empty())
    };
    let own = match (context.loader_vars.sbat_policy, context.secure_boot.secure_boot) {
        (Some(1), _) => text(8).ok_or_else(malformed)?,
        (Some(2), _) | (None | Some(3), true) => text(4).ok_or_else(malformed)?,
        (None | Some(3), false) => return Ok(SBAT_ORIGINAL.to_vec()),
        (Some(policy), _) => return Err(unsupported(format!("shim's SbatPolicy is {policy}"))),
    };
    match &context.sbat_level {
        Some(stored) if sbat_age(stored) >= sbat_age(own) => Ok(stored.clone()),
        _ => Ok(own.to_vec()),
    }
}

/// Version and date of `sbat,1,2025021800`; newer ones compare greater, what is not of this form is older than all.
fn sbat_age(level: &[u8]) -> Option<(u64, u64)> {
    let text = std::str::from_utf8(level).ok()?;
    let mut fields = text.lines().next()?.split(',').skip(1);
    let mut number = || fields.next()?.trim_end_matches('\0').parse().ok();
    Some((number()?, number()?))
}
