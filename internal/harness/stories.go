package harness

// Set-ups that stories of several packages have in common.

// CodeTables are for what runs beside the text of a statement: triggers, rules, functions,
// procedures. Each story has a table that is written, one that only code
// writes, and one that nobody writes and whose entry must survive.
const CodeTables = `
	CREATE TABLE acts (id int PRIMARY KEY, note text, updated_at timestamptz);
	INSERT INTO acts VALUES (1, 'a'), (2, 'b'), (3, 'c');
	CREATE TABLE log (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, line text);
	CREATE TABLE totals (id int PRIMARY KEY, n int); INSERT INTO totals VALUES (1, 0), (2, 0);
	CREATE TABLE calm (id int PRIMARY KEY, v text); INSERT INTO calm VALUES (1, 'calm');`

const (
	ReadAct    = "SELECT id, note FROM acts WHERE id = $1"
	ReadLog    = "SELECT count(*), max(line) FROM log"
	ReadTotals = "SELECT n FROM totals WHERE id = 1"
	ReadCalm   = "SELECT v FROM calm"
)

// WarmAll caches all of it, whatever of it is cached already.
func WarmAll(f *Fixture) {
	f.Helper()
	f.Known(ReadAct, 1)
	f.Known(ReadAct, 2)
	f.Known(ReadLog)
	f.Known(ReadTotals)
	f.Known(ReadCalm)
}

// TemporarySetup is for what a session does with temporary objects, which ItemByID mentions none of.
const TemporarySetup = People + `
	CREATE TABLE items (id int PRIMARY KEY, name text);
	INSERT INTO items VALUES (1, 'one'), (2, 'two');
	CREATE FUNCTION checked(v int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN v; END';`

const ItemByID = "SELECT name FROM items WHERE id = $1"

// TemporaryWork has code that makes and drops them.
const TemporaryWork = TemporarySetup + `
	CREATE VIEW seen AS SELECT id, name FROM users WHERE id < 100;
	CREATE FUNCTION run(what text) RETURNS int LANGUAGE plpgsql AS 'BEGIN EXECUTE what; RETURN 1; END';
	CREATE FUNCTION keeps() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
	CREATE FUNCTION work(first int) RETURNS bigint LANGUAGE plpgsql AS $$ DECLARE found bigint; BEGIN
		CREATE TEMP TABLE IF NOT EXISTS work ON COMMIT DROP AS SELECT id, name FROM users;
		DELETE FROM work WHERE id < first;
		SELECT count(*) INTO found FROM work;
		RETURN found; END $$;
	CREATE PROCEDURE hide() LANGUAGE plpgsql AS $$ BEGIN
		DROP TABLE IF EXISTS pg_temp.users;
		CREATE TEMP TABLE users (id int, name text, city text);
		INSERT INTO users VALUES (7, 'hidden', ''); END $$;
	CREATE PROCEDURE unhide() LANGUAGE plpgsql AS 'BEGIN DROP TABLE users; END';`

// Pin returns a connection of v with something that ends with it.
func Pin(v Via) (Via, func()) {
	v.F.Helper()
	conn := v.F.Conn(v.DB)
	on := v.On(conn)
	on.Exec("SELECT pg_advisory_lock(77)")
	return on, func() {
		v.F.Helper()
		var held bool
		if err := conn.QueryRowContext(v.F.Ctx, "SELECT pg_advisory_unlock(77)").Scan(&held); err != nil || !held {
			v.F.Errorf("the connection has lost its lock: %v, %v", held, err)
		}
		var timeout, status string
		if err := conn.QueryRowContext(v.F.Ctx, "SELECT current_setting('statement_timeout'), current_setting('transaction_read_only')").Scan(&timeout, &status); err != nil || timeout != "0" || status != "off" {
			v.F.Errorf("statement_timeout %s, read only %s, %v", timeout, status, err)
		}
	}
}

// DynamicCode runs texts that are made while it runs, which can only be asked for.
const DynamicCode = `
	CREATE FUNCTION write(target text, what text) RETURNS int LANGUAGE plpgsql AS $$
	DECLARE n int;
	BEGIN
		EXECUTE format('INSERT INTO %I (line) VALUES ($1)', target) USING what;
		SELECT count(*) INTO n FROM log;
		RETURN n;
	END $$;
	CREATE FUNCTION run(text) RETURNS int LANGUAGE plpgsql AS 'BEGIN EXECUTE $1; RETURN 1; END';
	CREATE FUNCTION hidden() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN EXECUTE 'INSERT INTO log (line) VALUES ($1)' USING TG_OP; RETURN NULL; END $$;`
