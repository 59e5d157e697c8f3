package harness

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

// Asker is a *sql.DB, *sql.Conn, *sql.Tx or a statement.
type Asker interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// Prepared makes an asker of a statement; the text given with each question is
// for the messages only.
type Prepared struct{ *sql.Stmt }

func (p Prepared) QueryContext(ctx context.Context, _ string, args ...any) (*sql.Rows, error) {
	return p.Stmt.QueryContext(ctx, args...)
}

func (p Prepared) ExecContext(ctx context.Context, _ string, args ...any) (sql.Result, error) {
	return p.Stmt.ExecContext(ctx, args...)
}

// Via asks something of the driver, sees in the stats how it was answered, and
// compares with the truth.
type Via struct {
	F     *Fixture
	DB    *sql.DB // whose stats count
	Ask   Asker
	Truth Asker // plain pgx
	under func(context.Context) context.Context
}

// On returns the via that asks x, a connection or transaction of the same DB.
func (v Via) On(x Asker) Via {
	v.Ask = x
	return v
}

// In returns the via whose questions have a context made by f.
func (v Via) In(f func(context.Context) context.Context) Via {
	v.under = f
	return v
}

// AskContext is the context of the questions, see In.
func (v Via) AskContext() context.Context {
	if v.under == nil {
		return v.F.Ctx
	}
	return v.under(v.F.Ctx)
}

// Hit: the query is answered from the cache, and as plain pgx answers it now.
func (v Via) Hit(query string, args ...any) Result {
	v.F.Helper()
	return v.Expect("hit", true, query, args)
}

// Miss: the query runs on PostgreSQL and its result is as plain pgx gives it.
func (v Via) Miss(query string, args ...any) Result {
	v.F.Helper()
	return v.Expect("miss", true, query, args)
}

// Warm: the query has not been cached, and is from now on.
func (v Via) Warm(query string, args ...any) Result {
	v.F.Helper()
	v.Miss(query, args...)
	return v.Hit(query, args...)
}

// Bypass: the cache is not asked, for this reason, and the result is as plain pgx gives it.
func (v Via) Bypass(reason keying.Reason, query string, args ...any) Result {
	v.F.Helper()
	return v.Expect("bypass "+reason.String(), true, query, args)
}

// Runs is bypass for a query that must not run twice, or whose result is its own.
func (v Via) Runs(reason keying.Reason, query string, args ...any) Result {
	v.F.Helper()
	return v.Expect("bypass "+reason.String(), false, query, args)
}

// Known: the query is cached from now on, if it was not already.
func (v Via) Known(query string, args ...any) Result {
	v.F.Helper()
	v.Fresh(query, args...)
	return v.Hit(query, args...)
}

// Fresh: whatever the driver does, the result is as plain pgx gives it.
func (v Via) Fresh(query string, args ...any) Result {
	v.F.Helper()
	return v.Expect("", true, query, args)
}

// Fails: the error is the one that plain pgx gives, and the cache has no part in it.
func (v Via) Fails(query string, args ...any) error {
	v.F.Helper()
	before := inside.Counted(v.DB)
	got := v.Read(v.Ask, query, args)
	if met := Difference(before, inside.Counted(v.DB)); strings.Contains(met, "hit") {
		v.F.Errorf("%s: got %s, want an error", query, met)
	}
	want := v.Read(v.Truth, query, args)
	if fmt.Sprint(got.Err) != fmt.Sprint(want.Err) || want.Err == nil {
		v.F.Errorf("%s: got error %v, plain pgx %v", query, got.Err, want.Err)
	}
	return got.Err
}

// AsPgx asks twice: rows or error are those of plain pgx.
func (v Via) AsPgx(query string, args ...any) {
	v.F.Helper()
	for range 2 {
		got, want := v.Read(v.Ask, query, args), v.Read(v.Truth, query, args)
		switch {
		case want.Err != nil && (got.Err == nil || got.Err.Error() != want.Err.Error()):
			v.F.Errorf("%s with a %T: got %q, error %v, plain pgx's error is %v", query, First(args), got, got.Err, want.Err)
		case want.Err == nil && (got.Err != nil || got.String() != want.String()):
			v.F.Errorf("%s with a %T: got %q, error %v, plain pgx's %q", query, First(args), got, got.Err, want)
		}
	}
}

// First is the first argument, nil if there is none.
func First(args []any) any {
	if len(args) == 0 {
		return nil
	}
	return args[0]
}

// Expect reads, and checks how the query was answered and, where compare is set, with what.
func (v Via) Expect(want string, compare bool, query string, args []any) Result {
	v.F.Helper()
	v.Released()
	before := inside.Counted(v.DB)
	r := v.Read(v.Ask, query, args)
	got := Difference(before, inside.Counted(v.DB))
	if r.Err != nil {
		v.F.Fatalf("%s: %v (%s)", query, r.Err, got)
	}
	if got != want && want != "" {
		v.F.Fatalf("%s: got a %s, want a %s", query, cmp.Or(got, "query that was not counted"), want)
	}
	if compare {
		v.Compare(r, query, args)
	}
	return r
}

// Compare compares with what plain pgx gives now.
func (v Via) Compare(got Result, query string, args []any) {
	v.F.Helper()
	want := v.Read(v.Truth, query, args)
	if want.Err != nil {
		v.F.Fatalf("%s: plain pgx: %v", query, want.Err)
	}
	if !reflect.DeepEqual(got.Columns, want.Columns) {
		v.F.Fatalf("%s: columns:\ngot         %v\nplain pgx's %v", query, got.Columns, want.Columns)
	}
	if !reflect.DeepEqual(got.Rows, want.Rows) {
		v.F.Fatalf("%s: rows:\ngot         %s\nplain pgx's %s", query, got, want)
	}
}

// Difference says in words what one query was counted as.
func Difference(before, after inside.Counts) string {
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

// Exec executes through the driver, which must not answer it from the cache.
func (v Via) Exec(query string, args ...any) sql.Result {
	v.F.Helper()
	r, err := v.Ask.ExecContext(v.AskContext(), query, args...)
	if err != nil {
		v.F.Fatalf("%v\nin: %s", err, query)
	}
	return r
}

// Both executes through the driver and on the connection that it is compared with.
func (v Via) Both(query string, args ...any) {
	v.F.Helper()
	v.Exec(query, args...)
	if _, err := v.Truth.ExecContext(v.F.Ctx, query, args...); err != nil {
		v.F.Fatalf("plain pgx: %v\nin: %s", err, query)
	}
}

// Querier is a *sql.DB, *sql.Conn or *sql.Tx.
type Querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// OwnerOf returns the one value that a query gives, or its error in words.
func OwnerOf(ctx context.Context, on Querier, query string, args ...any) string {
	var owner string
	if err := on.QueryRowContext(ctx, query, args...).Scan(&owner); err != nil {
		return err.Error()
	}
	return owner
}
