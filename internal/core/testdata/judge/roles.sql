-- Who may see what.

CREATE TABLE secrets (id int PRIMARY KEY, owner name, v text);
CREATE TABLE open (id int PRIMARY KEY, v text);
INSERT INTO secrets VALUES (1, :'role_a', 'of a'), (2, :'role_b', 'of b'), (3, 'postgres', 'of postgres');
INSERT INTO open VALUES (1, 'x'), (2, 'y');
CREATE VIEW peek AS SELECT * FROM secrets;
CREATE FUNCTION all_secrets() RETURNS bigint LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public AS 'SELECT count(*) FROM secrets';
CREATE PROCEDURE as_owner() LANGUAGE sql SECURITY DEFINER SET search_path = public AS 'UPDATE secrets SET v = v || ''!'' WHERE id = 1';
CREATE ROLE :role_a;
CREATE ROLE :role_b;
GRANT SELECT, UPDATE ON secrets, peek TO :role_a, :role_b;
GRANT SELECT (id) ON open TO :role_a;
-- expect: cached
SELECT * FROM secrets ORDER BY id;
SET ROLE :role_a;
-- expect: cached
SELECT * FROM secrets ORDER BY id;
-- expect: cached
SELECT id FROM open ORDER BY id;
-- expect: error 42501
SELECT * FROM open ORDER BY id;
-- expect: error 42501
DELETE FROM secrets;
UPDATE secrets SET v = 'by a' WHERE id = 1;
CALL as_owner();
SELECT all_secrets();
RESET ROLE;
REVOKE SELECT ON secrets FROM :role_a;
SET ROLE :role_a;
-- expect: error 42501
SELECT * FROM secrets ORDER BY id;
-- expect: cached
SELECT * FROM peek ORDER BY id;
RESET ROLE;
REVOKE ALL ON peek FROM :role_a;
SET ROLE :role_a;
-- expect: error 42501
SELECT * FROM peek ORDER BY id;
RESET ROLE;
GRANT :role_b TO :role_a;
SET ROLE :role_a;
SELECT * FROM peek ORDER BY id;
RESET ROLE;
REVOKE :role_b FROM :role_a;
SET ROLE :role_a;
-- expect: error 42501
SELECT * FROM peek ORDER BY id;
RESET ROLE;
GRANT SELECT, UPDATE, INSERT, DELETE ON secrets TO :role_a;
ALTER TABLE secrets ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON secrets USING (owner = current_user OR v = current_setting('app.see', true));
SET ROLE :role_a;
-- expect: bypass
SELECT * FROM secrets ORDER BY id;
UPDATE secrets SET v = 'all mine';
-- expect: error 42501
INSERT INTO secrets VALUES (9, :'role_b', 'x');
INSERT INTO secrets VALUES (9, :'role_a', 'x');
SET app.see = 'of b';
SELECT * FROM secrets ORDER BY id;
DELETE FROM secrets WHERE id = 9;
RESET app.see;
RESET ROLE;
SELECT * FROM peek ORDER BY id;
ALTER TABLE secrets FORCE ROW LEVEL SECURITY;
SELECT * FROM peek ORDER BY id;
CREATE FUNCTION writing_policy(name) RETURNS boolean LANGUAGE plpgsql AS 'begin update open set v = ''seen'' where id = 1; return true; end';
GRANT UPDATE ON open TO :role_b;
GRANT SELECT ON open TO :role_b;
CREATE POLICY writes ON secrets FOR SELECT TO :role_b USING (writing_policy(owner));
SET ROLE :role_b;
SELECT id FROM secrets ORDER BY id;
UPDATE secrets SET v = v WHERE id = 2;
SET row_security = off;
-- expect: error 42501
SELECT id FROM secrets ORDER BY id;
RESET row_security;
RESET ROLE;
ALTER TABLE secrets DISABLE ROW LEVEL SECURITY;
SELECT * FROM secrets ORDER BY id;
SET SESSION AUTHORIZATION :role_b;
SELECT id FROM secrets ORDER BY id;
SELECT current_user, session_user;
RESET SESSION AUTHORIZATION;
BEGIN;
SET LOCAL ROLE :role_a;
SELECT id FROM open ORDER BY id;
COMMIT;
SELECT * FROM open ORDER BY id;
ALTER TABLE open OWNER TO :role_a;
DELETE FROM open WHERE id = 2;
REASSIGN OWNED BY :role_a TO postgres;
DROP OWNED BY :role_a, :role_b;
DROP ROLE :role_a;
DROP ROLE :role_b;
