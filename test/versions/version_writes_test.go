package versions

import (
	"strings"
	"testing"

	"github.com/cachedpg/cachedpg/internal/harness"
)

// newerWrite is a statement that servers before a version do not accept. It
// changes what the reads of writtenByNewer see, unless it is idle.
type newerWrite struct {
	since int
	idle  bool
	wide  bool // everything may be invalidated
	text  string
}

// writtenByNewer is what newerTables look like before and after.
var writtenByNewer = []string{
	"SELECT id, name, doc FROM items ORDER BY id",
	"SELECT name FROM items WHERE id = 1",
	"SELECT name FROM items WHERE id = 2",
	"SELECT name FROM items WHERE id = 7",
	"SELECT count(*) FROM items",
	"SELECT id, v FROM other ORDER BY id",
	"SELECT v FROM other WHERE id = 1",
	"SELECT id, name FROM shown ORDER BY id",
}

var newerWrites = []newerWrite{
	{since: 15, text: "MERGE INTO items i USING other o ON i.id = o.id WHEN MATCHED THEN UPDATE SET name = 'merged' WHEN NOT MATCHED THEN INSERT (id, name) VALUES (o.id, 'new')"},
	{since: 15, text: "MERGE INTO items i USING other o ON i.id = o.id WHEN MATCHED AND o.v < 50 THEN DELETE WHEN NOT MATCHED THEN DO NOTHING"},
	{since: 15, text: "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) MERGE INTO items i USING other o ON i.id = o.id WHEN MATCHED THEN DELETE"},
	{since: 17, text: "MERGE INTO items i USING other o ON i.id = o.id WHEN MATCHED THEN UPDATE SET name = 'merged' WHEN NOT MATCHED THEN INSERT (id, name) VALUES (o.id, 'new') RETURNING merge_action(), i.id"},
	{since: 17, text: "MERGE INTO items i USING other o ON i.id = o.id WHEN NOT MATCHED BY SOURCE THEN DELETE"},
	{since: 17, text: "MERGE INTO items i USING other o ON i.id = o.id WHEN NOT MATCHED BY SOURCE THEN UPDATE SET name = 'gone' WHEN NOT MATCHED BY TARGET THEN INSERT (id, name) VALUES (o.id, 'new')"},
	{since: 17, text: "WITH m AS (MERGE INTO items i USING other o ON i.id = o.id WHEN MATCHED THEN UPDATE SET name = 'cte' RETURNING i.id) SELECT * FROM m"},
	{since: 17, text: "WITH m AS (MERGE INTO other o USING items i ON i.id = o.id WHEN MATCHED THEN DELETE RETURNING o.id) UPDATE items SET name = 'x' FROM m WHERE items.id = m.id"},
	{since: 17, text: "MERGE INTO shown s USING other o ON s.id = o.id WHEN MATCHED THEN UPDATE SET name = 'by view' WHEN NOT MATCHED THEN INSERT VALUES (o.id, 'by view')"},
	{since: 17, text: "UPDATE items SET name = JSON_VALUE(doc, '$.a' RETURNING text) WHERE id = 1"},
	{since: 17, text: "UPDATE items SET name = t.v FROM JSON_TABLE('[{\"id\": 2, \"v\": \"t\"}]', '$[*]' COLUMNS (id int PATH '$.id', v text PATH '$.v')) t WHERE t.id = items.id"},
	{since: 17, text: "INSERT INTO items (id, name) SELECT id, v FROM JSON_TABLE('[{\"id\": 7, \"v\": \"t\"}]', '$[*]' COLUMNS (id int PATH '$.id', v text PATH '$.v'))"},
	{since: 17, text: "DELETE FROM items WHERE JSON_EXISTS(doc, '$.a ? (@ == 1)')"},
	{since: 17, text: "DELETE FROM items WHERE JSON_VALUE(doc, '$.a') = '1'"},
	{since: 17, text: "WITH d AS (DELETE FROM items WHERE id = 1 RETURNING doc) SELECT JSON_QUERY(doc, '$.b' WITH WRAPPER) FROM d"},
	{since: 18, text: "UPDATE items SET name = 'new' WHERE id = 1 RETURNING old.name, new.name"},
	{since: 18, text: "UPDATE items SET name = 'new' WHERE id = 1 RETURNING old.*, new.*"},
	{since: 18, text: "UPDATE items SET name = 'new' WHERE id = 1 RETURNING WITH (OLD AS o, NEW AS n) o.name, n.name"},
	{since: 18, text: "UPDATE items SET name = 'new' WHERE id = 1 RETURNING old, new"},
	{since: 18, text: "DELETE FROM items WHERE id = 2 RETURNING old.name, new.name IS NULL"},
	{since: 18, text: "INSERT INTO items (id, name) VALUES (1, 'upserted') ON CONFLICT (id) DO UPDATE SET name = excluded.name RETURNING old.name, new.name"},
	{since: 18, text: "INSERT INTO items (id, name) VALUES (7, 'inserted') RETURNING WITH (OLD AS before) before IS NULL, id"},
	{since: 18, text: "MERGE INTO items i USING other o ON i.id = o.id WHEN MATCHED THEN UPDATE SET name = 'merged' RETURNING old.name, new.name"},
	{since: 18, text: "WITH u AS (UPDATE items SET name = 'cte' WHERE id = 1 RETURNING old.id, new.name AS n) INSERT INTO other SELECT id + 50, 1 FROM u"},
	{since: 18, text: "UPDATE shown SET name = 'by view' WHERE id = 2 RETURNING old.name, new.name"},
	{since: 18, text: "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF, BUFFERS OFF, SERIALIZE TEXT) UPDATE items SET name = 'explained' WHERE id = 1 RETURNING old.name"},
	{since: 17, wide: true, text: "COPY other FROM PROGRAM 'printf \"8,80\\nnine,90\\n\"' (FORMAT csv, ON_ERROR ignore, LOG_VERBOSITY verbose, FORCE_NULL *)"},
	{since: 17, wide: true, text: "COPY other FROM PROGRAM 'printf \"8,80\\nnine,90\\n\"' (FORMAT csv, ON_ERROR ignore)"},
	{since: 18, wide: true, text: "COPY other FROM PROGRAM 'printf \"8,80\\nnine,90\\n\"' (FORMAT csv, ON_ERROR ignore, REJECT_LIMIT 3)"},
	{since: 17, wide: true, text: "COPY (MERGE INTO items i USING other o ON i.id = o.id WHEN MATCHED THEN DELETE RETURNING i.id) TO PROGRAM 'cat >/dev/null'"},
	{since: 18, idle: true, wide: true, text: "VACUUM ONLY items"},
	{since: 18, idle: true, wide: true, text: "ANALYZE ONLY items"},
	{since: 17, idle: true, text: "EXPLAIN (MEMORY, COSTS OFF) DELETE FROM items"},
	{since: 17, idle: true, text: "SELECT JSON_EXISTS(doc, '$.a ? (@ > $x)' PASSING 3 AS x) FROM items FOR UPDATE"},
}

// ways are those in which a program may send a write. Over stores and modes
// each statement goes each way.
var ways = []struct {
	name   string
	inside bool // a transaction
	send   func(f *harness.Fixture, text string)
}{
	{"Exec", false, func(f *harness.Fixture, text string) { f.Exec(text) }},
	{"Query", false, func(f *harness.Fixture, text string) { f.Expect("", false, text, nil) }},
	{"Prepare", false, func(f *harness.Fixture, text string) {
		stmt, err := f.DB.PrepareContext(f.Ctx, text)
		if err != nil {
			f.Fatal(err)
		}
		defer stmt.Close()
		f.On(harness.Prepared{Stmt: stmt}).Exec(text)
	}},
	{"in a transaction", true, func(f *harness.Fixture, text string) {
		inside, tx := f.Begin(nil)
		inside.Expect("", false, text, nil)
		f.Commit(tx)
	}},
	{"rolled back", true, func(f *harness.Fixture, text string) {
		inside, tx := f.Begin(nil)
		inside.Exec(text)
		f.Rollback(tx)
	}},
}

func TestWritesThatOnlyNewerServersAccept(t *testing.T) {
	version := harness.ServerVersion(t)
	harness.Scenario(t, newerTables, func(f *harness.Fixture) {
		first := int(f.Mode())
		if !f.InMemory() {
			first += 2
		}
		for i, w := range newerWrites {
			way := ways[(first+i)%len(ways)]
			alone := strings.HasPrefix(w.text, "VACUUM")
			if version < w.since || alone && way.inside {
				continue
			}
			f.Step(way.name+": "+w.text, func(f *harness.Fixture) {
				before := seeing(f)
				f.Known(readTheCalm)
				way.send(f, w.text)
				if idle := seeing(f) == before; idle != (w.idle || way.name == "rolled back") {
					f.Errorf("idle is %v", idle)
				}
				if !w.wide {
					f.Hit(readTheCalm)
				}
			})
			f.Exec("DELETE FROM items; DELETE FROM other; " + newerRows) // TRUNCATE changes the catalog
		}
	})
}

// seeing reads everything that newerWrites change, which is then cached.
func seeing(f *harness.Fixture) string {
	f.Helper()
	var all []string
	for _, query := range writtenByNewer {
		all = append(all, f.Known(query).String())
	}
	return strings.Join(all, "; ")
}
