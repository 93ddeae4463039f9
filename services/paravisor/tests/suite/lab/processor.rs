//! One launch context of the software secure processor, in process.

use std::sync::{Arc, OnceLock};

use aws_lc_rs::digest::{SHA256, digest};
use paravisor::development_host::guest_port::GuestMessages;
use paravisor::failure::Stop;
use paravisor::flow::world::{ExtendedReport, SecureProcessor};
use snp::launch::PageType;
use snp::psp::{DerivedKeyRequest, GuestRequest, GuestResponse, HostRequest, HostResponse, ReportRequest};
use soft_psp::authority::Authority;
use soft_psp::config::Config;
use soft_psp::platform::Platform;

/// SMT allowed, and the bit that must be set.
const POLICY: u64 = 0x3_0000;

fn platform() -> &'static Platform {
    static PLATFORM: OnceLock<Platform> = OnceLock::new();
    PLATFORM.get_or_init(|| {
        let folder = crate::support::lasting_folder("processor");
        let text = format!(
            "state_dir = {0:?}\nruntime_dir = {0:?}\nhost_socket = \"{1}/host\"\nkds_listen = \"127.0.0.1:0\"",
            folder,
            folder.display()
        );
        let config: Config = toml::from_str(&text).unwrap();
        let authority = Authority::open(&config.state_dir, &config.identity()).unwrap();
        Platform::new(Arc::new(authority), &config)
    })
}

/// A launched guest.
pub struct Context {
    id: u64,
    /// At which level the reports are made.
    pub vmpl: u32,
}

impl Context {
    pub fn launch(document: &[u8]) -> Self {
        Self { id: context(document), vmpl: 0 }
    }

    pub fn at_vmpl(document: &[u8], vmpl: u32) -> Self {
        Self { id: context(document), vmpl }
    }
}

fn context(document: &[u8]) -> u64 {
    let HostResponse::Started { context } = platform().host(HostRequest::LaunchStart { policy: POLICY }).0
    else {
        panic!("launch start");
    };
    let page =
        HostRequest::LaunchUpdate { context, page_type: PageType::Normal, gpa: 0x10000, data: vec![1; 4096] };
    assert!(matches!(platform().host(page).0, HostResponse::Updated));
    let host_data = digest(&SHA256, document).as_ref().try_into().unwrap();
    let finish = HostRequest::LaunchFinish { context, host_data, id_block: None };
    assert!(matches!(platform().host(finish).0, HostResponse::Finished { .. }));
    context
}

impl Context {
    /// A key as the paravisor would get it.
    pub fn derived_key(&self, request: &DerivedKeyRequest) -> [u8; 32] {
        match platform().guest(self.id, &GuestRequest::DerivedKey(request.clone())) {
            GuestResponse::DerivedKey { key } => key,
            other => panic!("{other:?}"),
        }
    }
}

impl GuestMessages for Context {
    fn answer(&self, request: &GuestRequest) -> Result<GuestResponse, Stop> {
        Ok(platform().guest(self.id, request))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        platform().host(HostRequest::Decommission { context: self.id });
    }
}

impl SecureProcessor for Context {
    fn extended_report(&self, report_data: [u8; 64]) -> Result<ExtendedReport, Stop> {
        let request = ReportRequest { report_data, vmpl: self.vmpl, key_select: 0 };
        match platform().guest(self.id, &GuestRequest::ExtendedReport(request)) {
            GuestResponse::ExtendedReport { report, certificates_pem } => {
                Ok(ExtendedReport { report, certificates: certificates_pem })
            }
            other => panic!("{other:?}"),
        }
    }
}
