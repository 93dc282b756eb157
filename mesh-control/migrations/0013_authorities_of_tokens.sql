-- The authority that a join token names. Once another one signs nobody joins by the token, which is listed so. Of tokens from
-- before it is not known, and they are listed as they were.
ALTER TABLE join_tokens ADD COLUMN authority TEXT;
