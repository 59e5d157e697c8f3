package cachedpg

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/cachedpg/cachedpg/keying"
)

// What a caller may do beside Query and Exec: the pgx connection underneath,
// prepared statements, pgx's own arguments, connectors of other makes, and a
// PostgreSQL that is not there.

// raw calls do with the pgx connection of a new session.
func (f *fixture) raw(do func(conn *pgx.Conn) error) {
	f.Helper()
	conn := f.conn(f.db)
	if err := PgxConn(f.ctx, conn, do); err != nil {
		f.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		f.Fatal(err)
	}
}

// Whatever is done with the pgx connection is seen by its tracer.
func TestTheConnectionUnderneathInvalidates(t *testing.T) {
	scenarioInMemory(t, people, func(f *fixture) {
		const count = "SELECT count(*) FROM users"
		f.warm(count).is("3")
		f.warm(userByID, 1)
		f.warm("SELECT 1")

		f.raw(func(conn *pgx.Conn) error {
			_, err := conn.Exec(f.ctx, "UPDATE users SET name = $1 WHERE id = 1", "anna")
			return err
		})
		f.miss(userByID, 1).is("1 anna Oslo")
		f.hit("SELECT 1")

		f.raw(func(conn *pgx.Conn) error {
			_, err := conn.CopyFrom(f.ctx, pgx.Identifier{"users"}, []string{"id", "name"}, pgx.CopyFromRows([][]any{{8, "copied"}, {9, "too"}}))
			return err
		})
		f.fresh(count).is("5")
		f.known(count)

		f.raw(func(conn *pgx.Conn) error {
			var batch pgx.Batch
			batch.Queue("SELECT 1")
			batch.Queue("UPDATE users SET name = $1 WHERE id = $2", "batched", 1)
			batch.Queue("DELETE FROM users WHERE id = $1", 9)
			return conn.SendBatch(f.ctx, &batch).Close()
		})
		f.fresh(userByID, 1).is("1 batched Oslo")
		f.fresh(count).is("4")
		f.known(count)

		f.raw(func(conn *pgx.Conn) error {
			return pgx.BeginFunc(f.ctx, conn, func(tx pgx.Tx) error {
				if _, err := tx.Exec(f.ctx, "DELETE FROM users WHERE id = 8"); err != nil {
					return err
				}
				f.hit(count).is("4") // not committed yet
				return nil
			})
		})
		f.fresh(count).is("3")
		f.known(count)

		f.raw(func(conn *pgx.Conn) error {
			var id int
			return conn.QueryRow(f.ctx, "INSERT INTO users VALUES (7, 'returned') RETURNING id").Scan(&id)
		})
		f.fresh(count).is("4")
		f.known(count)

		err := PgxConn(f.ctx, f.conn(f.db), func(conn *pgx.Conn) error {
			tx, err := conn.Begin(f.ctx)
			if err != nil {
				return err
			}
			if _, err := tx.Exec(f.ctx, "DELETE FROM users"); err != nil {
				return err
			}
			return tx.Rollback(f.ctx)
		})
		if err != nil {
			f.Fatal(err)
		}
		f.fresh(count).is("4")
		f.known(userByID, 1)

		// A read there is a read: it neither fills nor invalidates.
		f.raw(func(conn *pgx.Conn) error {
			var n int
			return conn.QueryRow(f.ctx, count).Scan(&n)
		})
		f.hit(userByID, 1)
	})
}

// A setting made there is a setting of the session.
func TestTheConnectionUnderneathChangesItsSession(t *testing.T) {
	scenario(t, "CREATE TABLE v AS SELECT '2024-05-01 12:00Z'::timestamptz AS at", func(f *fixture) {
		const query = "SELECT at::text FROM v"
		s, conn := f.session()
		first := s.warm(query).String()
		const set = "SET TIME ZONE 'Asia/Tokyo'"
		err := PgxConn(f.ctx, conn, func(conn *pgx.Conn) error {
			_, err := conn.Exec(f.ctx, set)
			return err
		})
		if err != nil {
			f.Fatal(err)
		}
		if _, err := s.truth.ExecContext(f.ctx, set); err != nil {
			f.Fatal(err)
		}
		if s.fresh(query).String() == first {
			f.Error("the setting was not seen")
		}
		f.hit(query).is(first)

		// A transaction left open there is the driver's to know.
		err = PgxConn(f.ctx, conn, func(conn *pgx.Conn) error {
			_, err := conn.Exec(f.ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ")
			return err
		})
		if err != nil {
			f.Fatal(err)
		}
		s.runs(keying.Isolation, query)
		s.exec("COMMIT")
		s.hit(query)
	})
}

// The ways to the wrapped connection that other wrappers use.
func TestTheWrappedConnectionIsAvailable(t *testing.T) {
	scenarioOnce(t, people, func(f *fixture) {
		err := f.conn(f.db).Raw(func(c any) error {
			conn, ok := c.(interface{ Conn() *pgx.Conn })
			if !ok {
				return fmt.Errorf("%T has no Conn", c)
			}
			if err := conn.Conn().Ping(f.ctx); err != nil {
				return err
			}
			for _, wrapped := range []driver.Conn{c.(interface{ Raw() driver.Conn }).Raw(), c.(interface{ Unwrap() driver.Conn }).Unwrap()} {
				if _, ok := wrapped.(*stdlib.Conn); !ok {
					return fmt.Errorf("got %T, want *stdlib.Conn", wrapped)
				}
			}
			return nil
		})
		if err != nil {
			f.Error(err)
		}
		err = PgxConn(f.ctx, f.conn(f.plain), func(*pgx.Conn) error { return nil })
		if err == nil {
			f.Error("PgxConn of another driver's connection: no error")
		}
		if s := StatsOf(f.plain); s.Lookups != 0 {
			f.Error("stats of another driver's DB")
		}
		if err := Invalidate(f.ctx, f.plain); err == nil {
			f.Error("Invalidate of another driver's DB: no error")
		}
	})
}

// database/sql prepares a statement on each connection that it runs on; a
// hit needs none of them.
func TestPreparedStatements(t *testing.T) {
	scenario(t, people, func(f *fixture) {
		stmt, err := f.db.PrepareContext(f.ctx, userByID)
		if err != nil {
			f.Fatal(err)
		}
		defer stmt.Close()
		p := f.on(prepared{stmt})
		p.warm(userByID, 1)
		p.warm(userByID, 2)

		write, err := f.db.PrepareContext(f.ctx, "UPDATE users SET name = $2 WHERE id = $1")
		if err != nil {
			f.Fatal(err)
		}
		defer write.Close()
		f.on(prepared{write}).exec("", 1, "anna")
		p.miss(userByID, 1).is("1 anna Oslo")
		p.hit(userByID, 2)

		returning, err := f.db.PrepareContext(f.ctx, "UPDATE users SET name = $2 WHERE id = $1 RETURNING name")
		if err != nil {
			f.Fatal(err)
		}
		defer returning.Close()
		f.on(prepared{returning}).runs(keying.NotRead, "", 1, "annette").is("annette")
		p.miss(userByID, 1).is("1 annette Oslo")

		// Wrong arguments: database/sql counts, PostgreSQL knows the types.
		plain, err := f.plain.PrepareContext(f.ctx, userByID)
		if err != nil {
			f.Fatal(err)
		}
		defer plain.Close()
		p.truth = prepared{plain}
		for _, args := range [][]any{{}, {1, 2}, {"x"}, {struct{}{}}} {
			p.fails(userByID, args...)
		}
		p.fresh(userByID, 1.5) // pgx makes 1 of it
		f.exec("UPDATE users SET name = 'ann' WHERE id = 1")
		p.fresh(userByID, 1.5)

		// In a transaction, on a connection where it was not prepared.
		tx, end := f.begin(nil)
		inTx := end.StmtContext(f.ctx, stmt)
		tx.on(prepared{inTx}).hit(userByID, 2)
		tx.on(prepared{end.StmtContext(f.ctx, write)}).exec("", 2, "bobby")
		tx.on(prepared{inTx}).runs(keying.InTransactionAfterWrite, userByID, 2).is("2 bobby Rome")
		p.hit(userByID, 2).is("2 bob Rome")
		f.commit(end)
		p.miss(userByID, 2).is("2 bobby Rome")

		if _, err := f.db.PrepareContext(f.ctx, "SELECT nothing FROM nowhere"); err == nil {
			f.Error("Prepare of nonsense: no error")
		}
	})
}

// A statement that was accepted once is prepared on other connections when it
// must run there, and not before.
func TestPreparingAgainCostsNothing(t *testing.T) {
	scenarioOnce(t, people, func(f *fixture) {
		p := f.proxy()
		v := p.via
		stmt, err := v.db.PrepareContext(f.ctx, userByID)
		if err != nil {
			f.Fatal(err)
		}
		defer stmt.Close()
		v.on(prepared{stmt}).warm(userByID, 1)
		f.conn(v.db) // takes the only connection that has dialled
		p.cut()
		v.on(prepared{stmt}).hit(userByID, 1)
		again, err := v.db.PrepareContext(f.ctx, userByID)
		if err != nil {
			f.Fatalf("Prepare of an accepted text asks PostgreSQL: %v", err)
		}
		defer again.Close()
		v.on(prepared{again}).hit(userByID, 1)
		if _, err := again.QueryContext(f.ctx, 2); err == nil {
			f.Error("a miss without PostgreSQL succeeded")
		}
		if _, err := again.QueryContext(f.ctx); err == nil || !strings.Contains(err.Error(), "expected 1 arguments, got 0") {
			f.Errorf("too few arguments: %v", err)
		}
		p.restore()
		v.on(prepared{again}).warm(userByID, 2)
	})
}

// DISCARD ALL drops what pgx has prepared by itself, and pgx fails then, once, with what it
// had. What of that is the driver's own is no failure of the caller's.
func TestWhatTheDriverHasPreparedMayBeDiscarded(t *testing.T) {
	scenario(t, people, func(f *fixture) {
		for _, db := range []*sql.DB{f.plain, f.db} {
			conn := f.conn(db)
			for _, text := range []string{"DISCARD ALL", "DEALLOCATE ALL"} {
				for _, query := range []string{"UPDATE users SET city = $1 WHERE id = 1 -- " + text, text, "UPDATE users SET name = $1 WHERE id = 1 -- " + text} {
					var args []any
					if query != text {
						args = []any{"x"}
					}
					if _, err := conn.ExecContext(f.ctx, query, args...); err != nil {
						f.Errorf("pgx: %v, %s: %v", db == f.plain, query, err)
					}
				}
			}
		}
	})
}

// gorm's migrator passes an exec mode as first argument.
func TestLeadingArgumentsOfPgx(t *testing.T) {
	scenario(t, people, func(f *fixture) {
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe,
			pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
			f.known(userByID, mode, 1)
			f.known("SELECT name FROM users ORDER BY id", mode)
			f.exec("UPDATE users SET name = $1 WHERE id = $2", mode, "x", 1)
			f.miss(userByID, mode, 1)
			f.exec("UPDATE users SET name = $1 WHERE id = $2", mode, "ann", 1)
		}
		f.bypass(keying.ResultFormats, userByID, pgx.QueryResultFormats{1, 0, 0}, 1)
		f.bypass(keying.ResultFormats, userByID, pgx.QueryResultFormatsByOID{23: 0}, 1)
	})
}

// A rewriter runs before the text is analysed: @id is an operator to the parser.
func TestNamedArguments(t *testing.T) {
	scenario(t, people, func(f *fixture) {
		const query, update = "SELECT id, name FROM users WHERE id = @id", "UPDATE users SET name = @name WHERE id = @id"
		f.warm(query, pgx.NamedArgs{"id": 1})
		f.warm(query, pgx.NamedArgs{"id": 2})
		f.hit(query, pgx.StrictNamedArgs{"id": 1})
		f.hit("SELECT id, name FROM users WHERE id = $1", 1)
		f.exec(update, pgx.NamedArgs{"id": 1, "name": "anna"})
		f.miss(query, pgx.NamedArgs{"id": 1}).is("1 anna")
		f.hit(query, pgx.NamedArgs{"id": 2})
		f.fails(query, pgx.StrictNamedArgs{"other": 1})
		f.fails(query, pgx.StrictNamedArgs{"id": 1, "other": 1})
		f.fresh(query, pgx.NamedArgs{"other": 1}) // is NULL
		f.fresh(query)                            // @ is an operator
		f.fails(query, 1)
		f.fails(query, sql.Named("id", 1))
	})
}

// ownRewriter is a rewriter that the driver knows nothing of.
type ownRewriter struct{ id int }

func (r ownRewriter) RewriteQuery(_ context.Context, conn *pgx.Conn, sql string, args []any) (string, []any, error) {
	if conn == nil {
		return "", nil, errors.New("no connection")
	}
	return strings.ReplaceAll(sql, "?", "$1"), []any{r.id}, nil
}

func TestARewriterOfTheApplication(t *testing.T) {
	scenario(t, people, func(f *fixture) {
		f.warm("SELECT name FROM users WHERE id = ?", ownRewriter{1}).is("ann")
		f.warm("SELECT name FROM users WHERE id = ?", ownRewriter{2}).is("bob")
		f.exec("UPDATE users SET name = 'x' WHERE id = ?", ownRewriter{1})
		f.miss("SELECT name FROM users WHERE id = ?", ownRewriter{1}).is("x")
		f.hit("SELECT name FROM users WHERE id = ?", ownRewriter{2})
	})
}

// Two DBs of one process on one database share the cache, or a write in one
// would leave stale entries in the other.
func TestTwoDBsShareTheCache(t *testing.T) {
	scenario(t, people, func(f *fixture) {
		other := f.with("cache_ttl=10m", "application_name=other")
		f.warm(userByID, 1)
		other.hit(userByID, 1)
		other.exec("UPDATE users SET name = 'anna' WHERE id = 1")
		f.miss(userByID, 1).is("1 anna Oslo")
		off := f.with("cache_store=off")
		off.exec("UPDATE users SET name = 'annette' WHERE id = 1")
		f.miss(userByID, 1).is("1 annette Oslo")
		if err := other.db.Close(); err != nil {
			f.Error(err)
		}
		f.hit(userByID, 1)
	})
}

func TestAConfigurationRegisteredWithPgx(t *testing.T) {
	scenarioOnce(t, people, func(f *fixture) {
		config, err := pgx.ParseConfig(f.dsn)
		if err != nil {
			f.Fatal(err)
		}
		config.RuntimeParams["application_name"] = "registered"
		name := stdlib.RegisterConnConfig(config)
		defer stdlib.UnregisterConnConfig(name)
		v := f.asking(f.open("cachedpg", name))
		v.warm(userByID, 1)
		v.exec("UPDATE users SET name = 'anna' WHERE id = 1")
		v.miss(userByID, 1)
		withKeys := f.asking(f.open("cachedpg", name+" cache_store=off"))
		withKeys.bypass(keying.CacheOff, userByID, 1)

		unknown := f.open("cachedpg", "registeredConnConfig999").PingContext(f.ctx)
		sameError(f, unknown, f.open("pgx", "registeredConnConfig999").PingContext(f.ctx))
	})
}

// A hook makes sessions that differ from what their DSN says.
func TestWrappedConnectors(t *testing.T) {
	scenarioInMemory(t, "CREATE TABLE v AS SELECT 1 AS id, '2024-05-01 12:00Z'::timestamptz AS at", func(f *fixture) {
		const query = "SELECT at::text FROM v WHERE id = $1"
		first := f.warm(query, 1).String()
		config, err := pgx.ParseConfig(f.dsn)
		if err != nil {
			f.Fatal(err)
		}
		hook := func(ctx context.Context, conn *pgx.Conn) error {
			_, err := conn.Exec(ctx, "SET TIME ZONE 'Asia/Tokyo'")
			return err
		}
		connector, err := WrapConnector(stdlib.GetConnector(*config, stdlib.OptionAfterConnect(hook)), Config{})
		if err != nil {
			f.Fatal(err)
		}
		tokyo := f.asking(sql.OpenDB(connector))
		defer tokyo.db.Close()
		plain := stdlib.OpenDB(*config, stdlib.OptionAfterConnect(hook))
		defer plain.Close()
		tokyo.truth = plain
		if tokyo.warm(query, 1).String() == first {
			f.Error("the hook's setting is not in the key")
		}
		f.hit(query, 1).is(first)
		tokyo.exec("UPDATE v SET at = at + interval '1 hour' WHERE id = $1", 1)
		tokyo.miss(query, 1)
		f.miss(query, 1)
		f.known("SELECT id FROM v")

		// Nothing is seen of what is done with the pgx connection.
		err = PgxConn(f.ctx, f.conn(tokyo.db), func(conn *pgx.Conn) error {
			_, err := conn.Exec(f.ctx, "UPDATE v SET id = 2")
			return err
		})
		if err != nil {
			f.Fatal(err)
		}
		f.fresh("SELECT id FROM v").is("2")

		pool, err := pgxpool.NewWithConfig(f.ctx, f.poolConfig())
		if err != nil {
			f.Fatal(err)
		}
		defer pool.Close()
		if connector, err = WrapConnector(stdlib.GetPoolConnector(pool), Config{}); err != nil {
			f.Fatal(err)
		}
		pooled := f.asking(sql.OpenDB(connector))
		defer pooled.db.Close()
		pooled.db.SetMaxIdleConns(0)
		pooled.known(query, 2)
		pooled.exec("UPDATE v SET at = at + interval '1 hour' WHERE id = $1", 2)
		pooled.miss(query, 2)
		pooled.hit(query, 2)
		f.hit(query, 2)
	})
}

// A connector that gives something else is refused, and what it gave is closed.
func TestAConnectorThatIsNotPgxs(t *testing.T) {
	other := &otherConnector{}
	connector, err := WrapConnector(other, Config{})
	if err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(connector)
	if err := db.Ping(); !errors.Is(err, errNotPgx) {
		t.Errorf("got %v, want %v", err, errNotPgx)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	if !other.closed || other.open != 0 {
		t.Errorf("connector closed: %v, connections open: %d", other.closed, other.open)
	}
}

type otherConnector struct {
	closed bool
	open   int
}

func (c *otherConnector) Connect(context.Context) (driver.Conn, error) {
	c.open++
	return otherConn{c: c}, nil
}
func (c *otherConnector) Driver() driver.Driver { return nil }
func (c *otherConnector) Close() error          { c.closed = true; return nil }

type otherConn struct {
	driver.Conn
	c *otherConnector
}

func (c otherConn) Close() error { c.c.open--; return nil }

// cancelRequest is what pgx sends, on a connection of its own, when it gives
// up waiting. The proxy loses it: PostgreSQL goes on.
const cancelRequest = 80877102

// proxy is a TCP connection to PostgreSQL that can be cut.
type proxy struct {
	via
	listener net.Listener
	target   string

	mu    sync.Mutex // guards the fields below
	down  bool
	conns []net.Conn
}

// proxy opens another cachedpg DB through a proxy.
func (f *fixture) proxy(keys ...string) *proxy {
	f.Helper()
	config, err := pgx.ParseConfig(f.dsn)
	if err != nil {
		f.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	p := &proxy{listener: l, target: net.JoinHostPort(config.Host, fmt.Sprint(config.Port))}
	var running sync.WaitGroup
	running.Go(func() { p.serve(&running) })
	f.Cleanup(func() {
		l.Close()
		p.cut()
		running.Wait()
	})
	_, port, _ := net.SplitHostPort(l.Addr().String())
	p.via = f.with(append(keys, "host=127.0.0.1", "port="+port)...)
	return p
}

func (p *proxy) serve(running *sync.WaitGroup) {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		var head [8]byte // a length, and a protocol version or what is none
		_, err = io.ReadFull(client, head[:])
		if err != nil || binary.BigEndian.Uint32(head[4:]) == cancelRequest {
			client.Close()
			continue
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil {
			client.Close()
			continue
		}
		p.mu.Lock()
		if p.down {
			client.Close()
			server.Close()
			p.mu.Unlock()
			continue
		}
		p.conns = append(p.conns, client, server)
		p.mu.Unlock()
		server.Write(head[:])
		running.Go(func() { io.Copy(server, client); server.Close() })
		running.Go(func() { io.Copy(client, server); client.Close() })
	}
}

// cut breaks every connection and refuses new ones.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = true
	for _, c := range p.conns {
		c.Close()
	}
	p.conns = nil
}

func (p *proxy) restore() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = false
}

// A hit needs no PostgreSQL.
func TestHitsWhilePostgreSQLIsUnreachable(t *testing.T) {
	scenario(t, people, func(f *fixture) {
		p := f.proxy()
		p.warm(userByID, 1)
		p.warm("SELECT name FROM users ORDER BY id")
		p.cut()
		for range 3 { // also on connections that have not dialled, or are broken
			p.hit(userByID, 1)
			p.hit("SELECT name FROM users ORDER BY id")
		}
		if _, err := p.db.QueryContext(f.ctx, userByID, 2); err == nil {
			f.Error("a miss without PostgreSQL succeeded")
		}
		if _, err := p.db.ExecContext(f.ctx, "UPDATE users SET name = 'x' WHERE id = 1"); err == nil {
			f.Error("a write without PostgreSQL succeeded")
		}
		if err := p.db.PingContext(f.ctx); err == nil {
			f.Error("a ping without PostgreSQL succeeded")
		}
		p.hit("SELECT name FROM users ORDER BY id")
		p.restore()
		p.fresh(userByID, 1)
		p.again(userByID, 2) // once it is known that nobody else has written meanwhile
	})
}

// A hit takes no connection from those that PostgreSQL has.
func TestAHitDialsNothing(t *testing.T) {
	scenarioOnce(t, people, func(f *fixture) {
		f.warm(userByID, 1)
		for range 4 {
			conn := f.conn(f.db)
			f.on(conn).hit(userByID, 1)
			err := conn.Raw(func(c any) error {
				if c.(*Conn).inner != nil && f.db.Stats().OpenConnections > 1 {
					return errors.New("it has dialled")
				}
				return nil
			})
			if err != nil {
				f.Error(err)
			}
		}
	})
}

// The connection breaks while PostgreSQL executes a write: only PostgreSQL
// knows what became of it, and the cache waits until it says.
func TestTheAnswerToAWriteIsLost(t *testing.T) {
	scenarioInMemory(t, people+`CREATE FUNCTION wait(n text) RETURNS text LANGUAGE plpgsql AS
		'BEGIN PERFORM pg_advisory_lock_shared(1), pg_advisory_unlock_shared(1); RETURN n; END'`, func(f *fixture) {
		p := f.proxy()
		f.warm(userByID, 1)
		f.warm(userByID, 2)
		g := f.closeGate()
		lost := make(chan error, 1)
		go func() {
			_, err := p.db.ExecContext(f.ctx, "UPDATE users SET name = wait('anna') WHERE id = 1")
			lost <- err
		}()
		g.await(1)
		f.bypass(keying.DirtyTag, userByID, 1)
		p.cut()
		if err := <-lost; err == nil || errors.Is(err, driver.ErrBadConn) {
			f.Errorf("got %v, want the error of a broken connection", err)
		}
		p.restore()
		f.bypass(keying.DirtyTag, userByID, 1).is("1 ann Oslo")
		if s := StatsOf(p.db); s.UnknownOutcome != 1 || s.Unresolved != 1 {
			f.Errorf("%d writes of unknown outcome, %d unresolved, want 1 and 1", s.UnknownOutcome, s.Unresolved)
		}
		g.open() // PostgreSQL commits now, for nobody
		f.until("the outcome", func() bool { return StatsOf(p.db).Unresolved == 0 })
		f.miss(userByID, 1).is("1 anna Oslo")
		f.hit(userByID, 1)
	})
}
