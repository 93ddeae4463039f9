-- A guest state that moves from one key to another takes its generation along: rows of one VM with the same lineage hold
-- the same state, and grow together. NULL: the state was never under another name.
ALTER TABLE generations ADD COLUMN lineage TEXT;
