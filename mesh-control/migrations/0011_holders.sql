-- Whether another node was let have the address, because it showed that it is there. A node that only stopped, or fell
-- silent, keeps the address for when it comes back.
ALTER TABLE nodes ADD COLUMN displaced INTEGER NOT NULL DEFAULT 0 CHECK (displaced IN (0, 1));

-- Whoever has to register while another node is at its address was displaced.
UPDATE nodes SET displaced = 1 WHERE must_register = 1 AND EXISTS
    (SELECT 1 FROM nodes AS other WHERE other.host_ip = nodes.host_ip AND other.must_register = 0);

-- Whether the node is known by a certificate: then the lease is nobody's who shows another, whatever key or address it has.
ALTER TABLE remembered_leases ADD COLUMN has_credentials INTEGER NOT NULL DEFAULT 0 CHECK (has_credentials IN (0, 1));

-- The node that a token was made for, where there was one of that name when it was made. Names can be taken by others.
ALTER TABLE join_tokens ADD COLUMN only_node_id TEXT;
-- The rows of nodes are all there is to tell whom those that were made before mean.
UPDATE join_tokens SET only_node_id =
    (SELECT node_id FROM nodes WHERE nodes.node_id = only_hostname OR nodes.hostname = only_hostname)
    WHERE (SELECT COUNT(*) FROM nodes WHERE nodes.node_id = only_hostname OR nodes.hostname = only_hostname) = 1;
