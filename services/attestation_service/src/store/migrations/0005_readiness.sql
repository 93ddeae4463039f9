-- One row, written again by each check whether the database takes writes.
CREATE TABLE readiness (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    written_on INTEGER NOT NULL
) STRICT;
