-- What was learnt from AMD's key distribution service, from evidence or from a bundle. Everything in these tables was
-- verified against a pinned root before it was written, and is verified again before it is used.

-- Certificates of chips (VCEK), DER. Chip and TCB in hex.
CREATE TABLE collateral_vceks (
    product TEXT NOT NULL,
    chip_id TEXT NOT NULL,
    tcb TEXT NOT NULL,
    certificate BLOB NOT NULL,
    learnt_on INTEGER NOT NULL,
    PRIMARY KEY (product, chip_id, tcb)
) STRICT, WITHOUT ROWID;

-- ASK or ASVK with its ARK, DER.
CREATE TABLE collateral_issuers (
    product TEXT NOT NULL,
    issues TEXT NOT NULL,
    thumbprint TEXT NOT NULL,
    ask BLOB NOT NULL,
    ark BLOB NOT NULL,
    learnt_on INTEGER NOT NULL,
    PRIMARY KEY (product, issues, thumbprint)
) STRICT, WITHOUT ROWID;

-- The newest revocation list of each root, DER. The source is the URL that it is fetched anew from, or empty.
CREATE TABLE collateral_lists (
    root TEXT PRIMARY KEY NOT NULL,
    list BLOB NOT NULL,
    source TEXT NOT NULL,
    learnt_on INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Signed tables of minimum patch levels, as compact JWS; the one with the highest sequence is in force.
CREATE TABLE minimum_tcb_tables (
    sequence INTEGER PRIMARY KEY NOT NULL,
    jws TEXT NOT NULL,
    set_by TEXT NOT NULL,
    set_on INTEGER NOT NULL
) STRICT;

-- Reference values of other services, as compact JWS; the newest document of each issuer.
CREATE TABLE reference_documents (
    issuer TEXT PRIMARY KEY NOT NULL,
    jws TEXT NOT NULL,
    issued_on INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
