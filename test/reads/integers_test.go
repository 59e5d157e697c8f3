package reads

import (
	"database/sql"
	"database/sql/driver"
	"fmt"
	"strconv"
	"testing"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
)

// integerTable has a column of each type that a parameter may be an integer by.
const integerTable = `
	CREATE DOMAIN amount AS int4 CHECK (value < 2000000000);
	CREATE TABLE ints (id int PRIMARY KEY, two int2, four int4, eight int8, o oid, d amount, v int NOT NULL, name text);
	INSERT INTO ints VALUES (7, 7, 7, 7, 7, 7, 0, '7'), (0, 0, 0, 0, 0, 0, 0, '0'), (-7, -7, -7, -7, 4294967289, -7, 0, '-7'),
		(1000000, NULL, 1000000, 1000000, 1000000, 1000000, 0, '1000000'), (5, NULL, NULL, 10000000000, 3000000000, NULL, 0, '+7');`

var integerColumns = []string{"id", "two", "four", "eight", "o", "d"}

type ticketNumber struct{ n int64 }

func (t *ticketNumber) Value() (driver.Value, error) { return t.n, nil }

// integerForms are the Go values that name n, of those types that hold it.
func integerForms(n int64) []any {
	text, plain := strconv.FormatInt(n, 10), int(n)
	forms := []any{
		n, plain, text, &n, &plain, &text, ptr(&plain), pgtype.Int8{Int64: n, Valid: true}, sql.NullInt64{Int64: n, Valid: true}, sql.Null[int64]{V: n, Valid: true},
	}
	if int64(int32(n)) == n {
		forms = append(forms, int32(n), ptr(int32(n)), sql.NullInt32{Int32: int32(n), Valid: true})
	}
	if int64(int16(n)) == n {
		forms = append(forms, int16(n))
	}
	if int64(int8(n)) == n {
		forms = append(forms, int8(n))
	}
	if n >= 0 {
		forms = append(forms, uint(n), uint64(n), ptr(uint64(n)))
	}
	if int64(uint32(n)) == n {
		forms = append(forms, uint32(n), ptr(uint32(n)))
	}
	if int64(uint8(n)) == n {
		forms = append(forms, uint16(n), uint8(n))
	}
	return forms
}

func ptr[T any](v T) *T { return &v }

// The same integer is the same entry, whatever Go type it comes in and whichever comes first.
func TestOneRowHasOneEntryForAllGoTypesOfItsKey(t *testing.T) {
	harness.Scenario(t, integerTable, func(f *harness.Fixture) {
		for _, column := range integerColumns {
			query := "SELECT * FROM ints WHERE " + column + " = $1"
			forms := integerForms(7)
			for i, form := range forms { // each fills the entry that the next one finds, the last one that of the first
				f.Exec("UPDATE ints SET v = v + 1")
				f.Miss(query, form)
				f.Hit(query, form)
				f.Hit(query, forms[(i+1)%len(forms)])
			}
			stmt, err := f.DB.PrepareContext(f.Ctx, query)
			if err != nil {
				f.Fatal(err)
			}
			v := f.On(harness.Prepared{Stmt: stmt})
			f.Exec("UPDATE ints SET v = v + 1")
			v.Known(query, 7)
			for _, form := range forms {
				v.Hit(query, form)
			}
			stmt.Close()
		}
		f.Exec("UPDATE ints SET v = v + 1 WHERE id = $1", 7)
		const several = "SELECT v, name FROM ints WHERE id IN ($1, $2) ORDER BY id"
		for _, form := range integerForms(7) {
			f.Known(several, form, 0)
		}
		before := cachedpg.StatsOf(f.DB).Misses
		for _, form := range integerForms(0) {
			f.Hit(several, "7", form)
		}
		if got := cachedpg.StatsOf(f.DB).Misses; got != before {
			f.Errorf("%d misses", got-before)
		}
	})
}

// What is cached for one Go type is no answer for a value that pgx refuses, or
// that means something else; nor does an error in one keep another from its rows.
func TestEveryGoTypeOfAnIntegerHasThePlainAnswer(t *testing.T) {
	values := []any{
		"7 ", " 7", "+7", "07", "0x7", "7.0", "", "seven", "7\n", 7.0, float32(7), 7.5, true, []byte("7"), "-0", "1e6", nil, (*int)(nil),
		sql.NullInt64{}, sql.NullString{String: "7", Valid: true}, sql.NullString{String: "+7", Valid: true}, failingValuer{},
		uint64(1 << 63), "9223372036854775808", "4294967289",
	}
	for n := int64(-7); n <= 7; n += 7 {
		values = append(values, &ticketNumber{n})
	}
	for _, n := range []int64{7, 0, -7, -1, 1000000, 32768, -32769, 2000000000, 1 << 31, -1<<31 - 1, 3000000000, 10000000000, -1 << 63, 1<<63 - 1} {
		values = append(values, integerForms(n)...)
	}
	harness.ScenarioInMemory(t, integerTable, func(f *harness.Fixture) {
		var texts []string
		for _, column := range integerColumns {
			texts = append(texts, "SELECT * FROM ints WHERE "+column+" = $1")
		}
		texts = append(texts,
			"SELECT v FROM ints WHERE four = $1::int2", "SELECT v FROM ints WHERE two = $1::int8", "SELECT v FROM ints WHERE four = $1::oid",
			"SELECT v FROM ints WHERE id IN ($1, 5000000000) ORDER BY id", "SELECT v FROM ints WHERE id IN ($1, 7.5) ORDER BY id",
			"SELECT $1", "SELECT $1::text", "SELECT $1::text || 'a' FROM ints WHERE id = $1", "SELECT $1 + id FROM ints ORDER BY id",
			"SELECT name FROM ints WHERE id = $1 OR $1 = name ORDER BY id", "SELECT id FROM ints WHERE $1 = name OR id = 0 ORDER BY id",
			"SELECT id FROM ints WHERE name = $1", "SELECT id FROM ints WHERE id = $1::text::int", "SELECT id FROM ints WHERE id = $1::numeric",
			"SELECT id FROM ints WHERE id = ANY(ARRAY[$1]::int[])",
		)
		for _, text := range texts {
			for _, v := range values {
				f.AsPgx(text, v)
			}
		}
		if s := cachedpg.StatsOf(f.DB); s.Hits == 0 {
			f.Error(fmt.Sprint("no read was a hit: ", s))
		}
	})
}
