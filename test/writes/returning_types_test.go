package writes

import (
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg/internal/harness"
)

// A value that PostgreSQL returns names the rows that the same value names as an argument, whatever its type.
func TestReturnedValuesNameWhatArgumentsName(t *testing.T) {
	day := time.Date(2024, 2, 29, 12, 30, 1, 500_000, time.UTC)
	date := time.Date(1969, 12, 31, 0, 0, 0, 0, time.UTC)
	types := []struct {
		name   string
		values [2]any
	}{
		{"int2", [2]any{int16(-7), int16(8)}},
		{"int4", [2]any{-70000, 8}},
		{"int8", [2]any{int64(-1) << 40, int64(8)}},
		{"text", [2]any{"naïve ", ""}},
		{"varchar(9)", [2]any{"a b", "a  b"}},
		{"char(5)", [2]any{"ab", "abc"}},
		{"uuid", [2]any{"00112233-4455-6677-8899-aabbccddeeff", "00000000-0000-0000-0000-000000000000"}},
		{"bool", [2]any{true, false}},
		{"date", [2]any{date, time.Date(2024, 2, 29, 0, 0, 0, 0, time.UTC)}},
		{"timestamp", [2]any{day, date}},
		{"timestamptz", [2]any{day, date}},
		{"numeric", [2]any{"-1200.0450", "100000"}},
		{"numeric(8,2)", [2]any{"0.5", "0"}},
	}
	setup := ""
	for i, typ := range types {
		setup += fmt.Sprintf("CREATE TABLE t%d (id int PRIMARY KEY, k %s, note text); CREATE INDEX ON t%[1]d (k);\n", i, typ.name)
	}
	harness.Scenario(t, setup, func(f *harness.Fixture) {
		for i, typ := range types {
			read := fmt.Sprintf("SELECT id, note FROM t%d WHERE k = $1 ORDER BY id", i)
			for id, v := range typ.values {
				f.Exec(fmt.Sprintf("INSERT INTO t%d VALUES ($1, $2, 'new')", i), id, v)
			}
			update := fmt.Sprintf("UPDATE t%d SET note = note || '!' WHERE id = $1", i)
			f.Exec(update, 0) // whatever is learnt by the first execution
			f.Released()
			for id, v := range typ.values {
				f.Known(read, typ.values[0])
				f.Known(read, typ.values[1])
				f.Exec(update, id)
				f.Released()
				f.Miss(read, v)
				other := typ.values[1-id]
				// Sent as a text it depends on the settings of the session.
				texts := f.Mode() == pgx.QueryExecModeSimpleProtocol || f.Mode() == pgx.QueryExecModeExec
				coarse := texts && (typ.name == "date" || typ.name == "timestamp" || typ.name == "timestamptz")
				if kept := f.IsHit(read, other); kept == coarse {
					f.Errorf("%s: a change of %v has left %v: %v", typ.name, v, other, kept)
				}
			}
		}
	})
}
