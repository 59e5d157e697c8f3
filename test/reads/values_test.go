package reads

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// narrowedTable has columns of all types that may give a parameter its type, and
// rows that only what PostgreSQL makes of the parameter finds.
const narrowedTable = `
	CREATE DOMAIN short AS varchar(3);
	CREATE DOMAIN letter AS "char";
	CREATE TABLE n (t text PRIMARY KEY, i int8 UNIQUE NOT NULL, i4 int4 UNIQUE NOT NULL, o oid UNIQUE NOT NULL, v int NOT NULL,
		c "char", l letter, s short, nm name, bp char(4), vc varchar(3), f4 float4, f8 float8, nu numeric(4,1), i2 int2, oo oid);
	CREATE TABLE types (r regtype); INSERT INTO types VALUES (23), (7);
	INSERT INTO n VALUES
		('a', 4294967295, -1, 4294967295, 0, 'a', 'a', 'a', 'a', 'a', 'a', 1, 1, 1, 1, 4294967295),
		('abc', 16777216, 7, 7, 0, 'a', 'a', 'abc', 'abc', 'abc', 'abc', 16777217, 16777217, 7, 7, 7),
		(repeat('x', 63), 5, 5, 5, 0, 'x', 'x', 'x', repeat('x', 63), 'x', 'x', 5, 5, 5, 5, 5);`

// A value that PostgreSQL cuts or reads otherwise because of where the parameter
// stands first finds another row than the one it names.
func TestAParameterHasTheTypeOfItsFirstPlace(t *testing.T) {
	long := strings.Repeat("x", 70)
	cases := []struct {
		name, where string
		arg         any
	}{
		{"char", "c = $1 AND t = $1", "abc"},
		{"char of several bytes", "c = $1 AND t = $1", "aé"},
		{"a domain over char", "l = $1 AND t = $1", "abc"},
		{"char, the other way round", "$1 = c AND $1 = t", "abc"},
		{"char by a cast", `c = $1::"char" AND t = $1`, "abc"},
		{"char in a list", "c IN ($1) AND t = $1", "abc"},
		{"char in a join", "EXISTS (SELECT FROM n m WHERE m.c = $1) AND t = $1", "abc"},
		{"char in a subselect", "v = (SELECT min(v) FROM n WHERE c = $1) AND t = $1", "abc"},
		{"char in an output", `t = $1 AND c = $1`, "a"},
		{"name", "nm = $1 AND t = $1", long},
		{"bpchar", "bp = $1 AND t = $1", "a "},
		{"varchar", "vc = $1 AND t = $1", "abc"},
		{"a domain over varchar", "s = $1 AND t = $1", "abc"},
		{"varchar by a cast", "t = $1::varchar(1)", "abc"},
		{"bpchar by a cast", "t = $1::bpchar", "a  "},
		{"char as a cast", `t = $1::"char"`, "abc"},
		{"name as a cast", "t = $1::name", long},
		{"the type of text", "t = $1 AND t <> 'q' AND $1 <> 'q'", "abc"},
		{"oid", "oo = $1 AND i = $1", "-1"},
		{"oid, int4", "oo = $1 AND i4 = $1", "4294967295"},
		{"regtype", "EXISTS (SELECT FROM types WHERE r = $1) AND i = $1", "7"},
		{"regtype by name", "EXISTS (SELECT FROM types WHERE r = $1) AND o = $1", "int4"},
		{"float4", "f4 = $1 AND i = $1", "16777217"},
		{"numeric", "nu = $1 AND i4 = $1", "7"},
		{"numeric by a cast", "i4 = $1::numeric(3,0)", "7.3"},
		{"int2", "i2 = $1 AND i4 = $1", "7"},
		{"a literal as char", `t = 'abc'::"char"`, nil},
		{"a literal as name", "t = '" + long + "'::name", nil},
		{"a literal as varchar", "t = 'abc'::varchar(1)", nil},
		{"a literal as bpchar", "t = 'a   '::bpchar", nil},
		{"a literal as oid", "i = '-1'::oid", nil},
		{"a literal of an oid", "o = '-1'", nil},
		{"a literal of the next character set", "t = n'a'", nil},
		{"a literal with an escape", `t = E'a'`, nil},
		{"a literal in unicode", `t = U&'\0061'`, nil},
	}
	harness.ScenarioInMemory(t, narrowedTable, func(f *harness.Fixture) {
		for _, tc := range cases {
			f.Step(tc.name, func(f *harness.Fixture) {
				var args []any
				if tc.arg != nil {
					args = append(args, tc.arg)
				}
				query := "SELECT t, i, v FROM n WHERE " + tc.where
				for _, key := range []string{"t = 'a'", "t = 'abc'", "i4 = -1", "i = 4294967295", "i4 = 7", "o = 7", "t = '" + strings.Repeat("x", 63) + "'"} {
					f.AsPgx(query, args...)
					f.AsPgx(query, args...)
					f.Exec("UPDATE n SET v = v + 1 WHERE " + key)
					f.AsPgx(query, args...)

					// The same in a write: others read by the row's own value.
					own := "SELECT v FROM n WHERE " + key
					f.Known(own)
					text := "UPDATE n SET v = v + 1 WHERE " + tc.where
					if _, err := f.DB.ExecContext(f.Ctx, text, args...); err == nil {
						f.Fresh(own)
					}
				}
			})
		}
	})
}

// A text means in a session what its settings say, whoever has read it first.
func TestATextIsReadAsItsSessionDoes(t *testing.T) {
	harness.Scenario(t, `CREATE TABLE p (path text PRIMARY KEY, n int NOT NULL); INSERT INTO p VALUES (E'a\\\\b', 0), (E'a\\b', 0), ('x', 0)`, func(f *harness.Fixture) {
		const both = "UPDATE p SET n = n + 1 WHERE path = 'a\\\\b'" // one backslash where they escape, else two
		off := f.Asking(f.Open("cachedpg", harness.WithKeys(harness.WithKey(f.DSN, "options", "-c standard_conforming_strings=off"), f.Keys)))
		on := f.Via
		escapes := f.Conn(f.DB) // whose DB reads the text for the others too
		if _, err := escapes.ExecContext(f.Ctx, "SET standard_conforming_strings = off"); err != nil {
			f.Fatal(err)
		}
		read := "SELECT n FROM p WHERE path = $1"
		for range 3 {
			for _, first := range []harness.Via{on, off, on.On(escapes)} {
				for _, path := range []string{`a\b`, `a\\b`} {
					on.Again(read, path) // what cannot be read changes everything, the catalog too
				}
				if _, err := first.Ask.ExecContext(f.Ctx, both); err != nil && !strings.Contains(err.Error(), "standard_conforming_strings") {
					f.Fatal(err)
				}
				for _, path := range []string{`a\b`, `a\\b`} {
					on.Fresh(read, path)
				}
			}
		}

		// What was prepared while backslashes escaped goes on to escape.
		conn := f.Conn(f.DB)
		exec := func(text string) {
			f.Helper()
			if _, err := conn.ExecContext(f.Ctx, text); err != nil && !strings.Contains(err.Error(), "standard_conforming_strings") {
				f.Fatal(err)
			}
		}
		exec("SET standard_conforming_strings = off")
		stmt, err := conn.PrepareContext(f.Ctx, both)
		if err != nil {
			f.Fatal(err)
		}
		defer stmt.Close()
		exec("SET standard_conforming_strings = on")
		for _, path := range []string{`a\b`, `a\\b`} {
			f.Known(read, path)
		}
		if _, err := stmt.ExecContext(f.Ctx); err != nil {
			f.Fatal(err)
		}
		for _, path := range []string{`a\b`, `a\\b`} {
			f.Fresh(read, path)
		}
	})
}

// encodingOf opens a database of its own with an encoding.
func encodingOf(t *testing.T, encoding string) (dsn string) {
	t.Helper()
	admin := pgtest.Connect(t, pgtest.DSN(t))
	name := "e_" + strings.ToLower(encoding) + "_" + strings.ToLower(harness.ParsedDSN(t, pgtest.Database(t)).Database)
	if _, err := admin.Exec(t.Context(), fmt.Sprintf("CREATE DATABASE %s ENCODING '%s' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'", name, encoding)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := admin.Exec(context.Background(), "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Error(err)
		}
	})
	u, err := url.Parse(pgtest.DSN(t))
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + name
	return u.String()
}

// Sessions with several encodings mean the same row by different bytes, and
// different rows by the same.
func TestRowsAreTheSameInEveryEncoding(t *testing.T) {
	const (
		latin = "caf\xe9"   // é in LATIN1
		utf   = "café"      // é in UTF8, and Ã© in LATIN1
		sjis  = "\x83\x5c'" // ソ' in SJIS, the second byte a backslash
	)
	for _, server := range []string{"UTF8", "LATIN1", "SQL_ASCII", "EUC_JP"} {
		for _, store := range []string{"memory", "redis"} {
			t.Run(server+"/"+store, func(t *testing.T) {
				t.Parallel()
				dsn := encodingOf(t, server)
				keys := []string{}
				if store == "redis" {
					keys = append(keys, "cache_store="+pgtest.Redis(t))
				}
				pgtest.Exec(t, dsn, "CREATE TABLE words (word text PRIMARY KEY, n int NOT NULL)")
				ctx := t.Context()
				type session struct {
					name        string
					ours, plain *sql.DB
				}
				var sessions []session
				for _, client := range []string{"UTF8", "LATIN1", "SQL_ASCII", "SJIS", server} {
					f := &harness.Fixture{T: t, Ctx: ctx}
					with := harness.WithKey(harness.WithKey(dsn, "client_encoding", client), "default_query_exec_mode", "exec")
					s := session{client, f.Open("cachedpg", harness.WithKeys(with, keys)), f.Open("pgx", with)}
					if s.plain.PingContext(ctx) != nil {
						continue // PostgreSQL does not convert between the two
					}
					if len(keys) > 0 {
						f.Live(s.ours)
					}
					sessions = append(sessions, s)
				}
				ask := func(db *sql.DB, query string, args ...any) string {
					var n int
					err := db.QueryRowContext(ctx, query, args...).Scan(&n)
					return fmt.Sprint(n, err)
				}
				words := []string{"plain", latin, utf, sjis}
				for _, s := range sessions {
					for _, word := range words {
						s.plain.ExecContext(ctx, "INSERT INTO words VALUES ($1, 0) ON CONFLICT DO NOTHING", word)
					}
				}
				hits := 0
				for _, writer := range sessions {
					for _, written := range words {
						for _, literally := range []bool{false, true} {
							var args []any
							where := "word = '" + strings.ReplaceAll(written, "'", "''") + "'"
							if !literally {
								where, args = "word = $1", []any{written}
							}
							check := func(when string) {
								t.Helper()
								for _, reader := range sessions {
									for _, word := range words {
										got := ask(reader.ours, "SELECT n FROM words WHERE word = $1", word)
										if want := ask(reader.plain, "SELECT n FROM words WHERE word = $1", word); got != want {
											t.Errorf("%s %s of %s with %q by %s: got %s, pgx %s", when, reader.name, server, word, writer.name, got, want)
										}
									}
									got := ask(reader.ours, "SELECT n FROM words WHERE "+where, args...)
									if want := ask(reader.plain, "SELECT n FROM words WHERE "+where, args...); got != want {
										t.Errorf("%s %s of %s with %q by %s as written: got %s, pgx %s", when, reader.name, server, written, writer.name, got, want)
									}
								}
							}
							check("before")
							writer.ours.ExecContext(ctx, "UPDATE words SET n = n + 1 WHERE "+where, args...)
							check("after")
						}
					}
				}
				for _, s := range sessions {
					hits += int(cachedpg.StatsOf(s.ours).Hits)
				}
				if hits == 0 {
					t.Error("no read was a hit")
				}
			})
		}
	}
}
