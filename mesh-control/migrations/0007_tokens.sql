-- The token that was handed out to the node last, and the one that it used last, as heartbeats had them when they were
-- written: by them a copy of the node's host is told from the node. NULL: none was handed out yet.
ALTER TABLE nodes ADD COLUMN succession TEXT;
