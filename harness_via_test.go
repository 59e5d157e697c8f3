package cachedpg

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/keying"
)

// asker is a *sql.DB, *sql.Conn, *sql.Tx or a statement.
type asker interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// prepared makes an asker of a statement; the text given with each question is
// for the messages only.
type prepared struct{ *sql.Stmt }

func (p prepared) QueryContext(ctx context.Context, _ string, args ...any) (*sql.Rows, error) {
	return p.Stmt.QueryContext(ctx, args...)
}

func (p prepared) ExecContext(ctx context.Context, _ string, args ...any) (sql.Result, error) {
	return p.Stmt.ExecContext(ctx, args...)
}

// via asks something of the driver, sees in the stats how it was answered, and
// compares with the truth.
type via struct {
	f     *fixture
	db    *sql.DB // whose stats count
	ask   asker
	truth asker // plain pgx
	under func(context.Context) context.Context
}

// on returns the via that asks x, a connection or transaction of the same DB.
func (v via) on(x asker) via {
	v.ask = x
	return v
}

// in returns the via whose questions have a context made by f.
func (v via) in(f func(context.Context) context.Context) via {
	v.under = f
	return v
}

func (v via) askContext() context.Context {
	if v.under == nil {
		return v.f.ctx
	}
	return v.under(v.f.ctx)
}

// hit: the query is answered from the cache, and as plain pgx answers it now.
func (v via) hit(query string, args ...any) result {
	v.f.Helper()
	return v.expect("hit", true, query, args)
}

// miss: the query runs on PostgreSQL and its result is as plain pgx gives it.
func (v via) miss(query string, args ...any) result {
	v.f.Helper()
	return v.expect("miss", true, query, args)
}

// warm: the query has not been cached, and is from now on.
func (v via) warm(query string, args ...any) result {
	v.f.Helper()
	v.miss(query, args...)
	return v.hit(query, args...)
}

// bypass: the cache is not asked, for this reason, and the result is as plain pgx gives it.
func (v via) bypass(reason keying.Reason, query string, args ...any) result {
	v.f.Helper()
	return v.expect("bypass "+reason.String(), true, query, args)
}

// runs is bypass for a query that must not run twice, or whose result is its own.
func (v via) runs(reason keying.Reason, query string, args ...any) result {
	v.f.Helper()
	return v.expect("bypass "+reason.String(), false, query, args)
}

// known: the query is cached from now on, if it was not already.
func (v via) known(query string, args ...any) result {
	v.f.Helper()
	v.fresh(query, args...)
	return v.hit(query, args...)
}

// fresh: whatever the driver does, the result is as plain pgx gives it.
func (v via) fresh(query string, args ...any) result {
	v.f.Helper()
	return v.expect("", true, query, args)
}

// fails: the error is the one that plain pgx gives, and the cache has no part in it.
func (v via) fails(query string, args ...any) error {
	v.f.Helper()
	before := inside.Counted(v.db)
	got := v.read(v.ask, query, args)
	if met := difference(before, inside.Counted(v.db)); strings.Contains(met, "hit") {
		v.f.Errorf("%s: got %s, want an error", query, met)
	}
	want := v.read(v.truth, query, args)
	if fmt.Sprint(got.err) != fmt.Sprint(want.err) || want.err == nil {
		v.f.Errorf("%s: got error %v, plain pgx %v", query, got.err, want.err)
	}
	return got.err
}

// asPgx asks twice: rows or error are those of plain pgx.
func (v via) asPgx(query string, args ...any) {
	v.f.Helper()
	for range 2 {
		got, want := v.read(v.ask, query, args), v.read(v.truth, query, args)
		switch {
		case want.err != nil && (got.err == nil || got.err.Error() != want.err.Error()):
			v.f.Errorf("%s with a %T: got %q, error %v, plain pgx's error is %v", query, first(args), got, got.err, want.err)
		case want.err == nil && (got.err != nil || got.String() != want.String()):
			v.f.Errorf("%s with a %T: got %q, error %v, plain pgx's %q", query, first(args), got, got.err, want)
		}
	}
}

func first(args []any) any {
	if len(args) == 0 {
		return nil
	}
	return args[0]
}

func (v via) expect(want string, compare bool, query string, args []any) result {
	v.f.Helper()
	v.released()
	before := inside.Counted(v.db)
	r := v.read(v.ask, query, args)
	got := difference(before, inside.Counted(v.db))
	if r.err != nil {
		v.f.Fatalf("%s: %v (%s)", query, r.err, got)
	}
	if got != want && want != "" {
		v.f.Fatalf("%s: got a %s, want a %s", query, cmp.Or(got, "query that was not counted"), want)
	}
	if compare {
		v.compare(r, query, args)
	}
	return r
}

func (v via) compare(got result, query string, args []any) {
	v.f.Helper()
	want := v.read(v.truth, query, args)
	if want.err != nil {
		v.f.Fatalf("%s: plain pgx: %v", query, want.err)
	}
	if !reflect.DeepEqual(got.columns, want.columns) {
		v.f.Fatalf("%s: columns:\ngot         %v\nplain pgx's %v", query, got.columns, want.columns)
	}
	if !reflect.DeepEqual(got.rows, want.rows) {
		v.f.Fatalf("%s: rows:\ngot         %s\nplain pgx's %s", query, got, want)
	}
}

// difference says in words what one query was counted as.
func difference(before, after inside.Counts) string {
	var met []string
	count := func(what string, b, a uint64) {
		for ; b < a; b++ {
			met = append(met, what)
		}
	}
	count("hit", before.Hits, after.Hits)
	count("miss", before.Misses, after.Misses)
	count("bypass "+keying.NotRead.String(), before.Others, after.Others)
	for _, reason := range slices.Sorted(maps.Keys(after.Bypasses)) {
		count("bypass "+reason, before.Bypasses[reason], after.Bypasses[reason])
	}
	return strings.Join(met, " + ")
}

// exec executes through the driver, which must not answer it from the cache.
func (v via) exec(query string, args ...any) sql.Result {
	v.f.Helper()
	r, err := v.ask.ExecContext(v.askContext(), query, args...)
	if err != nil {
		v.f.Fatalf("%v\nin: %s", err, query)
	}
	return r
}

// both executes through the driver and on the connection that it is compared with.
func (v via) both(query string, args ...any) {
	v.f.Helper()
	v.exec(query, args...)
	if _, err := v.truth.ExecContext(v.f.ctx, query, args...); err != nil {
		v.f.Fatalf("plain pgx: %v\nin: %s", err, query)
	}
}
