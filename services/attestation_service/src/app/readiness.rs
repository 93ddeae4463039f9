//! Whether the service can do its work now, check by check.

use http_service::health::Check;
use snp::CrlScope;

use super::attest::Service;

impl Service {
    /// The checks of `/health/ready`.
    pub async fn readiness(&self, now: i64) -> Vec<Check> {
        vec![self.database(now).await, self.signing_key(now), self.revocation_lists(now)]
    }

    /// A verdict that cannot be written down is not given.
    async fn database(&self, now: i64) -> Check {
        let written = self.store.prove_writable(now).await;
        let seen = written.map(|()| "it takes writes".to_owned());
        Check::new("database", seen.map_err(|error| crate::chain(&error)))
    }

    fn signing_key(&self, now: i64) -> Check {
        let key = self.providers.default_provider().signer.jwk_set(now).keys.into_iter().next();
        let id = key.and_then(|key| key.kid);
        let seen = id.map(|id| format!("key {id} signs tokens"));
        Check::new("signingKey", seen.ok_or_else(|| "no key signs tokens".to_owned()))
    }

    /// Where lists are required, evidence under a root without a current one is refused: if that holds for every root,
    /// nobody can attest.
    fn revocation_lists(&self, now: i64) -> Check {
        let roots = self.appraiser.roots().map(|root| {
            let until = self.appraiser.crl_until(CrlScope::Vcek, &root.id());
            let current = until.is_some_and(|until| until.0 > now);
            (
                current,
                format!("{root}: {}", until.map_or("none".to_owned(), |until| format!("until {until}"))),
            )
        });
        let (current, told): (Vec<bool>, Vec<String>) = roots.unzip();
        let told = told.join("; ");
        let seen = match (self.appraiser.crl_required(), current.contains(&true)) {
            (true, false) => Err(format!("no root has a current list, and one is required; {told}")),
            (true, true) => Ok(told),
            (false, _) => Ok(format!("none is required; {told}")),
        };
        Check::new("revocationLists", seen)
    }
}
