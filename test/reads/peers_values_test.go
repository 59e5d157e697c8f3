package reads

import (
	"database/sql"
	"fmt"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
)

// A hit cannot be told from a miss: values, column types and scan targets are
// the same for every type.
func TestEveryTypeIsTheSameOnAHit(t *testing.T) {
	types := []struct {
		name, sql string
		values    []string
	}{
		{"int2", "int2", []string{"0", "-32768", "32767"}},
		{"int4", "int4", []string{"0", "-2147483648"}},
		{"int8", "int8", []string{"0", "9223372036854775807", "-9223372036854775808"}},
		{"float4", "float4", []string{"0", "-0", "1.1", "NaN", "Infinity", "-Infinity"}},
		{"float8", "float8", []string{"0", "0.1", "1e300", "NaN", "Infinity", "-Infinity"}},
		{"numeric", "numeric", []string{"0", "0.00", "1.10", "123456789012345678901234567890.5", "NaN", "Infinity"}},
		{"numeric(10,2)", "numeric(10,2)", []string{"1", "-99999999.99"}},
		{"money", "money", []string{"12.30"}},
		{"bool", "bool", []string{"true", "false"}},
		{"text", "text", []string{"", "a", "a\tb\\n", "日本", "NULL"}},
		{"varchar(5)", "varchar(5)", []string{"", "abcde"}},
		{"char(5)", "char(5)", []string{"", "ab"}},
		{"\"char\"", "\"char\"", []string{"", "x"}},
		{"name", "name", []string{"n"}},
		{"bytea", "bytea", []string{"", "\\x00ff", "abc"}},
		{"date", "date", []string{"2024-02-29", "0001-01-01", "4713-01-01 BC", "infinity", "-infinity"}},
		{"timestamp", "timestamp", []string{"2024-02-29 12:34:56.123456", "infinity", "-infinity"}},
		{"timestamptz", "timestamptz", []string{"2024-02-29 12:34:56.123456+05:30", "infinity", "-infinity"}},
		{"time", "time", []string{"00:00", "23:59:59.999999"}},
		{"interval", "interval", []string{"0", "1 year 2 mons 3 days 04:05:06.7", "-1 day"}},
		{"uuid", "uuid", []string{"00000000-0000-0000-0000-000000000000"}},
		{"json", "json", []string{"null", "{\"b\": 1,  \"a\": [1.0]}", "\"\""}},
		{"jsonb", "jsonb", []string{"null", "{\"b\": 1,  \"a\": [1.0]}", "\"\""}},
		{"xml", "xml", []string{"<a>b</a>"}},
		{"inet", "inet", []string{"10.0.0.1", "10.0.0.0/8", "::1"}},
		{"cidr", "cidr", []string{"10.0.0.0/8"}},
		{"macaddr", "macaddr", []string{"08:00:2b:01:02:03"}},
		{"bit(3)", "bit(3)", []string{"101"}},
		{"varbit(5)", "varbit(5)", []string{"", "10101"}},
		{"point", "point", []string{"(1,2)"}},
		{"int4[]", "int4[]", []string{"{}", "{1,NULL,3}", "{{1,2},{3,4}}", "[0:1]={7,8}"}},
		{"text[]", "text[]", []string{"{}", "{\"\",NULL,\"NULL\",\"a,b\"}"}},
		{"timestamptz[]", "timestamptz[]", []string{"{infinity}"}},
		{"numeric[]", "numeric[]", []string{"{1.50,NaN}"}},
		{"bytea[]", "bytea[]", []string{"{\"\\\\x00\"}"}},
		{"int4range", "int4range", []string{"empty", "[1,5)", "(,)"}},
		{"tstzrange", "tstzrange", []string{"[2024-01-01 00:00Z,infinity)"}},
		{"int4multirange", "int4multirange", []string{"{[1,2),[5,6)}"}},
		{"tsvector", "tsvector", []string{"a:1 b:2"}},
		{"oid", "oid", []string{"0", "4294967295"}},
		{"xid", "xid", []string{"7"}},
		{"enum", "mood", []string{"sad", "happy"}},
		{"domain", "positive", []string{"1"}},
		{"composite", "pair", []string{"(1,\"a,b\")", "(,)"}},
		{"composite array", "pair[]", []string{"{\"(1,a)\"}"}},
	}
	setup := "CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE DOMAIN positive AS int CHECK (VALUE > 0); CREATE TYPE pair AS (a int, b text);"
	for i, typ := range types {
		setup += fmt.Sprintf("CREATE TABLE t%d (n int, v %s); INSERT INTO t%d VALUES (0, NULL)", i, typ.sql, i)
		for j, value := range typ.values {
			setup += fmt.Sprintf(", (%d, '%s')", j+1, value)
		}
		setup += ";"
	}
	setup += "CREATE TABLE many (a int, b text, c timestamptz, d numeric(6,1), e bytea, f varchar(9)[]); INSERT INTO many VALUES (1), (2); UPDATE many SET (b, c, d, e, f) = ('', 'infinity', 1.5, '', '{}') WHERE a = 2"
	harness.Scenario(t, setup, func(f *harness.Fixture) {
		for i, typ := range types {
			f.Step(typ.name, func(f *harness.Fixture) {
				f.Warm(fmt.Sprintf("SELECT v FROM t%d ORDER BY n", i))
				query := fmt.Sprintf("SELECT v FROM t%d WHERE n = $1", i)
				for n := range len(typ.values) + 1 {
					f.Warm(query, n)
					if n < 2 { // NULL, and one that is not
						scansAlike(f, query, n)
					}
				}
				f.Warm(query, 99)
			})
		}
		f.Warm("SELECT * FROM many")
		f.Warm("SELECT 1, 'unknown', NULL, true, 1.5, ''")
		f.Warm("SELECT")
		f.Warm("SELECT FROM many")
	})
}

// scansAlike scans the one value of a query, which is cached, into everything
// that an application may use, as plain pgx does it.
func scansAlike(f *harness.Fixture, query string, args ...any) {
	f.Helper()
	for _, make := range []func() any{
		func() any { return new(any) }, func() any { return new(string) }, func() any { return new([]byte) },
		func() any { return new(int64) }, func() any { return new(int16) }, func() any { return new(float64) },
		func() any { return new(bool) }, func() any { return new(time.Time) },
		func() any { return new(*string) }, func() any { return new(sql.NullString) }, func() any { return new(sql.NullTime) },
		func() any { return new(sql.NullInt64) }, func() any { return new(sql.Null[float64]) },
		func() any { return new(pgtype.Text) }, func() any { return new(pgtype.Numeric) }, func() any { return new(pgtype.Timestamptz) },
		func() any { return new(pgtype.Date) }, func() any { return new(pgtype.Int4) }, func() any { return new(pgtype.UUID) },
		func() any { return new([]string) }, func() any { return new([]int32) },
	} {
		scan := func(db *sql.DB) string {
			dest := make()
			err := db.QueryRowContext(f.Ctx, query, args...).Scan(dest)
			return fmt.Sprintf("%T %s, error %v", dest, behind(dest), err)
		}
		before := cachedpg.StatsOf(f.DB).Hits
		got, want := scan(f.DB), scan(f.Plain)
		if got != want {
			f.Errorf("%s %v:\ngot         %s\nplain pgx's %s", query, args, got, want)
		}
		if cachedpg.StatsOf(f.DB).Hits != before+1 {
			f.Errorf("%s: not a hit", query)
		}
	}
}

// behind shows what a pointer leads to, however long the way.
func behind(p any) string {
	v := reflect.ValueOf(p)
	for v.Kind() == reflect.Pointer && !v.IsNil() {
		v = v.Elem()
	}
	if b, ok := v.Interface().([]byte); ok {
		return fmt.Sprintf("%q, nil %v", b, b == nil)
	}
	return fmt.Sprintf("%+v", v)
}

// A caller may change the bytes it got; they are its own.
func TestTheCallerNeverGetsMemoryOfTheCache(t *testing.T) {
	harness.Scenario(t, "CREATE TABLE b (id int PRIMARY KEY, v bytea, j jsonb, s text); INSERT INTO b VALUES (1, 'abc', '[1]', 'xyz')", func(f *harness.Fixture) {
		const query = "SELECT v, j, s FROM b WHERE id = $1"
		for range 3 {
			rows, err := f.DB.QueryContext(f.Ctx, query, 1)
			if err != nil {
				f.Fatal(err)
			}
			for rows.Next() {
				var v, j, s sql.RawBytes
				if err := rows.Scan(&v, &j, &s); err != nil {
					f.Fatal(err)
				}
				for _, b := range []sql.RawBytes{v, j, s} {
					clear(b)
				}
			}
			rows.Close()
			f.Hit(query, 1).Is("abc [1] xyz")
		}
	})
}

// A row is found by its key however the key is written; a write that names it
// in one way must invalidate a read that names it in another.
func TestAKeyIsTheSameHoweverItIsWritten(t *testing.T) {
	noon := time.Date(2024, 5, 1, 12, 0, 0, 0, time.UTC)
	one := 1
	types := []struct {
		sql      string
		literals []string // of one and the same key
		args     []any
	}{
		{"int", []string{"1", "01", "'1'", "' 1 '", "1::bigint", "1.0", "+1", "0x1", "'1'::int", "abs(-1)", "2-1"}, []any{1, int16(1), uint64(1), "1", "01", " 1", &one, 1.0, pgtype.Int4{Int32: 1, Valid: true}}},
		{"bigint", []string{"1", "1::smallint", "'1'"}, []any{1, int32(1), "1", "+1"}},
		{"smallint", []string{"1", "1::bigint"}, []any{1, int64(1), "1"}},
		{"numeric", []string{"1", "1.0", "1.00", "'1e0'", "10e-1"}, []any{1, "1", "1.0", "1.00", 1.0, int64(1)}},
		{"float8", []string{"1", "1.0", "'1e0'"}, []any{1.0, float32(1), 1, "1", "1e0"}},
		{"text", []string{"'a'", "E'a'", "E'\\x61'", "$$a$$", "U&'\\0061'", "'a'::varchar", "'a'::bpchar", "'a'::name", "lower('A')"}, []any{"a", []byte("a"), address("a"), pgtype.Text{String: "a", Valid: true}}},
		{"varchar(5)", []string{"'a'", "'a'::text"}, []any{"a", []byte("a")}},
		{"char(3)", []string{"'a'", "'a  '", "'a '::bpchar"}, []any{"a", "a ", "a  "}},
		{"uuid", []string{"'6ba7b810-9dad-11d1-80b4-00c04fd430c8'", "'6BA7B8109DAD11D180B400C04FD430C8'", "'{6ba7b810-9dad-11d1-80b4-00c04fd430c8}'"},
			[]any{"6ba7b810-9dad-11d1-80b4-00c04fd430c8", "6BA7B810-9DAD-11D1-80B4-00C04FD430C8", "6ba7b8109dad11d180b400c04fd430c8",
				[16]byte{0x6b, 0xa7, 0xb8, 0x10, 0x9d, 0xad, 0x11, 0xd1, 0x80, 0xb4, 0, 0xc0, 0x4f, 0xd4, 0x30, 0xc8}}},
		{"bool", []string{"true", "'t'", "'yes'", "'on'", "NOT false"}, []any{true, "t", "true", "yes"}},
		{"date", []string{"'2024-05-01'", "'May 1, 2024'", "DATE '20240501'"}, []any{"2024-05-01", noon, noon.Truncate(24 * time.Hour)}},
		{"timestamptz", []string{"'2024-05-01 12:00Z'", "'2024-05-01 14:00+02'", "'2024-05-01 05:00 America/Los_Angeles'"},
			[]any{noon, noon.In(time.FixedZone("", 7200)), "2024-05-01 12:00Z", "2024-05-01T14:00:00+02:00"}},
		{"timestamp", []string{"'2024-05-01 12:00'", "'2024-05-01 12:00+05'"}, []any{noon, "2024-05-01 12:00"}},
		{"bytea", []string{`'\x61'`, "'a'", `'\141'`}, []any{[]byte("a"), `\x61`}},
		{"inet", []string{"'10.0.0.1'", "'10.0.0.1/32'"}, []any{"10.0.0.1", "10.0.0.1/32", netip.MustParseAddr("10.0.0.1")}},
		{"jsonb", []string{`'{"a":1,"b":2}'`, `'{"b":2, "a":1.0}'`}, []any{`{"a":1,"b":2}`, map[string]int{"a": 1, "b": 2}}},
		{"int[]", []string{"'{1,2}'", "'{ 1, 2 }'", "ARRAY[1,2]"}, []any{[]int{1, 2}, "{1,2}"}},
		{"interval", []string{"'1 day'", "'24 hours'"}, []any{"1 day", "24:00:00", 24 * time.Hour}},
		{"text COLLATE nocase", []string{"'a'", "'A'"}, []any{"a", "A"}},
		{"positive", []string{"1", "'1'", "1.0"}, []any{1, "1"}},
		{"mood", []string{"'sad'", "'sad'::mood"}, []any{"sad"}},
	}
	setup := `CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
		CREATE DOMAIN positive AS int CHECK (VALUE > 0); CREATE TYPE mood AS ENUM ('sad');`
	for i, typ := range types {
		setup += fmt.Sprintf("CREATE TABLE t%d (k %s PRIMARY KEY, n int); INSERT INTO t%d VALUES (%s, 0);", i, typ.sql, i, typ.literals[0])
	}
	harness.Scenario(t, setup, func(f *harness.Fixture) {
		for i, typ := range types {
			f.Step(typ.sql, func(f *harness.Fixture) {
				type spelling struct {
					operand string
					args    []any
				}
				var all []spelling
				for _, l := range typ.literals {
					all = append(all, spelling{l, nil})
				}
				for _, a := range typ.args {
					all = append(all, spelling{"$1", []any{a}})
				}
				read := func(s spelling) harness.Result {
					return f.Read(f.Ask, fmt.Sprintf("SELECT n FROM t%d WHERE k = %s", i, s.operand), s.args)
				}
				n := 0
				for j, by := range all {
					for _, s := range all { // two reads: the second may be a hit
						read(s)
						read(s)
					}
					r, err := f.DB.ExecContext(f.Ctx, fmt.Sprintf("UPDATE t%d SET n = n + 1 WHERE k = %s", i, by.operand), by.args...)
					if err == nil {
						updated, _ := r.RowsAffected()
						n += int(updated)
					}
					for k, s := range all {
						// What does not fit the type in this mode is refused, or finds no row, each time.
						if r := read(s); r.Err == nil && len(r.Rows) > 0 && r.String() != fmt.Sprint(n) {
							f.Errorf("after a write by spelling %d (%s %T): a read by spelling %d (%s %T) gives %s, want %d",
								j, by.operand, harness.First(by.args), k, s.operand, harness.First(s.args), r, n)
						}
					}
				}
				if n == 0 {
					f.Error("no write has succeeded")
				}
			})
		}
	})
}
