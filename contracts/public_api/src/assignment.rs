//! Role assignments in access tokens: what a caller may do to some resources, beside the app roles that hold everywhere.

use serde::{Deserialize, Serialize};

/// The claim with a caller's [`Assignment`]s. It is ours: Azure's services look assignments up, ours look into the token.
pub const ASSIGNMENTS: &str = "x-casemate-assignments";

/// A role that holds for a scope and all below it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assignment {
    /// For example `Contributor`.
    pub role: String,
    /// A Resource Manager id, for example `/subscriptions/{guid}`.
    pub scope: String,
}

impl Assignment {
    /// Whether the scope is the resource or above it. Ids are compared without regard to case.
    pub fn covers(&self, resource: &str) -> bool {
        let scope = self.scope.trim_end_matches('/').to_ascii_lowercase();
        let resource = resource.to_ascii_lowercase();
        let below = resource.strip_prefix(&scope);
        scope.starts_with("/subscriptions/")
            && below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROVIDER: &str =
        "/subscriptions/aa/resourceGroups/rg/providers/Microsoft.Attestation/attestationProviders/mine";

    #[test]
    fn a_scope_covers_itself_and_what_is_below_it() {
        let covers = |scope: &str| {
            Assignment { role: "Contributor".to_owned(), scope: scope.to_owned() }.covers(PROVIDER)
        };
        for scope in
            ["/subscriptions/aa", "/SUBSCRIPTIONS/AA/", "/subscriptions/aa/resourcegroups/RG", PROVIDER]
        {
            assert!(covers(scope), "{scope}");
        }
        for scope in [
            "",
            "/",
            "/subscriptions",
            "/subscriptions/",
            "/subscriptions/a",
            "/subscriptions/aa/resourceGroups/r",
        ] {
            assert!(!covers(scope), "{scope}");
        }
    }
}
