//! The certificate table of an extended report (GHCB specification, section 4.1.8.1): entries of GUID, offset and length
//! up to one of zeros, then the certificates (DER).

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

/// GUIDs as bytes in the order in which they are written, in the order of the chain.
const GUIDS: [[u8; 16]; 3] = [
    // VCEK: 63da758d-e664-4564-adc5-f4b93be8accd
    [0x63, 0xda, 0x75, 0x8d, 0xe6, 0x64, 0x45, 0x64, 0xad, 0xc5, 0xf4, 0xb9, 0x3b, 0xe8, 0xac, 0xcd],
    // ASK: 4ab7b379-bbac-4fe4-a02f-05aef327c782
    [0x4a, 0xb7, 0xb3, 0x79, 0xbb, 0xac, 0x4f, 0xe4, 0xa0, 0x2f, 0x05, 0xae, 0xf3, 0x27, 0xc7, 0x82],
    // ARK: c0b406a4-a803-4952-9743-3fb6014cd0ae
    [0xc0, 0xb4, 0x06, 0xa4, 0xa8, 0x03, 0x49, 0x52, 0x97, 0x43, 0x3f, 0xb6, 0x01, 0x4c, 0xd0, 0xae],
];
const ENTRY: usize = 24;

/// The table of a chain in PEM (VCEK, ASK, ARK); `None` when it is none.
pub fn table(chain_pem: &str) -> Option<Vec<u8>> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain_pem.as_bytes()).collect();
    let chain = chain.ok().filter(|chain| chain.len() == GUIDS.len())?;
    let mut entries = Vec::new();
    let mut data = Vec::new();
    for (guid, certificate) in GUIDS.iter().zip(&chain) {
        let offset = ENTRY * (GUIDS.len() + 1) + data.len();
        entries.extend(guid);
        entries.extend(u32::try_from(offset).ok()?.to_le_bytes());
        entries.extend(u32::try_from(certificate.len()).ok()?.to_le_bytes());
        data.extend_from_slice(certificate);
    }
    entries.extend([0; ENTRY]);
    entries.extend(data);
    Some(entries)
}
