//! All providers, by name.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::{DEFAULT, Provider};

/// The providers in memory.
pub struct Registry {
    default: Arc<Provider>,
    named: RwLock<BTreeMap<String, Arc<Provider>>>,
}

impl Registry {
    /// With the one at the root.
    pub fn new(default: Provider, named: Vec<Provider>) -> Self {
        let named = named.into_iter().map(|provider| (provider.name.clone(), Arc::new(provider)));
        Self { default: Arc::new(default), named: RwLock::new(named.collect()) }
    }

    /// The one at the root.
    pub fn default_provider(&self) -> &Arc<Provider> {
        &self.default
    }

    /// By name, in lower case.
    pub fn find(&self, name: &str) -> Option<Arc<Provider>> {
        if name == DEFAULT {
            return Some(Arc::clone(&self.default));
        }
        self.named.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// All of them, the default first.
    pub fn all(&self) -> Vec<Arc<Provider>> {
        let named = self.named.read().unwrap_or_else(PoisonError::into_inner);
        std::iter::once(&self.default).chain(named.values()).cloned().collect()
    }

    /// Adds one; it has been stored before.
    pub fn insert(&self, provider: Arc<Provider>) {
        let mut named = self.named.write().unwrap_or_else(PoisonError::into_inner);
        named.insert(provider.name.clone(), provider);
    }

    /// Takes one out.
    pub fn remove(&self, name: &str) {
        self.named.write().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}

/// Whether a provider may bear this name: 3 to 24 lower-case letters, digits and hyphens, a letter first.
pub fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (3..=24).contains(&name.len())
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(allowed)
        && !name.ends_with('-')
}

/// The base address of a provider, which is the issuer of its tokens.
pub fn issuer(base: &str, name: &str) -> String {
    if name == DEFAULT { base.to_owned() } else { format!("{base}/providers/{name}") }
}
