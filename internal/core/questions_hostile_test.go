package core

import (
	"slices"
	"strings"
	"testing"

	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/harness/questions"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// The texts of the driver run nothing that stands in front of pg_catalog, in whatever
// session they are sent.
func TestNothingOfASchemaBeforePgCatalogRunsForTheDriver(t *testing.T) {
	said := 0
	prepare := func(database string) { pgtest.Exec(t, database, questions.Shadows) }
	askEverything(t, "shadow,pg_catalog", prepare, func(t *testing.T, w *pgtest.Wire) {
		warnings := w.Warnings()
		ran := slices.DeleteFunc(warnings[said:], func(s string) bool { return !strings.HasPrefix(s, "shadow: ") })
		said = len(w.Warnings())
		slices.Sort(ran)
		for _, what := range slices.Compact(ran) {
			t.Errorf("%s ran", what)
		}
	})
}

// The shadows are in the way of who names no schema.
func TestASchemaBeforePgCatalogShadowsIt(t *testing.T) {
	t.Parallel()
	database := pgtest.Database(t)
	pgtest.Exec(t, database, questions.Shadows)
	w := pgtest.Listen(t, harness.WithKey(database, "search_path", "shadow,pg_catalog"))
	for sql, want := range map[string]string{
		"SELECT substr('x'::pg_catalog.text, 1, 2)":                             "function substr",
		"SELECT 1 WHERE 1 = 2":                                                  "operator =",
		"SELECT 'x'::pg_catalog.text || 'y'::pg_catalog.text":                   "operator ||",
		"SELECT 'x'::text":                                                      "type text",
		"SELECT 1 IN (2, 3)":                                                    "operator =",
		"SELECT count(*) FROM pg_catalog.pg_am":                                 "aggregate count",
		"SELECT min(oid) FROM pg_catalog.pg_class":                              "aggregate min",
		"SELECT 1 FROM pg_class LIMIT 1":                                        "relation pg_class",
		"SELECT 1 WHERE 'a'::pg_catalog.text LIKE 'b'":                          "operator ~~",
		"SELECT 1 WHERE 'a'::pg_catalog.name OPERATOR(shadow.=) 'b'":            "operator =",
		"SELECT 1 WHERE 1::pg_catalog.oid BETWEEN 1::pg_catalog.oid AND 2::oid": "operator >=",
	} {
		before := len(w.Warnings())
		pgtest.Exec(t, w.DSN, sql)
		if got := w.Warnings()[before:]; !slices.Contains(got, "shadow: "+want) {
			t.Errorf("%s: got %q, want %q among them", sql, got, want)
		}
	}
}
