-- Boot chains of images, as JSON of `BootReference`.
CREATE TABLE boot_references (
    name TEXT PRIMARY KEY NOT NULL,
    reference TEXT NOT NULL
) STRICT, WITHOUT ROWID;
