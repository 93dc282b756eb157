-- Each revision's mark, random: who stands at a revision can tell by it whether this database is what became of the
-- one that was read then, or one that went back and took another way since. The last 10,000 are kept.
CREATE TABLE history (
    revision BIGINT PRIMARY KEY NOT NULL,
    mark     BIGINT NOT NULL
);

-- Milliseconds since 1970 by the database's clock until which no subnet is leased anew: after the database went back,
-- each replica has to say first what it remembers.
ALTER TABLE cluster ADD COLUMN held_until BIGINT NOT NULL DEFAULT 0;

-- Leases that a replica remembers and the database, which went back, does not know. Until then, in milliseconds as
-- above, or until the node registers, the subnet is that node's.
CREATE TABLE remembered_leases (
    subnet_index INTEGER NOT NULL CHECK (subnet_index >= 1),
    node_id      TEXT    NOT NULL,
    node_key     TEXT,
    hostname     TEXT    NOT NULL,
    host_ip      TEXT    NOT NULL,
    until        BIGINT  NOT NULL,
    PRIMARY KEY (subnet_index, node_id)
);
