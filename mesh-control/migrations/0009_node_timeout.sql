-- How long a node may be silent, in milliseconds: the option of the control plane that started last. Replicas that
-- disagree would call each other's nodes down.
ALTER TABLE cluster ADD COLUMN node_timeout_ms BIGINT NOT NULL DEFAULT 30000 CHECK (node_timeout_ms > 0);
