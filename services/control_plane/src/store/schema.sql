-- Wanted and reached state of everything that a tenant named. Ids are compared as `key`: the id in lower case.
CREATE TABLE IF NOT EXISTS resources (
    key           TEXT PRIMARY KEY,
    id            TEXT NOT NULL,
    kind          TEXT NOT NULL,
    subscription  TEXT NOT NULL,
    group_key     TEXT NOT NULL,
    name          TEXT NOT NULL,
    location      TEXT NOT NULL,
    incarnation   TEXT NOT NULL,
    desired       TEXT NOT NULL,
    generation    INTEGER NOT NULL,
    reached       INTEGER NOT NULL,
    deleted       INTEGER NOT NULL DEFAULT 0,
    created_at    INTEGER NOT NULL,
    changed_at    INTEGER NOT NULL,
    CHECK (reached >= 0 AND reached <= generation AND generation >= 1)
) STRICT;
CREATE INDEX IF NOT EXISTS resources_by_group ON resources (group_key, kind);
CREATE INDEX IF NOT EXISTS resources_by_kind ON resources (kind, subscription);

-- Why a generation was not reached. One row a generation, so that a later success does not rewrite an operation's end.
CREATE TABLE IF NOT EXISTS failures (
    incarnation   TEXT NOT NULL,
    generation    INTEGER NOT NULL,
    failure       TEXT NOT NULL,
    at            INTEGER NOT NULL,
    PRIMARY KEY (incarnation, generation)
) STRICT;

-- What is fixed about a VM when it is created, and what the reconcilers found out for it since.
CREATE TABLE IF NOT EXISTS vms (
    key               TEXT PRIMARY KEY REFERENCES resources (key) ON DELETE CASCADE,
    vm_id             TEXT NOT NULL UNIQUE,
    facts             TEXT NOT NULL,
    provisioning_data TEXT NOT NULL,
    key_id            TEXT,
    host              TEXT,
    launch_document   TEXT,
    trust_bundle      TEXT,
    removed_revision  INTEGER,
    absent            INTEGER NOT NULL DEFAULT 0,
    state             TEXT,
    evidence          TEXT,
    evidence_at       INTEGER,
    milestones        TEXT NOT NULL DEFAULT '{}',
    waiting           TEXT NOT NULL DEFAULT '',
    CHECK (launch_document IS NULL OR (key_id IS NOT NULL AND host IS NOT NULL AND trust_bundle IS NOT NULL))
) STRICT;
CREATE INDEX IF NOT EXISTS vms_by_host ON vms (host);

CREATE TABLE IF NOT EXISTS hosts (
    name       TEXT PRIMARY KEY,
    capacity   TEXT NOT NULL,
    synced_at  INTEGER NOT NULL,
    revision   INTEGER NOT NULL
) STRICT;

-- An operation is a resource's incarnation and a generation of it; its status is derived.
CREATE TABLE IF NOT EXISTS operations (
    id            TEXT PRIMARY KEY,
    subscription  TEXT NOT NULL,
    resource_key  TEXT NOT NULL,
    incarnation   TEXT NOT NULL,
    generation    INTEGER NOT NULL,
    verb          TEXT NOT NULL,
    started_at    INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS operations_by_age ON operations (started_at);
