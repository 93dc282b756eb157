-- database_id: random, made with the database, so that whoever holds a revision can tell whether
-- it is one of this database's. Filled in by the first start after this migration.
-- forgotten_revision: removals up to and including this revision are no longer remembered, and
-- a change feed cannot start before it.
ALTER TABLE cluster ADD COLUMN database_id TEXT NOT NULL DEFAULT '';
ALTER TABLE cluster ADD COLUMN forgotten_revision BIGINT NOT NULL DEFAULT 0;

-- Who was removed, so that the change feed can tell those who still have the node.
CREATE TABLE removed_nodes (
    node_id  TEXT   PRIMARY KEY NOT NULL,
    revision BIGINT NOT NULL
);

CREATE INDEX nodes_by_revision ON nodes (revision);
CREATE INDEX removed_nodes_by_revision ON removed_nodes (revision);
