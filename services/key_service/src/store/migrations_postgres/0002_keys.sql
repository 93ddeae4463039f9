-- What the SQLite schema holds after its second migration, with its meaning. Migrations here have the numbers of SQLite's.
--
-- SQLite compares names without regard to case (NOCASE). Here `name` is the lower-case form, in the order of its bytes, and
-- `keys.spelling` the form of the key's creation. Times are Unix seconds.

CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value BYTEA NOT NULL
);

CREATE TABLE keys (
    name     TEXT COLLATE "C" PRIMARY KEY,
    spelling TEXT COLLATE "C" NOT NULL,
    created  BIGINT NOT NULL,
    deleted  BIGINT,
    purge_at BIGINT,
    CHECK (name = lower(spelling))
);

-- `row_number` grows with each version that is stored, as SQLite's rowid does.
CREATE TABLE key_versions (
    row_number       BIGINT GENERATED ALWAYS AS IDENTITY UNIQUE,
    name             TEXT COLLATE "C" NOT NULL REFERENCES keys (name) ON DELETE CASCADE,
    version          TEXT NOT NULL,
    number           BIGINT NOT NULL,
    kty              TEXT NOT NULL,
    modulus          BYTEA,
    exponent         BYTEA,
    curve            TEXT,
    point            BYTEA,
    bits             BIGINT,
    key_ops          TEXT NOT NULL,
    tags             TEXT NOT NULL,
    enabled          BOOLEAN NOT NULL,
    not_before       BIGINT,
    expires          BIGINT,
    created          BIGINT NOT NULL,
    updated          BIGINT NOT NULL,
    revision         BIGINT NOT NULL DEFAULT 0,
    exportable       BOOLEAN NOT NULL,
    policy           BYTEA,
    policy_type      TEXT,
    policy_immutable BOOLEAN NOT NULL,
    sealed           BYTEA NOT NULL,
    PRIMARY KEY (name, version),
    UNIQUE (name, number),
    CHECK (num_nonnulls(modulus, point, bits) = 1),
    CHECK ((modulus IS NULL) = (exponent IS NULL) AND (point IS NULL) = (curve IS NULL))
);

CREATE TABLE used_tokens (
    issuer TEXT COLLATE "C" NOT NULL,
    token  TEXT COLLATE "C" NOT NULL,
    forget BIGINT NOT NULL,
    PRIMARY KEY (issuer, token)
);
CREATE INDEX used_tokens_forget ON used_tokens (forget);

CREATE TABLE generations (
    name       TEXT COLLATE "C" NOT NULL REFERENCES keys (name) ON DELETE CASCADE,
    vm_id      TEXT COLLATE "C" NOT NULL,
    generation BIGINT NOT NULL,
    updated    BIGINT NOT NULL,
    PRIMARY KEY (name, vm_id)
);

CREATE TABLE decisions (
    sequence BIGINT PRIMARY KEY,
    entry    TEXT NOT NULL
);

CREATE TABLE rotation_policies (
    name     TEXT COLLATE "C" PRIMARY KEY REFERENCES keys (name) ON DELETE CASCADE,
    policy   TEXT NOT NULL,
    created  BIGINT NOT NULL,
    updated  BIGINT NOT NULL,
    notified TEXT
);

CREATE TABLE retired_generations (
    version    TEXT COLLATE "C" NOT NULL,
    vm_id      TEXT COLLATE "C" NOT NULL,
    generation BIGINT NOT NULL,
    PRIMARY KEY (version, vm_id)
);
