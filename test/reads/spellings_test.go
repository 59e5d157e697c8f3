package reads

import (
	"math/big"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/cachedpg/cachedpg/internal/harness"
)

// A write that names a row by one spelling of its key is noticed by the reads that
// name it by another, and leaves the other rows cached.
func TestEverySpellingOfAKeyNamesItsRow(t *testing.T) {
	noon := time.Date(2024, 2, 29, 12, 0, 0, 0, time.UTC)
	east := time.FixedZone("", 3600)
	keys := []struct {
		table  string
		one    []any    // spellings of one row's key
		others []any    // keys of other rows
		texts  []string // conditions that name the one row
	}{
		{"days", []any{"2024-02-29", noon, noon.Truncate(24 * time.Hour), pgtype.Date{Time: noon, Valid: true}}, []any{"2024-03-01", "2024-02-28"}, []string{"day = '2024-02-29'", "day = date '2024-02-29'"}},
		{"locals", []any{"2024-02-29 12:00:00", noon, "2024-02-29T12:00:00.0", pgtype.Timestamp{Time: noon, Valid: true}}, []any{"2024-02-29 12:00:00.000001"}, []string{"at = '2024-02-29 12:00:00'"}},
		{"moments", []any{noon, "2024-02-29 12:00:00Z", "2024-02-29 13:00:00+01", noon.In(east), pgtype.Timestamptz{Time: noon, Valid: true}}, []any{"2024-02-29 13:00:00+00"},
			[]string{"at = '2024-02-29 12:00:00+00'", "at = '2024-02-29 11:00:00-01:00'::timestamptz"}},
		{"prices", []any{"1.50", "1.5", "01.500", pgtype.Numeric{Int: big.NewInt(15), Exp: -1, Valid: true}}, []any{1, "15", "1.51"}, []string{"price = 1.5", "price = 1.50", "price = '1.500'"}},
		{"codes", []any{"a", "a ", "a  ", "a         "}, []any{"A", " a"}, []string{"code = 'a'", "code = 'a '", "code = 'a  '::bpchar"}},
	}
	columns := map[string]string{"days": "day", "locals": "at", "moments": "at", "prices": "price", "codes": "code"}
	harness.Scenario(t, `
		CREATE TABLE days (day date PRIMARY KEY, n int NOT NULL); INSERT INTO days SELECT date '2024-02-27' + i, 0 FROM generate_series(1, 5) i;
		CREATE TABLE locals (at timestamp PRIMARY KEY, n int NOT NULL); INSERT INTO locals VALUES ('2024-02-29 12:00:00', 0), ('2024-02-29 12:00:00.000001', 0);
		CREATE TABLE moments (at timestamptz PRIMARY KEY, n int NOT NULL); INSERT INTO moments VALUES ('2024-02-29 12:00:00+00', 0), ('2024-02-29 13:00:00+00', 0);
		CREATE TABLE codes (code char(3) PRIMARY KEY, n int NOT NULL); INSERT INTO codes VALUES ('a', 0), ('A', 0), (' a', 0);
		CREATE TABLE prices (price numeric(6, 2) PRIMARY KEY, n int NOT NULL); INSERT INTO prices VALUES (1, 0), (1.5, 0), (15, 0), (1.51, 0);`, func(f *harness.Fixture) {
		for _, k := range keys {
			read := "SELECT * FROM " + k.table + " WHERE " + columns[k.table] + " = $1"
			write := "UPDATE " + k.table + " SET n = n + 1 WHERE "
			check := func(change func()) {
				f.Helper()
				for _, other := range k.others {
					f.Known(read, other)
				}
				for _, one := range k.one {
					f.Known(read, one)
				}
				for _, text := range k.texts {
					f.Known("SELECT n FROM " + k.table + " WHERE " + text)
				}
				change()
				for _, one := range k.one {
					f.Miss(read, one)
				}
				for _, text := range k.texts {
					f.Miss("SELECT n FROM " + k.table + " WHERE " + text)
				}
				for _, other := range k.others {
					f.Hit(read, other)
				}
			}
			for _, one := range k.one {
				check(func() { f.Exec(write+columns[k.table]+" = $1", one) })
			}
			for _, text := range k.texts {
				check(func() { f.Exec(write + text) })
			}
		}
	})
}
