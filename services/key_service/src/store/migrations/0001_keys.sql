-- Keys, the record of releases, and the decision log. Times are Unix seconds.

CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT;

-- A name and whether it is deleted. Names are compared without regard to case, as Key Vault does.
CREATE TABLE keys (
    name     TEXT PRIMARY KEY COLLATE NOCASE,
    created  INTEGER NOT NULL,
    deleted  INTEGER,
    purge_at INTEGER
) STRICT;

-- `number` counts the versions of a name from 1; the highest is the current one.
-- `revision` grows with each change of the row.
-- `sealed` is nonce, ciphertext and tag of the PKCS#8 private key.
CREATE TABLE key_versions (
    name             TEXT NOT NULL COLLATE NOCASE REFERENCES keys (name) ON DELETE CASCADE,
    version          TEXT NOT NULL,
    number           INTEGER NOT NULL,
    kty              TEXT NOT NULL,
    modulus          BLOB NOT NULL,
    exponent         BLOB NOT NULL,
    key_ops          TEXT NOT NULL,
    tags             TEXT NOT NULL,
    enabled          INTEGER NOT NULL,
    not_before       INTEGER,
    expires          INTEGER,
    created          INTEGER NOT NULL,
    updated          INTEGER NOT NULL,
    revision         INTEGER NOT NULL DEFAULT 0,
    exportable       INTEGER NOT NULL,
    policy           BLOB,
    policy_type      TEXT,
    policy_immutable INTEGER NOT NULL,
    sealed           BLOB NOT NULL,
    PRIMARY KEY (name, version),
    UNIQUE (name, number)
) STRICT;

-- Attestation tokens that released a key: each is good for one release.
CREATE TABLE used_tokens (
    issuer  TEXT NOT NULL,
    token   TEXT NOT NULL,
    forget  INTEGER NOT NULL,
    PRIMARY KEY (issuer, token)
) STRICT;
CREATE INDEX used_tokens_forget ON used_tokens (forget);

-- The guest-state generation that was released last, by key and VM.
CREATE TABLE generations (
    name       TEXT NOT NULL COLLATE NOCASE REFERENCES keys (name) ON DELETE CASCADE,
    vm_id      TEXT NOT NULL,
    generation INTEGER NOT NULL,
    updated    INTEGER NOT NULL,
    PRIMARY KEY (name, vm_id)
) STRICT;

-- The decision log: one JSON document an entry, hash-chained.
CREATE TABLE decisions (
    sequence INTEGER PRIMARY KEY,
    entry    TEXT NOT NULL
) STRICT;
