-- AMD publishes a list for VCEKs and one for VLEKs of each root; what was stored until now are those for VCEKs.
CREATE TABLE lists (
    root TEXT NOT NULL,
    key TEXT NOT NULL CHECK (key IN ('VCEK', 'VLEK')),
    list BLOB NOT NULL,
    source TEXT NOT NULL,
    learnt_on INTEGER NOT NULL,
    PRIMARY KEY (root, key)
) STRICT, WITHOUT ROWID;

INSERT INTO lists SELECT root, 'VCEK', list, source, learnt_on FROM collateral_lists;
DROP TABLE collateral_lists;
ALTER TABLE lists RENAME TO collateral_lists;
