//! Resource Manager ids: compared without regard to case, kept as they were written.
//!
//! `/subscriptions/{guid}[/resourceGroups/{rg}][/providers/{namespace}/{type}/{name}[/{subtype}/{name}]...]`
//! (Azure Resource Manager documentation, "resource ID").

use std::fmt;
use std::str::FromStr;

/// A parsed id.
#[derive(Clone, Debug)]
pub struct ResourceId {
    /// The subscription's GUID, as written.
    pub subscription: String,
    /// The resource group, as written.
    pub resource_group: Option<String>,
    /// Provider namespace, for example `Microsoft.Compute`.
    pub namespace: Option<String>,
    /// Types and names, outermost first.
    pub segments: Vec<(String, String)>,
}

/// A text that is not a resource id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a resource id: {reason}")]
pub struct ResourceIdError {
    text: String,
    reason: &'static str,
}

impl ResourceId {
    /// The type in full, for example `Microsoft.Compute/virtualMachines`.
    pub fn resource_type(&self) -> Option<String> {
        let namespace = self.namespace.as_ref()?;
        let types: Vec<&str> = self.segments.iter().map(|(kind, _)| kind.as_str()).collect();
        Some(format!("{namespace}/{}", types.join("/")))
    }

    /// The innermost name.
    pub fn name(&self) -> Option<&str> {
        self.segments.last().map(|(_, name)| name.as_str())
    }

    /// The key under which ids are equal.
    pub fn key(&self) -> String {
        self.to_string().to_ascii_lowercase()
    }
}

impl PartialEq for ResourceId {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for ResourceId {}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/subscriptions/{}", self.subscription)?;
        if let Some(group) = &self.resource_group {
            write!(f, "/resourceGroups/{group}")?;
        }
        if let Some(namespace) = &self.namespace {
            write!(f, "/providers/{namespace}")?;
        }
        for (kind, name) in &self.segments {
            write!(f, "/{kind}/{name}")?;
        }
        Ok(())
    }
}

impl FromStr for ResourceId {
    type Err = ResourceIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = |reason| ResourceIdError { text: text.chars().take(200).collect(), reason };
        let rest = text.strip_prefix('/').ok_or(fail("it must begin with /"))?;
        let parts: Vec<&str> = rest.split('/').collect();
        if parts.iter().any(|part| part.is_empty()) {
            return Err(fail("a segment is empty"));
        }
        let (head, mut parts) = parts.split_at_checked(2).ok_or(fail("the subscription is missing"))?;
        if !head[0].eq_ignore_ascii_case("subscriptions") {
            return Err(fail("it must begin with /subscriptions/"));
        }
        let mut id = ResourceId {
            subscription: head[1].to_owned(),
            resource_group: None,
            namespace: None,
            segments: Vec::new(),
        };
        if let [keyword, group, tail @ ..] = parts
            && keyword.eq_ignore_ascii_case("resourceGroups")
        {
            id.resource_group = Some((*group).to_owned());
            parts = tail;
        }
        if let [keyword, namespace, tail @ ..] = parts
            && keyword.eq_ignore_ascii_case("providers")
        {
            id.namespace = Some((*namespace).to_owned());
            parts = tail;
        }
        if (!parts.is_empty() && id.namespace.is_none()) || parts.len() % 2 != 0 {
            return Err(fail("types and names must come in pairs after /providers/{namespace}"));
        }
        for pair in parts.chunks_exact(2) {
            id.segments.push((pair[0].to_owned(), pair[1].to_owned()));
        }
        Ok(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VM: &str = "/subscriptions/0/resourceGroups/rg/providers/Microsoft.Compute/virtualMachines/vm1";

    #[test]
    fn case_is_kept_and_ignored() {
        let id: ResourceId = VM.parse().unwrap();
        let shouted: ResourceId = VM.to_ascii_uppercase().parse().unwrap();
        assert_eq!(id.to_string(), VM);
        assert_eq!(id, shouted);
        assert_eq!(id.resource_type().unwrap(), "Microsoft.Compute/virtualMachines");
        assert_eq!(id.name(), Some("vm1"));
    }

    #[test]
    fn what_is_not_an_id_is_refused() {
        for text in
            ["", "/", "/subscriptions", "/subscriptions/0/x/y", "/subscriptions/0//a", "/tenants/0/a/b"]
        {
            assert!(text.parse::<ResourceId>().is_err(), "{text:?}");
        }
        assert!(format!("{VM}/extensions").parse::<ResourceId>().is_err());
    }
}
