//! `release`: from an attestation token to a wrapped key, or to a refusal that says why.
//!
//! ```text
//!   token --verify--> Evidence --policy--> ReleaseDecision --root, wrap key, guest state--> Grant
//!     Grant --wrap--> KeyHsm --one transaction: token used, generation, log entry--> Committed --sign--> answer
//! ```
//!
//! Nothing leaves before the transaction is on the disk, and the transaction alone decides on replays and rollbacks.

use policy::release::{ReleaseDecision, ReleasePolicy, ReleaseRefusal};
use public_api::attestation::CLAIM_TRUST_ROOT;
use public_api::decision_log::Decision;
use public_api::encoding::to_base64url;
use public_api::keys::{
    KeyEncryption, KeyHsm, KeyReleaseParameters, KeyReleaseResult, KeySuccession, ReleasePayload,
    ReleaseRequestEcho, ReleaseResponse,
};
use serde::Serialize;
use serde_json::Value;

use super::custody::{TokenKey, family};
use super::keys::KeyRef;
use super::succession::{self, Successor};
use super::{AppError, AppState, generation, operate, reach};
use crate::crypto::wrap::{self, TargetKey};
use crate::store::keys::{self, Among, KeyRecord};
use crate::store::{Committed, Connection, StoreError, decisions, releases};
use crate::token::caller::Caller;
use crate::token::evidence::{Evidence, GuestState, MAX_AGE, TrustRoot};
use token_verifier::{Refusal, refusal};
use token_verifier::{TokenError, shown};

/// Used tokens are remembered for a day longer than they could be presented, in case a clock is put back.
const REMEMBER: i64 = 86_400;

/// What the log keeps about a release or its refusal.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Facts {
    operation: &'static str,
    caller: String,
    enc: KeyEncryption,
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trust_root: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vm: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wrapped_to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    successor: Option<String>,
}

/// A token that may have the key, as far as can be said without the database.
struct Grant {
    decision: ReleaseDecision,
    target: TargetKey,
    issuer: String,
    token: String,
    forget: i64,
    guest_state: Option<GuestState>,
    successor: Option<Successor>,
}

/// Why there is no grant.
enum NoGrant {
    Denied(Refusal),
    Failed(AppError),
}

impl From<Refusal> for NoGrant {
    fn from(denial: Refusal) -> Self {
        NoGrant::Denied(denial)
    }
}

impl AppState {
    /// `POST .../release`
    pub async fn release_key(
        &self,
        caller: &Caller,
        key: &KeyRef,
        parameters: KeyReleaseParameters,
        api_version: &str,
    ) -> Result<KeyReleaseResult, AppError> {
        let record = self.record(key).await?;
        let enc = parameters.enc.unwrap_or_default();
        let mut facts =
            Facts { operation: "release", caller: caller.id().to_owned(), enc, ..Facts::default() };
        facts.successor = parameters.successor.as_deref().map(shown);
        let grant = match self.grant(&record, &parameters, &mut facts).await {
            Ok(grant) => grant,
            Err(NoGrant::Denied(denial)) => {
                return Err(self.refuse(&self.kid(&record), denial, json(&facts)).await);
            }
            Err(NoGrant::Failed(error)) => return Err(error),
        };
        let (grant, wrapped) = self.wrapped(&record, grant, enc).await?;
        let succession = match &grant.successor {
            Some(successor) => Some(self.succession(&record, successor).await?),
            None => None,
        };
        let payload = ReleasePayload {
            request: self.echo(&record, enc, parameters.nonce, api_version),
            response: self.response(&record, &wrapped, succession),
        };
        reach("before recording a release");
        let recorded = self
            .record_release(record, key.version.clone(), grant, &facts)
            .await?
            .map_err(AppError::Denied)?;
        reach("after recording a release");
        Ok(KeyReleaseResult { value: self.signer.sign(&payload, &recorded) })
    }

    async fn grant(
        &self,
        record: &KeyRecord,
        parameters: &KeyReleaseParameters,
        facts: &mut Facts,
    ) -> Result<Grant, NoGrant> {
        let policy = releasable(record)?;
        let policy =
            ReleasePolicy::parse(policy).map_err(|error| NoGrant::Failed(AppError::Policy(error)))?;
        let evidence = self.common.authorities.verify(&parameters.target, self.now()).await.map_err(
            |error| match error {
                TokenError::Refused(denial) => NoGrant::Denied(denial),
                unavailable => NoGrant::Failed(AppError::IssuerUnavailable(unavailable)),
            },
        )?;
        note(&evidence, facts);
        let token_id = evidence.token_id()?.to_owned();
        let root = evidence.trust_root()?;
        let decision =
            policy.evaluate(evidence.token().issuer(), evidence.token().claims()).map_err(policy_denial)?;
        self.check_root(root, &decision)?;
        let target = evidence.target_key()?;
        let guest_state = evidence.guest_state()?;
        facts.wrapped_to = Some(target.kid.clone());
        facts.generation = guest_state.as_ref().map(|state| state.generation);
        let until = evidence.token().expires().min(evidence.token().issued_at() + MAX_AGE);
        let successor = self.successor(parameters).await.map_err(NoGrant::Failed)?;
        Ok(Grant {
            decision,
            target,
            issuer: evidence.token().issuer().to_owned(),
            token: token_id,
            forget: until + REMEMBER,
            guest_state,
            successor,
        })
    }

    /// A development root needs two consents: the installation's, and that of whoever wrote the key's policy.
    fn check_root(&self, root: TrustRoot, decision: &ReleaseDecision) -> Result<(), Refusal> {
        if root == TrustRoot::Amd {
            return Ok(());
        }
        if !self.common.allow_development_roots {
            let rule = "allow_development_roots of this installation is false";
            let remedy = "run the VM on confidential hardware, or allow development roots in the key service's configuration";
            return Err(refusal(
                "DevelopmentRootRefused",
                CLAIM_TRUST_ROOT,
                "amd",
                "development",
                rule,
                remedy,
            ));
        }
        if !decision.mentions(CLAIM_TRUST_ROOT, &Value::from("development")) {
            let rule = "the release policy accepts a development root only where it says so";
            let remedy = "run the VM on confidential hardware, or make a key whose policy demands x-casemate-trust-root to equal development";
            let expected = "amd, or a policy that demands development";
            return Err(refusal(
                "DevelopmentRootNotInPolicy",
                CLAIM_TRUST_ROOT,
                expected,
                "development",
                rule,
                remedy,
            ));
        }
        Ok(())
    }

    async fn wrapped(
        &self,
        record: &KeyRecord,
        grant: Grant,
        enc: KeyEncryption,
    ) -> Result<(Grant, KeyHsm), AppError> {
        let Some(TokenKey { hsm, id }) = self.in_token(record)? else {
            let private = self.open_key(record)?;
            let wrapped = wrap::release_to(&grant.decision, &private, &grant.target, enc);
            return Ok((grant, wrapped.map_err(AppError::Key)?));
        };
        let family = family(&record.public);
        let work = move || {
            let key = (&*hsm, id, family);
            let wrapped = wrap::release_from_token(&grant.decision, key, &grant.target, enc);
            (grant, wrapped)
        };
        let (grant, wrapped) = tokio::task::spawn_blocking(work).await?;
        Ok((grant, wrapped?.map_err(AppError::Key)?))
    }

    fn echo(
        &self,
        record: &KeyRecord,
        enc: KeyEncryption,
        nonce: Option<String>,
        api_version: &str,
    ) -> ReleaseRequestEcho {
        ReleaseRequestEcho { api_version: api_version.to_owned(), enc, kid: self.kid(record), nonce }
    }

    fn response(
        &self,
        record: &KeyRecord,
        wrapped: &KeyHsm,
        succession: Option<KeySuccession>,
    ) -> ReleaseResponse {
        let mut key = self.bundle(record);
        let wrapped = serde_json::to_vec(wrapped).expect("the wrapping has only string keys");
        key.key.key_hsm = Some(to_base64url(&wrapped));
        ReleaseResponse { key, succession }
    }

    /// Uses the token up, moves the generation on and writes the log entry: all of it, or a recorded refusal.
    async fn record_release(
        &self,
        record: KeyRecord,
        version: Option<String>,
        grant: Grant,
        facts: &Facts,
    ) -> Result<Result<Committed<u64>, Refusal>, StoreError> {
        let mut event = self.event(Decision::Released, &self.kid(&record), None, json(facts));
        let now = self.now();
        let committed = self.store.write(move |connection| {
            Box::pin(async move {
                let verdict = settle(connection, (&record, version.as_deref()), &grant, now).await?;
                if let Err(denial) = &verdict {
                    event.decision = Decision::Refused;
                    event.denial = Some(denial.as_ref().clone());
                }
                let sequence = decisions::append(connection, event).await?;
                Ok(verdict.map(|()| sequence))
            })
        });
        Ok(committed.await?.transpose())
    }
}

/// The part of the decision that needs the database, in its transaction.
async fn settle(
    connection: &mut Connection,
    (record, version): (&KeyRecord, Option<&str>),
    grant: &Grant,
    now: i64,
) -> Result<Result<(), Refusal>, StoreError> {
    // Without a version the newest is asked for, and that may be another by now.
    let current = keys::find(&mut *connection, Among::Live, &record.name, version).await?;
    if let Err(denial) = unchanged(record, current.as_ref()) {
        return Ok(Err(denial));
    }
    if releases::is_used(connection, &grant.issuer, &grant.token).await? {
        return Ok(Err(replayed(&grant.token)));
    }
    let succession = current.as_ref().zip(grant.successor.as_ref());
    if let Some((old, successor)) = succession {
        let permitted = succession::permit(connection, old, successor, grant.guest_state.as_ref()).await?;
        if permitted.is_err() {
            return Ok(permitted);
        }
    }
    if let Err(denial) = advance(connection, &record.name, grant.guest_state.as_ref(), now).await? {
        return Ok(Err(denial));
    }
    if let Some((old, successor)) = succession {
        succession::join(connection, old, successor, grant.guest_state.as_ref(), now).await?;
    }
    releases::use_up(connection, &grant.issuer, &grant.token, grant.forget).await?;
    Ok(Ok(()))
}

async fn advance(
    connection: &mut Connection,
    name: &str,
    state: Option<&GuestState>,
    now: i64,
) -> Result<Result<(), Refusal>, StoreError> {
    let Some(state) = state else {
        let stateful = releases::has_generations(connection, name).await?;
        return Ok(if stateful { Err(generation::stateless()) } else { Ok(()) });
    };
    let last = releases::last_generation(connection, name, &state.vm_id).await?;
    if let Err(denial) = generation::check(last, state) {
        return Ok(Err(denial));
    }
    releases::record_generation(connection, name, &state.vm_id, state.generation, now).await?;
    Ok(Ok(()))
}

/// The key is still the one that the policy decided about.
fn unchanged(before: &KeyRecord, now: Option<&KeyRecord>) -> Result<(), Refusal> {
    match now {
        Some(now) if !now.enabled => Err(operate::disabled()),
        Some(now) if now.sealed == before.sealed => Ok(()),
        _ => {
            let rule = "a key is released as the policy saw it";
            let remedy = "ask again with a new token";
            let expected = "the key and its policy as they were when the request came";
            Err(refusal("KeyChanged", "key", expected, "changed or deleted meanwhile", rule, remedy))
        }
    }
}

/// The policy document of a key that may be released.
fn releasable(record: &KeyRecord) -> Result<&[u8], Refusal> {
    if !record.enabled {
        return Err(operate::disabled());
    }
    match &record.policy {
        Some(policy) if record.exportable => Ok(&policy.data),
        _ => {
            let rule = "only exportable keys are ever released";
            let remedy = "create an exportable key with a release policy";
            Err(refusal("KeyNotExportable", "attributes.exportable", "true", "false", rule, remedy))
        }
    }
}

fn note(evidence: &Evidence, facts: &mut Facts) {
    let token = evidence.token();
    facts.issuer = Some(token.issuer().to_owned());
    facts.token = token.text("jti").map(shown);
    facts.trust_root = token.text(CLAIM_TRUST_ROOT).map(shown);
    facts.vm = evidence.launched_vm();
}

fn policy_denial(reason: ReleaseRefusal) -> Refusal {
    let remedy = "present a token that meets the key's release policy; the policy is part of the key (GET it to read it)";
    let ReleaseRefusal { claim, expected, actual, rule } = reason;
    refusal("ReleasePolicyNotMet", claim, expected, actual, rule, remedy)
}

fn replayed(token: &str) -> Refusal {
    let rule = "an attestation token releases one key once";
    let remedy = "attest again and present the new token";
    refusal("TokenReplayed", "jti", "a token that was not used before", token, rule, remedy)
}

fn json(facts: &Facts) -> Value {
    serde_json::to_value(facts).expect("facts have only string keys")
}
