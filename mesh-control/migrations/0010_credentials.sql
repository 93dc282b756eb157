-- How far the cluster is secured: what was there before there were credentials goes on as it was. A new database is
-- secured from its start.
ALTER TABLE cluster ADD COLUMN stage TEXT NOT NULL DEFAULT 'open' CHECK (stage IN ('open', 'moving', 'secured'));

-- Raised by every change of what is below, and not by others: the node list does not change with it. Like `revision`,
-- the UPDATE of it is the first statement of every such transaction.
ALTER TABLE cluster ADD COLUMN credentials_revision BIGINT NOT NULL DEFAULT 0;

-- The certificates of the mesh's authorities; their keys are in files, and never here. One signs; 'next' is trusted
-- before it signs, 'last' after it did.
CREATE TABLE authorities (
    key_digest  TEXT   PRIMARY KEY NOT NULL,
    certificate TEXT   NOT NULL,
    state       TEXT   NOT NULL CHECK (state IN ('next', 'signs', 'last')),
    added_at    BIGINT NOT NULL,
    revision    BIGINT NOT NULL
);

CREATE UNIQUE INDEX one_authority_signs ON authorities (state) WHERE state = 'signs';

-- By which key a node is known. Kept when the node is removed, so that what was revoked stays revoked: no longer than
-- any certificate for it can be used. The node need not have registered. issuer: the authority that signed its latest
-- certificate. joined_by: the token, for a host that asks again because the answer was lost. only_hostname: the name that
-- the token bound it to.
CREATE TABLE node_credentials (
    node_id       TEXT   PRIMARY KEY NOT NULL,
    key_digest    TEXT   NOT NULL,
    issuer        TEXT   NOT NULL,
    expires_at    BIGINT NOT NULL,
    joined_at     BIGINT NOT NULL,
    joined_by     TEXT   NOT NULL,
    only_hostname TEXT,
    revoked_at    BIGINT,
    revision      BIGINT NOT NULL
);

CREATE INDEX node_credentials_by_revision ON node_credentials (revision);
CREATE INDEX node_credentials_by_key ON node_credentials (key_digest);
CREATE INDEX node_credentials_by_hostname ON node_credentials (only_hostname) WHERE only_hostname IS NOT NULL;

-- What lets hosts join. secret_digest: the SHA-256 of a random secret of 256 bits, which is stored nowhere.
CREATE TABLE join_tokens (
    token_id      TEXT    PRIMARY KEY NOT NULL,
    secret_digest TEXT    NOT NULL,
    uses          INTEGER NOT NULL CHECK (uses >= 1),
    uses_left     INTEGER NOT NULL CHECK (uses_left BETWEEN 0 AND uses),
    expires_at    BIGINT  NOT NULL,
    only_hostname TEXT,
    created_at    BIGINT  NOT NULL,
    created_by    TEXT    NOT NULL,
    revoked_at    BIGINT,
    revision      BIGINT  NOT NULL
);

CREATE INDEX join_tokens_by_revision ON join_tokens (revision);

-- Who may look, and who may change.
CREATE TABLE operators (
    operator_id   TEXT   PRIMARY KEY NOT NULL,
    name          TEXT   NOT NULL,
    role          TEXT   NOT NULL CHECK (role IN ('read', 'operate')),
    secret_digest TEXT   NOT NULL,
    created_at    BIGINT NOT NULL,
    revoked_at    BIGINT,
    revision      BIGINT NOT NULL
);

CREATE INDEX operators_by_revision ON operators (revision);

-- Who did what, from where. at: Unix seconds. entry_id counts up within one writer, which is random: entries of one
-- second stand in their order.
CREATE TABLE audit (
    at       BIGINT NOT NULL,
    writer   TEXT   NOT NULL,
    entry_id BIGINT NOT NULL,
    who      TEXT   NOT NULL,
    source   TEXT   NOT NULL,
    action   TEXT   NOT NULL,
    subject  TEXT   NOT NULL,
    outcome  TEXT   NOT NULL,
    times    BIGINT NOT NULL,
    PRIMARY KEY (at, writer, entry_id)
);
