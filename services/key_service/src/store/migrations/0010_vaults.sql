-- The named vaults of an installation; in use in the default vault's database alone. The number leaves room for changes of the
-- keys' own tables, which every vault has.
CREATE TABLE vaults (
    name      TEXT PRIMARY KEY,              -- lower case
    id        TEXT NOT NULL UNIQUE,          -- random: names its folder, and its sealing key is derived from it
    settings  TEXT NOT NULL,                 -- JSON: public_api::vaults::VaultSettings
    deleted   INTEGER,                       -- Unix seconds; NULL for a live vault
    purge_at  INTEGER,
    purging   INTEGER NOT NULL DEFAULT 0,    -- 1: its files are being removed, nothing brings it back
    CHECK ((deleted IS NULL) = (purge_at IS NULL) AND (purging = 0 OR deleted IS NOT NULL))
) STRICT;
