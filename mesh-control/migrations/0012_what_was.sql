-- Whether anybody ever had credentials, or was to get some. Then nobody is let in without any, also when none are left.
ALTER TABLE cluster ADD COLUMN had_credentials BIGINT NOT NULL DEFAULT 0;

UPDATE cluster SET had_credentials = 1
WHERE EXISTS (SELECT 1 FROM node_credentials) OR EXISTS (SELECT 1 FROM operators);

-- Authorities that are trusted no longer because another has taken their place: every replica drops their keys from its
-- file, whenever it hears of it. A key that is in no table is not dropped: the database may have gone back.
CREATE TABLE ended_authorities (
    key_digest TEXT   PRIMARY KEY NOT NULL,
    ended_at   BIGINT NOT NULL
);
