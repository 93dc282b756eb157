-- Integers and text only, so that the same file serves SQLite and PostgreSQL.

-- One row: what this cluster is. Every change of what the node list shows raises `revision`; the
-- UPDATE that does so is the first statement of every such transaction, and its row lock is what
-- makes allocations follow one another.
CREATE TABLE cluster (
    id           INTEGER PRIMARY KEY CHECK (id = 1),
    cluster_cidr TEXT    NOT NULL,
    node_prefix  INTEGER NOT NULL CHECK (node_prefix BETWEEN 1 AND 32),
    revision     BIGINT  NOT NULL
);

-- must_register = 1: only a registration brings the node back, because it deregistered or because
-- another node took over its host_ip while it was down. Its heartbeats are answered 404.
CREATE TABLE nodes (
    node_id        TEXT    PRIMARY KEY NOT NULL,
    node_key       TEXT    UNIQUE,
    hostname       TEXT    NOT NULL,
    host_ip        TEXT    NOT NULL,
    cpu_cores      BIGINT,
    ram_mb         BIGINT,
    status         TEXT    NOT NULL CHECK (status IN ('up', 'down')),
    must_register  INTEGER NOT NULL CHECK (must_register IN (0, 1)),
    registered_at  BIGINT  NOT NULL,
    last_heartbeat BIGINT  NOT NULL,
    revision       BIGINT  NOT NULL,
    CHECK (must_register = 0 OR status = 'down')
);

-- Of the nodes that a heartbeat can bring up, no two share an underlay address.
CREATE UNIQUE INDEX nodes_one_holder_per_host_ip ON nodes (host_ip) WHERE must_register = 0;
CREATE INDEX nodes_by_host_ip ON nodes (host_ip);

-- A row for every subnet that was ever handed out. The primary key lets a subnet have one holder,
-- UNIQUE lets a node hold one subnet; node_id IS NULL means released, and then released_revision
-- orders who is handed out first (a revision, because wall clocks step).
CREATE TABLE leases (
    subnet_index      INTEGER PRIMARY KEY NOT NULL CHECK (subnet_index >= 1),
    node_id           TEXT    UNIQUE REFERENCES nodes (node_id),
    leased_at         BIGINT  NOT NULL,
    released_revision BIGINT,
    CHECK ((node_id IS NULL) = (released_revision IS NOT NULL))
);
