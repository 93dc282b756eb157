-- Ranges of subnets that an operator keeps from being handed out; they do not overlap.
CREATE TABLE reserved_ranges (
    first_index INTEGER PRIMARY KEY NOT NULL CHECK (first_index >= 1),
    last_index  INTEGER NOT NULL,
    cidr        TEXT    NOT NULL UNIQUE,
    reason      TEXT,
    reserved_at BIGINT  NOT NULL,
    CHECK (last_index >= first_index)
);

-- Ranges that were never handed out although a higher subnet was, because they were reserved then.
-- Together with the rows of leases they are exactly the subnets up to the highest ever leased.
CREATE TABLE skipped_ranges (
    first_index INTEGER PRIMARY KEY NOT NULL CHECK (first_index >= 1),
    last_index  INTEGER NOT NULL,
    CHECK (last_index >= first_index)
);

CREATE INDEX leases_by_release ON leases (released_revision, subnet_index) WHERE node_id IS NULL;
