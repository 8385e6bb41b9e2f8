-- door_book: the tables of one site's door book (SQLite, not the lake).
--
-- reads    nothing
-- params   none
-- returns  nothing

PRAGMA journal_mode = WAL;

-- one file or object of the source
CREATE TABLE IF NOT EXISTS file (
    address TEXT PRIMARY KEY,
    n_bytes INTEGER NOT NULL,
    modified_ns INTEGER NOT NULL,
    changed_ns INTEGER NOT NULL,
    base TEXT,
    is_done INTEGER NOT NULL,
    arrival_key TEXT NOT NULL DEFAULT '',
    content TEXT NOT NULL DEFAULT '',
    parts TEXT NOT NULL DEFAULT '[]',
    n_tries INTEGER NOT NULL DEFAULT 0,
    run TEXT
) WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS file_of_series ON file (base, is_done);
CREATE INDEX IF NOT EXISTS file_of_run ON file (run);
CREATE INDEX IF NOT EXISTS file_of_arrival ON file (arrival_key);
CREATE INDEX IF NOT EXISTS file_to_take_in ON file (base) WHERE NOT is_done;

-- what the bytes of a file of a series showed: an instance, and the parts that it went into
CREATE TABLE IF NOT EXISTS shown (
    base TEXT NOT NULL,
    instance TEXT NOT NULL,
    content TEXT NOT NULL,
    parts TEXT NOT NULL,
    PRIMARY KEY (base, instance, content)
) WITHOUT ROWID;

-- files whose pixels a person has looked at: what looks like text in them names nobody
CREATE TABLE IF NOT EXISTS released (
    base TEXT NOT NULL,
    content TEXT NOT NULL,
    because TEXT NOT NULL,
    PRIMARY KEY (base, content)
) WITHOUT ROWID;

-- series that a run is to take in together
CREATE TABLE IF NOT EXISTS shard (name TEXT PRIMARY KEY, bases TEXT NOT NULL) WITHOUT ROWID;

-- single facts: the cursor of the listing, who is at work, the tables it goes with
CREATE TABLE IF NOT EXISTS fact (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

-- an older book released whole series, for ever: of those the files that it holds now
INSERT OR IGNORE INTO released (base, content, because)
SELECT base, content, (SELECT value FROM fact WHERE name = 'released/' || base)
FROM file
WHERE base IN (SELECT substr(name, 10) FROM fact WHERE name >= 'released/' AND name < 'released0') AND content <> '';
DELETE FROM fact WHERE name >= 'released/' AND name < 'released0';
