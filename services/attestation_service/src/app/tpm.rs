//! `Tpm`: attestation of a quote alone, in two rounds, by the protocol of Azure Attestation for TPMs.
//!
//! First the client asks for a challenge, then it presents a quote for it ([`request`], [`flow`]). Source:
//! virtualization-based-security-protocol in Azure Attestation's documentation, request message v2, `att_type` `basic`.
//! Not spoken: version 1, whose claims only Windows makes; VBS enclaves; a second attestation of the boot.
//!
//! Nothing here says where the TPM is. The attestation key comes as a bare key, so only a certificate of this service's
//! own authority vouches that it is restricted to sign what its TPM says (`aikValidated`); the default policy demands it.

pub mod flow;
pub mod request;
