//! The launch: its order, its digest, the policies and ID blocks that it refuses.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use snp::GuestPolicy;
use snp::launch::{LaunchDigest, LaunchPlan, PageType, SNP_ACTIVE, VMSA_GPA, paravisor_page};
use snp::psp::{HostRequest, HostResponse, IdBlock, status};

use crate::processor::{Guest, POLICY, Processor, finish, update};

#[test]
fn a_plan_that_is_launched_page_by_page_has_the_digest_that_a_verifier_computes() {
    let processor = Processor::start();
    let firmware: Vec<u8> = (0..1_048_576_u32).flat_map(|at| at.to_le_bytes()).collect();
    let plan = LaunchPlan {
        firmware: &firmware,
        vcpus: 4,
        cpu: "EPYC-Milan".parse().unwrap(),
        guest_features: SNP_ACTIVE,
        kernel_hashes: None,
        paravisor_page: Some(paravisor_page(&[1; 48], &[2; 48])),
    };
    let context = processor.begin(POLICY);
    let mut stream = processor.host_stream();
    for page in plan.pages().unwrap() {
        let data = page.data.into_owned();
        let request = HostRequest::LaunchUpdate { context, page_type: page.page_type, gpa: page.gpa, data };
        request.write(&mut stream).unwrap();
        assert_eq!(HostResponse::read(&mut stream).unwrap(), HostResponse::Updated);
    }
    assert_eq!(processor.finish(context).launch_digest, plan.digest().unwrap().0);
}

#[test]
fn the_launch_has_its_order() {
    let processor = Processor::start();
    let guest = processor.launch(POLICY);
    assert_eq!(processor.refusal(&update(guest.context, 0x8000, 4096)), status::INVALID_GUEST_STATE);
    assert_eq!(processor.refusal(&finish(guest.context)), status::INVALID_GUEST_STATE);
    let decommission = HostRequest::Decommission { context: guest.context };
    assert_eq!(processor.host(&decommission), HostResponse::Decommissioned);
    assert_eq!(processor.refusal(&decommission), status::INVALID_GUEST);
    assert_eq!(processor.refusal(&update(guest.context, 0x8000, 4096)), status::INVALID_GUEST);
    assert_eq!(processor.refusal(&finish(guest.context)), status::INVALID_GUEST);
}

#[test]
fn a_page_is_loaded_once() {
    let processor = Processor::start();
    let context = processor.begin(POLICY);
    assert_eq!(processor.host(&update(context, 0x1000, 8192)), HostResponse::Updated);
    for gpa in [0x1000, 0x2000, 0] {
        assert_eq!(processor.refusal(&update(context, gpa, 8192)), status::INVALID_PAGE_STATE, "{gpa:#x}");
    }
    assert_eq!(processor.host(&update(context, 0x3000, 4096)), HostResponse::Updated);
    for _ in 0..2 {
        let vmsa = HostRequest::LaunchUpdate {
            context,
            page_type: PageType::Vmsa,
            gpa: VMSA_GPA,
            data: vec![0; 4096],
        };
        assert_eq!(processor.host(&vmsa), HostResponse::Updated);
    }
}

#[test]
fn pages_that_are_none_are_refused_and_not_measured() {
    let processor = Processor::start();
    let context = processor.begin(POLICY);
    assert_eq!(processor.refusal(&update(context, 0x1000, 0)), status::INVALID_LENGTH);
    assert_eq!(processor.refusal(&update(context, 0x1000, 4095)), status::INVALID_LENGTH);
    assert_eq!(processor.refusal(&update(context, 0x1001, 4096)), status::INVALID_ADDRESS);
    assert_eq!(processor.refusal(&update(context, !0xFFF, 8192)), status::INVALID_ADDRESS);
    assert_eq!(processor.host(&update(context, 0x1000, 8192)), HostResponse::Updated);
    let digest = processor.finish(context).launch_digest;
    assert_eq!(digest, processor.launch(POLICY).launch_digest);
}

#[test]
fn policies_that_cannot_be_honoured_are_refused() {
    let processor = Processor::start();
    let refusals = [
        (0, status::INVALID_PARAM),
        (POLICY & !(1 << 17), status::INVALID_PARAM),
        (POLICY | 1 << 26, status::INVALID_PARAM),
        (POLICY | 1 << 63, status::INVALID_PARAM),
        (POLICY & !(1 << 16), status::POLICY_FAILURE),
        (POLICY | 1 << 22, status::POLICY_FAILURE),
        (POLICY | 1 << 23, status::POLICY_FAILURE),
        (POLICY | 1 << 24, status::POLICY_FAILURE),
        (POLICY | 0xFF00, status::POLICY_FAILURE),
        (POLICY | 0x0138, status::POLICY_FAILURE),
    ];
    for (policy, expected) in refusals {
        assert_eq!(processor.refusal(&HostRequest::LaunchStart { policy }), expected, "{policy:#x}");
    }
    for policy in [POLICY | 0x1F, POLICY | 0x0137, POLICY | 1 << 19, POLICY | 1 << 20] {
        processor.begin(policy);
    }
}

#[test]
fn contexts_run_out() {
    let processor = Processor::start();
    let mut stream = processor.host_stream();
    let mut ask = |request: HostRequest| {
        request.write(&mut stream).unwrap();
        HostResponse::read(&mut stream).unwrap()
    };
    let HostResponse::Status(platform) = ask(HostRequest::PlatformStatus) else { panic!("no status") };
    for _ in 0..platform.max_guests {
        assert!(matches!(ask(HostRequest::LaunchStart { policy: POLICY }), HostResponse::Started { .. }));
    }
    let refused = ask(HostRequest::LaunchStart { policy: POLICY });
    assert!(matches!(refused, HostResponse::Error { code: status::RESOURCE_LIMIT, .. }), "{refused:?}");
}

/// The guest owner's side of SNP_LAUNCH_FINISH.
struct Owner {
    id_key: EcdsaKeyPair,
    author_key: EcdsaKeyPair,
    block: snp::id_block::IdBlock,
}

impl Owner {
    fn new(launch_digest: [u8; 48]) -> Self {
        let key = || EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        let block = snp::id_block::IdBlock {
            launch_digest: LaunchDigest(launch_digest),
            family_id: [1; 16],
            image_id: [2; 16],
            version: 1,
            guest_svn: 7,
            policy: GuestPolicy(POLICY),
        };
        Self { id_key: key(), author_key: key(), block }
    }

    fn sign(&self, author_key: bool) -> IdBlock {
        let block = self.block.encode();
        let id_key = public(&self.id_key);
        let mut auth = Box::new([0; 4096]);
        auth[0] = 1;
        auth[0x40..0xD0].copy_from_slice(&signature(&self.id_key, &block));
        auth[0x240..0x644].copy_from_slice(&id_key);
        if author_key {
            auth[4] = 1;
            auth[0x680..0x710].copy_from_slice(&signature(&self.author_key, &id_key));
            auth[0x880..0xC84].copy_from_slice(&public(&self.author_key));
        }
        IdBlock { block, auth, author_key }
    }
}

fn little_endian(number: &[u8]) -> [u8; 72] {
    let mut field = [0; 72];
    field.iter_mut().zip(number.iter().rev()).for_each(|(to, from)| *to = *from);
    field
}

fn signature(key: &EcdsaKeyPair, message: &[u8]) -> Vec<u8> {
    let signature = key.sign(&SystemRandom::new(), message).unwrap();
    signature.as_ref().chunks(48).flat_map(little_endian).collect()
}

fn public(key: &EcdsaKeyPair) -> Vec<u8> {
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    bytes.extend(key.public_key().as_ref()[1..].chunks(48).flat_map(little_endian));
    bytes.resize(0x404, 0);
    bytes
}

fn launch_with(processor: &Processor, id: IdBlock) -> HostResponse {
    let context = processor.begin(POLICY);
    assert_eq!(processor.host(&update(context, 0x1000, 8192)), HostResponse::Updated);
    processor.host(&HostRequest::LaunchFinish { context, host_data: [9; 32], id_block: Some(Box::new(id)) })
}

fn guest_of(response: HostResponse) -> Guest {
    match response {
        HostResponse::Finished { launch_digest, guest_socket } => {
            Guest { context: 0, socket: guest_socket.into(), launch_digest }
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_id_block_shows_in_the_report() {
    let processor = Processor::start();
    let owner = Owner::new(processor.launch(POLICY).launch_digest);
    for author in [false, true] {
        let guest = guest_of(launch_with(&processor, owner.sign(author)));
        let report = snp::Report::parse(&guest.evidence([0; 64]).0).unwrap();
        assert_eq!((report.family_id, report.image_id, report.guest_svn), ([1; 16], [2; 16], 7));
        assert_ne!(report.id_key_digest, [0; 48]);
        assert_eq!(report.author_key_en, author);
        assert_eq!(report.author_key_digest != [0; 48], author);
    }
}

#[test]
fn a_launch_that_is_under_way_goes_with_its_connection_and_a_finished_one_stays() {
    let processor = Processor::start();
    let finished = processor.launch(POLICY);
    let mut host = processor.host_stream();
    HostRequest::LaunchStart { policy: POLICY }.write(&mut host).unwrap();
    assert!(matches!(HostResponse::read(&mut host).unwrap(), HostResponse::Started { .. }));
    let guests = || match processor.host(&HostRequest::PlatformStatus) {
        HostResponse::Status(status) => status.guests,
        other => panic!("{other:?}"),
    };
    assert_eq!(guests(), 2);
    drop(host);
    crate::processor::wait_for(|| guests() == 1);
    finished.evidence([0; 64]);
}

#[test]
fn an_id_block_of_another_launch_or_key_is_refused() {
    let processor = Processor::start();
    let digest = processor.launch(POLICY).launch_digest;
    let refused = |id: IdBlock| match launch_with(&processor, id) {
        HostResponse::Error { code, .. } => code,
        other => panic!("not refused: {other:?}"),
    };
    assert_eq!(refused(Owner::new([0; 48]).sign(false)), status::BAD_MEASUREMENT);
    let mut owner = Owner::new(digest);
    owner.block.policy = GuestPolicy(POLICY | 1 << 19);
    assert_eq!(refused(owner.sign(false)), status::POLICY_FAILURE);
    let owner = Owner::new(digest);
    let mut altered = owner.sign(false);
    altered.block[0x54] ^= 1;
    assert_eq!(refused(altered), status::BAD_SIGNATURE);
    let mut other_author = owner.sign(true);
    other_author.auth[0x880..0xC84].copy_from_slice(&public(&Owner::new(digest).author_key));
    assert_eq!(refused(other_author), status::BAD_SIGNATURE);
    let mut no_author = owner.sign(false);
    no_author.author_key = true;
    assert_eq!(refused(no_author), status::BAD_SIGNATURE);
}
