package main

import (
	"context"
	"fmt"
	"syscall"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg/internal/child"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/redistest"
)

// postgres is the PostgreSQL server that takes writes, and the ways that lead to
// it: a pgbouncer for some processes, a proxy for each of the others. The nemesis
// may do anything to it, and put another in its place.
type postgres struct {
	*pgtest.Server
	scope   *scope
	bouncer *pgtest.Bouncer
	direct  []*redistest.Proxied // lead to the server
	pooled  []*redistest.Proxied // lead to the pgbouncer
}

// startPostgres makes a cluster and starts it. Commits are durable, as the
// nemesis kills the server.
func startPostgres(s *scope) *postgres {
	p := &postgres{scope: s, Server: pgtest.StartServer(s)}
	p.Exec("ALTER SYSTEM SET lock_timeout = '1s'", "SELECT pg_reload_conf()") // keeps faults short
	p.bouncer = pgtest.StartBouncer(s, p.DSN(), "transaction")
	return p
}

// link returns a proxy that leads to the server, whichever it is.
func (p *postgres) link() *redistest.Proxied {
	proxy := redistest.Proxy(p.scope, p.Addr())
	p.direct = append(p.direct, proxy)
	return proxy
}

// pooledLink returns a proxy that leads to the pgbouncer.
func (p *postgres) pooledLink() *redistest.Proxied {
	proxy := redistest.Proxy(p.scope, p.bouncer.Addr())
	p.pooled = append(p.pooled, proxy)
	return proxy
}

// takeOver has everybody reach another server from now on. Clients of pgbouncer
// stay connected.
func (p *postgres) takeOver(next *pgtest.Server) {
	p.Server = next
	p.bouncer.Repoint(next.DSN())
	for _, proxy := range p.direct {
		proxy.SwitchTo(next.Addr())
	}
}

// shut keeps everybody from the server until open.
func (p *postgres) shut() {
	for _, proxy := range append(p.pooled, p.direct...) {
		proxy.Refuse()
	}
}

func (p *postgres) open() {
	for _, proxy := range append(p.pooled, p.direct...) {
		proxy.Restore()
	}
}

// restart ends the server, by SIGINT (fast) or SIGQUIT (immediate, which leaves
// recovery to do), and starts it again.
func (p *postgres) restart(how syscall.Signal) {
	if how == syscall.SIGINT {
		p.Stop()
	} else {
		p.Crash()
	}
	p.Start()
}

// rows returns what the server says of every row, past everything. What is
// prepared is rolled back: who has ended it may have done so on a server that is
// no more.
func (p *postgres) rows() (found values) {
	ctx, conn, end := p.connect()
	defer end()
	prepared, err := column(ctx, conn, "SELECT gid FROM pg_prepared_xacts")
	for _, gid := range prepared {
		if err == nil {
			_, err = conn.Exec(ctx, fmt.Sprintf("ROLLBACK PREPARED '%s'", gid))
		}
	}
	found = values{}
	for _, id := range allRows() {
		found[id] = ""
	}
	if err == nil {
		var id int
		var v string
		rows, _ := conn.Query(ctx, "SELECT id, v FROM item")
		_, err = pgx.ForEachRow(rows, []any{&id, &v}, func() error { found[id] = v; return nil })
	}
	var names []string
	if err == nil {
		names, err = column(ctx, conn, shapeName)
	}
	if err != nil || len(names) != 1 {
		p.scope.Fatalf("the rows of a server that took over: %v, %d names", err, len(names))
	}
	found[shape] = names[0]
	return found
}

// connect returns a connection past the driver, and a context that bounds its use.
func (p *postgres) connect() (ctx context.Context, conn *pgx.Conn, end func()) {
	ctx, cancel := context.WithTimeout(context.Background(), child.Wait)
	conn, err := pgx.Connect(ctx, p.DSN())
	if err != nil {
		cancel()
		p.scope.Fatal(err)
	}
	return ctx, conn, func() {
		conn.Close(ctx)
		cancel()
	}
}

func (p *postgres) oid(table string) (oid uint32) {
	ctx, conn, end := p.connect()
	defer end()
	if err := conn.QueryRow(ctx, "SELECT $1::regclass::oid", table).Scan(&oid); err != nil {
		p.scope.Fatal(err)
	}
	return oid
}

func column(ctx context.Context, conn *pgx.Conn, query string) ([]string, error) {
	rows, _ := conn.Query(ctx, query)
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// quiet waits until nothing is under way that could still commit.
func (p *postgres) quiet() {
	child.Until(p.scope, "no transaction is open", func() error {
		open := p.Query("SELECT ((SELECT count(*) FROM pg_stat_activity WHERE backend_xid IS NOT NULL)" +
			" + (SELECT count(*) FROM pg_prepared_xacts))::text")
		if open != "0" {
			return fmt.Errorf("%s are", open)
		}
		return nil
	})
}
