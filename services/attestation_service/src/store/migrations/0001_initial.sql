-- Nonces that were presented. They need no row before that: a nonce proves by itself who issued it and until when.
CREATE TABLE used_nonces (
    nonce TEXT PRIMARY KEY NOT NULL,
    expires_on INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The decision log: JSON of public_api::decision_log::Entry. Rows are only ever added.
CREATE TABLE decision_log (
    sequence INTEGER PRIMARY KEY NOT NULL,
    entry TEXT NOT NULL
) STRICT;

CREATE TRIGGER decision_log_keeps_entries BEFORE UPDATE ON decision_log
BEGIN
    SELECT RAISE(ABORT, 'entries of the decision log are never changed');
END;

CREATE TRIGGER decision_log_keeps_rows BEFORE DELETE ON decision_log
BEGIN
    SELECT RAISE(ABORT, 'entries of the decision log are never removed');
END;
