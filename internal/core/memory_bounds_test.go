package core

import (
	"database/sql/driver"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"weak"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/config"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/planning"
	"github.com/cachedpg/cachedpg/internal/space"
	"github.com/cachedpg/cachedpg/store"
)

// heapOf is what is alive after f more than before, in bytes. The test must not be parallel.
func heapOf(f func() (alive any)) int64 {
	heap := func() int64 {
		var s runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&s)
		return int64(s.HeapAlloc)
	}
	before := heap()
	alive := f()
	after := heap()
	runtime.KeepAlive(alive)
	return after - before
}

// What a caller keeps of a result holds on to little else of it: a value, or the names
// of its columns.
func TestAStringThatIsKeptDoesNotKeepItsResult(t *testing.T) {
	const results, size = 1000, 20_000
	entry := func(i int) *store.Entry {
		data := store.AppendValue(nil, []byte(fmt.Sprintf("name %d", i)))
		return &store.Entry{Columns: []store.Column{{Name: "name", Type: pgtype.TextOID}, {Name: "body", Type: pgtype.TextOID}}, Rows: 1,
			Data: string(store.AppendValue(data, make([]byte, size)))}
	}
	for _, tc := range []struct {
		name string
		keep func(i int) any
	}{
		{"value", func(i int) any {
			dest := make([]driver.Value, 2)
			if err := newRows(new(DB).newConn(usedByTracer), entry(i)).Next(dest); err != nil {
				t.Fatal(err)
			}
			return dest[0]
		}},
		{"value of a shared store", func(i int) any {
			e, err := store.DecodeEntry(store.AppendEntry(nil, entry(i)))
			if err != nil {
				t.Fatal(err)
			}
			dest := make([]driver.Value, 2)
			if err := newRows(new(DB).newConn(usedByTracer), e).Next(dest); err != nil {
				t.Fatal(err)
			}
			return dest[0]
		}},
		{"names of columns", func(i int) any {
			e, err := store.DecodeEntry(store.AppendEntry(nil, entry(i)))
			if err != nil {
				t.Fatal(err)
			}
			return newRows(new(DB).newConn(usedByTracer), e).Columns()
		}},
	} {
		kept := heapOf(func() any {
			var all []any
			for i := range results {
				all = append(all, tc.keep(i))
			}
			return all
		})
		if kept > results*1000 {
			t.Errorf("%s: %d bytes are alive for each result of %d", tc.name, kept/results, size)
		}
	}
}

// A large value is not copied: what is kept of the result is most of it.
func TestALargeValueIsShared(t *testing.T) {
	src := strings.Repeat("x", 1000)
	if n := testing.AllocsPerRun(10, func() { share(src, len(src)+100) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// The plans of a connector take no more than is promised, whatever their texts and however
// many search_paths there are, and the catalogs of before are not kept.
func TestPlansStayWithinTheirBound(t *testing.T) {
	values := func(rows int) string {
		return "INSERT INTO t (id, v) VALUES " + strings.TrimSuffix(strings.Repeat("($1, $2), ", rows), ", ")
	}
	for _, tc := range []struct {
		name string
		n    int
		text func(i int) string
	}{
		{"4,096 texts of 15 KB", 4096, func(i int) string {
			return fmt.Sprintf("SELECT c%d FROM t WHERE v = '%s'", i, strings.Repeat("x", 15_000))
		}},
		{"4,096 literals of 15 KB", 4096, func(i int) string {
			return fmt.Sprintf("SELECT v FROM t WHERE v = '%d%s'", i, strings.Repeat("''", 7_000))
		}},
		{"4,096 names of 15 KB", 4096, func(i int) string {
			return fmt.Sprintf("SELECT v FROM t WHERE v = $1 OR %s", strings.Repeat(fmt.Sprintf("c%d < 1 OR ", i), 1000)+"true")
		}},
		{"600 sizes of a batch", 600, values},
		{"20,000 short texts", 20_000, func(i int) string { return fmt.Sprintf("SELECT v AS c%d FROM t WHERE id = $1", i) }},
		{"40,000 literals", 40_000, func(i int) string { return fmt.Sprintf("SELECT v FROM t WHERE id = %d", i) }},
		{"texts that are not understood", 2000, func(i int) string { return fmt.Sprintf("NONSENSE %d %s", i, strings.Repeat("x", 15_000)) }},
	} {
		d, err := newDB(config.Config{Memory: 1 << 20, MaxEntry: 1 << 16})
		if err != nil {
			t.Fatal(err)
		}
		v := &space.View{Snapshot: catalog.NewSnapshot(catalog.Contents{})}
		sessions := []*planning.Session{{Session: backend.Session{Path: []string{"public"}, PathKey: "public"}}, {Session: backend.Session{Path: []string{"tenant"}, PathKey: "tenant"}}}
		alive := heapOf(func() any {
			for i := range tc.n {
				d.Plan(v, sessions[i%2], tc.text(i+1))
				if i%4 == 0 {
					d.Plan(space.NoCatalog, sessions[i%2], tc.text(i+1))
				}
			}
			return d
		})
		bound := planning.PlanBytes(&d.Config) + planning.MaxStatsBytes
		t.Logf("%-30s %5d KiB alive, bound %d KiB", tc.name, alive>>10, bound>>10)
		if alive > bound*11/10 {
			t.Errorf("%s: %d bytes are alive, which is more than %d", tc.name, alive, bound)
		}
		runtime.KeepAlive(d)
	}
}

// What was planned in a catalog goes with it.
func TestPlansGoWithTheirCatalog(t *testing.T) {
	d, err := newDB(config.Config{})
	if err != nil {
		t.Fatal(err)
	}
	s := &planning.Session{Session: backend.Session{Path: []string{"public"}, PathKey: "public"}}
	alive := heapOf(func() any {
		for range 20 {
			v := &space.View{Snapshot: catalog.NewSnapshot(catalog.Contents{Relations: []*catalog.Relation{{OID: 1, Schema: "public", Name: "t", View: strings.Repeat("x", 1<<20)}}})}
			for i := range 100 {
				d.Plan(v, s, fmt.Sprintf("SELECT c%d FROM t", i))
			}
		}
		return d
	})
	if alive > 4<<20 {
		t.Errorf("%d bytes are alive of 20 catalogs of a megabyte", alive)
	}
}

// A catalog that is not current any more is kept by nobody, however it was used: not by what is remembered
// of settings, nor by sessions that come no more. The current one goes with the DB, even if a program keeps that.
func TestNoCatalogOfBeforeIsKept(t *testing.T) {
	harness.ScenarioOnce(t, harness.People, func(f *harness.Fixture) {
		f.DB.SetMaxOpenConns(1)
		var catalogs []weak.Pointer[catalog.Snapshot]
		for i := range 3 {
			f.Exec(fmt.Sprintf("CREATE TABLE another_%d (id int)", i))
			f.Known(harness.UserByID, 1)
			for _, text := range []string{fmt.Sprintf("SET timezone = 'Etc/GMT+%d'", i+1), "SET search_path = cache_statement, public", "RESET timezone", "RESET search_path"} {
				f.Exec(text)
				f.Known(harness.UserByID, 1)
			}
			catalogs = append(catalogs, weak.Make(dbOf(f.DB).space().View.Load().Snapshot))
		}
		gone := func(what string, all []weak.Pointer[catalog.Snapshot]) {
			f.Helper()
			f.Until(what, func() bool {
				runtime.GC()
				return !slices.ContainsFunc(all, func(c weak.Pointer[catalog.Snapshot]) bool { return c.Value() != nil })
			})
		}
		gone("the end of the catalogs before", catalogs[:2])
		if catalogs[2].Value() == nil {
			f.Error("the current catalog is gone")
		}
		if err := f.DB.Close(); err != nil {
			f.Fatal(err)
		}
		gone("the end of the last catalog", catalogs)
		runtime.KeepAlive(f.DB)
	})
}
