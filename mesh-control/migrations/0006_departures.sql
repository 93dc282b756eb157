-- Unix seconds at which the node left for good, with its own key: the other nodes take it out, and its lease may be
-- released. NULL for all others, also for those whose agent was stopped. A registration brings the node back.
ALTER TABLE nodes ADD COLUMN left_at BIGINT CHECK (left_at IS NULL OR must_register = 1);

CREATE INDEX nodes_that_left ON nodes (left_at) WHERE left_at IS NOT NULL;
