//! `casemate-attestation verify`: a tenant checks a VM's evidence without trusting any service.
//!
//! The evidence goes through the same [`Appraiser`] as over HTTP. The result tells every claim: whether the evidence
//! proves it, and whether the token that came with it says the same. This is the one place of the service that writes
//! to standard output.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use public_api::Denial;
use public_api::attestation::{
    AttachedData, CLAIM_BOOT_REFERENCE, CLAIM_NONCE_SOURCE, Claims, DataType, EvidenceBundle,
};
use public_api::encoding::from_base64_any;
use public_api::jwk::{Jwk, JwkSet};
use serde::Serialize;
use serde_json::Value;

use crate::app::appraise::{Appraisal, Appraiser, AppraiserConfig};
use crate::app::claims::NonceSource;
use crate::app::fields::FieldError;
use crate::app::request::{Attached, Evidence};
use crate::config::{ConfigError, ReferenceConfig, read};

/// Claims that only the service can state: evidence neither proves nor contradicts them.
const STATED_BY_SERVICE: [&str; 8] =
    ["iss", "iat", "nbf", "exp", "jti", "nonce", CLAIM_NONCE_SOURCE, CLAIM_BOOT_REFERENCE];

/// Arguments of `verify`.
#[derive(Clone, Debug, clap::Args)]
pub struct VerifyArguments {
    /// Evidence bundle (JSON), as `casemate vm evidence` writes it.
    #[arg(long)]
    pub bundle: PathBuf,
    /// Trust this root certificate (PEM) of a software secure processor beside AMD's. Proves nothing about a machine.
    #[arg(long)]
    pub development_root: Option<PathBuf>,
    /// Accepted launches: a file with [[firmware]], [[measurement]] and [minimum_tcb], or a service's configuration.
    #[arg(long)]
    pub reference: Option<PathBuf>,
    /// Signed table of minimum patch levels (compact JWS), as GET /minimumTcb gives it in `jws`.
    #[arg(long, requires = "minimum_tcb_signer")]
    pub minimum_tcb: Option<PathBuf>,
    /// Who may sign such a table: PEM of keys or certificates, or a JWKS; can be given several times.
    #[arg(long)]
    pub minimum_tcb_signer: Vec<PathBuf>,
    /// Signed reference values of a service (compact JWS), as GET /referenceValues gives them; several are possible.
    #[arg(long, requires = "reference_signer")]
    pub reference_values: Vec<PathBuf>,
    /// Who may sign reference values: PEM of keys or certificates, or a JWKS; can be given several times.
    #[arg(long)]
    pub reference_signer: Vec<PathBuf>,
    /// Certificate revocation list for VCEKs, DER or PEM; can be given several times.
    #[arg(long)]
    pub crl: Vec<PathBuf>,
    /// The same for VLEKs.
    #[arg(long)]
    pub vlek_crl: Vec<PathBuf>,
    /// The attestation service's keys (its answer to GET /certs), to check the token's signature.
    #[arg(long)]
    pub jwks: Option<PathBuf>,
    /// Verify as of this time (RFC 3339) instead of now.
    #[arg(long)]
    pub at: Option<jiff::Timestamp>,
}

/// What the command prints.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verification {
    /// Whether the evidence is genuine and permitted, and the token says what the evidence proves.
    pub verified: bool,
    /// Why not.
    pub denial: Option<Box<Denial>>,
    /// Whether the token's signature was checked.
    pub token_signature: TokenSignature,
    /// What the evidence proves, if it is genuine and permitted.
    pub claims: Claims,
    /// Every claim of the evidence and of the token, compared.
    pub comparison: Vec<ClaimResult>,
}

/// What is known about the token's signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum TokenSignature {
    /// It verifies under the given keys.
    Verified,
    /// It does not.
    Invalid,
    /// No keys were given.
    NotChecked,
}

/// One claim.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimResult {
    /// Its name.
    pub claim: String,
    /// What the evidence proves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Value>,
    /// What the token says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Value>,
    /// How the two compare.
    pub result: Comparison,
}

/// How a token's claim compares with the evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Comparison {
    /// The evidence proves it, the token says the same.
    Proven,
    /// The token says something else.
    Differs,
    /// The evidence proves it, the token does not say it.
    MissingInToken,
    /// The token says it, the evidence does not prove it.
    NotProven,
    /// Only the service can know it; it counts as much as the token's signature.
    StatedByService,
}

/// Why nothing could be verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyFailure {
    /// A file.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The bundle is no bundle.
    #[error("reading the evidence bundle")]
    Bundle(#[source] serde_json::Error),
    /// The bundle's version is not known.
    #[error("evidence bundle version {0} is not known, expected 1")]
    Version(u32),
    /// The data of the bundle is not JSON.
    #[error("reading the evidence bundle: {0}")]
    Data(#[from] FieldError),
    /// A signed document that does not count.
    #[error("{}: {denial}", path.display())]
    Document {
        /// Its file.
        path: PathBuf,
        /// Why not.
        denial: Box<Denial>,
    },
    /// The keys are no keys.
    #[error("reading the attestation service's keys")]
    Keys(#[source] serde_json::Error),
}

/// Runs the command: exit status 0 for verified, 1 for refused, 2 for input that cannot be read.
pub fn main(arguments: &VerifyArguments) -> ExitCode {
    match verify(arguments) {
        Ok(verification) => {
            let text = serde_json::to_string_pretty(&verification).expect("the result has only string keys");
            #[allow(clippy::print_stdout, reason = "this command's result goes to standard output")]
            {
                println!("{text}");
            }
            ExitCode::from(u8::from(!verification.verified))
        }
        Err(error) => {
            tracing::error!("{}", crate::chain(&error));
            ExitCode::from(2)
        }
    }
}

/// Verifies a bundle.
pub fn verify(arguments: &VerifyArguments) -> Result<Verification, VerifyFailure> {
    let now = arguments.at.unwrap_or_else(jiff::Timestamp::now).as_second();
    let appraiser = appraiser(arguments, now)?;
    let bundle: EvidenceBundle =
        serde_json::from_slice(&read(&arguments.bundle)?).map_err(VerifyFailure::Bundle)?;
    let keys = arguments.jwks.as_deref().map(read_keys).transpose()?;
    verify_bundle(&appraiser, bundle, keys.as_ref(), now)
}

/// Judges by what the arguments name, and by no more.
fn appraiser(arguments: &VerifyArguments, now: i64) -> Result<Appraiser, VerifyFailure> {
    let reference = arguments.reference.as_deref().map(ReferenceConfig::read).transpose()?;
    let appraiser = Appraiser::load(&AppraiserConfig {
        development_root: arguments.development_root.clone(),
        crl_files: arguments.crl.clone(),
        vlek_crl_files: arguments.vlek_crl.clone(),
        minimum_tcb_signers: arguments.minimum_tcb_signer.clone(),
        reference_signers: arguments.reference_signer.clone(),
        reference: reference.unwrap_or_default(),
        ..AppraiserConfig::default()
    })?;
    let (floor, imported) = (appraiser.minimum_tcb(), appraiser.references().imported());
    install(arguments.minimum_tcb.as_slice(), |jws| floor.install(jws, now))?;
    install(&arguments.reference_values, |jws| imported.install(jws, now))?;
    Ok(appraiser)
}

/// Reads signed documents and puts them in force.
fn install(paths: &[PathBuf], put: impl Fn(&str) -> Result<(), Box<Denial>>) -> Result<(), VerifyFailure> {
    for path in paths {
        let jws = String::from_utf8_lossy(&read(path)?).into_owned();
        put(&jws).map_err(|denial| VerifyFailure::Document { path: path.clone(), denial })?;
    }
    Ok(())
}

fn read_keys(path: &Path) -> Result<JwkSet, VerifyFailure> {
    serde_json::from_slice(&read(path)?).map_err(VerifyFailure::Keys)
}

/// Verifies a bundle that is in memory.
pub fn verify_bundle(
    appraiser: &Appraiser,
    bundle: EvidenceBundle,
    keys: Option<&JwkSet>,
    now: i64,
) -> Result<Verification, VerifyFailure> {
    if bundle.version != 1 {
        return Err(VerifyFailure::Version(bundle.version));
    }
    let evidence = Evidence {
        report: bundle.snp_report,
        certificates: bundle.certificate_chain.into_bytes(),
        runtime_data: Some(json(bundle.runtime_data, "runtimeData")?),
        init_time_data: Some(json(bundle.init_time_data, "initTimeData")?),
    };
    let token_signature = match keys {
        None => TokenSignature::NotChecked,
        Some(keys) if signature_holds(&bundle.token, keys) => TokenSignature::Verified,
        Some(_) => TokenSignature::Invalid,
    };
    let token = payload(&bundle.token);
    let appraised = appraiser.verify(evidence, now).and_then(|verified| {
        // Where the nonce came from is the service's to state; the shipped policy does not ask.
        appraiser.decide(&verified, NonceSource::None)
    });
    let (denial, claims) = match appraised {
        Ok(appraisal) => (None, proven(&appraisal)),
        Err(denial) => (Some(denial), Claims::new()),
    };
    let comparison = compare(claims.clone(), token.unwrap_or_default());
    let denial = denial.or_else(|| token_denial(token_signature, &comparison));
    Ok(Verification { verified: denial.is_none(), denial, token_signature, claims, comparison })
}

/// The claims that follow from the evidence alone.
fn proven(appraisal: &Appraisal) -> Claims {
    let mut claims = appraisal.claims().clone();
    claims.retain(|claim, _| !STATED_BY_SERVICE.contains(&claim.as_str()));
    claims
}

/// A token that does not belong to the evidence, or that a stranger signed.
fn token_denial(signature: TokenSignature, comparison: &[ClaimResult]) -> Option<Box<Denial>> {
    if signature == TokenSignature::Invalid {
        return Some(Box::new(Denial::new(
            "TokenSignatureInvalid",
            "token",
            "a signature by a key of the attestation service",
            "none of the given keys signed it",
            "RFC 7515, section 5.2: a JWS counts only under a known key",
            "fetch the keys of the attestation service that issued the token, and compare its certificate",
        )));
    }
    let disagrees =
        |claim: &&ClaimResult| !matches!(claim.result, Comparison::Proven | Comparison::StatedByService);
    let wrong = comparison.iter().find(disagrees)?;
    let shown = |value: &Option<Value>| value.as_ref().map_or("missing".to_owned(), Value::to_string);
    Some(Box::new(Denial::new(
        "TokenDoesNotMatchEvidence",
        wrong.claim.as_str(),
        shown(&wrong.evidence),
        shown(&wrong.token),
        "a token of a bundle states what the bundle's evidence proves, and nothing else",
        "trust the evidence, not the token; fetch a new bundle",
    )))
}

fn json(data: Vec<u8>, name: &str) -> Result<Attached, FieldError> {
    Attached::new(AttachedData { data, data_type: DataType::JSON }, name)
}

fn payload(token: &str) -> Option<Claims> {
    let payload = from_base64_any(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice(&payload).ok()
}

/// The two algorithms that tokens are signed with; a key counts only for its own.
fn signature_holds(token: &str, keys: &JwkSet) -> bool {
    let kid = jsonwebtoken::decode_header(token).ok().and_then(|header| header.kid);
    keys.keys.iter().filter(|key| key.kid == kid).any(|key| {
        let Some((algorithm, key)) = decoding_key(key) else { return false };
        let mut validation = Validation::new(algorithm);
        // The bundle is looked at long after its token has expired; what matters is who signed it.
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        jsonwebtoken::decode::<Value>(token, &key, &validation).is_ok()
    })
}

fn decoding_key(key: &Jwk) -> Option<(Algorithm, DecodingKey)> {
    match (key.kty.as_str(), key.crv.as_deref()) {
        ("RSA", _) => {
            let parts = DecodingKey::from_rsa_components(key.n.as_ref()?, key.e.as_ref()?);
            Some((Algorithm::RS256, parts.ok()?))
        }
        ("EC", Some("P-384")) => {
            let parts = DecodingKey::from_ec_components(key.x.as_ref()?, key.y.as_ref()?);
            Some((Algorithm::ES384, parts.ok()?))
        }
        _ => None,
    }
}

fn compare(mut proven: Claims, token: Claims) -> Vec<ClaimResult> {
    let mut results = Vec::new();
    for (claim, said) in token {
        let evidence = proven.remove(&claim);
        let result = match &evidence {
            _ if STATED_BY_SERVICE.contains(&claim.as_str()) => Comparison::StatedByService,
            Some(value) if *value == said => Comparison::Proven,
            Some(_) => Comparison::Differs,
            None => Comparison::NotProven,
        };
        results.push(ClaimResult { claim, evidence, token: Some(said), result });
    }
    let missing = proven.into_iter().map(|(claim, value)| ClaimResult {
        claim,
        evidence: Some(value),
        token: None,
        result: Comparison::MissingInToken,
    });
    results.extend(missing);
    results
}
