//! Named vaults: their life, who may use them, and what keeps them apart.

mod access;
mod isolation;
mod life;
