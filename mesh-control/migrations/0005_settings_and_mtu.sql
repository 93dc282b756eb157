-- What the nodes of the cluster have to have in common. The options of the control plane that started last; what
-- nodes had before there were options.
ALTER TABLE cluster ADD COLUMN vxlan_port INTEGER NOT NULL DEFAULT 4789 CHECK (vxlan_port BETWEEN 1 AND 65535);
ALTER TABLE cluster ADD COLUMN vni INTEGER NOT NULL DEFAULT 100 CHECK (vni BETWEEN 1 AND 16777215);

-- The largest packet that the node takes out of the overlay, in bytes, as it says itself. NULL: it has not told.
ALTER TABLE nodes ADD COLUMN overlay_mtu INTEGER CHECK (overlay_mtu BETWEEN 68 AND 65535);
