-- Providers: named instances beside the one at the root. JSON of public_api::attestation_policy::ProviderSettings.
CREATE TABLE providers (
    name TEXT PRIMARY KEY NOT NULL,
    settings TEXT NOT NULL,
    created_on INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Every version of every policy that was ever set; rows are only added, and go with their provider.
CREATE TABLE policy_versions (
    provider TEXT NOT NULL,
    attestation_type TEXT NOT NULL,
    version INTEGER NOT NULL,
    jws TEXT NOT NULL,
    text TEXT NOT NULL,
    signer BLOB,
    set_by TEXT NOT NULL,
    set_on INTEGER NOT NULL,
    PRIMARY KEY (provider, attestation_type, version)
) STRICT, WITHOUT ROWID;

-- Which versions decide and are tried; no row, or NULL, for the shipped policy and for none.
CREATE TABLE policies_in_force (
    provider TEXT NOT NULL,
    attestation_type TEXT NOT NULL,
    active INTEGER,
    staged INTEGER,
    PRIMARY KEY (provider, attestation_type)
) STRICT, WITHOUT ROWID;

-- DER of the certificates that sign a provider's policies.
CREATE TABLE policy_signers (
    provider TEXT NOT NULL,
    thumbprint TEXT NOT NULL,
    certificate BLOB NOT NULL,
    PRIMARY KEY (provider, thumbprint)
) STRICT, WITHOUT ROWID;

-- The newest verified evidence of each VM, as the claims that policies see, for trying policies on.
CREATE TABLE evidence (
    provider TEXT NOT NULL,
    attestation_type TEXT NOT NULL,
    subject TEXT NOT NULL,
    claims TEXT NOT NULL,
    seen_on INTEGER NOT NULL,
    PRIMARY KEY (provider, attestation_type, subject)
) STRICT, WITHOUT ROWID;
