package questions

import (
	"testing"

	"github.com/cachedpg/cachedpg/internal/pgtest"
)

func TestNamesWithoutSchemasAreFound(t *testing.T) {
	for text, want := range map[string]int{
		"SELECT pg_catalog.now(), coalesce(1, 2), CASE WHEN true THEN 1 END, current_user, extract(epoch FROM pg_catalog.now())": 0,
		"SELECT now()": 1, "SELECT 1 = 2": 1, "SELECT 1 OPERATOR(pg_catalog.=) 2": 0, "SELECT 1 OPERATOR(public.=) 2": 1,
		"SELECT 'x'::text": 1, "SELECT 'x'::pg_catalog.text": 0, "SELECT 'x'::bigint": 0, "SELECT ARRAY['x']::text[]": 1,
		"SELECT 1 FROM pg_class": 1, "WITH x AS (SELECT 1) SELECT FROM x": 0, "SELECT 1 IN (1, 2)": 1, "SELECT 1 IN (SELECT 1)": 1,
		"SELECT 1 OPERATOR(pg_catalog.=) ANY (SELECT 1)": 0, "SELECT 'a' LIKE 'b'": 1, "SELECT 1 BETWEEN 1 AND 2": 1, "SELECT 1 IS DISTINCT FROM 2": 1,
		"SELECT NULLIF(1, 2)": 1, "SELECT CASE 1 WHEN 2 THEN 3 END": 1, "SELECT FROM cachedpg.outbox a JOIN cachedpg.outbox b USING (id)": 1,
		"SELECT FROM cachedpg.outbox ORDER BY id USING <": 1, "UPDATE cachedpg.outbox SET local = true": 0, "CREATE TABLE cachedpg.t (a bytea)": 1,
		"DO $$ BEGIN IF 1 = 2 THEN PERFORM now(); END IF; END $$":                 2,
		"CREATE FUNCTION cachedpg.f() RETURNS int LANGUAGE sql AS $$ SELECT 1 $$": 1,
	} {
		if got := NewQualification().Unqualified([]pgtest.Text{{SQL: text}}); len(got) != want {
			t.Errorf("%s: got %q, want %d problems", text, got, want)
		}
	}
}
