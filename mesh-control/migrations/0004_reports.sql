-- What each node told with its last heartbeat that told something, for the replicas to show to whoever asks
-- any of them. Written on PostgreSQL only: a control plane of its own has it in memory.
--
-- reported_at and counted_at are milliseconds since 1970 by the database's clock, which all replicas share: of two
-- reports of a node the one with the higher reported_at is kept. While a node tells the same again, only
-- reported_at goes on, and counted_at says when it first told what is in flows (last_packet_age_ms in it is of
-- that moment). digest is of data_plane and flows. BYTEA is a name that SQLite takes for any type.
CREATE TABLE reports (
    node_id     TEXT   PRIMARY KEY NOT NULL REFERENCES nodes (node_id) ON DELETE CASCADE,
    reported_at BIGINT NOT NULL,
    counted_at  BIGINT NOT NULL,
    digest      BIGINT NOT NULL,
    data_plane  TEXT,
    flow_count  BIGINT NOT NULL,
    left_out    BIGINT NOT NULL,
    flows       BYTEA  NOT NULL
);
