package beside

import (
	"database/sql"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
)

// generator makes up what an application does next, by what it has done.
type generator struct {
	*rand.Rand
	c     circumstance
	role  string // another one that the application's may become
	made  int    // names given out
	queue []step // that come next

	inConn, inTx bool
	doubtful     bool // the transaction has failed
}

func (g *generator) one(of ...string) string { return of[g.IntN(len(of))] }

func (g *generator) id() int { return 1 + g.IntN(9) }

func (g *generator) name() string {
	g.made++
	return fmt.Sprint("made_", g.made)
}

// next is the next step. What is said by numbers is how often.
func (g *generator) next() step {
	if len(g.queue) > 0 {
		s := g.queue[0]
		g.queue = g.queue[1:]
		return s
	}
	s := g.any()
	if g.c.hook && !g.inConn && !g.inTx {
		s.tenant = g.one("a", "b")
	}
	if s.deadline == 0 && g.IntN(4) == 0 && s.kind <= prepared {
		s.deadline = 10 * time.Second // far more than the statement takes, and less than what stalls
	}
	return s
}

func (g *generator) any() step {
	switch n := g.IntN(100); {
	case g.doubtful:
		return step{kind: rollback}
	case n < 40:
		return g.read()
	case n < 55:
		return g.write()
	case n < 60:
		return g.failing()
	case n < 68:
		return g.schemaChange()
	case n < 70 && !g.inTx:
		return step{kind: query, sql: "SELECT pg_sleep(600)", abandoned: true}
	case g.inTx:
		return g.within()
	case n < 84:
		return g.beginning()
	case g.inConn && n < 94:
		return g.session()
	case g.inConn:
		if g.c.mode == pgx.QueryExecModeCacheStatement { // pgx has statements prepared, and fails without
			g.queue = append(g.queue, step{kind: exec, sql: "RESET ROLE"}, step{kind: exec, sql: "DISCARD TEMP"}, step{kind: give})
			return step{kind: exec, sql: "RESET ALL"}
		}
		g.queue = append(g.queue, step{kind: give})
		return step{kind: exec, sql: "DISCARD ALL"}
	}
	return step{kind: take}
}

// learn takes what a step of pgx's gave.
func (g *generator) learn(s step, o outcome) {
	switch s.kind {
	case begin:
		g.inTx = o.err == nil
	case commit, rollback:
		g.inTx, g.doubtful = false, false
	case take:
		g.inConn = o.err == nil
	case give:
		g.inConn = false
	default:
		g.doubtful = g.inTx && o.err != nil
	}
}

func (g *generator) read() step {
	s := step{kind: query}
	switch g.IntN(7) {
	case 0, 1:
		s.sql, s.args = "SELECT id, owner, name FROM items WHERE id = $1", []any{g.id()}
	case 2:
		s.sql, s.args = "SELECT count(*), min(name) FROM items WHERE owner = $1", []any{g.IntN(3)}
	case 3:
		s.sql, s.args = "SELECT i.name, sum(l.n) FROM items i JOIN public.lines l ON l.item = i.id WHERE i.id = $1 GROUP BY i.name", []any{g.id()}
	case 4:
		s.sql = "SELECT count(*) FROM public.logs"
	case 5:
		s.sql, s.args = "SELECT at FROM items WHERE id = $1 AND at < now()", []any{g.id()}
	case 6:
		s.sql = g.one("SHOW search_path", "SELECT current_user = session_user", "SELECT current_setting('statement_timeout')")
	}
	if g.IntN(5) == 0 {
		s.kind = prepared
	}
	return s
}

func (g *generator) write() step {
	switch id := g.id(); g.IntN(6) {
	case 0:
		return step{kind: exec, sql: "UPDATE items SET name = name || '!' WHERE id = $1 AND length(name) < 20", args: []any{id}}
	case 1:
		return step{kind: exec, sql: "UPDATE public.lines SET n = n + 1 WHERE item = $1 AND n < 900", args: []any{id}}
	case 2:
		return step{kind: query, sql: "UPDATE items SET owner = owner + 1 WHERE id = $1 RETURNING owner", args: []any{id}}
	case 3:
		return step{kind: exec, sql: "INSERT INTO items (id, owner, name) VALUES ($1, 1, 'new') ON CONFLICT (id) DO UPDATE SET name = 'again'", args: []any{id + 9}}
	case 4:
		return step{kind: exec, sql: "DELETE FROM items WHERE id = $1", args: []any{id + 9}}
	}
	return step{kind: exec, sql: "INSERT INTO public.logs (what) VALUES ('x')"}
}

func (g *generator) failing() step {
	return step{kind: query, sql: g.one("SELECT 1 / 0", "SELECT * FROM nowhere", "SELEC 1", "INSERT INTO items (id) VALUES (1) RETURNING id",
		"UPDATE public.lines SET n = 5000 RETURNING n", "SELECT 'x'::int", "DELETE FROM public.items RETURNING 1")}
}

// schemaChange is none while the catalog is locked: that waits with pgx as well.
func (g *generator) schemaChange() step {
	if g.c.stalls == "catalog" {
		return g.read()
	}
	name := g.name()
	return step{kind: exec, sql: g.one(
		"CREATE TABLE public."+name+" (id int PRIMARY KEY)",
		"CREATE TABLE public."+name+" AS SELECT * FROM items",
		"CREATE VIEW public."+name+" AS SELECT id FROM public.items",
		"CREATE TEMPORARY TABLE "+name+" (id int)",
		"CREATE FUNCTION public."+name+"() RETURNS int LANGUAGE sql AS 'SELECT 1'",
		"COMMENT ON SCHEMA public IS 'x'",
		"DROP TABLE IF EXISTS public.made_1, made_2",
		"GRANT SELECT ON public.items TO public")}
}

// beginning is a transaction, whose first statement may say what kind it is.
func (g *generator) beginning() step {
	s := step{kind: begin, readOnly: g.IntN(6) == 0}
	switch g.IntN(8) {
	case 0:
		s.isolation = sql.LevelRepeatableRead
	case 1:
		s.isolation = sql.LevelSerializable
	}
	if g.IntN(3) == 0 {
		g.queue = append(g.queue, step{kind: exec, sql: "SET TRANSACTION " + g.one("ISOLATION LEVEL SERIALIZABLE", "ISOLATION LEVEL REPEATABLE READ",
			"READ WRITE", "READ ONLY", "ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE", "NOT DEFERRABLE")})
	}
	return s
}

// within is what is done in a transaction alone.
func (g *generator) within() step {
	switch n := g.IntN(20); {
	case n < 8:
		return step{kind: commit}
	case n < 10:
		return step{kind: rollback}
	case n < 12:
		g.queue = append(g.queue, g.write(), step{kind: exec, sql: g.one("ROLLBACK TO", "RELEASE") + " SAVEPOINT s"})
		return step{kind: exec, sql: "SAVEPOINT s"}
	case n < 13 && g.c.stalls != "catalog":
		name := g.name()
		g.queue = append(g.queue, step{kind: exec, sql: "INSERT INTO " + name + " VALUES (1)"}, step{kind: query, sql: "SELECT * FROM " + name}, step{kind: commit})
		return step{kind: exec, sql: "CREATE TEMPORARY TABLE " + name + " (id int) ON COMMIT DROP"}
	case n < 14:
		name := "'{database} " + g.name() + "'"
		g.queue = append(g.queue, step{kind: rollback}, g.read(), step{kind: exec, sql: g.one("COMMIT", "ROLLBACK") + " PREPARED " + name})
		return step{kind: exec, sql: "PREPARE TRANSACTION " + name}
	}
	return step{kind: exec, sql: "SET LOCAL " + g.one("search_path TO b, public", "statement_timeout = '30s'", "lock_timeout = '10s'", "ROLE "+g.role,
		"TimeZone TO 'Asia/Tokyo'", "idle_in_transaction_session_timeout = '60s'", "app.tenant = 'x'")}
}

// session is what changes the session of the connection.
func (g *generator) session() step {
	return step{kind: exec, sql: g.one("SET search_path TO a, public", "SET search_path TO b, public", "RESET ALL", "SET ROLE "+g.role, "RESET ROLE",
		"SET statement_timeout = '30s'", "SET TimeZone TO 'Asia/Tokyo'", "SELECT set_config('app.tenant', 'x', false)", "DISCARD TEMP",
		"SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SET default_transaction_read_only = off")}
}
