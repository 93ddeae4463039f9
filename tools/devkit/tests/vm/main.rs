//! A real guest under QEMU: one boot serves many checks, then the operator attacks.
//!
//! Where KVM cannot run firmware the guest is emulated, and a boot takes a minute or two.

mod attacks;
mod clients;
mod guest;
mod guest_tools;
mod operator;
mod update;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use devkit::installation::{Installation, image_cache, wait_for};
use devkit::runner::{check, essential, run};
use guest_tools::GuestTools;
use operator::OperatorsQemu;

/// The VM under test.
const VM: &str = "guest";
/// Another one, whose state is to be stolen.
const OTHER: &str = "other";
/// How long an emulated guest may take to answer.
const BOOT: Duration = Duration::from_secs(900);

/// What the checks build on.
struct Scenario {
    platform: Option<Installation>,
    qemu: OperatorsQemu,
    /// Published programs that run in the guest.
    tools: GuestTools,
    /// Packages: the image's kernel, and the one that comes after it.
    kernels: [String; 2],
    /// The image's name.
    image: String,
}

impl Scenario {
    fn platform(&self) -> Result<&Installation> {
        self.platform.as_ref().context("the platform is up")
    }
}

fn the_platform_comes_up(scenario: &mut Scenario) -> Result<()> {
    let qemu = scenario.qemu.program();
    let qemu = ["--qemu", qemu.to_str().context("a path in UTF-8")?];
    scenario.platform = Some(Installation::up(19443, &image_cache()?, &qemu)?);
    Ok(())
}

/// The certificate of its chip is fetched when the host enrols: no VM has attested yet.
fn the_hosts_chip_is_known_before_its_first_vm(scenario: &mut Scenario) -> Result<()> {
    let platform = scenario.platform()?;
    wait_for(Duration::from_secs(1), Duration::from_secs(60), || {
        let bundle = platform.casemate(&["attestation", "collateral", "export"])?;
        let bundle: serde_json::Value = serde_json::from_str(&bundle)?;
        Ok(bundle["vceks"].as_array().is_some_and(|vceks| vceks.len() == 1).then_some(()))
    })
}

fn a_guest_image_is_built_from_debians_packages(scenario: &mut Scenario) -> Result<()> {
    let kernel = [("CASEMATE_GUEST_KERNEL", scenario.kernels[0].as_str())];
    scenario.platform()?.ensure_image(&scenario.image, &[], &kernel)
}

/// The other VM boots beside it, under the operator's hands: an emulated boot keeps one core busy, and takes long.
fn a_confidential_vm_unlocks_its_own_disk_and_boots(scenario: &mut Scenario) -> Result<()> {
    let platform = scenario.platform()?;
    platform.casemate(&["vm", "create", VM, "--image", &scenario.image])?;
    operator::creates_the_other(scenario)?;
    platform.wait_for_guest(VM, "true", BOOT)?;
    update::begins(scenario)
}

fn scenario() -> Result<Scenario> {
    let kernels = update::two_kernels()?;
    let image = kernels[0].replace("linux-image", "debian-13").replace('+', "-");
    let (qemu, tools) = (OperatorsQemu::new()?, GuestTools::begin()?);
    Ok(Scenario { platform: None, qemu, tools, kernels, image })
}

fn main() -> Result<ExitCode> {
    let checks = [
        essential("the_platform_comes_up", the_platform_comes_up),
        check("the_hosts_chip_is_known_before_its_first_vm", the_hosts_chip_is_known_before_its_first_vm),
        essential(
            "a_guest_image_is_built_from_debians_packages",
            a_guest_image_is_built_from_debians_packages,
        ),
        essential(
            "a_confidential_vm_unlocks_its_own_disk_and_boots",
            a_confidential_vm_unlocks_its_own_disk_and_boots,
        ),
        check("secure_boot_is_on_in_the_guest", guest::secure_boot_is_on),
        check("the_root_file_system_is_the_encrypted_one", guest::root_is_encrypted),
        check("the_disk_on_the_host_is_ciphertext", guest::disk_is_ciphertext),
        check("the_tenants_user_and_host_name_are_there", guest::provisioned),
        check("a_quote_with_the_attestation_key_verifies_outside", guest::quote_verifies),
        check("the_hcl_report_binds_the_attestation_key", guest::hcl_report_binds_the_key),
        check("user_data_of_the_guest_reaches_a_fresh_report", guest::user_data_reaches_the_report),
        check("the_booted_pcrs_are_the_predicted_ones", guest::pcrs_are_predicted),
        check("the_volume_key_is_unsealed_once_a_boot", guest::key_is_unsealed_once),
        check("the_tokens_claims_match_what_was_deployed", guest::claims_match),
        check("the_token_names_the_boot_chain_of_the_image", guest::token_names_the_boot_chain),
        check("evidence_verifies_offline_and_only_with_the_development_root", guest::evidence_is_development),
        check("the_metadata_service_answers_in_the_guest", guest::metadata_answers),
        check("the_guest_agent_gets_evidence_and_tokens", guest_tools::agent_gets_evidence_and_tokens),
        check("the_guest_agent_serves_a_socket_to_its_owner", guest_tools::agent_serves_a_socket),
        check("snpguest_reads_a_report_and_verifies_it", guest_tools::snpguest_reads_and_verifies),
        check("a_guest_asking_for_vmpl_0_is_refused_to_a_published_tool", guest_tools::vmpl_0_is_refused),
        check("az_snp_vtpm_reads_report_and_quote", guest_tools::az_snp_vtpm_reads_report_and_quote),
        check("azure_guest_attestation_sdk_gets_a_token", guest_tools::azure_sdk_gets_a_token),
        check("the_vm_outlives_its_host_agent", guest::vm_outlives_the_agent),
        check(
            "users_and_credentials_injected_by_the_host_have_no_effect",
            operator::injects_users_and_credentials,
        ),
        check("a_command_line_changed_by_the_host_is_refused", operator::adds_to_the_command_line),
        check("a_guest_that_installs_another_kernel_and_initramfs_boots_them", update::another_kernel_boots),
        check("the_new_boot_chain_is_predicted_and_shown_in_the_token", update::the_new_chain_is_shown),
        essential("a_vm_stops_cleanly", attacks::stop),
        check("other_firmware_is_refused", attacks::other_firmware),
        check("a_boot_region_changed_by_the_host_is_refused", attacks::boot_region_changed),
        check("another_vms_guest_state_is_refused", attacks::another_vms_state),
        check("an_older_guest_state_is_refused", attacks::older_state),
        check("firmware_variables_with_secure_boot_off_are_refused", attacks::secure_boot_off),
        check("the_python_sdk_creates_stops_starts_and_deletes_a_vm", clients::python_sdk),
        check("the_decision_log_is_whole_and_names_the_refusals", attacks::log_is_whole),
        check("a_deleted_vm_leaves_nothing_behind", attacks::delete),
    ];
    Ok(run(scenario()?, &checks))
}
