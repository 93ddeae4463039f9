//! Who is asking: the token endpoint's keys and tokens, and the directory of tenants, subscriptions and clients.

mod directory;
mod signing_key;
mod tokens;

pub use directory::{Caller, Directory, Verdict};
pub use signing_key::{SigningKey, SigningKeyError, load_secret};
pub use tokens::{Claims, TokenAuthority, TokenRefusal};
