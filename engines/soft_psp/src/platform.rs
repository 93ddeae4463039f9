//! The firmware's state: guest contexts, what each may do next, and the answers to guests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::rand;
use snp::id_block::{self, IdBlock as ParsedIdBlock};
use snp::launch::{Measurement, PAGE_SIZE, PageInfoError, PageType};
use snp::psp::{
    DerivedKeyRequest, FieldSelect, GuestRequest, GuestResponse, HostRequest, HostResponse, IdBlock,
    PlatformStatus, ReportRequest, status,
};
use snp::report::{ECDSA_P384_SHA384, FirmwareVersion, REPORT_SIZE, SIGNED_SIZE, put_signature};
use snp::{GuestPolicy, PlatformInfo, Report, SigningKey, TcbBytes};

use zeroize::Zeroizing;

use crate::authority::{Authority, Endorsement};
use crate::config::Config;

/// Firmware ABI that is played.
const FIRMWARE: FirmwareVersion = FirmwareVersion { major: 1, minor: 55, build: 39 };
/// SMT on, ECC memory, alias check complete.
const PLATFORM: PlatformInfo = PlatformInfo(0x25);
/// Guest contexts; silicon has some hundreds.
const MAX_GUESTS: usize = 509;
/// ROOT_KEY_SELECT: the VM root key instead of the chip's.
const VMRK: u32 = 1;
/// ROOT_KEY_SELECT: KEY_SEL.
const KEY_SELECT: u32 = 0b110;
/// Bytes of a page.
const PAGE: u64 = 4096;

/// The processor.
pub struct Platform {
    authority: Arc<Authority>,
    runtime_dir: PathBuf,
    report_version: u32,
    mask_chip_id: bool,
    guests: Mutex<Guests>,
}

/// By context. Contexts are drawn at random: one from before a restart names no guest of today.
type Guests = BTreeMap<u64, Guest>;

/// One guest: measured step by step, then running.
struct Guest {
    policy: GuestPolicy,
    measurement: Measurement,
    /// Page numbers that were loaded; a page belongs to the guest from then on. Emptied by LaunchFinish.
    pages: BTreeSet<u64>,
    running: Option<Running>,
}

/// What LaunchFinish fixed.
#[derive(Clone)]
struct Running {
    report_id: [u8; 32],
    host_data: [u8; 32],
    identity: GuestIdentity,
    root_key: VmRootKey,
}

/// VMRK: a guest's own root of derived keys, gone with the guest.
#[derive(Clone)]
struct VmRootKey(Zeroizing<[u8; 32]>);

/// What an ID block says of a guest; zeros without.
#[derive(Clone, Default)]
struct GuestIdentity {
    family_id: [u8; 16],
    image_id: [u8; 16],
    guest_svn: u32,
    id_key_digest: Option<[u8; 48]>,
    author_key_digest: Option<[u8; 48]>,
}

/// A refusal of the firmware.
struct Refusal {
    code: u32,
    message: String,
}

fn refuse<T>(code: u32, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { code, message: message.into() })
}

/// What the server has to do besides answering.
pub enum Effect {
    /// Nothing.
    None,
    /// Listen on the guest's socket.
    Open(u64),
    /// Close it.
    Close(u64),
}

impl Platform {
    /// A processor without guests.
    pub fn new(authority: Arc<Authority>, config: &Config) -> Self {
        Self {
            authority,
            runtime_dir: config.runtime_dir.clone(),
            report_version: config.report_version,
            mask_chip_id: config.mask_chip_id,
            guests: Mutex::default(),
        }
    }

    /// Path of a guest's socket.
    pub fn guest_socket(&self, context: u64) -> PathBuf {
        self.runtime_dir.join(format!("guest-{context}.sock"))
    }

    fn guests(&self) -> MutexGuard<'_, Guests> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries out a host's command.
    pub fn host(&self, request: HostRequest) -> (HostResponse, Effect) {
        let outcome = match request {
            HostRequest::LaunchStart { policy } => self.start(GuestPolicy(policy)),
            HostRequest::LaunchUpdate { context, page_type, gpa, data } => {
                self.with(context, |guest| guest.update(page_type, gpa, &data))
            }
            HostRequest::LaunchFinish { context, host_data, id_block } => {
                self.finish(context, host_data, id_block.as_deref())
            }
            HostRequest::Decommission { context } => self.decommission(context),
            HostRequest::PlatformStatus => Ok((HostResponse::Status(self.status()), Effect::None)),
        };
        outcome.unwrap_or_else(|refusal| {
            (HostResponse::Error { code: refusal.code, message: refusal.message }, Effect::None)
        })
    }

    fn start(&self, policy: GuestPolicy) -> Result<(HostResponse, Effect), Refusal> {
        check_policy(policy)?;
        let mut guests = self.guests();
        if guests.len() >= MAX_GUESTS {
            return refuse(status::RESOURCE_LIMIT, format!("all {MAX_GUESTS} guest contexts are in use"));
        }
        let mut context = 0;
        while context == 0 || guests.contains_key(&context) {
            context = u64::from_le_bytes(random()?);
        }
        let guest = Guest { policy, measurement: Measurement::new(), pages: BTreeSet::new(), running: None };
        guests.insert(context, guest);
        Ok((HostResponse::Started { context }, Effect::None))
    }

    fn with(
        &self,
        context: u64,
        act: impl FnOnce(&mut Guest) -> Result<(HostResponse, Effect), Refusal>,
    ) -> Result<(HostResponse, Effect), Refusal> {
        match self.guests().get_mut(&context) {
            Some(guest) => act(guest),
            None => refuse(status::INVALID_GUEST, format!("there is no guest context {context}")),
        }
    }

    fn finish(
        &self,
        context: u64,
        host_data: [u8; 32],
        id_block: Option<&IdBlock>,
    ) -> Result<(HostResponse, Effect), Refusal> {
        let socket = self.guest_socket(context);
        self.with(context, |guest| {
            let launch_digest = guest.finish(host_data, id_block)?;
            let guest_socket = socket.to_string_lossy().into_owned();
            Ok((HostResponse::Finished { launch_digest, guest_socket }, Effect::Open(context)))
        })
    }

    fn decommission(&self, context: u64) -> Result<(HostResponse, Effect), Refusal> {
        match self.guests().remove(&context) {
            Some(_) => Ok((HostResponse::Decommissioned, Effect::Close(context))),
            None => refuse(status::INVALID_GUEST, format!("there is no guest context {context}")),
        }
    }

    fn status(&self) -> PlatformStatus {
        let guests = u32::try_from(self.guests().len()).unwrap_or(u32::MAX);
        PlatformStatus {
            version: FIRMWARE,
            guests,
            max_guests: u32::try_from(MAX_GUESTS).unwrap_or(u32::MAX),
            reported_tcb: self.authority.tcb_bytes(),
            chip_id: self.authority.chip_id(),
        }
    }

    /// Whether the guest runs: launched to its end and not decommissioned.
    pub fn runs(&self, context: u64) -> bool {
        self.guests().get(&context).is_some_and(|guest| guest.running.is_some())
    }

    /// Answers a guest.
    pub fn guest(&self, context: u64, request: &GuestRequest) -> GuestResponse {
        let outcome = match request {
            GuestRequest::Report(request) => {
                self.report(context, request).map(|report| GuestResponse::Report { report })
            }
            GuestRequest::ExtendedReport(request) => self.extended_report(context, request),
            GuestRequest::DerivedKey(request) => self.derived_key(context, request),
        };
        outcome
            .unwrap_or_else(|refusal| GuestResponse::Error { status: refusal.code, message: refusal.message })
    }

    /// The running guest of a context: policy, launch digest, and what LaunchFinish fixed.
    fn running(&self, context: u64) -> Result<(GuestPolicy, [u8; 48], Running), Refusal> {
        let guests = self.guests();
        let Some(guest) = guests.get(&context) else {
            return refuse(status::INVALID_GUEST, "the guest was decommissioned");
        };
        match &guest.running {
            Some(running) => Ok((guest.policy, guest.measurement.clone().finish().0, running.clone())),
            None => refuse(status::INVALID_GUEST_STATE, "the guest was not launched to its end"),
        }
    }

    fn report(&self, context: u64, request: &ReportRequest) -> Result<Vec<u8>, Refusal> {
        if request.vmpl > 3 {
            return refuse(status::INVALID_PARAM, format!("VMPL {} does not exist", request.vmpl));
        }
        let key = self.select_key(request.key_select)?;
        let mut raw = self.unsigned(context, request, key)?.encode();
        let signature = self.authority.sign_with(key, &raw[..SIGNED_SIZE]);
        let (r, s) =
            signature.map_err(|error| Refusal { code: status::INVALID_KEY, message: error.to_string() })?;
        put_signature(&mut raw, &r, &s);
        debug_assert_eq!(raw.len(), REPORT_SIZE);
        Ok(raw.to_vec())
    }

    /// KEY_SEL: 0 the provider's key if there is one, else the chip's; 1 the chip's; 2 the provider's.
    fn select_key(&self, key_select: u32) -> Result<Endorsement, Refusal> {
        let preferred = self.authority.preferred();
        match key_select {
            0 => Ok(preferred),
            1 => Ok(Endorsement::Vcek),
            2 if preferred == Endorsement::Vlek => Ok(Endorsement::Vlek),
            2 => refuse(status::INVALID_KEY, "no VLEK is installed"),
            other => refuse(status::INVALID_PARAM, format!("KEY_SEL {other} is not defined")),
        }
    }

    fn unsigned(&self, context: u64, request: &ReportRequest, key: Endorsement) -> Result<Report, Refusal> {
        let (policy, measurement, running) = self.running(context)?;
        let (tcb, identity) = (self.authority.tcb_bytes(), &running.identity);
        let (product, version) = (self.authority.product(), self.report_version);
        // This processor knows no mitigations.
        let mitigations = (version >= 5).then_some(0);
        Ok(Report {
            version,
            guest_svn: identity.guest_svn,
            policy,
            family_id: identity.family_id,
            image_id: identity.image_id,
            vmpl: request.vmpl,
            signature_algo: ECDSA_P384_SHA384,
            current_tcb: tcb,
            platform_info: PLATFORM,
            author_key_en: identity.author_key_digest.is_some(),
            mask_chip_key: false,
            signing_key: match key {
                Endorsement::Vcek => SigningKey::Vcek,
                Endorsement::Vlek => SigningKey::Vlek,
            },
            report_data: request.report_data,
            measurement,
            host_data: running.host_data,
            id_key_digest: identity.id_key_digest.unwrap_or([0; 48]),
            author_key_digest: identity.author_key_digest.unwrap_or([0; 48]),
            report_id: running.report_id,
            report_id_ma: [0xFF; 32],
            reported_tcb: tcb,
            cpu: (version >= 3).then(|| product.cpu()),
            chip_id: if self.mask_chip_id { [0; 64] } else { self.authority.chip_id() },
            committed_tcb: tcb,
            current_version: FIRMWARE,
            committed_version: FIRMWARE,
            launch_tcb: tcb,
            launch_mit_vector: mitigations,
            current_mit_vector: mitigations,
        })
    }

    fn extended_report(&self, context: u64, request: &ReportRequest) -> Result<GuestResponse, Refusal> {
        let report = self.report(context, request)?;
        let certificates_pem = self.authority.chain_of(self.select_key(request.key_select)?);
        Ok(GuestResponse::ExtendedReport { report, certificates_pem })
    }

    fn derived_key(&self, context: u64, request: &DerivedKeyRequest) -> Result<GuestResponse, Refusal> {
        let (policy, measurement, running) = self.running(context)?;
        let key = self.select_key((request.root_key_select & KEY_SELECT) >> 1)?;
        check_key_request(request, &running.identity, self.authority.tcb_bytes(), self.authority.product())?;
        let select = request.field_select;
        let mixed =
            |field: u64, bytes: &[u8]| if select.has(field) { bytes.to_vec() } else { vec![0; bytes.len()] };
        let chip = self.authority.chip_id();
        let (label, root) = match (request.root_key_select & VMRK, key) {
            (0, Endorsement::Vcek) => ("guest-key", chip.as_slice()),
            // The provider's key is the same on all of its chips, and so is what is derived from it.
            (0, Endorsement::Vlek) => ("guest-key-vlek", &[][..]),
            _ => ("guest-key-vmrk", running.root_key.0.as_slice()),
        };
        let parts = [
            root.to_vec(),
            select.0.to_le_bytes().to_vec(),
            request.vmpl.to_le_bytes().to_vec(),
            mixed(FieldSelect::POLICY, &policy.0.to_le_bytes()),
            mixed(FieldSelect::IMAGE_ID, &running.identity.image_id),
            mixed(FieldSelect::FAMILY_ID, &running.identity.family_id),
            mixed(FieldSelect::MEASUREMENT, &measurement),
            mixed(FieldSelect::GUEST_SVN, &request.guest_svn.to_le_bytes()),
            mixed(FieldSelect::TCB_VERSION, &request.tcb_version.to_le_bytes()),
            mixed(FieldSelect::LAUNCH_MIT_VECTOR, &request.launch_mit_vector.unwrap_or(0).to_le_bytes()),
        ];
        let secret = self.authority.derive(label, &Zeroizing::new(parts.concat()));
        let mut key = [0; 32];
        key.copy_from_slice(&secret[..32]);
        Ok(GuestResponse::DerivedKey { key })
    }
}

impl Guest {
    fn update(
        &mut self,
        page_type: PageType,
        gpa: u64,
        data: &[u8],
    ) -> Result<(HostResponse, Effect), Refusal> {
        if self.running.is_some() {
            return refuse(status::INVALID_GUEST_STATE, "the launch is finished: no page can be added");
        }
        let first = gpa / PAGE;
        let count = u64::try_from(data.len() / PAGE_SIZE).unwrap_or(u64::MAX);
        let pages = first..first.saturating_add(count);
        let loaded = self.pages.range(pages.clone()).next();
        if let (Some(page), true) = (loaded, page_type != PageType::Vmsa) {
            let gpa = page * PAGE;
            return refuse(status::INVALID_PAGE_STATE, format!("the page at {gpa:#x} was loaded before"));
        }
        self.measurement.update(page_type, gpa, data).or_else(refuse_page)?;
        if page_type != PageType::Vmsa {
            self.pages.extend(pages);
        }
        Ok((HostResponse::Updated, Effect::None))
    }

    fn finish(&mut self, host_data: [u8; 32], id: Option<&IdBlock>) -> Result<[u8; 48], Refusal> {
        if self.running.is_some() {
            return refuse(status::INVALID_GUEST_STATE, "the launch is finished already");
        }
        let digest = self.measurement.clone().finish().0;
        let identity = match id {
            None => GuestIdentity::default(),
            Some(id) => identity(id, &digest, self.policy)?,
        };
        let root_key = VmRootKey(Zeroizing::new(random()?));
        self.running = Some(Running { report_id: random()?, host_data, identity, root_key });
        self.pages.clear();
        Ok(digest)
    }
}

fn random<const N: usize>() -> Result<[u8; N], Refusal> {
    let mut bytes = [0; N];
    match rand::fill(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(_) => refuse(status::RESOURCE_LIMIT, "the random number generator failed"),
    }
}

fn refuse_page(error: PageInfoError) -> Result<(), Refusal> {
    let code = match error {
        PageInfoError::Length { .. } => status::INVALID_LENGTH,
        PageInfoError::Address { .. } | PageInfoError::Vmsa { .. } => status::INVALID_ADDRESS,
    };
    refuse(code, error.to_string())
}

/// Checks an ID block's signatures, and that it speaks of this launch.
fn identity(id: &IdBlock, digest: &[u8; 48], policy: GuestPolicy) -> Result<GuestIdentity, Refusal> {
    let keys = match id_block::authenticate(&id.block, &id.auth, id.author_key) {
        Ok(keys) => keys,
        Err(error) => return refuse(status::BAD_SIGNATURE, error.to_string()),
    };
    let block = ParsedIdBlock::parse(&id.block);
    if block.launch_digest.0 != *digest {
        return refuse(status::BAD_MEASUREMENT, "the launch digest is not the one that the ID block names");
    }
    if block.policy != policy {
        return refuse(status::POLICY_FAILURE, "the guest policy is not the one that the ID block names");
    }
    Ok(GuestIdentity {
        family_id: block.family_id,
        image_id: block.image_id,
        guest_svn: block.guest_svn,
        id_key_digest: Some(keys.id_key_digest),
        author_key_digest: keys.author_key_digest,
    })
}

/// What the platform cannot honour is refused at the start (ABI section 4.3).
fn check_policy(policy: GuestPolicy) -> Result<(), Refusal> {
    if !policy.reserved_one() || policy.reserved_set() != 0 {
        return refuse(
            status::INVALID_PARAM,
            format!("policy {policy}: bit 17 must be one, bits 26 to 63 zero"),
        );
    }
    let wanted = (policy.abi_major(), policy.abi_minor());
    if wanted > (FIRMWARE.major, FIRMWARE.minor) {
        return refuse(
            status::POLICY_FAILURE,
            format!("policy {policy} wants a firmware newer than {FIRMWARE}"),
        );
    }
    let demands = [
        (!policy.smt_allowed(), "SMT to be off"),
        (policy.mem_aes_256_xts(), "memory encryption with AES-256-XTS"),
        (policy.rapl_disabled(), "RAPL to be off"),
        (policy.ciphertext_hiding(), "ciphertext hiding"),
    ];
    match demands.into_iter().find(|(demanded, _)| *demanded) {
        None => Ok(()),
        Some((_, what)) => {
            refuse(status::POLICY_FAILURE, format!("policy {policy} wants {what}; this platform has it not"))
        }
    }
}

/// A guest cannot derive keys of versions above its own (ABI section 7.2 "Key Derivation").
fn check_key_request(
    request: &DerivedKeyRequest,
    identity: &GuestIdentity,
    committed: TcbBytes,
    product: snp::Product,
) -> Result<(), Refusal> {
    let reserved = request.root_key_select & !(VMRK | KEY_SELECT) != 0;
    if reserved || request.field_select.0 & !FieldSelect::ALL != 0 || request.vmpl > 3 {
        return refuse(status::INVALID_PARAM, "a reserved bit is set, or a value is out of its range");
    }
    // This processor knows no mitigations, so every guest was launched with none.
    match request.launch_mit_vector {
        Some(0) => {}
        None if !request.field_select.has(FieldSelect::LAUNCH_MIT_VECTOR) => {}
        _ => return refuse(status::INVALID_PARAM, "the mitigation vector is not one of the guest's launch"),
    }
    if request.guest_svn > identity.guest_svn {
        return refuse(
            status::INVALID_PARAM,
            format!("guest SVN {} is above the guest's {}", request.guest_svn, identity.guest_svn),
        );
    }
    let wanted = TcbBytes(request.tcb_version.to_le_bytes()).decode(product);
    if !committed.decode(product).at_least(wanted) {
        return refuse(status::INVALID_PARAM, "the TCB version is above the committed one");
    }
    Ok(())
}
