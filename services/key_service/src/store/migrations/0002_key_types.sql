-- Keys of every type, when they are renewed, and what a restored key must not forget.

-- A key is RSA (modulus, exponent), elliptic (curve, point: uncompressed) or symmetric (bits). SQLite cannot drop
-- NOT NULL, so the table is made anew; the sealed keys are copied as they are.
CREATE TABLE key_versions_new (
    name             TEXT NOT NULL COLLATE NOCASE REFERENCES keys (name) ON DELETE CASCADE,
    version          TEXT NOT NULL,
    number           INTEGER NOT NULL,
    kty              TEXT NOT NULL,
    modulus          BLOB,
    exponent         BLOB,
    curve            TEXT,
    point            BLOB,
    bits             INTEGER,
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
    UNIQUE (name, number),
    CHECK ((modulus IS NOT NULL) + (point IS NOT NULL) + (bits IS NOT NULL) = 1),
    CHECK ((modulus IS NULL) = (exponent IS NULL) AND (point IS NULL) = (curve IS NULL))
) STRICT;

INSERT INTO key_versions_new (name, version, number, kty, modulus, exponent, key_ops, tags, enabled, not_before, expires,
        created, updated, revision, exportable, policy, policy_type, policy_immutable, sealed)
    SELECT name, version, number, kty, modulus, exponent, key_ops, tags, enabled, not_before, expires,
        created, updated, revision, exportable, policy, policy_type, policy_immutable, sealed FROM key_versions;
DROP TABLE key_versions;
ALTER TABLE key_versions_new RENAME TO key_versions;

-- When a name gets a new version by itself. `notified` is the version whose coming end is on record.
CREATE TABLE rotation_policies (
    name     TEXT PRIMARY KEY COLLATE NOCASE REFERENCES keys (name) ON DELETE CASCADE,
    policy   TEXT NOT NULL,
    created  INTEGER NOT NULL,
    updated  INTEGER NOT NULL,
    notified TEXT
) STRICT;

-- Generations of purged keys, by version: a key that comes back from a backup goes on from there.
CREATE TABLE retired_generations (
    version    TEXT NOT NULL,
    vm_id      TEXT NOT NULL,
    generation INTEGER NOT NULL,
    PRIMARY KEY (version, vm_id)
) STRICT;
