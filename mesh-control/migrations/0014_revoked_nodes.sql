-- Every batch of heartbeats asks which nodes were revoked: a few of thousands.
CREATE INDEX node_credentials_revoked ON node_credentials (node_id) WHERE revoked_at IS NOT NULL;
