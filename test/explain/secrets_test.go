package explain

import (
	"context"
	"database/sql"
	encodingjson "encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	goredis "github.com/redis/go-redis/v9"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/harness/outside"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/redistest"
)

// secret is one as a text, as a number and as bits.
const (
	secret       = "s3cretpassword"
	secretNumber = "918273645"
	secretBits   = "1011011101111"
)

// holds returns which secret stands in what is shown, if one does.
func holdsSecret(shown string) string {
	for _, s := range []string{secret, secretNumber, secretBits, "s3cret", "password!"} {
		if strings.Contains(shown, s) {
			return s
		}
	}
	return ""
}

// secretStatements are ways of having a value in a text.
var secretStatements = []string{
	"SELECT '" + secret + "'", "SELECT E'" + secret + "\\n'", "SELECT U&'" + secret + "'", "SELECT U&'" + secret + "!0041' UESCAPE '!'",
	"SELECT N'" + secret + "'", "SELECT B'" + secretBits + "'", "SELECT X'918273645'", "SELECT $$" + secret + "$$", "SELECT $tag$" + secret + "$tag$",
	"SELECT " + secretNumber, "SELECT -" + secretNumber, "SELECT " + secretNumber + ".5e3", "SELECT 1 ORDER BY " + secretNumber, "SELECT 1 GROUP BY 1, " + secretNumber,
	"SELECT 1 ORDER BY 1, " + secretNumber + " + 1", "SELECT 'a'\n'" + secret + "'", "SELECT '" + secret + "'::float(" + secretNumber + ")",
	"SELECT 1 /* " + secret + " */", "SELECT 1 -- " + secret, "/* cachedpg: " + secret + " */ SELECT 1", "/* cachedpg: ttl=" + secret + " */ SELECT 1",
	"/* cachedpg: ttl=5s " + secret + "=1 */ SELECT 1", "/* " + secret + " */ DO $$ BEGIN END $$", "-- " + secret + "\nDO $$ BEGIN END $$",
	"DO $$ BEGIN PERFORM '" + secret + "'; END $$", "DO\n$$ BEGIN PERFORM '" + secret + "'; END $$", "DO\t$x$ BEGIN PERFORM '" + secret + "'; END $x$",
	"DO$$ BEGIN PERFORM '" + secret + "'; END $$", "DO'BEGIN PERFORM ''" + secret + "''; END'", "DO LANGUAGE plpgsql $$ BEGIN PERFORM '" + secret + "'; END $$",
	"do\r\n'BEGIN PERFORM ''" + secret + "''; END'", "DO/**/'" + secret + "'",
	"CREATE ROLE nobody_r PASSWORD '" + secret + "'", "CREATE ROLE nobody_r PASSWORD " + secret, "CREATE ROLE nobody_r PASSWORD \"" + secret + "\"",
	"CREATE USER nobody_r ENCRYPTED PASSWORD '" + secret + "'", "ALTER ROLE postgres PASSWRD '" + secret + "'", "ALTER ROLE nobody_r PASSWORD E'" + secret + "'",
	"ALTER ROLE nobody_r SET app.token TO '" + secret + "'", "ALTER ROLE nobody_r SET app.token = " + secret, "ALTER ROLE nobody_r IN DATABASE d SET app.token TO " + secret,
	"ALTER DATABASE d SET app.token TO " + secret, "ALTER SYSTEM SET app.token = " + secret,
	"SET app.token = '" + secret + "'", "SET app.token = " + secret, "SET LOCAL app.token TO " + secret, "SET SESSION app.token TO \"" + secret + "\"", "SET app.token = a, " + secret,
	"SELECT 1; SET app.token = " + secret, "SELECT set_config('app.token', '" + secret + "', false)",
	"CREATE FUNCTION f() RETURNS int LANGUAGE sql SET app.token = " + secret + " AS 'SELECT 1'", "CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $$ SELECT '" + secret + "' $$",
	"CREATE FUNCTION f() RETURNS text BEGIN ATOMIC SELECT '" + secret + "'; END",
	"COPY users FROM PROGRAM '" + secret + "'", "COPY users TO '/nowhere/" + secret + "'", "COPY (SELECT '" + secret + "') TO STDOUT",
	"CREATE SUBSCRIPTION s CONNECTION 'host=h password=" + secret + "' PUBLICATION p WITH (connect = false)", "ALTER SUBSCRIPTION s CONNECTION 'password=" + secret + "'",
	"CREATE USER MAPPING FOR CURRENT_USER SERVER s OPTIONS (password '" + secret + "')", "ALTER USER MAPPING FOR CURRENT_USER SERVER s OPTIONS (SET password '" + secret + "')",
	"CREATE SERVER s FOREIGN DATA WRAPPER w OPTIONS (host '" + secret + "')", "SELECT * FROM dblink('password=" + secret + "', 'SELECT 1') t(a int)",
	"COMMENT ON TABLE users IS '" + secret + "'", "SECURITY LABEL ON TABLE users IS '" + secret + "'", "NOTIFY c, '" + secret + "'", "PREPARE TRANSACTION '" + secret + "'",
	"PREPARE p AS SELECT '" + secret + "'", "EXECUTE p ('" + secret + "')", "EXPLAIN SELECT '" + secret + "'", "DECLARE c CURSOR FOR SELECT '" + secret + "'",
	"INSERT INTO users VALUES (" + secretNumber + ", '" + secret + "')", "UPDATE users SET name = '" + secret + "' WHERE id = " + secretNumber, "DELETE FROM users WHERE name = '" + secret + "'",
	"MERGE INTO users u USING (SELECT 1) x(a) ON u.name = '" + secret + "' WHEN MATCHED THEN DELETE", "VALUES ('" + secret + "')", "CALL p('" + secret + "')",
	"CREATE TABLE t (a text DEFAULT '" + secret + "')", "CREATE TABLE t AS SELECT '" + secret + "'", "CREATE VIEW v AS SELECT '" + secret + "'", "CREATE TYPE y AS ENUM ('" + secret + "')",
	"ALTER TYPE y ADD VALUE '" + secret + "'", "CREATE INDEX i ON users (id) WHERE name = '" + secret + "'",
	"CREATE POLICY p ON users USING (name = '" + secret + "')", "CREATE RULE r AS ON INSERT TO users DO ALSO SELECT '" + secret + "'", "LOAD '" + secret + "'",
	"SELECT 1; SELECT '" + secret + "'; DO\n$$ BEGIN PERFORM '" + secret + "'; END $$", "SELECT 'x'; CREATE ROLE nobody_r PASSWORD '" + secret + "'",
	"SELEC '" + secret + "'", "'" + secret + "'", secret, "SELECT '" + secret, "SELECT $$" + secret, "SELECT /* " + secret, "SELECT \"" + secret, "SELECT '" + secret + "' '" + secret + "'",
	"SELECT 1" + secret, "(SELECT '" + secret + "'", "\xff'" + secret + "'", "SELECT '" + secret + "\x00'", ";;DO '" + secret + "'", "SELECT E'\\u00" + secret + "'",
}

func TestNoSecretInAStatementIsShown(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"memory", "redis"} {
		t.Run(mode, func(t *testing.T) { // not in parallel: a prepared transaction's name is the server's
			keys := []string{}
			var server *redistest.Server
			if mode == "redis" {
				server = redistest.Start(t)
				keys = append(keys, "cache_store="+server.URL(), "cache_outbox=always", "cache_encryption=1:AAECAwQFBgcICQoLDA0ODw==")
			}
			database := pgtest.Database(t)
			f := harness.New(t, database, "cache_statement", harness.People, keys...)
			if server != nil {
				outside.SetUpOutbox(f)
			}
			shown := func(what, text string, value any) {
				f.Helper()
				for _, form := range []string{fmt.Sprintf("%v", value), fmt.Sprintf("%+v", value)} {
					if s := holdsSecret(form); s != "" {
						f.Errorf("%s shows %q of %q: %s", what, s, text, form)
					}
				}
			}
			ours := func(text string, err error) {
				f.Helper()
				if refused := (*pgconn.PgError)(nil); err != nil && !errors.As(err, &refused) {
					shown("an error", text, err)
				}
			}
			for _, text := range secretStatements {
				x, err := cachedpg.Explain(f.Ctx, f.DB, text)
				if ours(text, err); err == nil {
					asJSON, _ := encodingjson.Marshal(x)
					shown("Explain", text, x.String())
					shown("Explain's JSON", text, string(asJSON))
				}
				for _, run := range []func(*sql.Tx) error{
					func(tx *sql.Tx) error { _, err := tx.ExecContext(f.Ctx, text); return err },
					func(tx *sql.Tx) error {
						rows, err := tx.QueryContext(f.Ctx, text)
						if err == nil {
							err = errors.Join(rows.Err(), rows.Close())
						}
						return err
					},
				} {
					tx, err := f.DB.BeginTx(f.Ctx, nil)
					if err != nil {
						f.Fatal(err)
					}
					failed := run(tx)
					ours(text, failed)
					_ = tx.Rollback()
					if failed == nil && strings.HasPrefix(text, "PREPARE TRANSACTION") {
						f.Past("ROLLBACK PREPARED '" + secret + "'")
					}
				}
			}
			// Some that are committed, with their events, and arguments.
			for _, q := range []struct {
				text string
				args []any
			}{
				{"INSERT INTO users VALUES ($1, $2)", []any{918273645, secret}},
				{"INSERT INTO users VALUES (918273646, '" + secret + "')", nil},
				{"DO\n$$ BEGIN UPDATE users SET city = '" + secret + "'; END $$", nil},
				{"SELECT * FROM users WHERE name = $1", []any{secret}},
			} {
				_, err := f.DB.ExecContext(f.Ctx, q.text, q.args...)
				ours(q.text, err)
				if rows, err := f.DB.QueryContext(f.Ctx, q.text, q.args...); err == nil {
					rows.Close()
				} else {
					ours(q.text, err)
				}
				x, err := cachedpg.Explain(f.Ctx, f.DB, q.text, q.args...)
				if ours(q.text, err); err == nil {
					shown("Explain", q.text, x.String())
				}
			}
			stats := cachedpg.StatsOf(f.DB)
			if len(stats.Statements) < 50 {
				f.Errorf("stats have %d statements only", len(stats.Statements))
			}
			for _, text := range inside.Statements(f.DB) { // also those beyond the first hundred
				shown("Stats", "", text)
			}
			shown("Stats", "", stats)
			if server != nil {
				var rows string
				if err := f.Plain.QueryRowContext(f.Ctx, "SELECT coalesce(string_agg(o::text || encode(tags, 'escape'), ' '), '') FROM cachedpg.outbox o").Scan(&rows); err != nil {
					f.Fatal(err)
				}
				shown("the outbox", "", rows)
				options, err := goredis.ParseURL(server.URL())
				if err != nil {
					f.Fatal(err)
				}
				client := goredis.NewClient(options)
				defer client.Close()
				names, err := client.Keys(f.Ctx, "*").Result()
				if err != nil || len(names) == 0 {
					f.Fatalf("%d names in Redis, %v", len(names), err)
				}
				shown("the names in Redis", "", names)
				for _, name := range names {
					if value, err := client.Dump(f.Ctx, name).Result(); err == nil {
						shown("an encrypted value in Redis", name, value)
					}
				}
			}
		})
	}
}

func TestNoSecretInASettingIsShown(t *testing.T) {
	t.Parallel()
	pgParts := []string{
		"postgres://u:" + secret + "@h/d?", "postgres://u:" + secret + "@h:" + secret + "/d?", "postgres://u:a/" + secret + "@h/d?", "postgres://u:" + secret + "%zz@h/d?",
		"postgres://u:a`: " + secret + "@h:x/d?", "postgres://u:" + secret + "@[h/d?", "postgres://u@h/d?password=" + secret + "&sslmode=never&", "postgres://u@h/d?" + secret + "&",
		"postgres://u@h/d?sslmode=" + secret + "&", "postgres://u@h/d?connect_timeout=" + secret + "&", "postgres://u@h/d?target_session_attrs=" + secret + "&",
		"postgres://u@h/d?default_query_exec_mode=" + secret + "&", "postgres://u@h/d?statement_cache_capacity=" + secret + "&", "postgres://u@h/d?channel_binding=" + secret + "&",
		"postgres://u@h/d?sslrootcert=" + secret + "&", "postgres://u@h/d?service=" + secret + "&", "postgres://u@h/d?min_protocol_version=" + secret + "&", "postgres://u@h/d?require_auth=" + secret + "&",
	}
	var dsns []string
	for _, part := range pgParts {
		dsns = append(dsns, part, part+"cache_ttl=1s", part+"cache_ttl=never")
	}
	dsns = append(dsns, "host=h password="+secret+" sslmode=never", "host=h password='"+secret, "host=h password = "+secret+" port=x", "host=h password="+secret+" "+secret,
		"host=h port="+secret, secret, "registeredConnConfig"+secret, "mysql://u:"+secret+"@h/d", "host=h password='a'"+secret+" cache_ttl=1s", "password=a\\ "+secret+" port=x cache_ttl=1s")
	for _, setting := range []string{
		"cache_store=redis://u:" + secret + "@h:port", "cache_store=redis://u:" + secret + "%zz@h", "cache_store=ftp://u:" + secret + "@h", "cache_store=" + secret, "cache_store=redis://h/" + secret,
		"cache_store=redis://h?pool_size=" + secret, "cache_store=redis://h?" + secret + "=1", "cache_store=redis+sentinel://h?sentinel_password=" + secret, "cache_store=redis://h?tls_ca=" + secret,
		"cache_store=rediss://h?tls_cert=" + secret, "cache_store=redis+cluster://:" + secret + "@h/1", "cache_store=redis://h?password=" + secret, "cache_store=redis://h?db=" + secret, "cache_store=redis://h?dial_timeout=" + secret,
		"cache_store=redis://" + secret + ":x@h/?addr=" + secret + ":x:y", "cache_store=unix://" + secret + "@h",
		"cache_encryption=1:" + secret, "cache_encryption=" + secret, "cache_store=redis://h&cache_encryption=1:" + secret, "cache_store=redis://h&cache_encryption=" + secret + ":AAAA",
		"cache_store=redis://h&cache_encryption=1:AAECAwQFBgcICQoLDA0ODw==,1:" + secret,
		"cache_ttl=" + secret, "cache_ttl=10mcache_store=redis://:" + secret + "@h", "cache_max_entry=" + secret, "cache_memory=" + secret, "cache_consistency=strict;" + secret, "cache_admission=auto;" + secret, "cache_on_store_down=" + secret,
		"cache_external=" + secret, "cache_outbox=" + secret, "cache_refill_max=" + secret, "cache_queue_max=" + secret, "cache_policy=users:" + secret, "cache_policy=users:ttl:" + secret, "cache_policy=" + secret,
		"cache_policy=users:off:1s:" + secret, "cache_policy=users:off:redis://:" + secret + "@h", "cache_ttl=%zz" + secret,
	} {
		dsns = append(dsns, "postgres://u:"+secret+"@h/d?"+setting, "host=h password="+secret+" "+strings.ReplaceAll(setting, "&", " "))
	}
	failed := 0
	for _, dsn := range dsns {
		show := func(what string, value any) {
			t.Helper()
			var log strings.Builder
			slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "value", value)
			for _, form := range []string{fmt.Sprint(value), fmt.Sprintf("%+v", value), fmt.Sprintf("%#v", value), fmt.Sprintf("%q", value), log.String()} {
				if s := holdsSecret(form); s != "" {
					t.Errorf("%s shows %q of %q: %s", what, s, dsn, form)
				}
			}
		}
		c, err := (&cachedpg.Driver{}).OpenConnector(dsn)
		if err != nil {
			failed++
			for ; err != nil; err = errors.Unwrap(err) {
				show("OpenConnector", err)
			}
		} else {
			show("the connector", c)
			_ = c.(io.Closer).Close()
		}
		if db, err := sql.Open("cachedpg", dsn); err != nil {
			show("sql.Open", err)
		} else {
			db.Close()
		}
		if _, config, err := cachedpg.ParseConfig(dsn); err != nil {
			show("ParseConfig", err)
		} else {
			show("Config", config)
			show("Config", &config)
			show("Config", []any{config, map[string]cachedpg.Config{"x": config}, struct{ C cachedpg.Config }{config}})
		}
	}
	if failed < len(dsns)/2 {
		t.Errorf("%d of %d DSNs are refused", failed, len(dsns))
	}
	letter := cachedpg.DeadLetter{ID: "1-1", SQLState: "23505", Message: secret, SQL: "DO '" + secret + "'"}
	for _, form := range []string{fmt.Sprint(letter), fmt.Sprintf("%+v", &letter), fmt.Sprintf("%#v", letter)} {
		if holdsSecret(form) != "" || !strings.Contains(form, "DO …") {
			t.Errorf("a dead letter prints %s", form)
		}
	}
}

// Ping and queries of what cannot be reached tell no more.
func TestNoSecretIsShownOfWhatCannotBeReached(t *testing.T) {
	t.Parallel()
	base := pgtest.DSN(t)
	config, err := pgx.ParseConfig(base)
	if err != nil {
		t.Fatal(err)
	}
	for _, dsn := range []string{
		"postgres://u:" + secret + "@127.0.0.1:1/d", "host=127.0.0.1 port=1 user=u password=" + secret,
		harness.WithKey(base, "cache_store", "redis://u:"+secret+"@127.0.0.1:1/0"), harness.WithKey(base, "cache_store", "redis+sentinel://u:"+secret+"@127.0.0.1:1/0?master_name=m&sentinel_password="+secret),
	} {
		db, err := sql.Open("cachedpg", dsn)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), harness.Timeout)
		_, exec := db.ExecContext(ctx, "SELECT 1")
		_, _, parse := cachedpg.ParseConfig(dsn)
		for _, err := range []error{db.PingContext(ctx), exec, parse} {
			if s := holdsSecret(fmt.Sprintf("%v %+v", err, err)); s != "" {
				t.Errorf("%q: %v", s, err)
			}
		}
		if s := holdsSecret(fmt.Sprintf("%+v %+v", cachedpg.StatsOf(db), db.Driver())); s != "" {
			t.Errorf("Stats show %q", s)
		}
		cancel()
		db.Close()
	}
	config.Password = secret
	c, err := cachedpg.NewConnector(*config, cachedpg.Config{})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := c.Connect(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, value := range []any{c, conn, c.Driver()} {
		if s := holdsSecret(fmt.Sprintf("%v %+v %#v", value, value, value)); s != "" {
			t.Errorf("%T shows %q", value, s)
		}
	}
}
