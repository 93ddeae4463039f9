//! One launch context of the software secure processor, in process, as the paravisor lets the guest reach it.

use std::sync::{Arc, OnceLock};

use guest_agent::sev_guest::{PortError, SecureProcessor};
use snp::launch::PageType;
use snp::psp::{GuestRequest, GuestResponse, HostRequest, HostResponse};
use soft_psp::authority::Authority;
use soft_psp::config::Config;
use soft_psp::platform::Platform;

/// A launched guest.
pub struct Context(u64);

fn platform() -> &'static Platform {
    static PLATFORM: OnceLock<(tempfile::TempDir, Platform)> = OnceLock::new();
    let (_, platform) = PLATFORM.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let text = format!(
            "state_dir = {path:?}\nruntime_dir = {path:?}\nhost_socket = \"{}/host\"\nkds_listen = \"127.0.0.1:0\"",
            path.display()
        );
        let config: Config = toml::from_str(&text).unwrap();
        let authority = Authority::open(&config.state_dir, &config.identity()).unwrap();
        (folder, Platform::new(Arc::new(authority), &config))
    });
    platform
}

impl Context {
    pub fn launch() -> Self {
        let HostResponse::Started { context } =
            platform().host(HostRequest::LaunchStart { policy: 0x3_0000 }).0
        else {
            panic!("launch start");
        };
        let (page_type, gpa) = (PageType::Normal, 0x10000);
        let page = HostRequest::LaunchUpdate { context, page_type, gpa, data: vec![1; 4096] };
        assert!(matches!(platform().host(page).0, HostResponse::Updated));
        let finish = HostRequest::LaunchFinish { context, host_data: [3; 32], id_block: None };
        assert!(matches!(platform().host(finish).0, HostResponse::Finished { .. }));
        Self(context)
    }

    pub fn answer(&self, request: &GuestRequest) -> GuestResponse {
        platform().guest(self.0, request)
    }
}

impl SecureProcessor for Context {
    fn ask(&mut self, request: &GuestRequest) -> Result<GuestResponse, PortError> {
        Ok(self.answer(request))
    }
}
